"""What a decision tells: in every case, exactly, and without showing whom it is about."""

from __future__ import annotations

import copy
import math
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from limits.aio.strategies import STRATEGIES as ASYNC_STRATEGIES
from limits.strategies import STRATEGIES

from limiting import SECOND, Clock
from ratelimited_notify import AsyncLimiter, Decision, Limiter, RateLimitExceeded, Rule, StorageError

WHO = "ana@example.com"
START = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
"""What the clock says at first."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fill(limiter: Limiter, times: int, type: str = "news", **options: Any) -> None:
    for _ in range(times):
        assert limiter.hit(type, WHO, **options)


def test_an_allowed_decision(clock: Clock) -> None:
    """What is left is what is left after this hit."""
    decision = Limiter({"news": "3/hour; 10/day"}, clock=clock).hit("news", WHO, cost=2)

    assert decision
    assert decision.allowed is True
    assert (decision.type, decision.recipient, decision.cost) == ("news", WHO, 2)
    assert (decision.remaining, decision.blocked_by, decision.error) == (1, None, None)
    assert (decision.retry_after, decision.retry_at, decision.retry_after_header) == (0.0, None, None)
    assert decision.reset_at == START + timedelta(days=1)
    assert decision.refusals == ()
    assert str(decision) == "'news' at cost 2 allowed, 1 left"


def test_a_refused_decision(clock: Clock) -> None:
    """The window that holds it longest is named, and the instant at which it fits."""
    limiter = Limiter({"news": "3/hour; 3/day"}, clock=clock)
    fill(limiter, 2)
    clock.advance(10 * SECOND + 1)
    fill(limiter, 1)
    clock.advance(1_500_000)

    decision = limiter.hit("news", WHO)

    assert not decision
    assert decision.allowed is False
    assert decision.remaining == 0
    assert decision.blocked_by is not None
    assert (decision.blocked_by.rule, str(decision.blocked_by.item)) == ("news", "3 per 1 day")
    assert decision.retry_after == 86_400 - 11.500001
    assert decision.retry_at == START + timedelta(days=1)
    assert decision.retry_after_header == 86_400 - 11
    assert decision.reset_at == START + timedelta(days=1, seconds=10, microseconds=1)
    assert decision.refusals == (None, None)
    assert str(decision) == "'news' refused by rule 'news' (3 per day), try again in 1 day"


def test_a_refusal_shows_what_is_left_before_it(clock: Clock) -> None:
    """Nothing was taken, so windows with room still have it."""
    limiter = Limiter([Rule("news", "10/hour"), Rule("*", "1/minute", by="recipient")], clock=clock)
    fill(limiter, 1)

    decision = limiter.hit("news", WHO)

    assert [state.remaining for state in decision.windows] == [9, 0]
    assert [state.retry_after for state in decision.windows] == [0.0, 60.0]
    assert decision.remaining == 0
    assert decision.blocked_by == decision.windows[1]


@pytest.mark.parametrize(
    ("limit", "cost", "remaining", "said"),
    [("5/day", 6, 5, "'news' at cost 6 refused by rule 'news' (5 per day), and waiting does not help"),
     ("0/day", 1, 0, "'news' refused by rule 'news' (0 per day), and waiting does not help")],
)  # fmt: skip
def test_a_cost_above_the_limit_never_fits(clock: Clock, limit: str, cost: int, remaining: int, said: str) -> None:
    """Waiting does not help, and the decision says so, at once and for good."""
    decision = Limiter({"news": limit}, clock=clock).hit("news", WHO, cost=cost)

    assert not decision
    assert decision.retry_after == math.inf
    assert (decision.retry_at, decision.retry_after_header) == (None, None)
    assert decision.remaining == remaining
    assert decision.blocked_by is not None
    assert decision.blocked_by.retry_after == math.inf
    assert decision.reset_at == START
    assert str(decision) == said


def test_never_outweighs_later(clock: Clock) -> None:
    """Of a window that fits later and one that never does, the latter is what blocks."""
    limiter = Limiter([Rule("news", "2/day"), Rule("news", "1/hour", name="small")], clock=clock)
    fill(limiter, 1)

    decision = limiter.hit("news", WHO, cost=2)

    assert decision.blocked_by is not None
    assert (decision.blocked_by.rule, decision.retry_after) == ("small", math.inf)


def test_without_a_rule(clock: Clock) -> None:
    """It is allowed, and there is nothing to say about windows."""
    decision = Limiter({"news": None}, clock=clock).hit("news", WHO)

    assert decision
    assert decision.windows == ()
    assert (decision.remaining, decision.blocked_by, decision.reset_at, decision.retry_at) == (None, None, None, None)
    assert (decision.retry_after, decision.retry_after_header) == (0.0, None)
    assert str(decision) == "'news' allowed, no rule limits it"


def test_with_a_shadow_rule_alone(clock: Clock) -> None:
    """It reports what it would refuse, and is left out of everything that speaks of limits."""
    limiter = Limiter([Rule("news", "1/hour", enforce=False)], clock=clock)
    fill(limiter, 1)
    clock.advance(60 * SECOND)

    decision = limiter.hit("news", WHO)

    assert decision
    assert (decision.remaining, decision.blocked_by, decision.reset_at, decision.retry_after) == (None, None, None, 0.0)
    assert [(state.enforced, state.remaining, state.retry_after) for state in decision.windows] == [(False, 0, 3540.0)]
    assert str(decision) == "'news' allowed, rule 'news' (1 per hour) in shadow mode would refuse it"


def test_shadow_rules_do_not_count_towards_what_is_left(clock: Clock) -> None:
    """Only enforced windows do, in a refusal as well."""
    rules = [Rule("news", "2/hour"), Rule("news", "1/day", enforce=False, name="trial")]
    limiter = Limiter(rules, clock=clock)

    assert limiter.hit("news", WHO).remaining == 1
    assert limiter.hit("news", WHO).remaining == 0
    refused = limiter.hit("news", WHO)
    assert refused.blocked_by is not None
    assert (refused.blocked_by.rule, refused.retry_after) == ("news", 3600.0)
    assert refused.reset_at == START + timedelta(hours=1)


def test_an_exempt_hit(clock: Clock) -> None:
    """A window that the priority is exempt from is shown, and is not enforced."""
    limiter = Limiter([Rule("news", "1/hour", exempt="critical"), Rule("*", "9/day", by="recipient")], clock=clock)
    fill(limiter, 1)

    decision = limiter.hit("news", WHO, priority="critical")

    assert decision.remaining == 7
    assert [(state.enforced, state.remaining, state.retry_after) for state in decision.windows] == [
        (False, 0, 0.0),
        (True, 7, 0.0),
    ]


def test_when_the_storage_failed(clock: Clock) -> None:
    """What it said is there, and nothing is made up about windows or waiting."""
    for choice in ("allow", "deny"):
        limiter = Limiter({"news": "1/day"}, clock=clock, on_storage_error=choice, timeout=0.01)
        with limiter.storage.guard.lock:
            decision = limiter.hit("news", WHO)

        assert decision.allowed is (choice == "allow")
        assert decision.error is not None
        assert "stayed locked" in decision.error
        assert (decision.windows, decision.blocked_by, decision.refusals) == ((), None, ())
        assert (decision.remaining, decision.reset_at, decision.retry_at) == (None, None, None)
        assert (decision.retry_after, decision.retry_after_header) == (0.0, None)
        said = "allowed" if choice == "allow" else "refused"
        assert str(decision).startswith(f"'news' {said} without being counted: The windows in memory")


def test_a_decision_made_by_hand() -> None:
    """A refusal without windows, as an off switch or a notifier may make one, can be asked everything too."""
    decision = Decision("news", WHO, 1, False)

    assert (decision.blocked_by, decision.refusals, decision.windows) == (None, (), ())
    assert (decision.retry_after, decision.retry_at, decision.retry_after_header) == (0.0, None, None)
    assert str(decision) == "'news' refused"


@pytest.mark.parametrize(
    ("passed", "header"), [(0, 60), (1, 60), (999_999, 60), (1_000_000, 59), (59_999_999, 1), (59_000_000, 1)]
)
def test_the_header_is_rounded_up(clock: Clock, passed: int, header: int) -> None:
    """A client that comes back after so many whole seconds is not sent away again."""
    limiter = Limiter({"news": "1/minute"}, clock=clock)
    fill(limiter, 1)
    clock.advance(passed)
    decision = limiter.hit("news", WHO)

    assert decision.retry_after_header == header
    clock.advance(header * SECOND)
    assert limiter.test("news", WHO)


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (0, "try again in 1 h"),
        (1, "try again in 1 h"),
        (3_598_750_000, "try again in 2 s"),
        (3_599_999_999, "try again in 1 s"),
    ],
)
def test_the_sentence_says_when(clock: Clock, passed: int, said: str) -> None:
    """It is rounded up, to two units at most."""
    limiter = Limiter({"news": "1/hour"}, clock=clock)
    fill(limiter, 1)
    clock.advance(passed)

    assert str(limiter.hit("news", WHO)).endswith(said)


def test_instants_are_aware_and_in_utc(clock: Clock) -> None:
    """A naive time would be read as local time by whoever compares it."""
    limiter = Limiter({"news": "1/minute"}, clock=clock)
    fill(limiter, 1)
    decision = limiter.hit("news", WHO)

    instants = [decision.retry_at, decision.reset_at, *(state.reset_at for state in decision.windows)]
    assert [instant.tzinfo for instant in instants if instant is not None] == [UTC, UTC, UTC]


def test_what_the_refusing_rules_want_done(clock: Clock) -> None:
    """Only those that refuse are asked."""
    rules = [
        Rule("news", "1/hour", on_limit="drop"),
        Rule("*", "1/day", by="recipient", on_limit="raise"),
        Rule("*", "9/day", by=(), on_limit="wait"),
        Rule("news", "1/minute", on_limit="wait", enforce=False, name="trial"),
    ]
    limiter = Limiter(rules, clock=clock)
    fill(limiter, 1)

    assert limiter.hit("news", WHO).refusals == ("drop", "raise")


def test_nothing_shows_the_recipient(clock: Clock) -> None:
    """Neither a decision, nor its windows, nor the error that carries it: all of them end up in logs."""
    rules = [Rule("news", "1/day", by=("type", "recipient", "tenant"))]
    limiter = Limiter(rules, clock=clock)
    fill(limiter, 1, tenant="acme@example.com")
    decision = limiter.hit("news", WHO, tenant="acme@example.com")
    shown = [str(decision), repr(decision), repr(decision.windows), repr(decision.blocked_by)]
    error = RateLimitExceeded(decision)

    assert not [text for text in (*shown, str(error), repr(error)) if "@" in text]
    assert repr(decision).startswith("<Decision: 'news' refused by rule")
    assert decision.windows[0].identifiers == ("news", WHO, "acme@example.com")


def test_a_decision_survives_pickling_and_the_copy_is_not_released(clock: Clock) -> None:
    """In another process it explains itself; the hit can be given back by the original alone, once."""
    limiter = Limiter({"news": "1/day; 5/year"}, clock=clock)
    decision = limiter.hit("news", WHO)

    for copied in (pickle.loads(pickle.dumps(decision)), copy.copy(decision), copy.deepcopy(decision)):
        assert (str(copied), copied.windows, copied.recipient) == (str(decision), decision.windows, WHO)
        assert (copied.remaining, copied.reset_at, copied.allowed) == (0, decision.reset_at, True)
        assert limiter.release(copied) is False
    assert limiter.release(decision) is True
    assert limiter.release(decision) is False


def test_the_error_survives_pickling(clock: Clock) -> None:
    """A task queue hands it to another process, with the decision."""
    limiter = Limiter({"news": "1/day"}, clock=clock)
    fill(limiter, 1)
    error = RateLimitExceeded(limiter.hit("news", WHO))
    copied = pickle.loads(pickle.dumps(error))

    assert str(copied) == str(error) == "'news' refused by rule 'news' (1 per day), try again in 1 day"
    assert copied.decision.blocked_by == error.decision.blocked_by
    assert copied.decision.retry_after == 86_400.0


def test_a_window_state_is_a_value(clock: Clock) -> None:
    """Two looks at one window are equal, and it cannot be written to."""
    limiter = Limiter({"news": "1/day"}, clock=clock)
    (one,), (other,) = limiter.windows("news", WHO), limiter.windows("news", WHO)

    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.remaining = 5


# The interop contract: `limits`' own strategies on the limiter's windows.

BY = {"plain": ("type", "recipient"), "with a field": ("tenant", "recipient"), "shared": ("tenant",), "one for all": ()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("by", BY.values(), ids=BY)
@pytest.mark.parametrize("costs", [[1, 1, 1, 1], [2, 1, 1], [3, 1], [1, 3, 2, 1], [4, 3]])
def test_a_strategy_of_limits_hits_the_same_window(
    clock: Clock, strategy: Any, by: tuple[str, ...], costs: list[int]
) -> None:
    """Through an item and identifiers of a decision, `limits` gives the verdict that the limiter would, and is counted."""
    limiter = Limiter([Rule("news", "3/minute", by=by, strategy=strategy)], clock=clock)
    engine = STRATEGIES[strategy](limiter.storage)
    state = limiter.windows("news", WHO, tenant="a b/{c}")[0]
    assert (state.strategy, state.remaining) == (strategy, 3)

    for number, cost in enumerate(costs):
        clock.advance(number)
        expected = limiter.test("news", WHO, cost=cost, tenant="a b/{c}")
        before = limiter.windows("news", WHO, tenant="a b/{c}")[0].remaining
        got = engine.hit(state.item, *state.identifiers, cost=cost)

        assert got == expected.allowed
        after = limiter.windows("news", WHO, tenant="a b/{c}")[0].remaining
        # `limits` counts a refused hit of a fixed window; nothing else does.
        assert after == (before - cost if got else max(0, before - cost) if strategy == "fixed-window" else before)
        assert engine.get_window_stats(state.item, *state.identifiers).remaining == after
        if strategy == "fixed-window" and not got:
            break


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limiter_counts_what_limits_sees(clock: Clock, strategy: Any) -> None:
    """The other way round: hits of the limiter use up the window of a `limits` strategy."""
    limiter = Limiter([Rule("news", "2/minute", strategy=strategy)], clock=clock)
    engine = STRATEGIES[strategy](limiter.storage)
    state = limiter.hit("news", WHO).windows[0]

    assert engine.get_window_stats(state.item, *state.identifiers).remaining == 1
    assert engine.hit(state.item, *state.identifiers)
    assert not limiter.hit("news", WHO)
    assert not engine.hit(state.item, *state.identifiers)
    engine.clear(state.item, *state.identifiers)
    assert limiter.hit("news", WHO).remaining == 1


@pytest.mark.parametrize("strategy", ASYNC_STRATEGIES)
def test_an_async_strategy_of_limits_hits_the_same_window(clock: Clock, strategy: Any) -> None:
    """As above, awaited."""
    import asyncio

    async def run() -> None:
        limiter = AsyncLimiter([Rule("news", "2/minute", strategy=strategy)], clock=clock)
        engine = ASYNC_STRATEGIES[strategy](limiter.storage)
        state = (await limiter.hit("news", WHO)).windows[0]
        assert await engine.hit(state.item, *state.identifiers)
        assert not await limiter.hit("news", WHO)
        assert not await engine.hit(state.item, *state.identifiers)
        await engine.clear(state.item, *state.identifiers)
        assert (await limiter.hit("news", WHO)).remaining == 1

    asyncio.run(run())


def test_a_failed_storage_is_of_the_root_of_errors() -> None:
    """One `except NotifyError` catches all that the library raises by itself."""
    from ratelimited_notify import MissingExtra, NotifyError, RuleError

    assert all(issubclass(kind, NotifyError) for kind in (MissingExtra, RateLimitExceeded, RuleError, StorageError))
    missing = MissingExtra("redis", "redis://")
    copied = pickle.loads(pickle.dumps(missing))
    assert (copied.extra, copied.needed_by, str(copied)) == ("redis", "redis://", str(missing))
    assert "pip install 'ratelimited-notify[redis]'" in str(missing)
    assert isinstance(missing, ImportError)
