"""The storage on a Redis or Valkey cluster for asyncio: the same windows, scripts and routing as `cluster`."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from limits.aio.storage import RedisClusterStorage as LimitsRedisClusterStorage, RedisStorage as LimitsRedisStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.breaker import Circuits
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.engine import AsyncLimitsVerbs
from ratelimited_notify.storage.event_loop import running_loop
from ratelimited_notify.storage.redis import options as server_options, replies, routing, scripts, spread
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.slots import Slots
from ratelimited_notify.storage.uri import parse
from ratelimited_notify.windows.strategies import Request

# After `options`, as in `sync`.
import redis.asyncio.connection as redis_connection  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.storage.breaker import Breaker
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.redis.slots import Address
    from ratelimited_notify.windows.strategies import Token, Verdict, Window

T = TypeVar("T")

_LONG = 10_000
"""Bytes. Longer commands are treated as a batch."""


class _Server(AsyncRedisStorage):
    """One server of the cluster."""

    async def several(
        self, commands: Sequence[routing.Command], deadline: float
    ) -> list[Any]:  # Any: replies; errors are among them
        """Send these commands in one round trip and return the parsed replies."""
        packed = b"".join(command.packed for command in commands)
        return await self._exchange(packed, [command.read for command in commands], deadline, batch=len(packed) > _LONG)

    async def reset(self) -> int:
        # As in `cluster._Server`.
        dropped, cursor = 0, b"0"
        while True:
            cursor, keys = await self._ask(scripts.scan(cursor), scripts.scanned)
            commands = [
                routing.Command(scripts.command(b"UNLINK", key), partial(replies.number, most=1)) for key in keys
            ]
            if commands:
                answers = await self.several(commands, running_loop().time() + self.timeout)
                dropped += sum(int(answer == 1) for answer in answers)
            if cursor == b"0":
                return dropped


class AsyncRedisClusterStorage(AsyncLimitsVerbs, LimitsRedisClusterStorage):
    """Windows on a cluster of Redis servers, version 7 or newer, or of Valkey, for asyncio.

    It works like `cluster.RedisClusterStorage`. Like `aio.AsyncRedisStorage`, one object serves several event loops, each with
    up to `max_connections` connections to each server.

    Arguments:
        uri: `redis+cluster://user:password@host:port,host:port`, or with `valkey`; any servers of the cluster.
        timeout: the longest time that a decision takes, in seconds, 0.5 by default: requests to all servers, redirections and
            waiting for the cluster to be ready, together. `?timeout=` in the URI takes precedence. A batch may take this
            long for every 250 requests.
        address_remap: maps each (host, port) that the cluster announces to another one, if the cluster is behind a tunnel.
        circuit: when to stop sending requests to a server that does not answer; None never stops.
        options: options of redis-py's connections (`max_connections`, per server; `ssl=True`; `ssl_ca_certs`, ...).

    Raises:
        NotifyError: the URI or an option cannot be used.
    """

    STORAGE_SCHEME = ["async+notify+redis+cluster"]

    exact = True

    # As in `cluster.RedisClusterStorage`.
    _CLOCK_LUA = scripts.CLOCK

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        address_remap: Callable[[Address], Address] | None = None,
        circuit: Circuit | None = DEFAULT,
        **options: Any,  # Any: whatever redis-py takes.
    ) -> None:
        # Skips the constructors of limits' classes, as in `cluster`.
        super(LimitsRedisStorage, self).__init__(uri, wrap_exceptions=wrap_exceptions)
        parts = parse(uri, "cluster")
        hosts = server_options.addresses(parts)
        self._settings = server_options.settings_of_each(parts, timeout, options, redis_connection)
        self.timeout: float = self._settings["socket_timeout"]
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        self._slots = Slots(hosts, address_remap)
        self._servers: dict[Address, _Server] = {}
        self._circuit = circuit
        self._breakers: dict[str, Breaker] = {}
        self.circuits = Circuits(self._breakers)
        """The state of each server's circuit, by its address."""
        # An option that redis-py refuses then raises here.
        self._server(hosts[0])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {', '.join(map(routing.where, self._slots.seeds))}>"

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(spread.acquire(self._scripts, Request(windows, keys, cost)))

    async def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        """`acquire` for each request, in the given order, `scripts.REQUESTS_PER_CALL` at a time.

        If a server fails, the hits on the other servers are given back as far as possible.
        """
        return await self._run(spread.acquire_many(self._scripts, requests))

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(spread.peek(self._scripts, Request(windows, keys, cost)))

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return await self._run(spread.release(self._scripts, Request(windows, keys, cost), tokens))

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return await self._run(spread.forget(self._scripts, windows, keys))

    async def pause(self, window: Window, key: str, duration: int) -> int:
        return await self._run(spread.pause(self._scripts, window, key, duration))

    async def check(self) -> bool:
        """Whether every master of the cluster answers."""
        try:
            return all(await asyncio.gather(*(server.check() for server in await self._masters())))
        except StorageError:
            return False

    async def reset(self) -> int | None:
        """Delete every window of this library in the cluster, of all namespaces. Returns how many.

        It scans all servers in small steps, so it takes long if there are many other keys.
        """
        return sum([await server.reset() for server in await self._masters()])

    async def close(self) -> None:
        """Close the connections of this event loop. Other event loops close their own."""
        for server in list(self._servers.values()):
            await server.close()

    async def _masters(self) -> list[_Server]:
        await self._follow(routing.learn(self._slots, time.monotonic, time.monotonic() + self.timeout))
        if not self._slots.masters:
            raise routing.unknown(self._slots)
        return [self._server(address) for address in self._slots.masters]

    async def _run(self, rounds: spread.Rounds[T]) -> T:
        return await self._follow(routing.answered(self._slots, rounds, time.monotonic, self.timeout))

    async def _follow(self, steps: routing.Steps[T]) -> T:
        answer: routing.Delivered | None = None
        # Whatever ends this early ends what it is in the middle of: others may wait for the map that it asks for.
        with closing(steps):
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as done:
                    result: T = done.value
                    return result
                answer = None
                if isinstance(step, routing.Send):
                    answer = await self._deliver(step)
                else:
                    await asyncio.sleep(step.seconds)

    async def _deliver(self, step: routing.Send) -> routing.Delivered:
        if len(step.parcels) == 1:
            ((address, commands),) = step.parcels.items()
            return {address: await self._hand_over(address, commands, step.deadline)}
        replies = await asyncio.gather(
            *(self._hand_over(address, commands, step.deadline) for address, commands in step.parcels.items())
        )
        return dict(zip(step.parcels, replies, strict=True))

    async def _hand_over(
        self, address: Address, commands: Sequence[routing.Command], deadline: float
    ) -> list[Any] | StorageError:  # Any: replies
        # The slot map serves all event loops, whose clocks may differ, so deadlines are converted here.
        until = running_loop().time() + deadline - time.monotonic()
        try:
            return await self._server(address).several(commands, until)
        except StorageError as error:
            return error

    def _server(self, address: Address) -> _Server:
        server = self._servers.get(address)
        if server is None:
            for gone in [other for other in list(self._servers) if not self._slots.known(other)]:
                # Not closed: other callers may be waiting for its replies.
                self._servers.pop(gone, None)
                self._breakers.pop(routing.where(gone), None)
            made = _Server(
                "redis://",
                timeout=self.timeout,
                circuit=self._circuit,
                **server_options.to_server(self._settings, address),
            )
            server = self._servers.setdefault(address, made)
            self._breakers[routing.where(address)] = server.breaker
        return server
