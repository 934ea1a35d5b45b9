"""Count the results of many notifications by type and by the rule that refused. No recipient is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.notifier.delivery import Status
from ratelimited_notify.rules.wording import limit_text

if TYPE_CHECKING:
    from datetime import datetime

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.window_state import WindowState
    from ratelimited_notify.notifier.delivery import Delivery

MOST_ROWS = 1000
"""How many types are counted separately. An input may have a new type in every line."""

OTHERS = "(other types)"

COUNTED = (Status.SENT, Status.SUPPRESSED, Status.FAILED)
"""The statuses that occur here."""


class Cause(NamedTuple):
    """The cause of a refusal."""

    rule: str
    limit: str
    type: str


@dataclass(slots=True)
class RefusalCount:
    """The refusals with one cause, and when the first and the last of them would be allowed if nothing else is sent."""

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
    """The results so far.

    `shadow` contains the names of the rules in shadow mode. What they would have refused is counted too.
    """

    shadow: frozenset[str] = frozenset()
    statuses: dict[str, Counter[Status]] = field(default_factory=dict[str, Counter[Status]])
    """For each type, how many notifications were sent, were suppressed, and failed."""
    refusals: dict[Cause, RefusalCount] = field(default_factory=dict[Cause, RefusalCount])
    shadowed: dict[Cause, int] = field(default_factory=dict[Cause, int])
    """How many allowed notifications a rule in shadow mode would have refused."""
    malformed: int = 0
    """How many lines were malformed."""
    interrupted: bool = False
    stopped: bool = False
    """The mail server could not be reached too often in a row, so the run was stopped."""
    untried: int | None = None
    """How many notifications were not tried after the stop, or None if that is not known."""
    broken: bool = False
    """The input could not be read to its end."""
    line: int = 0
    """The number of the last line that was processed."""

    def add(self, delivery: Delivery[object]) -> None:
        """Count the result of one notification."""
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
        """How many notifications of all types have this status."""
        return sum(counted[status] for counted in self.statuses.values())

    @property
    def exit_status(self) -> int:
        """0 if every notification was sent or refused by a rule, 130 after an interrupt, and 1 otherwise."""
        if self.interrupted:
            return 130
        return int(bool(self.malformed or self.broken or self.total(Status.FAILED)))


def _cause(window: WindowState, type: str) -> Cause:
    return Cause(window.rule, limit_text(window.item), type)
