"""The synchronous storage on the Redis or Valkey server that Sentinel says is the master."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify.storage.redis import connection
from ratelimited_notify.storage.redis.sync import RedisStorage

# After `connection`, which says what to install where redis is missing.
from redis.backoff import NoBackoff  # isort: skip
from redis.connection import parse_url  # isort: skip  # pyright: ignore[reportUnknownVariableType]  # redis-py does not say
from redis.retry import Retry  # isort: skip
from redis.sentinel import (  # isort: skip
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Sentinels(Sentinel):
    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # redis-py does not say
        except MasterNotFoundError:
            # redis-py's message shows how it connects to them.
            raise MasterNotFoundError(connection.no_master(service_name)) from None
        return found


class RedisSentinelStorage(RedisStorage):
    """Windows on the master that Redis Sentinel names, version 7 or newer, or Valkey's.

    As `sync.RedisStorage`, on one server at a time: the Sentinels are asked for the master whenever a connection is opened.
    Replicas are never asked anything. When the master fails, decisions are a `StorageError` until the Sentinels have made a
    replica the master; hits that it had not heard of are forgotten then.

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

    STORAGE_SCHEME = ["notify+redis+sentinel"]

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
        service = connection.service(parts, service_name)
        wanted = connection.settings_of_each(parts, timeout, options, parse_url)  # pyright: ignore[reportUnknownArgumentType]  # as above
        to_sentinels = connection.to_sentinels(wanted, timeout, len(parts.hosts), sentinel_kwargs or {})
        wanted["connection_class"] = connection.kind(wanted, SentinelManagedConnection, SentinelManagedSSLConnection)
        # By itself redis-py's client would ask again and again, with pauses.
        to_sentinels = {"retry": Retry(NoBackoff(), 0), **to_sentinels}
        sentinels = connection.made(_Sentinels, parts.hosts, sentinel_kwargs=to_sentinels)
        pool = SentinelConnectionPool(service, sentinels, **wanted)  # type: ignore[no-untyped-call]  # as above
        super().__init__(wrap_exceptions=wrap_exceptions, timeout=timeout, connection_pool=pool)
        self._owned = True
        # Callers take turns at as many as there may be. Before 8.1 redis-py counts a connection that reached no master for
        # good, and would open no more after some.
        pool.max_connections = 2**31
        self._sentinels = sentinels
        self._where = connection.watched(parts, service)

    def close(self) -> None:
        super().close()
        for sentinel in self._sentinels.sentinels:
            sentinel.close()
