"""The storage on the master that Sentinel names, for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.redis import failures, options as server_options
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.dial_aio import abort, connected
from ratelimited_notify.storage.redis.sentinels import Heard, Master, Sentinels, heard, master, no_master
from ratelimited_notify.storage.uri import parse

# After `options`, as in `sync`.
import redis.asyncio.connection as redis_connection  # isort: skip
from redis.asyncio.connection import ConnectionPool  # isort: skip
from redis.exceptions import ConnectionError as RedisConnectionError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.storage.circuit import Circuit


class AsyncRedisSentinelStorage(AsyncRedisStorage):
    """Windows on the master that Sentinel names, for asyncio: a Redis server, version 7 or newer, or Valkey.

    It works like `sentinel.RedisSentinelStorage`. Like `aio.AsyncRedisStorage`, one object serves several event loops.

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

    STORAGE_SCHEME = ["async+notify+redis+sentinel"]

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
        super().__init__("redis://", wrap_exceptions, timeout=timeout, connection_pool=pool, circuit=None)
        self._reach = _Master(sentinels, pool)
        self._where = server_options.watched(parts, service)
        self.breaker = breaker_for(server_options.circuit_of(self._where, pool, redis_connection), circuit, self._where)
        self.circuits = Circuits({self._where: self.breaker})

    def _refused(self, answer: ResponseError) -> None:
        if "READONLY" in str(answer):
            # The server was the master and is a replica now.
            self._of_loop().drop(RedisConnectionError("The master is another server now"))


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

    async def __call__(self, deadline: float) -> Any:  # Any: a connection of redis-py's
        found = await self._found(deadline)
        return await connected(self._kind, server_options.to_server(self._wanted, found), deadline)

    async def _found(self, deadline: float) -> Master:
        loop = asyncio.get_running_loop()
        failed: list[Heard] = []
        for asked, (host, port) in enumerate(self._sentinels.in_turn()):
            now = loop.time()
            until = now + self._sentinels.share(deadline - now, asked)
            try:
                found = await self._asked((host, port), until)
            except (*failures.FAILURES, failures.UnexpectedReply) as error:
                failed.append(heard(host, port, error))
                continue
            except failures.GARBLED:
                failed.append(heard(host, port, failures.UnexpectedReply()))
                continue
            if found is not None:
                self._sentinels.prefer((host, port))
                return found
            failed.append(heard(host, port, None))
        raise no_master(self._sentinels.service, failed)

    async def _asked(self, sentinel: tuple[str, int], deadline: float) -> Master | None:
        pool = self._to_sentinels
        wanted = server_options.once(server_options.to_server(pool.connection_kwargs, sentinel))
        connection = await connected(pool.connection_class, wanted, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                await connection.send_packed_command([self._sentinels.command])
                return master(await connection.read_response(disable_decoding=True))
        finally:
            abort(connection)
