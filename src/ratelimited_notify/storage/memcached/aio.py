"""The memcached storage for asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary, finalize

from limits.aio.storage import MemcachedStorage as LimitsMemcachedStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.engine import AsyncLimitsVerbs, bounded_clock
from ratelimited_notify.storage.memcached import decide, failures
from ratelimited_notify.storage.memcached.connection import Connection, Refusal
from ratelimited_notify.storage.memcached.hosts import LANES, choose, hosts_of, lane_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from typing import Any

    from ratelimited_notify.storage.memcached.decide import Step, Steps, Write
    from ratelimited_notify.storage.memcached.hosts import Address, Host
    from ratelimited_notify.windows import Grant, Request, Token, Window

T = TypeVar("T")


# The ignored difference: `incr` of limits' class has one more argument, which only its own sliding window passes.
class AsyncMemcachedStorage(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]  # see above
    AsyncLimitsVerbs, LimitsMemcachedStorage
):
    """Windows in memcached for coroutines: the items of `MemcachedStorage`, and the same arguments.

    One object serves any number of event loops, one after another and at once.
    """

    STORAGE_SCHEME = ["async+notify+memcached"]

    exact = True

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        clock: Callable[[], float] | None = None,
    ) -> None:
        # Past the constructor of limits' class, which would set up a client of its own.
        super(LimitsMemcachedStorage, self).__init__(uri, wrap_exceptions=wrap_exceptions)
        self.timeout = timeout
        # The wall clock, and why: see `MemcachedStorage`.
        self.now = bounded_clock(clock or time.time)
        self._hosts = hosts_of(uri)
        self._idle = _Idle()
        # A lock is tied to its event loop, so each lives only as long as somebody holds or awaits it.
        self._turns: WeakValueDictionary[tuple[int, Host, int], asyncio.Lock] = WeakValueDictionary()
        finalize(self, self._idle.close)

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return await self._run(decide.acquire(windows, keys, cost))

    async def acquire_many(self, requests: Sequence[Request]) -> list[Grant]:
        grants: list[Grant] = []
        try:
            for request in requests:
                grants.append(await self._run(decide.acquire(*request)))  # noqa: PERF401  # kept for below
        except StorageError:
            await self._run(decide.abandon(requests, grants))
            raise
        return grants

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return await self._run(decide.peek(windows, keys, cost))

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return await self._run(decide.release(windows, keys, cost, tokens))

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return await self._run(decide.forget(windows, keys))

    async def check(self) -> bool:
        """Whether every host answers."""
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            for host in self._hosts:
                async with self._reach(host, "", deadline) as lane:
                    await lane.gets(b"check")
        except StorageError:
            return False
        return True

    async def reset(self) -> int | None:
        raise failures.no_reset()

    async def close(self) -> None:
        self._idle.close()

    async def _run(self, steps: Steps[T]) -> T:
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._perform(step, deadline)
                except StorageError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _perform(self, step: Step, deadline: float) -> Any:  # Any: as in `Step`
        host = choose(self._hosts, step.head)
        key = step.head.encode()
        async with self._reach(host, step.head, deadline) as lane:
            for attempt in count(1):
                value, unique = await lane.gets(key)
                answer, write = decide.perform(step, value, self.now(), time.time())
                if write is None or await lane.store(key, write, unique):
                    return answer
                pause = decide.pause(attempt)
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise failures.contended(host, self.timeout, attempt)
                await asyncio.sleep(pause)
        raise AssertionError  # pragma: no cover  # `count` never ends; said for the type checker

    @asynccontextmanager
    async def _reach(self, host: Host, head: str, deadline: float) -> AsyncGenerator[_Lane]:
        """A connection to a host in this head's turn, until the deadline; its failures in words."""
        loop = asyncio.get_running_loop()
        turn = self._turns.setdefault((id(loop), host, lane_of(head)), asyncio.Lock())
        try:
            async with asyncio.timeout_at(deadline), turn, self._lane(host) as lane:
                yield lane
        except TimeoutError:
            raise failures.late(host, self.timeout) from None
        except OSError as error:
            raise failures.broken(host, error) from error
        except Refusal as error:
            raise failures.refused(host, error.said) from None

    @asynccontextmanager
    async def _lane(self, host: Host) -> AsyncGenerator[_Lane]:
        idle = self._idle.take(host)
        lane = _Lane(host.address, idle or await Connection.open(host.address), used=idle is not None)
        try:
            yield lane
        except BaseException:
            # Cancelled ones too: an answer may still be on the way, and must not be taken for the next one's.
            lane.close()
            raise
        self._idle.put(host, lane.connection)


class _Lane:
    """A connection while it is used: new, or used before by somebody else."""

    __slots__ = ("_address", "_used", "connection")

    def __init__(self, address: Address, connection: Connection, *, used: bool) -> None:
        self._address = address
        self._used = used
        self.connection = connection

    async def gets(self, key: bytes) -> tuple[bytes | None, bytes | None]:
        try:
            return await self.connection.gets(key)
        except OSError:
            # A server that was started anew has closed what was left open; to read twice does no harm.
            if not self._used:
                raise
        self.close()
        self.connection, self._used = await Connection.open(self._address), False
        return await self.connection.gets(key)

    async def store(self, key: bytes, write: Write, unique: bytes | None) -> bool:
        """Whether the value was stored; False if somebody else was quicker. Never sent twice."""
        try:
            return await self.connection.store(key, write.value, write.expire, unique)
        except Refusal as error:
            if error.said == failures.TOO_LARGE:
                raise write.outgrown() from None
            raise

    def close(self) -> None:
        self.connection.close()


class _Idle:
    """Connections that nobody uses, whichever event loop made them."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._connections: dict[Host, list[Connection]] = {}

    def take(self, host: Host) -> Connection | None:
        if self._process != os.getpid():
            # After a fork parent and child hold the same sockets. Closing here leaves the parent's open.
            self.close()
            self._process = os.getpid()
        connections = self._connections.get(host)
        return connections.pop() if connections else None

    def put(self, host: Host, connection: Connection) -> None:
        connections = self._connections.setdefault(host, [])
        if len(connections) < LANES:
            connections.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while self._connections:
            _, connections = self._connections.popitem()
            for connection in connections:
                connection.close()
