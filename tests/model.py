"""A simple reference model of a storage: each window is a list of hits, and counts follow the definitions.

It shares nothing with the library except the description of a window (`Window`, `Mode`). To find an instant (`retry_at`),
it tries every instant at which a count can change. This is slow, but obviously correct.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimited_notify.windows.strategies import Reading, Request, Verdict, Window

FITS = -(2**100)
NEVER = 2**100
"""Other than any instant, also before 1970."""

# If a count changes more often than this, bisection finds the first instant that fits. That is valid because counts only
# fall while there are no new hits.
_TRIED_ONE_BY_ONE = 3000


class Said(NamedTuple):
    """The model's answer for one window: the fields of a `Reading`, with the ticket of a hit instead of its token."""

    count: int
    retry_at: int
    reset_at: int
    ticket: Ticket | None


class Verdict(NamedTuple):
    """The model's answer for a whole decision: the fields of a `Verdict`."""

    granted: bool
    now: int
    said: list[Said]


@dataclass(eq=False)
class Ticket:
    """One hit in one window."""

    instant: int
    """The time of the hit. For fixed and sliding windows, the start of the period that counted it."""
    cost: int
    era: int
    """The era of the window in which it was counted. A window that was empty starts a new era."""


@dataclass
class Hits:
    """One window and its hits. In a fixed or sliding window, a release is a hit with negative cost."""

    period: int
    hits: list[Ticket] = field(default_factory=list)
    opened: int = 0
    """The start of the newest period so far. If the clock steps back, no older period is opened."""
    era: int = -1

    # Each strategy defines these methods:

    def total(self, instant: int) -> int:
        """How many hits the window counts at this instant."""
        raise NotImplementedError

    def empty_from(self, instant: int) -> int:
        """When the window is empty; `instant` if it is empty by then."""
        raise NotImplementedError

    def changes(self, instant: int) -> Sequence[int]:
        """Every instant after this one at which the total can change, in order."""
        raise NotImplementedError

    def edges(self, instant: int) -> list[int]:
        """Instants after this one at which something other than the total can change."""
        return []

    def ends(self, instant: int) -> Sequence[int]:
        """Every instant after this one at which a hit runs out, and a storage may drop it."""
        return self.changes(instant)

    def begin(self, instant: int) -> int:
        """The instant to record for a hit at this instant."""
        raise NotImplementedError

    def give(self, instant: int, ticket: Ticket) -> bool:
        """Remove this hit if it still counts."""
        raise NotImplementedError

    # These methods follow from the ones above:

    def first_fit(self, instant: int, amount: int, cost: int) -> int:
        """The first instant, this or a later one, at which the cost fits."""
        if cost > amount:
            return NEVER
        if self.total(instant) + cost <= amount:
            return FITS
        changes = self.changes(instant)
        if len(changes) <= _TRIED_ONE_BY_ONE:
            return next(later for later in changes if self.total(later) + cost <= amount)
        return changes[bisect_left(changes, True, key=lambda later: self.total(later) + cost <= amount)]

    def hit(self, instant: int, cost: int, fresh: int) -> Ticket:
        """Record a hit."""
        if self.empty_from(instant) <= instant:
            self.era = fresh
            self.hits.clear()
        ticket = Ticket(self.begin(instant), cost, self.era)
        self.hits.append(ticket)
        return ticket


class MovingHits(Hits):
    """Each hit counts for one period from its instant on."""

    def hit(self, instant: int, cost: int, fresh: int) -> Ticket:
        # Hits that were too old at the time of a new hit do not come back if the clock steps back.
        self.hits = [hit for hit in self.hits if hit.instant + self.period > instant]
        return super().hit(instant, cost, fresh)

    def total(self, instant: int) -> int:
        return sum(hit.cost for hit in self.hits if hit.instant + self.period > instant)

    def empty_from(self, instant: int) -> int:
        return max([hit.instant + self.period for hit in self.hits] + [instant])

    def changes(self, instant: int) -> Sequence[int]:
        return sorted({hit.instant + self.period for hit in self.hits})

    def begin(self, instant: int) -> int:
        # If the clock steps back, hits get the newest instant so far.
        return max([hit.instant for hit in self.hits] + [instant])

    def give(self, instant: int, ticket: Ticket) -> bool:
        if ticket not in self.hits or ticket.instant + self.period <= instant:
            return False
        self.hits.remove(ticket)
        return True


class FixedHits(Hits):
    """The window begins at the first hit. One period later all hits are dropped."""

    def total(self, instant: int) -> int:
        return sum(hit.cost for hit in self.hits if instant < hit.instant + self.period)

    def empty_from(self, instant: int) -> int:
        return self.opened + self.period if self.total(instant) else instant

    def changes(self, instant: int) -> Sequence[int]:
        return [self.opened + self.period]

    def begin(self, instant: int) -> int:
        if not self.hits:
            self.opened = instant
        return self.opened

    def give(self, instant: int, ticket: Ticket) -> bool:
        if ticket.era != self.era or self.total(instant) < ticket.cost:
            return False
        self.hits.append(Ticket(self.opened, -ticket.cost, self.era))
        return True


class SlidingHits(Hits):
    """Time is divided into periods from the first hit on. Hits of the previous period count by its remaining overlap."""

    def cell(self, instant: int) -> int:
        """The start of the period that contains this instant."""
        if instant < self.opened + self.period:
            return self.opened
        return instant - (instant - self.opened) % self.period

    def within(self, cell: int) -> int:
        """The hits of one period."""
        return sum(hit.cost for hit in self.hits if hit.instant == cell)

    def total(self, instant: int) -> int:
        cell = self.cell(instant)
        overlap = min(cell + self.period - instant, self.period)
        return self.within(cell - self.period) * overlap // self.period + self.within(cell)

    def empty_from(self, instant: int) -> int:
        cell = self.cell(instant)
        if self.within(cell):
            return cell + 2 * self.period
        return cell + self.period if self.within(cell - self.period) else instant

    def changes(self, instant: int) -> Sequence[int]:
        cell = self.cell(instant)
        return _Joined(
            _Steps(cell, self.period, self.within(cell - self.period)),
            _Steps(cell + self.period, self.period, self.within(cell)),
        )

    def edges(self, instant: int) -> list[int]:
        cell = self.cell(instant)
        return [cell + self.period, cell + 2 * self.period]

    def ends(self, instant: int) -> Sequence[int]:
        return self.edges(instant)

    def begin(self, instant: int) -> int:
        self.opened = self.cell(instant) if self.hits else instant
        return self.opened

    def give(self, instant: int, ticket: Ticket) -> bool:
        cell = self.cell(instant)
        if ticket.era != self.era or ticket.instant not in {cell, cell - self.period}:
            return False
        if self.within(ticket.instant) < ticket.cost:
            return False
        self.opened = cell
        self.hits.append(Ticket(ticket.instant, -ticket.cost, self.era))
        return True


@dataclass
class _Steps:
    """The instants in one period at which `previous * overlap // period` falls to its next lower value."""

    cell: int
    period: int
    previous: int

    def __len__(self) -> int:
        return self.previous

    def __getitem__(self, index: int) -> int:
        value = self.previous - index
        # The weight falls below `value` when the overlap falls below value/previous of the period.
        enough = -(-value * self.period // self.previous)
        return self.cell + self.period - enough + 1


@dataclass
class _Joined:
    first: Sequence[int]
    second: Sequence[int]

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> int:
        if index >= len(self):
            raise IndexError(index)
        return self.first[index] if index < len(self.first) else self.second[index - len(self.first)]


@dataclass
class Paused(Hits):
    """A pause: an instant up to which nothing fits, and no hits."""

    until: int = 0

    def pause(self, until: int) -> int:
        """Pause until this instant, or longer if it is paused for longer already."""
        self.until = max(self.until, until)
        return self.until

    def total(self, instant: int) -> int:
        return int(instant < self.until)

    def empty_from(self, instant: int) -> int:
        return max(self.until, instant)

    def changes(self, instant: int) -> Sequence[int]:
        return [self.until]

    def first_fit(self, instant: int, amount: int, cost: int) -> int:
        return self.until if instant < self.until else FITS

    def give(self, instant: int, ticket: Ticket) -> bool:
        return False


KINDS = {
    "moving-window": MovingHits, "fixed-window": FixedHits, "sliding-window-counter": SlidingHits, "pause": Paused,
}  # fmt: skip


class Model:
    """A storage whose clock the test sets. `acquire`, `acquire_many`, `peek`, `release`, `forget` and `pause` are always exact."""

    def __init__(self) -> None:
        self.now = 0
        self.windows: dict[str, Hits] = {}
        self._fresh = count()

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        said = []
        for window, hits in self._each(windows, keys):
            fits = hits.first_fit(self.now, window.amount, cost)
            said.append(
                Said(
                    hits.total(self.now),
                    FITS if window.mode == Mode.FORCE else fits,
                    hits.empty_from(self.now),
                    None,
                )
            )
        refused = [
            window
            for window, one in zip(windows, said, strict=True)
            if window.mode == Mode.ENFORCE and one.retry_at != FITS
        ]
        return Verdict(not refused, self.now, said)

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        seen = self.peek(windows, keys, cost)
        if not seen.granted:
            return seen
        said = []
        for (window, hits), before in zip(self._each(windows, keys), seen.said, strict=True):
            room = 2 * window.amount if window.mode == Mode.FORCE else window.amount
            if not isinstance(hits, Paused) and before.count + cost <= room:
                ticket = hits.hit(self.now, cost, next(self._fresh))
                said.append(Said(hits.total(self.now), FITS, hits.empty_from(self.now), ticket))
            else:
                said.append(before)
        return Verdict(True, self.now, said)

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        return [self.acquire(*request) for request in requests]

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tickets: Sequence[Ticket | None]
    ) -> bool:
        given = [
            hits.give(self.now, ticket)
            for (_, hits), ticket in zip(self._each(windows, keys), tickets, strict=True)
            if ticket is not None
        ]
        return any(given)

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        held = [hits.empty_from(self.now) > self.now for _, hits in self._each(windows, keys)]
        for key in keys:
            self.windows.pop(key, None)
        return sum(held)

    def pause(self, window: Window, key: str, duration: int) -> int:
        [(_, paused)] = self._each([window], [key])
        assert isinstance(paused, Paused)
        return paused.pause(self.now + duration)

    def moments(self, keys: Iterable[str]) -> list[int]:
        """The future instants at which something changes in these windows. Tests move the clock to them."""
        return sorted(
            {
                moment
                for key in keys
                if (hits := self.windows.get(key)) and hits.empty_from(self.now) > self.now
                for moment in (*hits.changes(self.now), *hits.edges(self.now), hits.empty_from(self.now))
                if moment > self.now
            }
        )

    def last_end(self, keys: Iterable[str], until: int) -> int:
        """The last instant up to `until` at which a hit runs out in these windows; 0 if none does."""
        kept = [hits for key in keys if (hits := self.windows.get(key))]
        return max((end for hits in kept for end in hits.ends(self.now) if end <= until), default=0)

    def _each(self, windows: Sequence[Window], keys: Sequence[str]) -> list[tuple[Window, Hits]]:
        return [
            (window, self.windows.setdefault(key, KINDS[window.strategy](window.period)))
            for window, key in zip(windows, keys, strict=True)
        ]


def plain(answer: Verdict) -> tuple[bool, int, list[tuple[int, int, int, bool]]]:
    """An answer of a storage or of the model, without the tokens, which look different for each storage."""
    readings: Sequence[Reading | Said] = answer.said if isinstance(answer, Verdict) else answer.readings
    return answer.granted, answer.now, [(*reading[:3], reading[3] is not None) for reading in readings]
