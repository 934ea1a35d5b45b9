"""What a decision says in an HTTP response: in its headers, and in a JSON body."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from limiting import HOUR, LIMITERS, SECOND, Clock
from ratelimited_notify import Decision, Limiter, RateLimitExceeded, Rule
from ratelimited_notify.limiter.headers import retry_after_field

if TYPE_CHECKING:
    from collections.abc import Callable

WHO = "ana@example.com"

# A list of strings with integer parameters, by the grammar of RFC 9651.
_STRING = r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_ITEM = re.compile(rf"({_STRING})((?:;[a-z][a-z0-9_.*-]*=-?[0-9]{{1,15}})*)")


def parsed(field: str) -> list[tuple[str, dict[str, int]]]:
    """The items of a structured field, each with its parameters. Raises an error if it is not one."""
    assert field.isascii()
    items, at = [], 0
    while True:
        item = _ITEM.match(field, at)
        assert item is not None, field[at:]
        pairs = [pair.split("=") for pair in item[2].split(";")[1:]]
        items.append((re.sub(r"\\(.)", r"\1", item[1][1:-1]), {name: int(value) for name, value in pairs}))
        at = item.end()
        if at == len(field):
            return items
        assert field.startswith(", ", at), field[at:]
        at += 2


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("kind", LIMITERS)
def test_an_allowed_decision(clock: Clock, kind: str) -> None:
    """There is nothing to retry; on request, what is left, and when the window is empty."""
    limiter = LIMITERS[kind]({"news": "3/hour"}, clock=clock)
    limiter.hit("news", WHO)
    clock.advance(20 * SECOND + 1)
    decision = limiter.hit("news", WHO)

    assert decision.headers() == {}
    assert decision.headers(ratelimit=True) == {
        "RateLimit-Policy": '"news";q=3;w=3600',
        "RateLimit": '"news";r=1;t=3600',
    }
    limiter.close()


@pytest.mark.parametrize("kind", LIMITERS)
def test_a_refused_decision(clock: Clock, kind: str) -> None:
    """Seconds are rounded up, so a client that comes back then is allowed."""
    limiter = LIMITERS[kind]({"news": "1/minute"}, clock=clock)
    limiter.hit("news", WHO)
    clock.advance(1)
    decision = limiter.hit("news", WHO)

    assert decision.headers() == {"Retry-After": "60"}
    assert decision.headers(ratelimit=True) == {
        "Retry-After": "60",
        "RateLimit-Policy": '"news";q=1;w=60',
        "RateLimit": '"news";r=0;t=60',
    }
    clock.advance(60 * SECOND)
    assert limiter.hit("news", WHO)
    limiter.close()


def test_several_windows(clock: Clock) -> None:
    """Windows of one rule are told apart by their period. A refusal gives a time only for what refuses."""
    rules = [Rule("news", "1/minute; 9/2 hours"), Rule("*", "20/day", by="recipient", name="cap")]
    limiter = Limiter(rules, clock=clock)
    limiter.hit("news", WHO)

    assert limiter.hit("news", WHO).headers(ratelimit=True) == {
        "Retry-After": "60",
        "RateLimit-Policy": '"news per minute";q=1;w=60, "news per 2 hours";q=9;w=7200, "cap";q=20;w=86400',
        "RateLimit": '"news per minute";r=0;t=60, "news per 2 hours";r=8, "cap";r=19',
    }


@pytest.mark.parametrize(("limit", "cost", "left"), [("0/day", 1, 0), ("5/day", 6, 5)])
def test_never(clock: Clock, limit: str, cost: int, left: int) -> None:
    """The header has no value for never, so it is left out. `inf` is nowhere."""
    decision = Limiter({"news": limit}, clock=clock).hit("news", WHO, cost=cost)

    assert decision.headers() == {}
    assert decision.headers(ratelimit=True) == {
        "RateLimit-Policy": f'"news";q={limit[0]};w=86400',
        "RateLimit": f'"news";r={left}',
    }
    assert (decision.to_dict()["retry_after"], decision.to_dict()["retry_at"]) == (None, None)


def test_a_cost_that_fits_later(clock: Clock) -> None:
    """The time is the one at which this cost fits, and what is left is left."""
    limiter = Limiter({"news": "5/hour"}, clock=clock)
    limiter.hit("news", WHO, cost=3)
    clock.advance(60 * SECOND)
    decision = limiter.hit("news", WHO, cost=4)

    assert decision.headers(ratelimit=True)["RateLimit"] == '"news";r=2;t=3540'
    assert decision.headers()["Retry-After"] == "3540"


def test_rules_that_are_not_enforced_are_left_out(clock: Clock) -> None:
    """A client must not slow down because of a rule in shadow mode, or one that it is exempt from."""
    rules = [
        Rule("news", "1/hour", enforce=False, name="trial"),
        Rule("*", "2/day", by="recipient", exempt="critical", name="cap"),
    ]
    limiter = Limiter(rules, clock=clock)
    limiter.hit("news", WHO)

    assert limiter.hit("news", WHO).headers(ratelimit=True)["RateLimit-Policy"] == '"cap";q=2;w=86400'
    exempt = limiter.hit("news", WHO, priority="critical")
    assert exempt.headers(ratelimit=True) == {}
    assert exempt.to_dict()["windows"] == []


def test_nothing_applies(clock: Clock) -> None:
    """No rule, limiting switched off, and a storage that failed: no header, and nothing is made up."""
    off = Limiter({"news": "1/day"}, enabled=False).hit("news", WHO)
    free = Limiter({"news": None}, clock=clock).hit("news", WHO)
    for decision in (off, free, Decision("news", WHO, 1, False)):
        assert decision.headers(ratelimit=True) == {}
    for choice in ("allow", "deny"):
        limiter = Limiter({"news": "1/day"}, clock=clock, on_storage_error=choice, timeout=0.01)
        with limiter.storage.guard.lock:
            failed = limiter.hit("news", WHO)
        assert failed.headers(ratelimit=True) == {}
        assert failed.to_dict() == {
            "allowed": choice == "allow", "type": "news", "cost": 1, "remaining": None, "rule": None, "windows": [],
            "degraded": False,
            "retry_after": 0.0 if choice == "allow" else None, "retry_at": None, "reset_at": None,
        }  # fmt: skip


def test_an_empty_window_has_no_time(clock: Clock) -> None:
    """A test of a window that nobody has used: all is there now."""
    decision = Limiter({"news": "1/day"}, clock=clock).test("news", WHO)

    assert decision.headers(ratelimit=True)["RateLimit"] == '"news";r=1'


@given(names=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4, unique=True), twice=st.booleans())
def test_any_rule_name_can_be_sent(names: list[str], twice: bool) -> None:
    """Whatever a rule is called, the fields are structured fields, and no two of their items have one name."""
    limit = "1/hour; 2/day" if twice else "1/hour"
    rules = [Rule("news", limit, name=name) for name in names]
    rules += [Rule("news", "3/2 days", name=f"{names[0]} per hour")] if f"{names[0]} per hour" not in names else []
    limiter = Limiter(rules)
    for _ in range(2):
        headers = limiter.hit("news", WHO).headers(ratelimit=True)
        policies, limits = parsed(headers["RateLimit-Policy"]), parsed(headers["RateLimit"])

        assert [name for name, _ in policies] == [name for name, _ in limits]
        assert len({name for name, _ in policies}) == len(policies) == sum(len(rule.limits) for rule in rules)
    assert {"Retry-After"} < set(headers)


@pytest.mark.parametrize("paused", [59, 60, 61])
def test_nothing_is_left_of_what_is_paused(clock: Clock, paused: int) -> None:
    """Until the pause ends, whatever the limit itself would allow; also if both end in the same moment."""
    limiter = Limiter([Rule("news", "3/minute", by=(), name="all")], clock=clock)
    limiter.hit("news", WHO, cost=2)
    limiter.pause("all", paused)
    left = 1 if paused == 59 else 0

    headers = limiter.hit("news", WHO, cost=2).headers(ratelimit=True)
    assert headers["RateLimit"] == f'"all";r={left};t={max(60, paused)}'


def test_less_than_a_second(clock: Clock) -> None:
    """Whoever comes back after a second is allowed. Zero would be a loop: the header is never 0."""
    limiter = Limiter({"news": "1/second"}, clock=clock)
    limiter.hit("news", WHO)
    for passed in (0, 1, SECOND // 2, SECOND // 2 - 2):
        clock.advance(passed)
        headers = limiter.hit("news", WHO).headers(ratelimit=True)
        assert (headers["Retry-After"], headers["RateLimit"]) == ("1", '"news";r=0;t=1')
    assert retry_after_field(0) == {"Retry-After": "1"}


def test_characters_of_rule_names(clock: Clock) -> None:
    """Printable ASCII stands for itself, but for the percent sign; everything else is percent-encoded."""
    limiter = Limiter([Rule("news", "1/day", name='\x1f !~\x7f%"\\é')], clock=clock)

    policy = limiter.hit("news", WHO).headers(ratelimit=True)["RateLimit-Policy"]
    assert policy == r'"%1F !~%7F%25\"\\%C3%A9";q=1;w=86400'


def test_rules_named_like_each_others_periods_are_told_apart(clock: Clock) -> None:
    """A client finds each policy's limit by its name, whatever the rules are called."""
    names = ["news per hour'", "news", "news per hour"]
    limits = ["5/hour", "1/hour; 9/day", "3/2 days"]
    rules = [Rule("news", limit, name=name) for name, limit in zip(names, limits, strict=True)]
    headers = Limiter(rules, clock=clock).hit("news", WHO).headers(ratelimit=True)

    assert parsed(headers["RateLimit-Policy"]) == [
        ("news per hour'", {"q": 5, "w": 3600}),
        ("news per hour", {"q": 1, "w": 3600}),
        ("news per day", {"q": 9, "w": 86400}),
        ("news per hour''", {"q": 3, "w": 172800}),
    ]
    assert [name for name, _ in parsed(headers["RateLimit"])] == [
        "news per hour'", "news per hour", "news per day", "news per hour''",
    ]  # fmt: skip


@given(
    strategy=st.sampled_from(["moving-window", "fixed-window", "sliding-window-counter"]),
    limits=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["minute", "hour", "day"])), min_size=1, max_size=3, unique_by=lambda limit: limit[1]),
    hits=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2 * HOUR)), min_size=1, max_size=8),
)  # fmt: skip
def test_a_client_that_obeys_is_allowed(
    strategy: Any, limits: list[tuple[int, str]], hits: list[tuple[int, int]]
) -> None:
    """`Retry-After` is late enough, never zero, and never before the time of a window; all is valid JSON without NaN."""
    clock = Clock()
    text = "; ".join(f"{amount}/{period}" for amount, period in limits)
    limiter = Limiter([Rule("news", text, strategy=strategy, name="x")], clock=clock)
    for cost, passed in hits:
        clock.advance(passed)
        decision = limiter.hit("news", WHO, cost=cost)
        headers = decision.headers(ratelimit=True)
        items = parsed(headers["RateLimit"])

        assert json.loads(json.dumps(decision.to_dict(), allow_nan=False)) == decision.to_dict()
        assert [item["q"] for _, item in parsed(headers["RateLimit-Policy"])] == [amount for amount, _ in limits]
        assert [item["r"] for _, item in items] == [state.remaining for state in decision.windows]
        assert decision.to_dict()["windows"] == [state.to_dict() for state in decision.windows]
        if "Retry-After" in headers:
            seconds = int(headers["Retry-After"])
            assert seconds > 0
            assert max(item.get("t", 0) for _, item in items) <= seconds
            before = clock.now
            clock.advance(seconds * SECOND)
            assert limiter.test("news", WHO, cost=cost)
            clock.now = before
        else:
            assert decision.allowed or decision.retry_after == math.inf


def test_the_largest_numbers(clock: Clock) -> None:
    """An integer of a structured field has fifteen digits at most; no rule needs more."""
    limiter = Limiter({"news": "1000000000/10000 days"}, clock=clock)
    headers = limiter.hit("news", WHO, cost=10**9).headers(ratelimit=True)

    assert parsed(headers["RateLimit-Policy"]) == [("news", {"q": 10**9, "w": 864_000_000})]
    assert limiter.hit("news", WHO).headers() == {"Retry-After": "864000000"}


def test_a_json_body(clock: Clock) -> None:
    """All that a client may know, in the types of JSON."""
    rules = [Rule("news", "1/minute"), Rule("*", "9/day", by="recipient", name="cap")]
    limiter = Limiter(rules, clock=clock)
    limiter.hit("news", WHO)
    cap = {
        "rule": "cap", "limit": "9 per day", "remaining": 8, "retry_after": 0.0,
        "reset_at": "2023-11-15T22:13:20+00:00",
    }  # fmt: skip

    assert limiter.hit("news", WHO).to_dict() == {
        "allowed": False, "type": "news", "cost": 1, "remaining": 0, "retry_after": 60.0,
        "degraded": False,
        "retry_at": "2023-11-14T22:14:20+00:00", "reset_at": "2023-11-15T22:13:20+00:00", "rule": "news",
        "windows": [
            {"rule": "news", "limit": "1 per minute", "remaining": 0, "retry_after": 60.0, "reset_at": "2023-11-14T22:14:20+00:00"},
            cap,
        ],
    }  # fmt: skip


def test_nothing_shows_the_recipient(clock: Clock) -> None:
    """Neither the recipient nor another value that a rule counts by is in a header or in the body."""
    rules = [
        Rule("news", "1/day", by=("type", "recipient", "tenant")),
        Rule("news", "9/day", by="tenant", name="tenant"),
        Rule("*", "99/day", by=(), name="provider"),
    ]
    limiter = Limiter(rules, clock=clock)
    for _ in range(2):
        decision = limiter.hit("news", WHO, tenant="acme@example.com")
        shown = [*decision.headers(ratelimit=True).values(), json.dumps(decision.to_dict())]
        assert not [text for text in shown if "@" in text or "ana" in text or "acme" in text]


@pytest.mark.parametrize("kind", LIMITERS)
def test_headers_of_the_exception(clock: Clock, kind: str) -> None:
    """What a handler of the exception needs is on the exception."""
    limiter: Any = LIMITERS[kind]({"news": "1/minute"}, clock=clock)
    limiter.hit("news", WHO)
    decision = limiter.hit("news", WHO)
    error = RateLimitExceeded(decision)

    assert error.retry_after == decision.retry_after == 60.0
    assert error.headers() == {"Retry-After": "60"}
    assert error.headers(ratelimit=True) == decision.headers(ratelimit=True)
    limiter.close()


@pytest.mark.parametrize("batch", [lambda limiter: limiter.hit_many("news", [WHO, WHO])[1], lambda limiter: [limiter.hit("news", WHO), limiter.hit("news", WHO)][1]])  # fmt: skip
def test_batches_say_the_same(clock: Clock, batch: Callable[[Limiter], Decision]) -> None:
    """A decision of a batch has the headers of a single one."""
    assert batch(Limiter({"news": "1/minute"}, clock=clock)).headers(ratelimit=True) == {
        "Retry-After": "60",
        "RateLimit-Policy": '"news";q=1;w=60',
        "RateLimit": '"news";r=0;t=60',
    }
