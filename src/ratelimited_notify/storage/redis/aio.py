"""The storage on one Redis or Valkey server for asyncio: the same windows, the same scripts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from limits.aio.storage import RedisStorage as LimitsRedisStorage

from ratelimited_notify.cancellation import cancellations, heed
from ratelimited_notify.errors import StorageError
from ratelimited_notify.pages import Pages
from ratelimited_notify.storage.engine import AsyncLimitsVerbs
from ratelimited_notify.storage.redis import connection, scripts

# After `connection`, as in `sync`.
from redis.asyncio.connection import ConnectionPool, parse_url  # isort: skip
from redis.exceptions import NoScriptError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from ratelimited_notify.windows import Grant, Request, Token, Window


class Lane(NamedTuple):
    """What one event loop has of a storage: connections cannot leave the loop they were opened in."""

    pool: connection.AsyncPool
    turns: asyncio.Semaphore
    """One per connection; who waits is served in order."""
    keeper: AsyncGenerator[None, None] | None
    """Closes the connections when the loop shuts down."""


class AsyncRedisStorage(AsyncLimitsVerbs, LimitsRedisStorage):
    """Windows on one Redis server, version 7 or newer, or on Valkey, for asyncio.

    A decision is one script, one round trip, by the server's clock; it is never sent twice. One object serves several
    event loops, one after another and at once; each has up to `max_connections` connections, and closes them when it shuts
    down (`asyncio.run` sees to that). Tasks wait for a free one while the server answers the others. A task that is
    cancelled leaves no unread reply behind; whether its hit was counted is then unknown.

    Arguments:
        uri: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`; with user, password and database.
        timeout: the longest wait for a connection, and for an answer, in seconds; `?timeout=` in the URI wins.
        connection_pool: a pool of `redis.asyncio` to use instead of the URI; it serves one loop, and is not closed
            here.
        options: what redis-py's connections take (`socket_timeout`, `max_connections`, `ssl_ca_certs`, ...). Those that
            make it try again (`retry`, `retry_on_error`, `retry_on_timeout`) have no effect.

    Raises:
        NotifyError: the URI or an option cannot be used.
    """

    STORAGE_SCHEME = ["async+notify+redis"]

    exact = True

    # As in `sync.RedisStorage`.
    _CLOCK_LUA = scripts.CLOCK

    def __init__(
        self,
        uri: str = "",
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        connection_pool: ConnectionPool | None = None,
        **options: Any,  # Any: whatever redis-py takes.
    ) -> None:
        self._given = connection_pool
        self._settings: dict[str, Any] = {}  # Any: as above.
        if connection_pool is None:
            self._settings = connection.settings(uri, timeout, options, parse_url)
        pool = connection_pool or self._pool()
        connection.checked(pool)
        # `limits` gets this one for its own client, which is never used.
        super().__init__("redis://", wrap_exceptions, "redispy", connection_pool=pool)  # type: ignore[arg-type]  # `limits` documents it
        self.timeout: float = pool.connection_kwargs.get("socket_timeout") or timeout
        self._connect_timeout: float = pool.connection_kwargs.get("socket_connect_timeout") or timeout
        # One limit round the whole exchange does for all of redis-py's own, which cost more than the rest of it.
        self._settings["socket_timeout"] = None
        self._where = connection.address(pool.connection_kwargs)
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        self._lanes: dict[asyncio.AbstractEventLoop, Lane] = {}
        # Whether the last thing known about the server is that it does not answer.
        self._silent = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._where}>"

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return scripts.grant(await self._run(self._scripts.acquire(windows, cost), keys))

    async def acquire_many(self, requests: Sequence[Request]) -> Pages:
        """`acquire` for each request, in the order given, `scripts.REQUESTS_PER_CALL` in one round trip.

        Where a later round trip fails, what the earlier ones took stays taken, and what the one behind it takes, which is on
        its way already: pass no more requests at once than may be lost so.
        """
        if len(requests) <= scripts.REQUESTS_PER_CALL:
            batch = requests[:]
            if not batch:
                return Pages(())
            return Pages(
                (scripts.answers(await self._run(self._scripts.acquire_many(batch), scripts.keys_of(batch)), batch),)
            )
        pages: list[scripts.Replies] = []
        for turn in scripts.turns(requests):
            conversation = scripts.conversation(self._scripts, turn)
            pages += await self._exchange(
                next(conversation), partial(self._converse, conversation), scripts.CALLS_PER_TURN
            )
        return Pages(pages)

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return scripts.grant(await self._run(self._scripts.peek(windows, cost), keys))

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        counted = scripts.counted(windows, keys, tokens)
        if not counted.keys:
            return False
        given: int = await self._run(self._scripts.release(counted, cost), counted.keys)
        return given > 0

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        if not keys:
            return 0
        held: int = await self._run(self._scripts.forget(windows), keys)
        return held

    async def check(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(await self._ask(scripts.command(b"PING")))
        except StorageError:
            return False

    async def reset(self) -> int | None:
        """Drop every window of this library on the server's database, of all namespaces; returns how many.

        It looks through the database in small steps, so it takes long where there is much else.
        """
        dropped, cursor = 0, b"0"
        while True:
            cursor, found = await self._ask(scripts.scan(cursor))
            keys = scripts.ours(found)
            if keys:
                dropped += await self._ask(scripts.command(b"UNLINK", *keys))
            if cursor == b"0":
                return dropped

    async def close(self) -> None:
        """Let go of this event loop's connections; those of other loops are closed by these."""
        lane = self._lanes.pop(asyncio.get_running_loop(), None)
        if lane is not None and lane.keeper is not None:
            await lane.keeper.aclose()

    async def _run(self, call: scripts.Call, keys: Sequence[str]) -> Any:  # Any: what the script answers.
        try:
            return await self._ask(call.by_name(keys))
        except NoScriptError as refused:
            # Or what redis-py keeps of it would keep this storage and its connections until the next garbage collection.
            refused.__traceback__ = None
            # Refused before anything ran, so it may be asked again.
            return await self._ask(call.by_text(keys))

    async def _ask(self, command: bytes) -> Any:  # Any: as redis-py has it.
        """One command and its answer."""
        return await self._exchange(command, _answer)

    async def _exchange(
        self,
        command: bytes,
        read: Callable[[connection.AsyncConnection], Awaitable[Any]],  # Any: as redis-py has it.
        patience: int = 1,
    ) -> Any:  # Any: as above.
        """One or more commands and what is read then, on a connection of this loop's; as in `sync`.

        All of it may take `patience` time-outs.
        """
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop) or await self._open(loop)
        if lane.turns.locked():
            await self._wait(lane)
        else:
            await lane.turns.acquire()
        connected: connection.AsyncConnection | None = None
        before = cancellations()
        try:
            async with asyncio.timeout(self._connect_timeout + self.timeout) as limit:
                connected = await lane.pool.get_connection()
                try:
                    heed(before)
                    limit.reschedule(loop.time() + patience * self.timeout)
                    # Whatever interrupts either of the two, redis-py closes the connection then, and nothing can come
                    # between them: so no reply is left for another call to read.
                    await _sent(connected, command, before)
                    answer = await read(connected)
                finally:
                    await lane.pool.release(connected)
        except ResponseError as error:
            if isinstance(error, NoScriptError):
                raise
            raise self._failure(error, sent=True) from None
        except connection.FAILURES as error:
            self._silent = True
            raise self._failure(error, sent=connected is not None) from error
        finally:
            lane.turns.release()
        self._silent = False
        return answer

    async def _converse(
        self,
        conversation: Generator[bytes, Any, connection.T],  # Any: as redis-py has it.
        connected: connection.AsyncConnection,
    ) -> connection.T:
        """The rest of a conversation whose first command has been sent."""
        try:
            step = next(conversation)
            while True:
                async with asyncio.timeout(self.timeout):
                    if step:
                        await _sent(connected, step, cancellations())
                        reply = None
                    else:
                        reply = await connected.read_response(disable_decoding=True)
                step = conversation.send(reply)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the generator returned
        except BaseException:
            # Another answer may be on its way, which the next call would take for its own.
            await connected.disconnect(nowait=True)
            raise

    async def _wait(self, lane: Lane) -> None:
        try:
            async with asyncio.timeout(connection.PATIENCE * self.timeout):
                await lane.turns.acquire()
        except TimeoutError:
            raise connection.crowded(self._where, connection.places(lane.pool)) from None
        if self._silent:
            lane.turns.release()
            raise connection.hopeless(self._where, self.timeout)

    def _failure(self, error: Exception, *, sent: bool) -> StorageError:
        return connection.failure(error, self._where, self.timeout, sent=sent)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Lane:
        for other in [other for other in self._lanes.copy() if other.is_closed()]:
            self._lanes.pop(other, None)
        if self._given is not None:
            lane = Lane(self._given, asyncio.Semaphore(connection.places(self._given)), None)
        else:
            pool = self._pool()
            keeper = _closing(pool)
            # It is begun, and so known to the loop, without giving way to another task.
            await anext(keeper)
            lane = Lane(pool, asyncio.Semaphore(connection.places(pool)), keeper)
        self._lanes[loop] = lane
        return lane

    def _pool(self) -> ConnectionPool:
        return ConnectionPool(**self._settings)


def _answer(connected: connection.AsyncConnection) -> Awaitable[Any]:  # Any: as redis-py has it.
    return connected.read_response(disable_decoding=True)


async def _closing(pool: connection.AsyncPool) -> AsyncGenerator[None, None]:
    """Close the pool's connections when the event loop shuts down.

    An event loop finishes the generators that were begun in it before it is closed (`loop.shutdown_asyncgens`), which is
    the one place where it tells that it ends while connections can still be closed in good order.
    """
    try:
        yield
    finally:
        with suppress(*connection.FAILURES):
            await pool.disconnect()


async def _sent(connected: connection.AsyncConnection, command: bytes, before: int) -> None:
    """Send it, unless the task is cancelled, even where redis-py swallows that."""
    await connected.send_packed_command([command])
    try:
        heed(before)
    except asyncio.CancelledError:
        # The reply, which nobody reads any more, would be taken for the answer to another call.
        await connected.disconnect(nowait=True)
        raise
