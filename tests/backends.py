"""Every backend, made to look alike: a storage, a clock to move, and a fresh world for each example.

A test takes the fixture `backend` and runs over all of them, sync and asyncio. Coroutines are driven on an event loop of
the backend's own, so that one test serves both.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify.windows.keys import rest_of, tag_of
from ratelimited_notify.windows.strategies import MICROSECONDS, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Mode, Request, StrategyName, Token, Verdict
    from servers import Valkey

SECOND = MICROSECONDS
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_WORLDS = count()

# Seconds: what these tests ask is what a storage says, not how soon, and the machine may be busy.
_PATIENCE = 20

STRATEGIES: tuple[StrategyName, ...] = ("moving-window", "fixed-window", "sliding-window-counter")


class Driven:
    """An asynchronous storage, called as if it were a synchronous one."""

    def __init__(self, storage: AsyncStorage) -> None:
        self.storage = storage
        self.loop = asyncio.new_event_loop()

    def run(self, awaitable: Any) -> Any:
        """What this awaitable returns."""
        return self.loop.run_until_complete(awaitable)

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self.run(self.storage.acquire(windows, keys, cost))

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        return self.run(self.storage.acquire_many(requests))

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self.run(self.storage.peek(windows, keys, cost))

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self.run(self.storage.release(windows, keys, cost, tokens))

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self.run(self.storage.forget(windows, keys))

    def close(self) -> None:
        self.run(self.storage.close())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()


class Backend:
    """One storage with a clock that stands still until it is moved.

    `storage` is synchronous, or a `Driven` one; `bare` is the storage itself, for the strategies of `limits`.
    """

    # Real backends keep real times to live beside the test's clock, so the test's clock begins near the real one.
    start = int(time.time()) * SECOND

    marks = True
    """Whether windows that begin within one microsecond are told apart when hits are given back. Where they are not, a
    clear or a release, and then a hit, have to be a microsecond apart, as on a real clock they always are."""

    def __init__(self, make: Callable[[Callable[[], float]], Any], *, asynchronous: bool) -> None:
        self._now = self.start
        self.asynchronous = asynchronous
        self.bare: Any = make(lambda: self._now / MICROSECONDS)
        self.storage: Storage = Driven(self.bare) if asynchronous else self.bare
        self.flush()

    def now(self) -> int:
        """The backend's instant, in microseconds."""
        return self._now

    def advance(self, microseconds: int) -> None:
        """Let time pass."""
        self._now += microseconds

    def flush(self) -> None:
        """A fresh world: no key that is made from now on was used before."""
        self.namespace = f"t{next(_WORLDS)}"

    def key(self, recipient: str, window: Window, name: str = "rule") -> str:
        """A key as the library makes it; windows of one name, strategy and period share it, whatever their amounts."""
        rest = rest_of([name, str(window.period)], window.strategy)
        return f"{self.namespace}:{{{tag_of(recipient)}}}:{rest}"

    def call(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a method of `limits` returns on `bare`: awaited where it is to be awaited."""
        result = verb(*arguments, **options)
        return self.storage.run(result) if isinstance(self.storage, Driven) else result

    def strategy(self, name: StrategyName) -> Any:
        """The plain strategy of `limits` on this storage."""
        if self.asynchronous:
            from limits.aio.strategies import STRATEGIES as BY_NAME
        else:
            from limits.strategies import STRATEGIES as BY_NAME
        return BY_NAME[name](self.bare)

    def close(self) -> None:
        self.storage.close()


def window(strategy: StrategyName, amount: int, period: int = MINUTE, **options: Mode | bool | str) -> Window:
    """A window; the period is in microseconds."""
    return Window(strategy, amount, period, rule="rule", **options)


def _memory(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.memory import MemoryStorage

    return Backend(lambda clock: MemoryStorage(clock=clock), asynchronous=False)


def _async_memory(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.memory import AsyncMemoryStorage

    return Backend(lambda clock: AsyncMemoryStorage(clock=clock), asynchronous=True)


class RedisBackend(Backend):
    """A storage on Redis whose scripts read the time from a key."""

    marks = False

    def __init__(self, valkey: Valkey, database: int, make: Callable[[str], Any], *, asynchronous: bool) -> None:
        self._client = valkey.client(db=database)
        uri = f"redis://{valkey.address}/{database}"
        super().__init__(lambda _: make(uri), asynchronous=asynchronous)
        self.advance(0)

    def advance(self, microseconds: int) -> None:
        super().advance(microseconds)
        self._client.set("test:clock", self._now)

    def close(self) -> None:
        super().close()
        self._client.flushdb()
        self._client.close()


_REDIS_CLOCK = "local now = tonumber(call('GET', 'test:clock'))"


def _redis(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.sync import RedisStorage

    class ClockedStorage(RedisStorage):
        _CLOCK_LUA = _REDIS_CLOCK

    valkey = request.getfixturevalue("valkey")
    return RedisBackend(valkey, 14, lambda uri: ClockedStorage(uri, timeout=_PATIENCE), asynchronous=False)


def _async_redis(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.aio import AsyncRedisStorage

    class ClockedStorage(AsyncRedisStorage):
        _CLOCK_LUA = _REDIS_CLOCK

    valkey = request.getfixturevalue("valkey")
    return RedisBackend(valkey, 15, lambda uri: ClockedStorage(uri, timeout=_PATIENCE), asynchronous=True)


def _memcached(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.memcached.sync import MemcachedStorage

    url = request.getfixturevalue("memcached").url
    return Backend(lambda clock: MemcachedStorage(url, clock=clock, timeout=_PATIENCE), asynchronous=False)


def _async_memcached(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage

    url = request.getfixturevalue("memcached").url
    return Backend(lambda clock: AsyncMemcachedStorage(url, clock=clock, timeout=_PATIENCE), asynchronous=True)


class ClusterBackend(Backend):
    """A storage on a cluster. A script may read no key of another slot, so the time stands in the scripts themselves."""

    marks = False

    def advance(self, microseconds: int) -> None:
        super().advance(microseconds)
        self._set()

    def flush(self) -> None:
        super().flush()
        self._set()

    def _set(self) -> None:
        from ratelimited_notify.storage.redis.scripts import Scripts

        self.bare._scripts = Scripts(f"local now = {self._now}")

    def close(self) -> None:
        self.call(self.bare.reset)
        super().close()


def _cluster(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.cluster import RedisClusterStorage

    url = request.getfixturevalue("cluster").url
    return ClusterBackend(lambda _: RedisClusterStorage(url, timeout=_PATIENCE), asynchronous=False)


def _async_cluster(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage

    url = request.getfixturevalue("cluster").url
    return ClusterBackend(lambda _: AsyncRedisClusterStorage(url, timeout=_PATIENCE), asynchronous=True)


def _sentinel(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage

    class ClockedStorage(RedisSentinelStorage):
        _CLOCK_LUA = _REDIS_CLOCK

    watched = request.getfixturevalue("watched")
    make = lambda _: ClockedStorage(watched.url, timeout=_PATIENCE, db=14)  # noqa: E731  # as the others
    return RedisBackend(watched.master(), 14, make, asynchronous=False)


def _async_sentinel(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage

    class ClockedStorage(AsyncRedisSentinelStorage):
        _CLOCK_LUA = _REDIS_CLOCK

    watched = request.getfixturevalue("watched")
    make = lambda _: ClockedStorage(watched.url, timeout=_PATIENCE, db=15)  # noqa: E731  # as the others
    return RedisBackend(watched.master(), 15, make, asynchronous=True)


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], Backend]] = {
    "memory": _memory,
    "async-memory": _async_memory,
    "redis": _redis,
    "async-redis": _async_redis,
    "memcached": _memcached,
    "async-memcached": _async_memcached,
    "cluster": _cluster,
    "async-cluster": _async_cluster,
    "sentinel": _sentinel,
    "async-sentinel": _async_sentinel,
}
"""How to make a backend, by name."""


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend in turn."""
    made = BACKENDS[request.param](request)
    yield made
    made.close()
