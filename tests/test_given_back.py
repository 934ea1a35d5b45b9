"""A decision whose hit was given back says what is left without it: sync and asyncio, one by one and in batches."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from limiting import LIMITERS, SECOND, Clock
from ratelimited_notify import AsyncNotifier, Decision, Delivery, Limiter, Notification, Notifier, Rule, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends import Backend


WHO = "ana@example.com"
RULES = [Rule("news", "3/hour", strategy="fixed-window"), Rule("*", "9/day", by="recipient", name="cap")]


class Refused(Exception):
    """The provider took nothing."""


def failing(recipient: str) -> None:
    raise Refused


async def failing_later(recipient: str) -> None:
    raise Refused


def told(decision: Decision) -> tuple[Any, ...]:
    """What a decision says about room."""
    return (
        str(decision),
        decision.remaining,
        [state.remaining for state in decision.windows],
        decision.headers(ratelimit=True).get("RateLimit"),
    )


EMPTY = ("'news' allowed and given back, 3 left", 3, [3, 9], '"news";r=3, "cap";r=9')
KEPT = ("'news' allowed, 2 left", 2, [2, 8], '"news";r=2;t=3600, "cap";r=8;t=86400')


def send_one(refund: Any) -> Decision:
    delivery = next(Notifier(failing, RULES, clock=Clock(), refund=refund).iter_many([Notification("news", WHO)]))
    assert delivery.status is Status.FAILED
    return delivery.decision


def send_many(refund: Any) -> Decision:
    return Notifier(failing, RULES, clock=Clock(), refund=refund).send_many("news", [WHO])[0].decision


def send_one_async(refund: Any) -> Decision:
    async def first() -> Decision:
        notifier = AsyncNotifier(failing_later, RULES, clock=Clock(), refund=refund)
        (delivery,) = [each async for each in notifier.iter_many([Notification("news", WHO)])]
        return delivery.decision

    return asyncio.run(first())


def send_many_async(refund: Any) -> Decision:
    notifier = AsyncNotifier(failing_later, RULES, clock=Clock(), refund=refund, concurrency=2)
    return asyncio.run(notifier.send_many("news", [WHO]))[0].decision


@pytest.mark.parametrize("send", [send_one, send_many, send_one_async, send_many_async])
@pytest.mark.parametrize(("refund", "says"), [(True, EMPTY), (None, EMPTY), (False, KEPT)])
def test_the_decision_of_a_failed_delivery(send: Callable[[Any], Decision], refund: Any, says: tuple[Any, ...]) -> None:
    """It shows the count after its hit was given back, or, if it was kept, the count with it."""
    decision = send(refund)

    assert told(decision) == says
    assert decision.released is (says is EMPTY)
    assert decision.allowed


def test_the_delivery_says_so() -> None:
    """Its repr is what a log shows."""
    delivery: Delivery[None] = Notifier(failing, RULES, clock=Clock()).send_many("news", [WHO])[0]

    assert repr(delivery) == "<Delivery failed: 'news' allowed and given back, 3 left, Refused>"


@pytest.mark.parametrize("first", ["read", "unread"])
@pytest.mark.parametrize("kind", LIMITERS)
@pytest.mark.parametrize("cost", [1, 2])
def test_a_released_decision(kind: str, cost: int, first: str) -> None:
    """Whether it was read before or not; a refusal, and one whose window is over, were not given back."""
    clock = Clock()
    limiter = LIMITERS[kind]([Rule("news", "9/hour")], clock=clock)
    limiter.hit("news", WHO)
    clock.advance(60 * SECOND)
    decision = limiter.hit("news", WHO, cost=cost)
    if first == "read":
        assert decision.remaining == 8 - cost
        assert not decision.released
    assert limiter.release(decision) is True

    assert (decision.remaining, decision.released, decision.windows[0].remaining) == (8, True, 8)
    assert decision.remaining == limiter.test("news", WHO).remaining
    for again in (pickle.loads(pickle.dumps(decision)), copy.copy(decision)):
        assert (str(again), again.remaining, again.released) == (str(decision), 8, True)
    refused = limiter.hit("news", WHO, cost=9)
    assert limiter.release(refused) is False
    assert not refused.released
    late = limiter.hit("news", WHO)
    clock.advance(3600 * SECOND)
    assert limiter.release(late) is False
    assert (late.released, late.remaining) == (False, 7)
    limiter.close()


@pytest.mark.parametrize("kind", LIMITERS)
def test_a_reservation(kind: str) -> None:
    """The decision of `reserve` says it too, once its body has raised."""
    limiter = LIMITERS[kind](RULES, clock=Clock())
    with pytest.raises(Refused), limiter.reserve("news", WHO) as decision:
        raise Refused

    assert told(decision) == EMPTY
    limiter.close()


def test_only_windows_that_counted_it() -> None:
    """A rule in shadow mode that had no room did not count the hit, so it gets none back."""
    limiter = Limiter([Rule("news", "5/hour"), Rule("news", "1/day", enforce=False, name="trial")], clock=Clock())
    limiter.hit("news", WHO)
    decision = limiter.hit("news", WHO)
    before = [state.remaining for state in decision.windows]
    limiter.release(decision)

    assert (before, [state.remaining for state in decision.windows]) == ([3, 0], [4, 0])
    assert str(decision) == (
        "'news' allowed and given back, 4 left; rule 'trial' (1 per day) in shadow mode would refuse it"
    )


@pytest.mark.parametrize("cost", [1, 3])
def test_on_every_storage(backend: Backend, cost: int) -> None:
    """What the decision says after it was given back is what the next test says, alone and in a batch."""
    rules = [
        Rule("news", "20/hour"),
        Rule("news", "30/2 hours", strategy="fixed-window", name="fixed"),
        Rule("news", "40/3 hours", strategy="sliding-window-counter", name="sliding"),
        Rule("*", "50/day", by=(), name="all"),
    ]
    backend.flush()
    kind = "async" if backend.asynchronous else "sync"
    limiter = LIMITERS[kind](rules, backend.bare, namespace=backend.namespace)
    if backend.asynchronous:
        limiter.__dict__["runner"].close()
        limiter.__dict__["runner"] = backend.storage
    for decide in (
        lambda: [limiter.hit("news", WHO, cost=cost)],
        lambda: limiter.hit_many("news", [WHO], cost=cost),
        lambda: limiter.hit_many("news", [WHO, "bo"], cost=cost),
    ):
        decision, *others = decide()
        assert all(map(limiter.release, [decision, *others]))
        left = [state.remaining for state in limiter.windows("news", WHO)]

        assert [state.remaining for state in decision.windows] == left
        assert str(decision).endswith(f"allowed and given back, {left[0]} left")


def test_what_shadow_rules_and_others_say() -> None:
    """The sentence of an allowed decision says what is so: enforced, exempt, in shadow mode, off, or without a rule."""
    trial = Rule("news", "2/day", enforce=False, name="trial")
    longer = Rule("news", "2/2 days", enforce=False, name="longer")
    capped = Rule("*", "9/day", by="recipient", exempt="critical")
    says = [
        ([trial], None, ["rules in shadow mode would allow it too"] * 2 + ["rule 'trial' (2 per day) in shadow mode would refuse it"]),
        ([trial, longer], None, ["rules in shadow mode would allow it too"] * 2 + ["rule 'longer' (2 per 2 days) in shadow mode would refuse it"]),
        ([trial, capped], None, ["8 left", "7 left", "6 left; rule 'trial' (2 per day) in shadow mode would refuse it"]),
        ([trial, capped], "critical", ["its priority is exempt"] * 2 + ["its priority is exempt; rule 'trial' (2 per day) in shadow mode would refuse it"]),
        ([Rule("news", None)], None, ["no rule limits it"]),
    ]  # fmt: skip
    for rules, priority, expected in says:
        limiter = Limiter(rules, clock=Clock())
        for said in expected:
            assert str(limiter.hit("news", WHO, priority=priority)) == f"'news' allowed, {said}"
    off = Limiter(RULES, enabled=False)
    for decision in (off.hit("news", WHO), off.test("news", WHO), *off.hit_many("news", [WHO])):
        assert str(decision) == "'news' allowed, limiting is off"
