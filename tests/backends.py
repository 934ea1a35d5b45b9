"""All backends behind one interface: a storage, a clock that the test moves, and fresh keys for each example.

A test that uses the fixture `backend` runs on all of them, sync and asyncio. Each asyncio backend runs its coroutines on
its own event loop, so one test covers both kinds.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify.windows.keys import rest_of, tag_of
from ratelimited_notify.windows.strategies import MICROSECONDS, Mode, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Request, StrategyName, Token, Verdict
    from servers import Valkey

SECOND = MICROSECONDS
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_WORLDS = count()

# In seconds. These tests check what a storage answers, not how fast, and the machine may be busy.
_PATIENCE = 20

STRATEGIES: tuple[StrategyName, ...] = ("moving-window", "fixed-window", "sliding-window-counter")


class Driven:
    """Wraps an asynchronous storage so that it can be called like a synchronous one."""

    def __init__(self, storage: AsyncStorage) -> None:
        self.storage = storage
        self.loop = asyncio.new_event_loop()

    def run(self, awaitable: Any) -> Any:
        """Run the awaitable and return its result."""
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

    def pause(self, window: Window, key: str, duration: int) -> int:
        return self.run(self.storage.pause(window, key, duration))

    def close(self) -> None:
        self.run(self.storage.close())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()


class Backend:
    """One storage with a clock that stands still until the test moves it.

    `storage` is synchronous, or a `Driven` wrapper. `bare` is the storage itself, for the strategies of `limits`.
    """

    # Real backends also have real times to live, so the clock of the test starts near the real time.
    start = int(time.time()) * SECOND

    marks = True
    """Whether a release distinguishes windows that begin within one microsecond. If not, a clear or a release and the
    next hit must be a microsecond apart. On a real clock they always are."""

    def __init__(self, make: Callable[[Callable[[], float]], Any], *, asynchronous: bool) -> None:
        self._now = self.start
        self.asynchronous = asynchronous
        self.bare: Any = make(lambda: self._now / MICROSECONDS)
        self.storage: Storage = Driven(self.bare) if asynchronous else self.bare
        self.flush()

    def now(self) -> int:
        """The time of the backend, in microseconds."""
        return self._now

    def advance(self, microseconds: int) -> None:
        """Move the clock forward."""
        self._now += microseconds

    def flush(self) -> None:
        """Start with fresh keys: `key` returns no key that was used before."""
        self.namespace = f"t{next(_WORLDS)}"

    def key(self, recipient: str, window: Window, name: str = "rule") -> str:
        """A key in the library's format. Windows with the same name, strategy and period share it; the amount is not in it."""
        rest = rest_of([name, str(window.period)], window.strategy)
        return f"{self.namespace}:{{{tag_of(recipient)}}}:{rest}"

    def call(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of `limits` on `bare`, await it if necessary, and return its result."""
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
    """Make a window. The period is in microseconds."""
    return Window(strategy, amount, period, rule="rule", **options)


def pause_window(mode: Mode = Mode.ENFORCE) -> Window:
    """Make the window of a pause."""
    return Window("pause", 0, 0, mode, rule="rule", shared=True)


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
    """A storage on a cluster. A script cannot read a key of another slot, so the time is written into the scripts."""

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
    make = lambda _: ClockedStorage(watched.url, timeout=_PATIENCE, db=14)  # noqa: E731  # like the other backends
    return RedisBackend(watched.master(), 14, make, asynchronous=False)


def _async_sentinel(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage

    class ClockedStorage(AsyncRedisSentinelStorage):
        _CLOCK_LUA = _REDIS_CLOCK

    watched = request.getfixturevalue("watched")
    make = lambda _: ClockedStorage(watched.url, timeout=_PATIENCE, db=15)  # noqa: E731  # like the other backends
    return RedisBackend(watched.master(), 15, make, asynchronous=True)


class FileBackend(Backend):
    """A storage in an SQLite file of its own."""

    def __init__(self, make: Callable[[str, Callable[[], float]], Any], *, asynchronous: bool) -> None:
        # In memory if the machine has such a folder: what is tested here is what a storage answers.
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        uri = f"sqlite:///{self._folder.name}/windows.db"
        super().__init__(lambda clock: make(uri, clock), asynchronous=asynchronous)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def _sqlite(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.sqlite.sync import SQLiteStorage

    return FileBackend(lambda uri, clock: SQLiteStorage(uri, clock=clock, timeout=_PATIENCE), asynchronous=False)


def _async_sqlite(request: pytest.FixtureRequest) -> Backend:
    from ratelimited_notify.storage.sqlite.aio import AsyncSQLiteStorage

    return FileBackend(lambda uri, clock: AsyncSQLiteStorage(uri, clock=clock, timeout=_PATIENCE), asynchronous=True)


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], Backend]] = {
    "memory": _memory,
    "async-memory": _async_memory,
    "redis": _redis,
    "async-redis": _async_redis,
    "memcached": _memcached,
    "async-memcached": _async_memcached,
    "sqlite": _sqlite,
    "async-sqlite": _async_sqlite,
    "cluster": _cluster,
    "async-cluster": _async_cluster,
    "sentinel": _sentinel,
    "async-sentinel": _async_sentinel,
}
"""Functions that make a backend, by name."""


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn."""
    made = BACKENDS[request.param](request)
    yield made
    made.close()
