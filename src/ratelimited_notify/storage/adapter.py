"""An adapter for any other storage of `limits` (MongoDB, a third party's, a stock object), with a weaker guarantee.

`limits` hits one window at a time, so several windows are not taken all or none here. All windows are tested, then hit in
order. A caller that loses a race in between may leave the earlier hits spent. Hits are never given back, and rules are never
paused: `limits` has no method for it.

The logic is written once, as generators that yield one call after another. The two classes make the calls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemcachedStorage as AsyncMemcachedStorage
from limits.aio.strategies import STRATEGIES as ASYNC_STRATEGIES
from limits.storage import MemcachedStorage
from limits.strategies import STRATEGIES

from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.pickling import NotPickled
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, NEVER, Mode, Reading, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from limits.aio.storage import Storage as AsyncLimitsStorage
    from limits.aio.strategies import RateLimiter as AsyncRateLimiter
    from limits.storage import Storage as LimitsStorage
    from limits.strategies import RateLimiter

    from ratelimited_notify.windows.strategies import Request, Token, Window, WindowKind

T = TypeVar("T")

Calls: TypeAlias = Generator[Callable[[], Any], Any, T]  # Any: each method of limits returns something else

_SOON = MICROSECONDS // 1000
_MEMCACHED_LONGEST = 30 * 24 * 3600


class Adapter(NotPickled):
    """A storage of `limits` behind the interface that the limiter needs. `exact` is False.

    The adapter does not limit how long a call takes: give the storage's client a time-out.

    Arguments:
        storage: a synchronous storage of `limits`. `close` does not close it.
    """

    exact = False

    def __init__(self, storage: LimitsStorage) -> None:
        self.storage = storage
        """The storage of `limits` itself."""
        self._limiters = _Limiters(storage, STRATEGIES)

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._run(_acquire(self._limiters.places(windows, keys), cost))

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        return [self.acquire(*request) for request in requests]

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._run(_peek(self._limiters.places(windows, keys), cost))

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return False

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self._run(_forget(self._limiters.places(windows, keys)))

    def pause(self, window: Window, key: str, duration: int) -> int:
        raise _no_pauses(self.storage)

    def close(self) -> None:
        """Does nothing: the code that opened the storage closes it."""

    def _run(self, calls: Calls[T]) -> T:
        answer = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            try:
                answer = call()
            except Exception as error:  # noqa: BLE001  # a storage that others wrote may raise anything
                raise _failed(self.storage, error) from None


class AsyncAdapter(NotPickled):
    """`Adapter` for a storage of `limits.aio`."""

    exact = False

    def __init__(self, storage: AsyncLimitsStorage) -> None:
        self.storage = storage
        """The storage of `limits.aio` itself."""
        self._limiters = _Limiters(storage, ASYNC_STRATEGIES)

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(_acquire(self._limiters.places(windows, keys), cost))

    async def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        return [await self.acquire(*request) for request in requests]

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(_peek(self._limiters.places(windows, keys), cost))

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return False

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return await self._run(_forget(self._limiters.places(windows, keys)))

    async def pause(self, window: Window, key: str, duration: int) -> int:
        raise _no_pauses(self.storage)

    async def close(self) -> None:
        """Does nothing: the code that opened the storage closes it."""

    async def _run(self, calls: Calls[T]) -> T:
        answer = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            try:
                answer = await call()
            except Exception as error:  # noqa: BLE001  # a storage that others wrote may raise anything
                raise _failed(self.storage, error) from None


class _Item(RateLimitItemPerSecond):
    """A limit of `limits` with a ready-made key."""

    __slots__ = ["_key"]

    def __init__(self, amount: int, seconds: int, key: str) -> None:
        super().__init__(amount, seconds)
        self._key = key

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return self._key


class _Place(NamedTuple):
    """One window of a request, with its item and strategy in `limits`."""

    window: Window
    item: _Item
    limiter: RateLimiter | AsyncRateLimiter | None
    """None for the pause of a rule, of which `limits` knows nothing."""


class _Limiters:
    """The strategies of `limits` on one storage."""

    def __init__(
        self,
        storage: LimitsStorage | AsyncLimitsStorage,
        strategies: Mapping[str, Callable[[Any], RateLimiter | AsyncRateLimiter]],  # Any: limits' own union of storages
    ) -> None:
        self._storage = storage
        self._strategies = strategies
        self._known: dict[WindowKind, RateLimiter | AsyncRateLimiter] = {}

    def places(self, windows: Sequence[Window], keys: Sequence[str]) -> list[_Place]:
        return list(self._places(windows, keys))

    def _places(self, windows: Sequence[Window], keys: Sequence[str]) -> Iterator[_Place]:
        for window, key in zip(windows, keys, strict=True):
            if window.strategy == "pause":
                yield _Place(window, _Item(0, 1, key), None)
                continue
            limiter = self._known.get(window.strategy)
            if limiter is None:
                limiter = self._known[window.strategy] = self._limiter(window)
            seconds = -(-window.period // MICROSECONDS)
            self._refuse_too_long(window, seconds)
            # A forced hit counts up to twice the amount: it fits under a limit of twice the amount.
            amount = window.amount * 2 if window.mode is Mode.FORCE else window.amount
            yield _Place(window, _Item(amount, seconds, key), limiter)

    def _limiter(self, window: Window) -> RateLimiter | AsyncRateLimiter:
        try:
            return self._strategies[window.strategy](self._storage)
        except NotImplementedError:
            raise NotifyError(
                f"The rule {window.rule!r} counts by {window.strategy}, which {_name(self._storage)} cannot do. "
                "Give the rule another strategy=, 'fixed-window' works on every storage, or use a storage of this "
                "library itself: memory://, redis://host:port/0 or memcached://host:port."
            ) from None

    def _refuse_too_long(self, window: Window, seconds: int) -> None:
        if not isinstance(self._storage, (MemcachedStorage, AsyncMemcachedStorage)):
            return
        lives = 2 * seconds if window.strategy == "sliding-window-counter" else seconds
        if lives > _MEMCACHED_LONGEST:
            raise NotifyError(
                f"The rule {window.rule!r} would limit nothing: {_name(self._storage)} of limits immediately forgets what "
                "it should keep for more than 30 days. Pass its URI instead, memcached://host:port, which opens the "
                "storage of this library."
            )


def _acquire(places: Sequence[_Place], cost: int) -> Calls[Verdict]:
    fits = yield from _tested(places, cost)
    granted = _all_granted(places, fits)
    if granted:
        for index, (window, item, limiter) in enumerate(places):
            if fits[index] and limiter is not None:
                fits[index] = yield partial(limiter.hit, item, cost=cost)
                if not fits[index] and window.mode is Mode.ENFORCE:
                    # Another caller took the last room. The hits before this one stay spent.
                    granted = False
                    break
    return (yield from _verdict(places, cost, fits, granted=granted))


def _peek(places: Sequence[_Place], cost: int) -> Calls[Verdict]:
    fits = yield from _tested(places, cost)
    return (yield from _verdict(places, cost, fits, granted=_all_granted(places, fits)))


def _forget(places: Sequence[_Place]) -> Calls[int]:
    forgotten = 0
    for _, item, limiter in places:
        if limiter is None:
            continue
        stats = yield partial(limiter.get_window_stats, item)
        yield partial(limiter.clear, item)
        forgotten += stats.remaining < item.amount
    return forgotten


def _tested(places: Sequence[_Place], cost: int) -> Calls[list[bool]]:
    fits: list[bool] = []
    for _, item, limiter in places:
        fits.append(limiter is None or (cost <= item.amount and (yield partial(limiter.test, item, cost=cost))))
    return fits


def _all_granted(places: Sequence[_Place], fits: Sequence[bool]) -> bool:
    return all(fit or place.window.mode is not Mode.ENFORCE for place, fit in zip(places, fits, strict=True))


def _verdict(places: Sequence[_Place], cost: int, fits: Sequence[bool], *, granted: bool) -> Calls[Verdict]:
    """The verdict with the windows' state after the decision, as far as `limits` reports it."""
    readings: list[Reading] = []
    now = round(time.time() * MICROSECONDS)
    for (window, item, limiter), fit in zip(places, fits, strict=True):
        if limiter is None:
            readings.append(Reading(0, FITS, now, None))
            continue
        stats = yield partial(limiter.get_window_stats, item)
        count = item.amount - stats.remaining
        # limits reports when a window will have more room, not when this cost fits: a caller may have to retry more than once.
        eased_at = max(math.ceil(stats.reset_time * MICROSECONDS), now + _SOON)
        if fit or window.mode is Mode.FORCE:
            retry_at = FITS
        else:
            retry_at = NEVER if cost > window.amount else eased_at
        readings.append(Reading(count, retry_at, _empty_at(window, count, now, eased_at), None))
    return Verdict(granted, now, readings)


def _empty_at(window: Window, count: int, now: int, eased_at: int) -> int:
    """The latest instant at which the window is empty. `limits` reports the exact one for fixed windows only."""
    if not count:
        return now
    if window.strategy == "fixed-window":
        return eased_at
    return now + window.period * (2 if window.strategy == "sliding-window-counter" else 1)


def _no_pauses(storage: LimitsStorage | AsyncLimitsStorage) -> NotifyError:
    return NotifyError(
        f"{_name(storage)} of limits keeps no pauses. Use a storage of this library: memory://, redis://host:port/0 or "
        "memcached://host:port."
    )


def _failed(storage: LimitsStorage | AsyncLimitsStorage, error: Exception) -> StorageError:
    # The error's own message may show an address with a password, or a key with a recipient.
    return StorageError(
        f"{_name(storage)} failed with {type(error).__name__}. Whether the hit was counted is unknown. "
        "Is its server running and reachable? Call the storage's check() to find out."
    )


def _name(storage: LimitsStorage | AsyncLimitsStorage) -> str:
    return type(storage).__name__
