"""What time it is for windows in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.storage.engine import ticking
from ratelimited_notify.storage.memory.packed import LOWEST

if TYPE_CHECKING:
    from collections.abc import Callable


class IrregularClock(Exception):
    """The caller's clock says less than it did, or more than fits into a number."""


# With the longest period there is behind it, it fits into a digit.
_LAST = LOWEST // 2


class MemoryClock:
    """Ticks of a thousandth of a microsecond, no two alike.

    Arguments:
        clock: a callable that gives seconds; by default this machine's time, which never runs backwards.
    """

    __slots__ = ("_latest", "_ticks", "forward", "origin")

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._ticks, self.origin = ticking(clock)
        self._latest = 0
        self.forward = self._ticks if clock is None else self._forward
        """A tick behind all others; `IrregularClock` where the clock does not give one."""

    def tick(self) -> int:
        """What the clock says."""
        tick = self._ticks()
        self._latest = max(tick, self._latest)
        return tick + self.origin

    def _forward(self) -> int:
        tick = self._ticks()
        if not self._latest < tick <= _LAST:
            raise IrregularClock
        self._latest = tick
        return tick
