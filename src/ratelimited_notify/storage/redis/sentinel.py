"""The synchronous storage on the Redis or Valkey server that Sentinel names as master."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.interrupts import raised_by_caller
from ratelimited_notify.storage.redis import failures, options as server_options
from ratelimited_notify.storage.redis.connection import Connection, Connections
from ratelimited_notify.storage.redis.dial import connected
from ratelimited_notify.storage.redis.sentinels import Heard, Master, Sentinels, heard, master, no_master
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.storage.uri import parse

# After `options`, which says what to install where redis is missing.
import redis.connection as redis_connection  # isort: skip
from redis.connection import ConnectionPool  # isort: skip
from redis.exceptions import ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.storage.circuit import Circuit


class RedisSentinelStorage(RedisStorage):
    """Windows on the master that Sentinel names: a Redis server, version 7 or newer, or Valkey.

    It works like `sync.RedisStorage`, on one server at a time: whenever a connection is opened, the Sentinels are asked for the
    master. Replicas are never used. When the master fails, decisions raise a `StorageError` until the Sentinels have promoted
    a replica. Hits that had not been replicated to it are then lost.

    Arguments:
        uri: `redis+sentinel://user:password@host:port,host:port/service`, or with `valkey`: the Sentinels, and the name
            under which they monitor the master. User and password are for both.
        timeout: the longest time that a decision takes, in seconds, 0.5 by default: asking the Sentinels, connecting and the
            reply together. `?timeout=` in the URI takes precedence.
        service_name: the name under which the Sentinels monitor the master, if it is not in the URI.
        sentinel_kwargs: the options of redis-py's connections to the Sentinels that differ from those to the master:
            `{"password": None}`, for example.
        circuit: when to stop sending requests to a master that does not answer; None never stops.
        options: options of redis-py's connections (`max_connections`, `db`, `ssl=True`, `ssl_ca_certs`, ...).

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
        circuit: Circuit | None = DEFAULT,
        **options: Any,  # Any: as above.
    ) -> None:
        parts = parse(uri, "sentinel")
        service = server_options.service(parts, service_name)
        wanted = server_options.settings_of_each(parts, timeout, options, redis_connection)
        sentinels = Sentinels(parts, service, wanted, sentinel_kwargs or {}, redis_connection)
        server_options.checked(ConnectionPool(**sentinels.options))
        pool = ConnectionPool(**wanted)
        super().__init__(wrap_exceptions=wrap_exceptions, timeout=timeout, connection_pool=pool, circuit=None)
        self._connections = Connections(_Master(sentinels, pool), server_options.places(pool))
        self._where = server_options.watched(parts, service)
        self.breaker = breaker_for(server_options.circuit_of(self._where, pool, redis_connection), circuit, self._where)
        self.circuits = Circuits({self._where: self.breaker})

    def _refused(self, answer: ResponseError) -> None:
        if "READONLY" in str(answer):
            # The server was the master and is a replica now, so the idle connections to it are useless.
            self._connections.close()


class _Master:
    """Connects to the server that the Sentinels name as master.

    Arguments:
        sentinels: the Sentinels.
        pool: the class and the options of connections to the master.
    """

    def __init__(self, sentinels: Sentinels, pool: ConnectionPool) -> None:
        self._sentinels = sentinels
        self._to_sentinels = ConnectionPool(**sentinels.options)
        self._kind = pool.connection_class
        self._wanted = server_options.once(pool.connection_kwargs)

    def __call__(self, deadline: float) -> Any:  # Any: a connection of redis-py's
        found = self._found(deadline)
        return connected(self._kind, server_options.to_server(self._wanted, found), deadline)

    def _found(self, deadline: float) -> Master:
        failed: list[Heard] = []
        for asked, (host, port) in enumerate(self._sentinels.in_turn()):
            now = time.monotonic()
            until = now + self._sentinels.share(deadline - now, asked)
            sentinel = Connection(partial(self._to, (host, port)), until)
            try:
                sentinel.begin(until)
                reply = sentinel.ask(self._sentinels.command)
                found = None if isinstance(reply, ResponseError) else master(reply)
            except (*failures.FAILURES, failures.UnexpectedReply) as error:
                if raised_by_caller(error) is not None:
                    raise
                failed.append(heard(host, port, error))
                continue
            finally:
                sentinel.drop()
            if found is not None:
                self._sentinels.prefer((host, port))
                return found
            failed.append(heard(host, port, reply if isinstance(reply, ResponseError) else None))
        raise no_master(self._sentinels.service, failed)

    def _to(self, sentinel: tuple[str, int], deadline: float) -> Any:  # Any: as above
        pool = self._to_sentinels
        wanted = server_options.once(server_options.to_server(pool.connection_kwargs, sentinel))
        return connected(pool.connection_class, wanted, deadline)
