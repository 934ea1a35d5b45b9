"""The storage on the master that Sentinel names, for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify.storage.redis import connection
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage

# After `connection`, as in `sync`.
from redis.asyncio.connection import parse_url  # isort: skip
from redis.asyncio.retry import Retry  # isort: skip
from redis.asyncio.sentinel import (  # isort: skip
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = await super().discover_master(service_name)  # pyright: ignore[reportUnknownVariableType]  # redis-py does not say
        except MasterNotFoundError:
            # redis-py's message shows how it connects to them.
            raise MasterNotFoundError(connection.no_master(service_name)) from None
        return found


class _Pool(SentinelConnectionPool):
    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        # Otherwise it is the pool's own, because the master has changed, and there is more to ask.
        if inuse_connections:
            manager: Any = self.sentinel_manager  # Any: redis-py does not say what its clients are
            for client in manager.sentinels:
                await client.aclose()


class AsyncRedisSentinelStorage(AsyncRedisStorage):
    """Windows on the master that Redis Sentinel names, version 7 or newer, or Valkey's, for asyncio.

    As `sentinel.RedisSentinelStorage`, and as `aio.AsyncRedisStorage`: one object serves several event loops.

    Arguments:
        uri: `redis+sentinel://user:password@host:port,host:port/service`, or with `valkey`; the Sentinels, and the name
            under which they watch the master. User and password are for both.
        timeout: the longest wait for a connection, and for an answer, in seconds; `?timeout=` in the URI wins. All
            Sentinels together are given as long again.
        service_name: the same where the URI does not say it.
        sentinel_kwargs: what redis-py's connections to the Sentinels take, where that is not what those to the master
            take: `{"password": None}`, for example.
        options: what redis-py's connections take (`max_connections`, `db`, `ssl=True`, `ssl_ca_certs`, ...).

    Raises:
        NotifyError: the URI or an option cannot be used.
    """

    STORAGE_SCHEME = ["async+notify+redis+sentinel"]

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        service_name: str | None = None,
        sentinel_kwargs: Mapping[str, Any] | None = None,  # Any: whatever redis-py takes.
        **options: Any,  # Any: as above.
    ) -> None:
        parts = connection.several(uri, connection.SENTINEL_EXAMPLE)
        self._hosts = parts.hosts
        self._service = connection.service(parts, service_name)
        wanted = connection.settings_of_each(parts, timeout, options, parse_url)
        self._to_sentinels = connection.to_sentinels(wanted, timeout, len(parts.hosts), sentinel_kwargs or {})
        wanted["connection_class"] = connection.kind(wanted, SentinelManagedConnection, SentinelManagedSSLConnection)
        super().__init__("redis://", wrap_exceptions, timeout=timeout, **wanted)
        # The Sentinels are asked while a connection is opened.
        self._connect_timeout *= 2
        self._where = connection.watched(parts, self._service)

    def _pool(self) -> SentinelConnectionPool:
        # By itself redis-py's client would ask again and again, with pauses.
        to_sentinels = {"retry": Retry(NoBackoff(), 0), **self._to_sentinels}
        sentinels = connection.made(_Sentinels, self._hosts, sentinel_kwargs=to_sentinels)
        return _Pool(self._service, sentinels, **self._settings)  # type: ignore[no-untyped-call]  # as above
