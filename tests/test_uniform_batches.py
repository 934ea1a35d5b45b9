"""Which notifications are decided as one batch: those that differ only in their recipients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify import Limiter, Notification, Rule
from ratelimited_notify.limiter.batch import is_uniform

if TYPE_CHECKING:
    from ratelimited_notify import Decision

ACME = {"tenant": "acme"}
FIRST: dict[str, Any] = {"cost": 1, "priority": None, "fields": ACME}


def notification(recipient: str, type: str = "news", **given: Any) -> Notification:
    return Notification(type, recipient, **{**FIRST, **given})


DIFFERENT: list[dict[str, Any]] = [
    {"type": "status"},
    {"cost": 2},
    {"priority": "high"},
    {"fields": {"tenant": "globex"}},
    {"fields": {}},
]


def test_alike_but_for_the_recipient() -> None:
    """With fields and without."""
    assert is_uniform([notification(name) for name in ("ana", "bo", "cy")])
    assert is_uniform([notification(name, fields={}) for name in ("ana", "bo")])


@pytest.mark.parametrize("different", DIFFERENT, ids=str)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_that_is_different(different: dict[str, Any], at: int) -> None:
    """Wherever it stands, each is decided by what it says itself."""
    notifications = [notification(name) for name in ("ana", "bo", "cy")]
    notifications[at] = notification("dee", **different)
    rules = [Rule("*", "9/day", name="each"), Rule("*", "20/day", by="tenant", exempt="high", name="tenant")]
    together, singly = (Limiter(rules, namespace=name) for name in ("together", "singly"))

    def told(decision: Decision | Exception) -> object:
        assert not isinstance(decision, Exception)
        return (
            decision.type,
            decision.recipient,
            decision.cost,
            [(each.rule, each.remaining) for each in decision.windows],
        )

    assert not is_uniform(notifications)
    assert [told(each) for each in together.decide(notifications)] == [
        told(singly.hit(each.type, each.recipient, cost=each.cost, priority=each.priority, **each.fields))
        for each in notifications
    ]
