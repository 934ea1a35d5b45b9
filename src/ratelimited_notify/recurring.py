"""An event that may happen thousands of times, and when to report it: the first at once, then how many more there were.

Nothing here does I/O, starts a thread or takes a lock: a lock left locked by an interrupt or a fork would block every caller. Each
report has one successor, set by `dict.setdefault`, which is one atomic step, and so is counting with `itertools.count`.
"""

from __future__ import annotations

import time
from itertools import count, islice
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = 10.0
"""Seconds between two reports."""


class Report(NamedTuple):
    """Report that the event happened."""

    number: int
    """How often it happened since the last report."""
    first: bool
    """Whether this is the first report since the event was over."""


class End(NamedTuple):
    """Report that the event is over."""

    number: int
    """How often it happened since it was over the last time."""
    seconds: float
    """How long ago the first of these was."""


class _Reported:
    """The last report. All of it stays as it is, except for the report that follows."""

    __slots__ = ("at", "counted", "next", "open", "total")

    def __init__(self, at: float, counted: int, total: int, *, open: bool) -> None:
        self.at = at
        self.counted = counted
        """How many events there had been, ever."""
        self.total = total
        """How many events have been reported since the last end."""
        self.open = open
        """Whether an end has to be reported, too."""
        self.next: dict[None, _Reported] = {}


class RecurringEvent:
    """Counts an event, and says when to report it: at once if it is new, later at most once in `every` seconds, with the
    number since the last report, and once when it is over.

    No event gets lost: each is in one of the numbers, at the latest in that of the end. Any thread may use it. While
    nothing happens, the only cost is to read `ongoing`.

    Arguments:
        every: the seconds between two reports, 10 by default. An end is reported at once if something was reported since
            the last end, otherwise after these seconds. So in any such time there is one report and one end at most.
        clock: a callable that returns seconds. By default the monotonic clock.
    """

    __slots__ = ("_clock", "_every", "_numbers", "_reported", "_since", "ongoing")

    def __init__(self, every: float = EVERY, clock: Callable[[], float] = time.monotonic) -> None:
        self.ongoing = False
        """Whether `ended` has to be called when the event has not happened, although it could have."""
        self._every = every
        self._clock = clock
        # Each event draws a number.
        self._numbers = count()
        self._since = 0.0
        self._reported = _Reported(-inf, 0, 0, open=False)

    def count(self, times: int = 1) -> None:
        """Note that it happened, without a report. The next report includes it."""
        if not self.ongoing:
            self._since = self._clock()
        # As many numbers as there were events, all drawn in one step.
        next(islice(self._numbers, times - 1, times), None)
        self.ongoing = True

    def happened(self, times: int = 1) -> Report | None:
        """Note that it happened.

        Arguments:
            times: how often, 1 or more.

        Returns:
            What to report, if it is time for a report.
        """
        self.count(times)
        last, now = self._last(), self._clock()
        if self._is_early(last.at, now):
            return None
        number = self._report(last, now, open=True)
        if number is None:
            return None
        # Once more: `ended` may have reset it meanwhile.
        self.ongoing = True
        return Report(number, not last.open) if number else None

    @property
    def unreported(self) -> bool:
        """Whether it happened since the last report."""
        return self._counted() != self._last().counted

    def due(self) -> Report | None:
        """What to report about what has only been counted, if it is time for that."""
        last, now = self._last(), self._clock()
        if self._is_early(last.at, now):
            return None
        return self.rest()

    def rest(self) -> Report | None:
        """What to report about what has only been counted, whether it is time for that or not."""
        last, now = self._last(), self._clock()
        # Without this, a report of nothing would put off the next one.
        if not self.unreported:
            return None
        number = self._report(last, now, open=True)
        return Report(number, not last.open) if number else None

    def ended(self) -> End | None:
        """Note that it has not happened this time. Only needed while it is `ongoing`.

        Returns:
            What to report, if it is time to report the end.
        """
        last, now = self._last(), self._clock()
        if not last.open and self._is_early(last.at, now):
            return None
        since = self._since
        # First: an event that happens from here on sets it again.
        self.ongoing = False
        new = self._report(last, now, open=False)
        if new is None:
            self.ongoing = True
            return None
        number = last.total + new
        return End(number, max(0.0, now - since)) if number else None

    def _report(self, last: _Reported, now: float, *, open: bool) -> int | None:
        """Make the report that follows the last one. Returns how many events are new in it; None if another caller made it."""
        counted = self._counted()
        number = counted - last.counted
        total = last.total + number if open else 0
        # If there is nothing to report, the next event is reported at once.
        report = _Reported(now if number or last.total else last.at, counted, total, open=open and total > 0)
        made = last.next.setdefault(None, report)
        self._reported = made
        return number if made is report else None

    def _last(self) -> _Reported:
        """The last report. A caller that was slow may have put an older one in its place."""
        last = self._reported
        while last.next:
            last = last.next[None]
        return last

    def _counted(self) -> int:
        """How many events there have been."""
        # Drawing a number would count an event.
        return int(repr(self._numbers)[len("count(") : -1])

    def _is_early(self, before: float, now: float) -> bool:
        # A clock that was set back must not silence the reports.
        return 0 <= now - before < self._every
