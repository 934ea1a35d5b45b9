"""Open a storage by its URI, or adopt a storage object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.timeout import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.uri import Kind

_CLOCKS = ("memory", "memcached", "sqlite")
MEMORY = "memory://"
"""The URI for windows in memory, for which nothing of other URIs is loaded."""


def open_storage(
    uri: str,
    *,
    timeout: float = 0.5,
    clock: Callable[[], float] | None = None,
    circuit: Circuit | None = DEFAULT,
) -> Storage:
    """Open the storage that a URI names: `memory://`, `redis://host:port/0`, `redis+cluster://host:port,host:port`,
    `redis+sentinel://host:port,host:port/service`, `memcached://host:port,host:port`, `sqlite:///windows.db`, or any
    other scheme that `limits` knows, with a weaker guarantee.

    Arguments:
        uri: the URI, in the notation of `limits`.
        timeout: the longest time that a decision waits for the backend, in seconds, above 0 and below 3600.
        clock: a callable that returns seconds, for windows in memory, on memcached and in an SQLite file. Redis uses the server's clock.
        circuit: when to stop sending requests to a server that does not answer; None never stops.

    Raises:
        NotifyError: the URI is not understood as it is written, or an argument is out of range. The message never shows
            the URI.
        MissingExtra: the backend's client is not installed.
    """
    scheme, kind = _checked(uri, timeout, clock)
    if scheme.startswith("async+"):
        raise NotifyError(f"{scheme}:// is for an AsyncLimiter; a Limiter takes the URI without 'async+'.")
    if kind == "memory":
        from ratelimited_notify.storage.memory import MemoryStorage

        return MemoryStorage(clock=clock, timeout=timeout)
    if kind == "redis":
        from ratelimited_notify.storage.redis.sync import RedisStorage

        return RedisStorage(uri, timeout=timeout, circuit=circuit)
    if kind == "cluster":
        from ratelimited_notify.storage.redis.cluster import RedisClusterStorage

        return RedisClusterStorage(uri, timeout=timeout, circuit=circuit)
    if kind == "sentinel":
        from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage

        return RedisSentinelStorage(uri, timeout=timeout, circuit=circuit)
    if kind == "memcached":
        from ratelimited_notify.storage.memcached.sync import MemcachedStorage

        return MemcachedStorage(uri, timeout=timeout, clock=clock, circuit=circuit)
    if kind == "sqlite":
        from ratelimited_notify.storage.sqlite.sync import SQLiteStorage

        return SQLiteStorage(uri, timeout=timeout, clock=clock)
    return adopt(_of_limits(scheme, uri))


def open_async_storage(
    uri: str,
    *,
    timeout: float = 0.5,
    clock: Callable[[], float] | None = None,
    circuit: Circuit | None = DEFAULT,
) -> AsyncStorage:
    """`open_storage` for asyncio. The URI may begin with `async+`, as in `limits`, but does not have to."""
    scheme, kind = _checked(uri, timeout, clock)
    if kind == "memory":
        from ratelimited_notify.storage.memory import AsyncMemoryStorage

        return AsyncMemoryStorage(clock=clock, timeout=timeout)
    if kind == "redis":
        from ratelimited_notify.storage.redis.aio import AsyncRedisStorage

        return AsyncRedisStorage(uri, timeout=timeout, circuit=circuit)
    if kind == "cluster":
        from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage

        return AsyncRedisClusterStorage(uri, timeout=timeout, circuit=circuit)
    if kind == "sentinel":
        from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage

        return AsyncRedisSentinelStorage(uri, timeout=timeout, circuit=circuit)
    if kind == "memcached":
        from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage

        return AsyncMemcachedStorage(uri, timeout=timeout, clock=clock, circuit=circuit)
    if kind == "sqlite":
        from ratelimited_notify.storage.sqlite.aio import AsyncSQLiteStorage

        return AsyncSQLiteStorage(uri, timeout=timeout, clock=clock)
    return adopt_async(_of_limits(f"async+{scheme.removeprefix('async+')}", uri))


def is_memory(storage: object) -> bool:
    """Whether `storage` is a URI for windows in this process's memory.

    Raises:
        NotifyError: it is a string that is no such URI although it begins like one, or no URI at all.
    """
    if storage == MEMORY:
        return True
    from ratelimited_notify.storage.uri import kind_of, parse, scheme_of

    if not isinstance(storage, str) or kind_of(scheme_of(storage).removeprefix("async+")) != "memory":
        return False
    parse(storage, "memory")
    return True


def adopt(storage: object) -> Storage:
    """The storage object itself, or a stock storage of `limits` behind the adapter.

    Raises:
        NotifyError: it is not a synchronous storage.
    """
    if _is_async(storage) is False:
        return storage  # type: ignore[return-value]  # it has the verbs, and they are functions
    from limits.storage import Storage as LimitsStorage

    from ratelimited_notify.storage.adapter import Adapter
    from ratelimited_notify.storage.memory import AsyncMemoryStorage

    if isinstance(storage, AsyncMemoryStorage):
        return storage.windows
    if isinstance(storage, LimitsStorage):
        return Adapter(storage)
    raise _not_a_storage(storage, "Limiter", "a URI, a storage of limits or the storage of another Limiter")


def adopt_async(storage: object) -> AsyncStorage:
    """`adopt` for asyncio. A `MemoryStorage` keeps its windows: sync and async callers then share them."""
    if _is_async(storage) is True:
        return storage  # type: ignore[return-value]  # it has the verbs, and they are coroutine functions
    from limits.aio.storage import Storage as LimitsStorage

    from ratelimited_notify.storage.adapter import AsyncAdapter
    from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage

    if isinstance(storage, MemoryStorage):
        return AsyncMemoryStorage(windows=storage)
    if isinstance(storage, LimitsStorage):
        return AsyncAdapter(storage)
    raise _not_a_storage(
        storage, "AsyncLimiter", "a URI, a storage of limits.aio or the storage of another AsyncLimiter"
    )


def _is_async(storage: object) -> bool | None:
    """Whether the object is an async storage (True) or a sync one (False); None if it is no storage of this library."""
    from inspect import iscoroutinefunction

    from ratelimited_notify.storage.base import Storage

    return iscoroutinefunction(storage.acquire) if isinstance(storage, Storage) else None


def _not_a_storage(storage: object, limiter: str, usable: str) -> NotifyError:
    return NotifyError(f"A {type(storage).__name__} cannot be the storage of {limiter}; pass {usable}.")


def _of_limits(scheme: str, uri: str) -> object:
    from limits.storage import storage_from_string

    try:
        return storage_from_string(f"{scheme}://{uri.partition('://')[2]}")
    except Exception as error:  # noqa: BLE001  # a third party's storage may raise anything
        # The message of the error may quote the URI.
        raise NotifyError(
            f"limits cannot open {scheme.removeprefix('async+')}:// ({type(error).__name__}): the scheme is unknown, its client "
            "is not installed, or the rest of the URI is wrong. Supported are memory://, redis://, redis+cluster://, "
            "redis+sentinel://, the same with valkey, memcached://, sqlite:// and every scheme that limits has a storage for."
        ) from None


def _checked(uri: str, timeout: float, clock: Callable[[], float] | None) -> tuple[str, Kind | None]:
    """The scheme of a URI, and the kind of storage that it opens; None for a storage of `limits`.

    The check comes before the client library is loaded, so a mistake in the URI is reported even if the library is missing.
    """
    checked_timeout(timeout)
    if uri == MEMORY:
        return "memory", "memory"
    from ratelimited_notify.storage.uri import kind_of, parse, scheme_of

    # A URI may hold credentials, so messages show only its scheme.
    scheme = scheme_of(uri)
    name = scheme.removeprefix("async+")
    kind = kind_of(name)
    if clock is not None and name not in _CLOCKS:
        raise NotifyError(
            f"clock= is for windows in memory, on memcached and in an SQLite file; {name}:// has a clock of its own."
        )
    if kind is not None:
        parse(uri, kind)
    return scheme, kind
