"""The clock of windows in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.storage.engine import ticking
from ratelimited_notify.storage.memory.packed import LOWEST

if TYPE_CHECKING:
    from collections.abc import Callable


class IrregularClock(Exception):
    """The caller's clock went backwards, or returned more than fits into a number."""


# Up to here a tick plus the longest period fits into a digit.
_LAST = LOWEST // 2


class MemoryClock:
    """Ticks of a thousandth of a microsecond. No tick is returned twice.

    Arguments:
        clock: a callable that returns seconds; by default this machine's time, which never runs backwards.
    """

    __slots__ = ("_latest", "_ticks", "forward", "origin")

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._ticks, self.origin = ticking(clock)
        self._latest = 0
        self.forward = self._ticks if clock is None else self._forward
        """Returns a tick later than all earlier ones, or raises `IrregularClock` if the clock has none."""

    def tick(self) -> int:
        """The clock's current tick, since 1970."""
        tick = self._ticks()
        self._latest = max(tick, self._latest)
        return tick + self.origin

    def _forward(self) -> int:
        tick = self._ticks()
        if not self._latest < tick <= _LAST:
            raise IrregularClock
        self._latest = tick
        return tick
