"""What became of many notifications, counted by type and by the rule that refused: no recipient is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.notifier.delivery import Status
from ratelimited_notify.rules.wording import limit_text

if TYPE_CHECKING:
    from datetime import datetime

    from ratelimited_notify.limiter.decision import Decision, WindowState
    from ratelimited_notify.notifier.delivery import Delivery

MOST_ROWS = 1000
"""How many types are told apart: what comes in may make up a new one in each line."""

OTHERS = "(other types)"

COUNTED = (Status.SENT, Status.SUPPRESSED, Status.FAILED)
"""What can become of a notification here."""


class Cause(NamedTuple):
    """What a refusal is put down to."""

    rule: str
    limit: str
    type: str


@dataclass(slots=True)
class RefusalCount:
    """Those of one cause, and when the first and the last of them would be allowed, if nothing else happens."""

    count: int = 0
    never: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, decision: Decision) -> None:
        """Count a refusal."""
        self.count += 1
        instant = decision.retry_at
        if instant is None:
            self.never += 1
            return
        self.first = instant if self.first is None else min(self.first, instant)
        self.last = instant if self.last is None else max(self.last, instant)


@dataclass(slots=True)
class Tally:
    """What became of the notifications so far.

    `shadow` names the rules in shadow mode; what they would have refused is counted too.
    """

    shadow: frozenset[str] = frozenset()
    statuses: dict[str, Counter[Status]] = field(default_factory=dict[str, Counter[Status]])
    """How many of each type were sent, suppressed, and failed."""
    refusals: dict[Cause, RefusalCount] = field(default_factory=dict[Cause, RefusalCount])
    shadowed: dict[Cause, int] = field(default_factory=dict[Cause, int])
    """How many were allowed that a rule in shadow mode would refuse if it were enforced."""
    malformed: int = 0
    """Lines that were no notification."""
    interrupted: bool = False
    stopped: bool = False
    """The mail server was out of reach too often, so no more was tried."""
    untried: int | None = None
    """How many notifications were left then; None where that is not known."""
    broken: bool = False
    """The input could not be read to its end."""
    line: int = 0
    """The last line that was dealt with."""

    def add(self, delivery: Delivery[object]) -> None:
        """Count what became of one notification."""
        decision = delivery.decision
        type = decision.type if decision.type in self.statuses or len(self.statuses) < MOST_ROWS else OTHERS
        self.statuses.setdefault(type, Counter())[delivery.status] += 1
        self.line = int(delivery.notification.id)
        blocked_by = decision.blocked_by
        if blocked_by is not None:
            self.refusals.setdefault(_cause(blocked_by, type), RefusalCount()).add(decision)
        if self.shadow and decision.allowed:
            for window in decision.windows:
                if window.rule in self.shadow and window.retry_after > 0:
                    cause = _cause(window, type)
                    self.shadowed[cause] = self.shadowed.get(cause, 0) + 1

    def total(self, status: Status) -> int:
        """How many of all types."""
        return sum(counted[status] for counted in self.statuses.values())

    @property
    def exit_status(self) -> int:
        """0 where everything was sent or rightly refused, 130 after an interrupt, 1 otherwise."""
        if self.interrupted:
            return 130
        return int(bool(self.malformed or self.broken or self.total(Status.FAILED)))


def _cause(window: WindowState, type: str) -> Cause:
    return Cause(window.rule, limit_text(window.item), type)
