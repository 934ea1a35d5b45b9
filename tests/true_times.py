"""A log of what was admitted and when, by the clock of the callers, checked against the limits while it is written."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

_TOLERANCE = 0.005
"""How much the clock of a server may run differently from ours within one period, in seconds."""


class Admission(NamedTuple):
    """A hit that was admitted. It was decided at some time between the start and the end of the call, in seconds."""

    start: float
    end: float


class TrueTimes:
    """Checks that in no true period more was admitted than the limit.

    More than the limit was admitted for certain if so many calls began and ended within one period. Only what the check
    still needs is kept.

    Arguments:
        late: how long a call can take, in seconds: longer ago nothing more comes.
    """

    def __init__(self, late: float = 3.0) -> None:
        self._late = late
        self._lock = threading.Lock()
        self._logs: defaultdict[tuple[Hashable, int, float], list[Admission]] = defaultdict(list)
        self.number = 0
        """How many admissions were checked."""
        self.most: dict[int, int] = {}
        """By limit, the most that was admitted for certain in one period."""
        self.wrong: list[str] = []

    def add(self, window: Hashable, limit: int, period: float, start: float, end: float) -> None:
        """Note an admission in a window with this limit in this period of seconds."""
        with self._lock:
            self._logs[window, limit, period].append(Admission(start, end))

    def check(self, now: float) -> None:
        """Check everything that was admitted long enough ago."""
        with self._lock:
            logs = {key: log.copy() for key, log in self._logs.items()}
        for (window, limit, period), log in logs.items():
            log.sort()
            done = [one for one in log if one.start < now - self._late]
            most = _most(done, period - _TOLERANCE)
            self.most[limit] = max(most, self.most.get(limit, 0))
            if most > limit:
                self.wrong.append(f"{most} admitted of {limit} in {period} s: {window}")
            # What began within one period and the longest call before the others is still needed.
            kept = now - 2 * self._late - period
            with self._lock:
                rest = self._logs[window, limit, period]
                gone = sum(one.start < kept for one in rest)
                rest[:] = [one for one in rest if one.start >= kept]
                self.number += gone
                if not rest:
                    del self._logs[window, limit, period]


def _most(log: list[Admission], period: float) -> int:
    """The most calls that began and ended within one period. The log is in the order of the starts."""
    most = 0
    for at, first in enumerate(log):
        inside = 0
        for one in log[at:]:
            if one.start >= first.start + period:
                break
            inside += one.end < first.start + period
        most = max(most, inside)
    return most
