from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, strategies as st

from ratelimited_notify import Limiter, NotifyError, RateLimitExceeded, Rule, RuleSet
from ratelimited_notify.notifier.policy import Policy
from ratelimited_notify.pytest_plugin import Clock
from ratelimited_notify.windows.strategies import Verdict

if TYPE_CHECKING:
    from ratelimited_notify import Decision
    from ratelimited_notify.rules.rule import OnLimit

CHOICES: tuple[OnLimit, ...] = ("raise", "drop", "wait")
STRICTEST_FIRST = ("raise", "drop", "wait")

choices = st.sampled_from(CHOICES)


def refused(*choices: OnLimit | None) -> Decision:
    """A decision that one rule for each of the choices refused, and one that did not."""
    rules = [
        Rule("news", f"1/{10 + index} seconds", name=str(index), on_limit=choice)
        for index, choice in enumerate(choices)
    ]
    limiter = Limiter([*rules, Rule("news", "9/day", on_limit="raise")], clock=Clock())
    assert limiter.hit("news", "ana")
    return limiter.hit("news", "ana")


@given(own=choices, said=st.lists(st.one_of(st.none(), choices), min_size=1, max_size=4))
def test_the_strictest_refusal_decides(own: OnLimit, said: list[OnLimit | None]) -> None:
    """Of several refusing rules the strictest counts, each by what it says itself or else by what the notifier says."""
    decision = refused(*said)
    expected = min((choice or own for choice in said), key=STRICTEST_FIRST.index)

    assert Policy(own, 60).of(decision) == expected


@given(own=choices, said=st.lists(st.one_of(st.none(), choices), max_size=3))
@example(own="drop", said=[None, None])
@example(own="drop", said=[None, "drop"])
@example(own="drop", said=["wait", None])
@example(own="raise", said=[None])
@example(own="wait", said=[])
def test_what_is_dropped_without_a_look_at_who_refuses(own: OnLimit, said: list[OnLimit | None]) -> None:
    """Only where the notifier drops, and no rule says anything else, no matter which of them refuses."""
    rules = [Rule("news", "1/day", name=str(index), on_limit=choice) for index, choice in enumerate(said)]
    windows = Limiter(rules).hit("news", "ana").counters()

    assert Policy(own, 60).drops(windows) is (own == "drop" and set(said) <= {None})


@given(
    own=choices,
    said=st.lists(st.one_of(st.none(), choices), min_size=1, max_size=3),
    max_wait=st.sampled_from([0, 5, 60]),
)
def test_what_follows_from_it(own: OnLimit, said: list[OnLimit | None], max_wait: int) -> None:
    """A drop is the last word, a raise is raised, and a wait is as long as the decision says unless that is too long."""
    decision = refused(*said)
    policy = Policy(own, max_wait)
    choice = policy.of(decision)

    if choice == "drop":
        assert policy.pause(decision, 0) is None
    elif choice == "wait" and decision.retry_after <= max_wait:
        assert policy.pause(decision, 0) == decision.retry_after
    else:
        with pytest.raises(RateLimitExceeded) as caught:
            policy.pause(decision, 0)
        assert caught.value.decision is decision


@given(own=choices, said=st.lists(st.one_of(st.none(), choices), min_size=1, max_size=3))
@example(own="wait", said=[None])
@example(own="wait", said=["drop"])
@example(own="drop", said=["wait"])
def test_who_waits(own: OnLimit, said: list[OnLimit | None]) -> None:
    """Who is refused by rules that say so, and nobody else."""
    decision = refused(*said)
    allowed = Limiter([Rule("news", "1/day", on_limit="wait")]).hit("news", "ana")

    assert Policy(own, 60).waits(decision) is (Policy(own, 60).of(decision) == "wait")
    assert not Policy(own, 60).waits(allowed)


def test_less_than_a_second_is_waited_for() -> None:
    """As long as it takes, if that is allowed at all."""
    clock = Clock()
    limiter = Limiter([Rule("news", "1/second", on_limit="wait")], clock=clock)
    limiter.hit("news", "ana")
    clock.advance(0.5)
    decision = limiter.hit("news", "ana")

    assert Policy("wait", 1).pause(decision, 0) == decision.retry_after == 0.5
    for policy in (Policy("wait", 0), Policy("wait", 0.4)):
        with pytest.raises(RateLimitExceeded):
            policy.pause(decision, 0)


def test_what_was_waited_counts() -> None:
    """The waits for one notification together are no longer than `max_wait`."""
    decision = refused("wait")
    policy = Policy("wait", 25)

    assert decision.retry_after == 10
    assert policy.pause(decision, 15) == 10
    with pytest.raises(RateLimitExceeded):
        policy.pause(decision, 15.000001)


@pytest.mark.parametrize("own", CHOICES)
def test_a_wait_that_is_given_up_raises(own: OnLimit) -> None:
    """Whoever waited in vain is told by an exception, whatever the notifier does where no rule says wait; in batches by the decision."""
    decision = refused("wait")
    policy = Policy(own, 25)

    with pytest.raises(RateLimitExceeded) as caught:
        policy.give_up(decision)
    assert caught.value.decision is decision
    assert policy.without_raising().give_up(decision) is decision


@pytest.mark.parametrize("own", CHOICES)
def test_what_is_allowed_needs_no_policy(own: OnLimit) -> None:
    """An allowed decision is the last word, whatever the policy."""
    decision = Limiter({"news": "1/day"}).hit("news", "ana")

    assert Policy(own, 1).pause(decision, 0) is None


def test_what_never_fits_is_not_waited_for() -> None:
    """A cost above the limit is refused at once, however long one would wait."""
    decision = Limiter([Rule("news", "1/day", on_limit="wait")]).hit("news", "ana", cost=2)

    with pytest.raises(RateLimitExceeded):
        Policy("wait", 1e18).pause(decision, 0)


def test_a_storage_that_failed_is_not_waited_for() -> None:
    """Where `on_storage_error="deny"` refused, nobody knows how long: waiting ends at once."""
    from outcomes import Unreliable

    storage = Unreliable()
    storage.failing = ("acquire",)
    decision = Limiter({"news": "1/day"}, storage, on_storage_error="deny").hit("news", "ana")

    with pytest.raises(RateLimitExceeded):
        Policy("wait", 60).pause(decision, 0)
    assert not Policy("wait", 60).waits(decision)
    with pytest.raises(RateLimitExceeded):
        Policy("raise", None).pause(decision, 0)
    assert Policy("drop", None).pause(decision, 0) is None


def test_a_refusal_without_a_time_is_not_asked_again_without_end() -> None:
    """A storage that refuses, and says that the time has come, is asked again after a pause, and not for ever."""
    limiter = Limiter([Rule("news", "1/day", on_limit="wait")], clock=Clock())
    limiter.hit("news", "ana")
    decision = limiter.hit("news", "ana")
    verdict = decision._verdict
    assert verdict is not None
    decision._verdict = Verdict(verdict.granted, verdict.readings[0].retry_at, verdict.readings)
    policy = Policy("wait", 1)

    assert decision.retry_after == 0
    pause = policy.pause(decision, 0)
    assert pause is not None
    assert 0 < pause < 0.1
    with pytest.raises(RateLimitExceeded):
        policy.pause(decision, 1)


@pytest.mark.parametrize("own", ["defer", "digest"])
def test_what_comes_later_says_so(own: Any) -> None:
    """BaseLimiter for the queue that is not there yet is an error that says what to use."""
    with pytest.raises(NotifyError, match=rf"^on_limit='{own}' needs the queue of deferred .*; use 'drop'\.$"):
        Policy(own, None)


@pytest.mark.parametrize("own", ["", "Drop", None, 1, ["drop"]])
def test_an_unknown_choice_is_an_error(own: Any) -> None:
    """Another word is an error that lists the known ones."""
    with pytest.raises(NotifyError, match=r"is not known; use one of 'raise', 'drop', 'wait'\.$"):
        Policy(own, None)


@pytest.mark.parametrize("max_wait", [-1, -0.001, inf, nan, True, "5", [1]])
def test_an_unusable_wait_is_an_error(max_wait: Any) -> None:
    """`max_wait` is a number of seconds, and no wait is without end."""
    with pytest.raises(NotifyError, match=r"^max_wait= must be a finite number of seconds, 0 or more\.$"):
        Policy("wait", max_wait)


def test_waiting_needs_a_bound() -> None:
    """`on_limit="wait"` without `max_wait` is an error."""
    with pytest.raises(NotifyError, match=r"^on_limit='wait' needs max_wait=, the longest wait in seconds\.$"):
        Policy("wait", None)


def test_a_rule_that_waits_needs_a_bound() -> None:
    """So is a rule that says wait; with a bound it is none."""
    rules = RuleSet([Rule("alert", "1/day"), Rule("news", "1/day", on_limit="wait")])

    with pytest.raises(
        NotifyError, match=r"^Rule 'news' has on_limit='wait'; that needs max_wait=, the longest wait in"
    ):
        Policy("drop", None).check(rules)
    Policy("drop", 0).check(rules)
