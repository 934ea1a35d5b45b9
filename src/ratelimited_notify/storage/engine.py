"""The storage methods of `limits`, implemented by this library's storages, so that any `limits` strategy runs on them.

`limits` has one method per strategy (`incr`, `acquire_entry`, `acquire_sliding_window_entry`). Here each is a hit in one
window. The methods keep their meaning in `limits`: there a refused fixed-window hit counts, so `incr` always counts.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from limits.aio.storage import (
    MovingWindowSupport as AsyncMovingWindowSupport,
    SlidingWindowCounterSupport as AsyncSlidingWindowCounterSupport,
)
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport

from ratelimited_notify.callables import check_is_called_only, close_coroutine
from ratelimited_notify.errors import StorageError
from ratelimited_notify.pickling import NotPickled
from ratelimited_notify.windows.keys import foreign
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, NEVER, Mode, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import StrategyName, Verdict

# So large that a forced hit is always counted, as `incr` requires.
_UNLIMITED = 2**48

# Seconds. Two readings of a clock with this resolution always differ.
_FINE = 2e-9


def ticking(clock: Callable[[], float] | None) -> tuple[Callable[[], int], int]:
    """A function that returns nanoseconds, never the same number twice, and the offset to add for the time since 1970. The
    source is a clock in seconds or, with None, this machine's clock.

    The machine's time is the wall time at the start of the process plus the time since, including suspension: a step of the
    wall clock neither opens nor closes a window. A clock in seconds is used to the microsecond; its nanoseconds are a counter.
    """
    if clock is not None:
        check_is_called_only(clock, "clock=")
        seconds, numbers = (_current_time if _is_time(clock) else clock), count()

        def nanoseconds() -> int:
            now = seconds()
            try:
                return round(now * MICROSECONDS) * 1000 + next(numbers) % 1000
            except TypeError:
                close_coroutine(now)
                raise TypeError(
                    f"clock= returned a {type(now).__name__}; it must return seconds as a number, as time.time does."
                ) from None

        return nanoseconds, 0
    source = getattr(time, "CLOCK_BOOTTIME", None)
    if source is not None and time.clock_getres(source) <= _FINE:
        ticks = partial(time.clock_gettime_ns, source)
        return ticks, time.time_ns() - ticks()
    read, numbers = time.monotonic_ns, count()
    return lambda: read() // 1000 * 1000 + next(numbers) % 1000, time.time_ns() // 1000 * 1000 - read() // 1000 * 1000


def _is_time(clock: Callable[[], float]) -> bool:
    """Whether it is `time.time`, the real one or one that a test put in its place."""
    return clock is time.time or (getattr(clock, "__module__", ""), getattr(clock, "__name__", "")) == ("time", "time")


def _current_time() -> float:
    # Looked up at each call: a test may freeze the time after the limiter is made, and freezegun replaces the function.
    return time.time()


WALL_CLOCK = partial(time.time)
"""The wall clock of a storage whose caller passes no clock. Unlike `time.time`, it does not ask to follow freezegun."""


def bounded_clock(clock: Callable[[], float] | None) -> Callable[[], int]:
    """A function that returns the instant in whole microseconds, from the same source as `ticking`."""
    ticks, origin = ticking(clock)
    return lambda: (ticks() + origin) // 1000


def _window(strategy: StrategyName, limit: int, expiry: int, mode: Mode = Mode.ENFORCE) -> Window:
    return Window(strategy, limit, expiry * MICROSECONDS, mode, rule="limits")


def _counted(verdict: Verdict) -> int:
    return verdict.readings[0].count


def _resets(verdict: Verdict) -> float:
    return verdict.readings[0].reset_at / MICROSECONDS


def _sliding(verdict: Verdict) -> tuple[int, float, int, float]:
    # The count is weighted already. Together with an empty previous window it leads to the same verdicts.
    reading = verdict.readings[0]
    return 0, 0.0, reading.count, max(0, reading.reset_at - verdict.now) / MICROSECONDS


def _oldest(verdict: Verdict, expiry: int) -> float:
    """The instant of the window's oldest hit, derived from the instant at which one hit more than the limit would fit."""
    retry_at = verdict.readings[0].retry_at
    return retry_at / MICROSECONDS - expiry if FITS < retry_at < NEVER else verdict.now / MICROSECONDS


class LimitsVerbs(NotPickled, MovingWindowSupport, SlidingWindowCounterSupport):
    """The synchronous methods, for a class that is a `storage.base.Storage`."""

    @property
    def base_exceptions(self) -> type[Exception]:
        return StorageError

    def incr(self: Storage, key: str, expiry: int, amount: int = 1) -> int:
        window = _window("fixed-window", _UNLIMITED, expiry, Mode.FORCE)
        return _counted(self.acquire([window], [foreign(key, "fixed-window")], amount))

    def get(self: Storage, key: str) -> int:
        # A fixed window stores its end, so it can be read with any period.
        window = _window("fixed-window", _UNLIMITED, 1)
        return _counted(self.peek([window], [foreign(key, "fixed-window")], 1))

    def get_expiry(self: Storage, key: str) -> float:
        window = _window("fixed-window", _UNLIMITED, 1)
        return _resets(self.peek([window], [foreign(key, "fixed-window")], 1))

    def acquire_entry(self: Storage, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window = _window("moving-window", limit, expiry)
        return self.acquire([window], [foreign(key, "moving-window")], amount).granted

    def get_moving_window(self: Storage, key: str, limit: int, expiry: int) -> tuple[float, int]:
        windows, keys = [_window("moving-window", _UNLIMITED, expiry)], [foreign(key, "moving-window")]
        seen = self.peek(windows, keys, 1)
        if _counted(seen):
            seen = self.peek(windows, keys, _UNLIMITED - _counted(seen) + 1)
        return _oldest(seen, expiry), _counted(seen)

    def acquire_sliding_window_entry(self: Storage, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window = _window("sliding-window-counter", limit, expiry)
        return self.acquire([window], [foreign(key, "sliding-window-counter")], amount).granted

    def get_sliding_window(self: Storage, key: str, expiry: int) -> tuple[int, float, int, float]:
        window = _window("sliding-window-counter", _UNLIMITED, expiry)
        return _sliding(self.peek([window], [foreign(key, "sliding-window-counter")], 1))

    def clear_sliding_window(self: Storage, key: str, expiry: int) -> None:
        window = _window("sliding-window-counter", _UNLIMITED, expiry)
        self.forget([window], [foreign(key, "sliding-window-counter")])

    def clear(self: Storage, key: str) -> None:
        windows = [_window("fixed-window", _UNLIMITED, 1), _window("moving-window", _UNLIMITED, 1)]
        self.forget(windows, [foreign(key, window.strategy) for window in windows])


class AsyncLimitsVerbs(NotPickled, AsyncMovingWindowSupport, AsyncSlidingWindowCounterSupport):
    """The async methods, for a class that is a `storage.base.AsyncStorage`."""

    @property
    def base_exceptions(self) -> type[Exception]:
        return StorageError

    async def incr(self: AsyncStorage, key: str, expiry: int, amount: int = 1) -> int:
        window = _window("fixed-window", _UNLIMITED, expiry, Mode.FORCE)
        return _counted(await self.acquire([window], [foreign(key, "fixed-window")], amount))

    async def get(self: AsyncStorage, key: str) -> int:
        window = _window("fixed-window", _UNLIMITED, 1)
        return _counted(await self.peek([window], [foreign(key, "fixed-window")], 1))

    async def get_expiry(self: AsyncStorage, key: str) -> float:
        window = _window("fixed-window", _UNLIMITED, 1)
        return _resets(await self.peek([window], [foreign(key, "fixed-window")], 1))

    async def acquire_entry(self: AsyncStorage, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window = _window("moving-window", limit, expiry)
        return (await self.acquire([window], [foreign(key, "moving-window")], amount)).granted

    async def get_moving_window(self: AsyncStorage, key: str, limit: int, expiry: int) -> tuple[float, int]:
        windows, keys = [_window("moving-window", _UNLIMITED, expiry)], [foreign(key, "moving-window")]
        seen = await self.peek(windows, keys, 1)
        if _counted(seen):
            seen = await self.peek(windows, keys, _UNLIMITED - _counted(seen) + 1)
        return _oldest(seen, expiry), _counted(seen)

    async def acquire_sliding_window_entry(
        self: AsyncStorage, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        window = _window("sliding-window-counter", limit, expiry)
        return (await self.acquire([window], [foreign(key, "sliding-window-counter")], amount)).granted

    async def get_sliding_window(self: AsyncStorage, key: str, expiry: int) -> tuple[int, float, int, float]:
        window = _window("sliding-window-counter", _UNLIMITED, expiry)
        return _sliding(await self.peek([window], [foreign(key, "sliding-window-counter")], 1))

    async def clear_sliding_window(self: AsyncStorage, key: str, expiry: int) -> None:
        window = _window("sliding-window-counter", _UNLIMITED, expiry)
        await self.forget([window], [foreign(key, "sliding-window-counter")])

    async def clear(self: AsyncStorage, key: str) -> None:
        windows = [_window("fixed-window", _UNLIMITED, 1), _window("moving-window", _UNLIMITED, 1)]
        await self.forget(windows, [foreign(key, window.strategy) for window in windows])
