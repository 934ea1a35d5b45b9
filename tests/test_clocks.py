"""Clocks of callers, whatever they count in and from: each limits as any other, and every decision can say when."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from limiting import LIMITERS
from ratelimited_notify import AsyncNotifier, Limiter, Notification, Notifier, Rule, rate_limited

if TYPE_CHECKING:
    from ratelimited_notify import Decision
    from servers import Memcached

USUAL = 1_700_000_000
ODD = {
    "in milliseconds": 1_700_000_000_000,
    "in the year 2572": 19_000_000_000,
    "before 1970": -1_000_000_000,
    "at 1970": -60,
    "from 0": 0,
}
"""Where clocks begin, in what they take for seconds."""

STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
LAST = datetime.max.replace(tzinfo=UTC)


class Clock:
    """A clock in whole seconds, so that it is exact wherever it begins."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return float(self.seconds)


def told(decision: Decision, later: int = 0) -> tuple[Any, ...]:
    """Everything that a decision says, by a clock that is so many seconds ahead."""
    windows = [(one.remaining, one.retry_after, one.enforced, moved(one.reset_at, later)) for one in decision.windows]
    instants = [moved(each, later) for each in (decision.retry_at, decision.reset_at)]
    return decision.allowed, decision.remaining, decision.retry_after, str(decision), instants, windows


def moved(instant: datetime | None, seconds: int) -> datetime | None:
    """So many seconds later, or the last instant that there is."""
    try:
        return None if instant is None else instant + timedelta(seconds=seconds)
    except OverflowError:
        return LAST


# Steps of 4 seconds: even a clock in milliseconds, as a float, has each of them.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hit"), st.just(1)),
        st.tuples(st.just("hit"), st.integers(1, 4)),
        st.tuples(st.just("hit_many"), st.integers(1, 3)),
        st.tuples(st.just("test"), st.integers(1, 4)),
        st.tuples(st.just("pass"), st.integers(-10, 40)),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("start", ODD.values(), ids=ODD)
@pytest.mark.parametrize("kind", list(LIMITERS))
@given(drawn=st.lists(st.tuples(st.sampled_from(STRATEGIES), st.integers(1, 5)), min_size=1, max_size=3), script=steps)
def test_where_a_clock_begins_changes_nothing(
    kind: str, start: int, drawn: list[tuple[Any, int]], script: list[tuple[str, int]]
) -> None:
    """A clock in milliseconds or before 1970 gives the decisions of any other, all but the year, also where it goes back."""
    rules = [
        Rule("*", f"{amount}/minute", by=("type", "recipient"), strategy=strategy, name=f"rule {number}")
        for number, (strategy, amount) in enumerate(drawn)
    ]
    clocks = Clock(USUAL), Clock(start)
    usual, odd = (LIMITERS[kind](rules, clock=clock) for clock in clocks)
    taken: list[tuple[Decision, Decision]] = []
    for step, number in script:
        if step == "pass":
            for clock in clocks:
                clock.seconds += 4 * number
            continue
        if step == "release":
            if number < len(taken):
                assert usual.release(taken[number][0]) == odd.release(taken[number][1])
            continue
        if step == "clear":
            assert usual.clear("news", "ana") == odd.clear("news", "ana")
            continue
        if step == "hit_many":
            pairs = list(zip(*(each.hit_many("news", ["ana"] * number) for each in (usual, odd)), strict=True))
        else:
            options = {} if number == 1 else {"cost": number}
            pairs = [(getattr(usual, step)("news", "ana", **options), getattr(odd, step)("news", "ana", **options))]
        taken += [pair for pair in pairs if step != "test"]
        for one, other in pairs:
            assert told(one, start - USUAL) == told(other)
    for one, other in taken:
        assert told(one, start - USUAL) == told(other)
    usual.close()
    odd.close()


@pytest.mark.parametrize("start", ODD.values(), ids=ODD)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_way_to_send_goes_by_such_a_clock(strategy: Any, start: int) -> None:
    """Decorated functions, notifiers and batches send three in a minute, by whatever clock, and three in the next but one."""
    for way in ("function", "coroutine", "notifier", "async notifier", "send_many", "iter_many"):
        clock = Clock(start)
        limiter: Any = Limiter([Rule("news", "3/minute", strategy=strategy)], clock=clock)
        rules, sent = [Rule("news", "3/minute", strategy=strategy)], list[str]()
        if "async" in way or way == "coroutine":
            limiter = LIMITERS["async"](rules, clock=clock)
        for minute in (0, 2):
            clock.seconds = start + 60 * minute
            sent.clear()
            send_six(way, limiter, sent)
            assert len(sent) == 3, (way, minute)
        limiter.close()


def send_six(way: str, limiter: Any, sent: list[str]) -> None:
    """Six notifications for one recipient, of which some are sent."""

    def send(recipient: str) -> None:
        sent.append(recipient)

    async def send_later(recipient: str) -> None:
        sent.append(recipient)

    if way == "function":
        function = rate_limited("news", limiter=limiter, on_limit="drop")(send)
        for _ in range(6):
            function("ana")
    elif way == "coroutine":
        coroutine = rate_limited("news", limiter=limiter.limiter, on_limit="drop")(send_later)
        for _ in range(6):
            limiter.runner.run(coroutine("ana"))
    elif way == "async notifier":
        later = AsyncNotifier(send_later, limiter=limiter.limiter)
        for _ in range(6):
            limiter.runner.run(later.send("news", "ana"))
    elif way == "send_many":
        Notifier(send, limiter=limiter).send_many("news", ["ana"] * 6)
    elif way == "iter_many":
        list(Notifier(send, limiter=limiter).iter_many([Notification("news", "ana")] * 6))
    else:
        notifier = Notifier(send, limiter=limiter)
        for _ in range(6):
            notifier.send("news", "ana")


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(
    amount=st.integers(1, 4),
    moves=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9) | st.just(0)), max_size=12),
)
def test_every_way_to_send_goes_by_a_clock_that_runs_backwards(strategy: Any, amount: int, moves: Any) -> None:
    """All of them send the same, and in a moving window never more than the limit in any true period, if the clock loses time."""
    rules = [Rule("news", f"{amount} per 10 seconds", strategy=strategy)]
    sent: dict[str, list[int]] = {}
    for way in ("function", "notifier", "send_many", "iter_many", "hit_many", "test and hit"):
        clock, true = Clock(USUAL), 0
        limiter, instants = Limiter(rules, clock=clock), sent.setdefault(way, [])
        for passed, lost in moves:
            true += passed
            clock.seconds += passed - lost
            several: list[str] = []
            if way == "hit_many":
                several += ["ana" for each in limiter.hit_many("news", ["ana"] * 6) if each]
            elif way == "test and hit":
                several += ["ana" for _ in range(6) if limiter.test("news", "ana") and limiter.hit("news", "ana")]
            else:
                send_six(way, limiter, several)
            instants += [true] * len(several)

    assert all(each == sent["function"] for each in sent.values())
    if strategy == "moving-window":
        for begin in sent["function"]:
            assert sum(begin <= instant < begin + 10 for instant in sent["function"]) <= amount


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("start", "limit"),
    [(1_700_000_000_000, "1/minute"), (253_000_000_000, "1 per 10000 days"), (253_402_300_799, "1/hour")],
)
@pytest.mark.parametrize("kind", list(LIMITERS))
def test_an_instant_beyond_all_calendars_is_the_last_there_is(kind: str, start: int, limit: str, strategy: Any) -> None:
    """In milliseconds, or in 9,000 years: nothing that a decision says raises, and what is not a date is still exact."""
    limiter = LIMITERS[kind]([Rule("news", limit, strategy=strategy)], clock=Clock(start))
    allowed, refused = limiter.hit("news", "ana"), limiter.hit("news", "ana")
    cheaper = limiter.hit_many("news", ["ana"])[0]

    assert [bool(each) for each in (allowed, refused, cheaper)] == [True, False, False]
    assert allowed.retry_at is None
    assert [each.reset_at for each in (allowed, refused, cheaper)] == [LAST] * 3
    assert [each.retry_at for each in (refused, cheaper)] == [LAST] * 2
    assert [state.reset_at for state in limiter.windows("news", "ana")] == [LAST]
    for decision in (allowed, refused, cheaper):
        json.dumps(decision.to_dict())
        assert "9999" in json.dumps(decision.to_dict())
        assert "news" in str(decision)
        assert set(decision.headers(ratelimit=True)) >= {"RateLimit", "RateLimit-Policy"}
    assert refused.retry_after >= 60
    assert refused.headers()["Retry-After"] == str(refused.retry_after_header)
    limiter.close()


def test_an_instant_before_all_calendars_is_the_first_there_is() -> None:
    """The same at the other end."""
    limiter = Limiter({"news": "1/minute"}, clock=Clock(-1_700_000_000_000))
    limiter.hit("news", "ana")
    refused = limiter.hit("news", "ana")

    assert refused.retry_at == refused.reset_at == datetime.min.replace(tzinfo=UTC)
    assert refused.retry_after == 60


@pytest.mark.parametrize("start", ODD.values(), ids=ODD)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_windows_in_memcached_go_by_such_a_clock(memcached: Memcached, strategy: Any, start: int) -> None:
    """Two a minute, by whatever clock: what was stored with it can be read with it."""
    clock = Clock(start)
    rules = [Rule("news", "2/minute", strategy=strategy)]
    with Limiter(rules, memcached.url, clock=clock, namespace=f"clock{abs(start)}", timeout=20) as limiter:
        allowed = []
        for passed in (0, 0, 0, 120, 0, 0):
            clock.seconds += passed
            allowed.append(bool(limiter.hit("news", "ana")))

    assert allowed == [True, True, False] * 2
