"""The callers of this process that wait for a window: one line for each window, first come, first served.

Only the first of a line asks the limiter. There is no lock: each change is one step of a dict, so an interrupt, a fork or a
finalizer leaves nothing locked. A caller that is interrupted before it could call the next one, or that belongs to an event
loop that stopped, does not hold up the others for long: those behind it watch it.
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left, insort
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from weakref import ref

from ratelimited_notify.forking import in_children

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Place: TypeAlias = tuple[object, str, int]
"""A window: its storage, its key, and the amount of its limit. Callers with another amount wait in another line."""

GRACE = 2.0
"""Seconds that the first of a line may be late before the next one passes it. Asking a storage takes less."""

_FARTHEST = 8
"""How many may be ahead of a caller until it looks at the first one as seldom as all those behind it."""

_tickets = itertools.count(1)


class Timing(NamedTuple):
    """The time by which the callers of a limiter wait, in seconds."""

    now: Callable[[], float]
    has_sleep: bool
    """Whether the limiter's clock has a `sleep` of its own."""


class Waiter:
    """A caller that waits.

    Arguments:
        wake: wakes the caller, from any thread; returns False if that is impossible, because its event loop is closed.
        seen: the newest change (`changes.latest`) before it asked for the first time.
    """

    __slots__ = ("__weakref__", "_has_passed", "_seen", "_wake", "due", "hurries", "place", "ticket")

    def __init__(self, wake: Callable[[], bool], seen: object) -> None:
        self._wake = wake
        self._seen = seen
        self._has_passed = False
        self.ticket = next(_tickets)
        """Who came first: the lower one. It stays the same when the caller changes to another line."""
        self.place: Place | None = None
        self.hurries = False
        """Whether to ask as soon as it is first, because there may be room now."""
        self.due: float | None = None
        """When the first of a line will have asked, by `time.monotonic`."""

    def asks(self) -> None:
        """Note that it asks now, so that it will know of every change up to here."""
        self.hurries, self.due, self._seen = False, time.monotonic(), changes.latest

    def line_up(self, place: Place) -> None:
        """Wait for this window from now on, in the order of arrival."""
        if self.place is not None and self.place != place:
            self.leave(freed=True)
        self.place = place
        while self.ticket not in (line := lines.setdefault(place, Line())):
            line.add(_entry(self, place))
            if lines.get(place) is not line:
                # The line has just ended.
                line.take_out(self.ticket)
            elif self._seen is not changes.latest:
                # There was a change since it asked, when it could not be called yet.
                self.hurries = True

    def leave(self, *, freed: bool) -> None:
        """Wait no longer, and call the next one.

        Arguments:
            freed: whether the next one should ask at once, even if its own pause is not over.
        """
        place = self.place
        if place is not None:
            _take_out(place, self.ticket, freed=freed)
            self.place = None

    def is_first(self) -> bool:
        """Whether it may ask. This is also true for a caller that was passed."""
        line = None if self.place is None else lines.get(self.place)
        return line is None or self.ticket not in line or line.first() in (self.ticket, None)

    def call(self, *, freed: bool) -> bool:
        """Tell the caller to check whether it is first. Returns False if nobody is there."""
        # The one in front of it may have left without making use of a change.
        if freed or self._seen is not changes.latest:
            self.hurries = True
        self.due = time.monotonic()
        return self._wake()

    def watch_after(self, now: float) -> float:
        """In how many seconds to `watch` the first one. Those further behind wait longer, up to a bound."""
        line = None if self.place is None else lines.get(self.place)
        # Only a few of a long line look at the first one at a time, unless somebody was found to be gone.
        ahead = 1 if self._has_passed or line is None else bisect_left(line.order, self.ticket)
        first = None if self.place is None else _first(self.place)
        due = now if first is None or first.due is None else first.due
        # Bounded, because it is not computed again when the line moves on.
        return max(0.0, due - now) + GRACE * min(max(1, ahead), _FARTHEST)

    def watch(self, now: float) -> None:
        """Pass the first of the line if it should have asked long ago."""
        first = None if self.place is None else _first(self.place)
        self._has_passed = False
        if first is None or first is self or self.place is None:
            return
        if first.due is None:
            first.due = now
        elif now >= first.due + GRACE:
            self._has_passed = True
            _take_out(self.place, first.ticket, freed=True)


class _Entry(ref[Waiter]):
    """A waiter in a line. If the waiter is gone without having left, the line goes on."""

    __slots__ = ("place", "ticket")
    place: Place
    ticket: int


def _entry(waiter: Waiter, place: Place) -> _Entry:
    entry = _Entry(waiter, _gone)
    entry.place, entry.ticket = place, waiter.ticket
    return entry


class Line(dict[int, _Entry]):
    """The waiters of one window by ticket. It stays fast with thousands of them."""

    __slots__ = ("order",)

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []
        """The tickets, lowest first. One that is only here has left."""

    def add(self, entry: _Entry) -> None:
        """Let this waiter wait, too."""
        # In this order: a ticket in `order` that has no entry may be removed at any time.
        self[entry.ticket] = entry
        insort(self.order, entry.ticket)

    def take_out(self, ticket: int) -> None:
        """Let the waiter with this ticket wait no longer, if it is here."""
        self.pop(ticket, None)
        self._drop(ticket)

    def first(self) -> int | None:
        """The lowest ticket; None if nobody waits."""
        while ticket := next(iter(self.order), None):
            if ticket in self:
                return ticket
            self._drop(ticket)
        return None

    def _drop(self, ticket: int) -> None:
        with suppress(ValueError):
            self.order.remove(ticket)


lines: dict[Place, Line] = {}
"""The lines by window. A line ends with its last waiter, so this is empty as long as nobody waits."""

in_children(lines.clear)


class _Changes:
    __slots__ = ("latest",)

    def __init__(self) -> None:
        self.latest = object()
        """Another object after each change by which there may be room: something was given back, or the rules changed."""


changes = _Changes()


def call_first(storage: object, keys: Collection[str] | None = None) -> None:
    """Let the first of each line ask now, because there may be room: something was given back, or the rules have changed.

    Arguments:
        storage: the storage of the windows, as in their `Place`.
        keys: the keys of the windows; None for all of this storage.
    """
    for place in list(lines):
        if place[0] == storage and (keys is None or place[1] in keys):
            _call_first(place, freed=True)


def _gone(entry: _Entry) -> None:
    _take_out(entry.place, entry.ticket, freed=True)


def _take_out(place: Place, ticket: int, *, freed: bool) -> None:
    _remove(place, ticket)
    first = _first(place)
    # If the new first one came later, it was behind the one that was taken out.
    if first is not None and first.ticket > ticket:
        _call_first(place, freed=freed)


def _call_first(place: Place, *, freed: bool) -> None:
    while (first := _first(place)) is not None and not first.call(freed=freed):
        _remove(place, first.ticket)


def _first(place: Place) -> Waiter | None:
    while (line := lines.get(place)) and (ticket := line.first()):
        entry = line.get(ticket)
        waiter = None if entry is None else entry()
        if waiter is not None:
            return waiter
        _remove(place, ticket)
    return None


def _remove(place: Place, ticket: int) -> None:
    line = lines.get(place)
    if line is None:
        return
    line.take_out(ticket)
    if line:
        return
    ended = lines.pop(place, None)
    if ended:
        # Somebody has lined up in between.
        kept = lines.setdefault(place, ended)
        if kept is not ended:
            for entry in list(ended.values()):
                kept.add(entry)
