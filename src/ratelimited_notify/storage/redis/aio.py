"""The storage on one Redis or Valkey server for asyncio: the same windows, the same scripts."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from limits.aio.storage import RedisStorage as LimitsRedisStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.engine import AsyncLimitsVerbs
from ratelimited_notify.storage.event_loop import running_loop
from ratelimited_notify.storage.redis import decided, failures, options as server_options, replies, scripts
from ratelimited_notify.storage.redis.dial_aio import connected
from ratelimited_notify.storage.redis.multiplexed import MultiplexedConnection
from ratelimited_notify.storage.redis.replies import UnreadableWindow
from ratelimited_notify.windows.lazy_verdicts import GroupedVerdicts

# After `options`, which says what to install where redis is missing.
from redis.asyncio.connection import ConnectionPool, parse_url  # isort: skip
from redis.exceptions import ConnectionError as RedisConnectionError, NoScriptError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.redis.multiplexed import Slot
    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

T = TypeVar("T")

_PING = scripts.command(b"PING")

_BATCHES = 4
"""The most connections for batches, of one event loop: more would not be any faster."""


class Lanes:
    """The connections of one event loop to a server; they cannot leave the loop they were opened in.

    Single decisions share one connection. Batches have others, or the decisions behind them would wait.

    Arguments:
        make: makes a connection that is opened when it is needed.
        most: how many there may be.
    """

    def __init__(self, make: Callable[[], MultiplexedConnection], most: int) -> None:
        self._make = make
        self._most = min(most - 1, _BATCHES)
        self.decisions = make()
        self.opened = [self.decisions]
        self.keeper = _closing(self.opened)
        """Closes the connections when the loop shuts down."""
        # It is begun, and so known to the loop, without giving way to another task.
        with suppress(StopIteration):
            self.keeper.__anext__().send(None)

    def batches(self) -> MultiplexedConnection:
        """The connection on which a batch waits least."""
        batches = self.opened[1:]
        least = min(batches, key=lambda connection: connection.waiting, default=None)
        if (least is None or least.waiting) and len(batches) < self._most:
            least = self._make()
            self.opened.append(least)
        return least or self.decisions

    def drop(self, error: Exception) -> None:
        """Close all of them; they are opened again when they are needed."""
        for connection in self.opened:
            connection.drop(error, ours=True)


async def _closing(connections: list[MultiplexedConnection]) -> AsyncGenerator[None, None]:
    """Close the connections when the event loop shuts down.

    An event loop finishes the generators that were begun in it before it is closed (`loop.shutdown_asyncgens`), which is
    the one place where it tells that it ends while connections can still be closed in good order.
    """
    try:
        yield
    finally:
        for connection in connections:
            connection.drop(RedisConnectionError("The storage was closed"), ours=True)
        # The sockets are closed in the next round of the loop.
        await asyncio.sleep(0)


class AsyncRedisStorage(AsyncLimitsVerbs, LimitsRedisStorage):
    """Windows on one Redis server, version 7 or newer, or on Valkey, for asyncio.

    A decision is one script, one round trip, by the server's clock; it is never sent twice. One object serves several
    event loops, one after another and at once, and closes the connections of each when it shuts down (`asyncio.run` does
    that). The tasks of one loop share a connection, and batches have others, up to `max_connections` in all. When a task is
    cancelled, its reply is thrown away; whether its hit was counted is then unknown.

    Arguments:
        uri: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`; with user, password and database.
        timeout: the most seconds that a decision takes, 0.5 by default: connecting and the answer together. `?timeout=` in
            the URI wins. A batch may take as long for every 250 requests.
        connection_pool: a pool of `redis.asyncio` whose connection class and options to use instead of the URI. Its
            connections are left alone.
        circuit: when to stop asking a server that does not answer; None never stops.
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
        circuit: Circuit | None = DEFAULT,
        **options: Any,  # Any: whatever redis-py takes.
    ) -> None:
        pool = connection_pool
        server_options.check_pool(pool)
        if pool is None:
            pool = ConnectionPool(**server_options.settings(uri, timeout, options, parse_url))
        self.timeout: float = server_options.checked(pool).socket_timeout or timeout
        # `limits` gets it for its own client, which is never used.
        super().__init__("redis://", wrap_exceptions, "redispy", connection_pool=pool)  # type: ignore[arg-type]  # `limits` documents it
        self._where = server_options.address(pool.connection_kwargs)
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        # Without a reference to this object: what is forgotten goes at once, and not with the garbage collector.
        self._reach: Callable[[float], Awaitable[Any]] = partial(  # Any: a connection of redis-py's
            connected, pool.connection_class, server_options.once(pool.connection_kwargs)
        )
        self._most = server_options.places(pool)
        self.breaker = breaker_for(self._where, circuit)
        self.circuits = Circuits({self._where: self.breaker})
        """The state of the server's circuit, by its address."""
        self._lanes: dict[asyncio.AbstractEventLoop, Lanes] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._where}>"

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.acquire(windows, cost)
        return await self._run(call, keys, call.read)

    async def acquire_many(self, requests: Sequence[Request]) -> GroupedVerdicts:
        """`acquire` for each request, in the order given, `scripts.REQUESTS_PER_CALL` in one round trip.

        Where a later round trip fails, what the earlier ones took stays taken, and what the one behind it takes, which is on
        its way already: pass no more requests at once than may be lost so.
        """
        if len(requests) <= scripts.REQUESTS_PER_CALL:
            batch = requests[:]
            if not batch:
                return GroupedVerdicts(())
            read = partial(scripts.answers, requests=batch)
            call = self._scripts.acquire_many(batch)
            return GroupedVerdicts((await self._run(call, scripts.keys_of(batch), read, batch=True),))
        pages: list[decided.Replies] = []
        for turn in scripts.turns(requests):
            pages += await self._converse(scripts.conversation(self._scripts, turn))
        return GroupedVerdicts(pages)

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.peek(windows, cost)
        return await self._run(call, keys, call.read)

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        counted = scripts.counted(windows, keys, tokens)
        if not counted.keys:
            return False
        read = partial(replies.given, windows=counted.windows)
        return await self._run(self._scripts.release(counted, cost), counted.keys, read) > 0

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        if not keys:
            return 0
        return await self._run(self._scripts.forget(windows), keys, partial(replies.number, most=len(keys)))

    async def check(self) -> bool:
        """Whether the server answers."""
        try:
            return await self._ask(_PING, scripts.pong)
        except StorageError:
            return False

    async def reset(self) -> int | None:
        """Drop every window of this library on the server's database, of all namespaces; returns how many.

        It looks through the database in small steps, so it takes long where there is much else.
        """
        dropped, cursor = 0, b"0"
        while True:
            cursor, keys = await self._ask(scripts.scan(cursor), scripts.scanned)
            if keys:
                dropped += await self._ask(scripts.command(b"UNLINK", *keys), partial(replies.number, most=len(keys)))
            if cursor == b"0":
                return dropped

    async def close(self) -> None:
        """Let go of this event loop's connections; those of other loops are closed by these."""
        lanes = self._lanes.pop(running_loop(), None)
        if lanes is not None:
            await lanes.keeper.aclose()

    async def _run(
        self,
        call: scripts.Call,
        keys: Sequence[str],
        read: Callable[[Any], T],  # Any: a reply
        *,
        batch: bool = False,
    ) -> T:  # Any: a reply
        loop = running_loop()
        deadline = loop.time() + self.timeout
        lanes = self._lanes.get(loop)
        slot = None
        if lanes is not None and not batch and not self.breaker.is_open:
            # What `_exchange` does, without the coroutines on the way: a thousand tasks would keep thousands of them alive.
            slot = lanes.decisions.put_at_once(call.by_name(keys), (read,), deadline)
        if slot is None:
            (answer,) = await self._exchange(call.by_name(keys), (read,), deadline, batch=batch)
        else:
            checked_reply = await slot.answer
            if not isinstance(checked_reply, list):
                raise checked_reply
            (answer,) = checked_reply
        if isinstance(answer, NoScriptError):
            # Refused before anything ran, so it may be asked again.
            (answer,) = await self._exchange(call.by_text(keys), (read,), deadline, batch=batch)
        found: T = self._checked(answer)
        return found

    async def _ask(self, command: bytes, read: Callable[[Any], T]) -> T:  # Any: as above
        """One command and its answer."""
        (answer,) = await self._exchange(command, (read,), running_loop().time() + self.timeout)
        found: T = self._checked(answer)
        return found

    def _checked(self, answer: T | ResponseError | UnreadableWindow) -> T:
        if isinstance(answer, ResponseError):
            self._refused(answer)
            raise failures.failure(answer, self._where, self.timeout, sent=True) from None
        if isinstance(answer, UnreadableWindow):
            raise answer
        return answer

    async def _exchange(
        self,
        command: bytes,
        reads: Sequence[Callable[[Any], Any]],  # Any: replies, and what they say
        deadline: float,
        *,
        batch: bool = False,
    ) -> list[Any]:  # Any: as above
        """What is read of the replies to these commands, a `ResponseError` where that is one."""
        lanes = self._of_loop()
        if self.breaker.is_open:
            await self._probe(lanes, deadline)
        connection = lanes.batches() if batch else lanes.decisions
        return await connection.ask(command, reads, deadline)

    async def _converse(self, conversation: Generator[bytes, Any, T]) -> T:  # Any: replies
        """What a conversation comes to, each reply of which is for hundreds of requests and has a time-out of its own."""
        loop, lanes = running_loop(), self._of_loop()
        if self.breaker.is_open:
            await self._probe(lanes, loop.time() + self.timeout)
        connection = lanes.batches()
        slots: deque[Slot] = deque()
        try:
            step = next(conversation)
            while True:
                if step:
                    slots.append(await connection.put(step, (_as_it_came,), loop.time() + self.timeout))
                    step = next(conversation)
                else:
                    (reply,) = await connection.answer(slots.popleft(), loop.time() + self.timeout)
                    step = conversation.send(self._checked(reply))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the generator returned
        except failures.UnexpectedReply as error:
            connection.drop(error)
            raise failures.storage_error(self._where, self.timeout, error, True) from error
        finally:
            for slot in slots:
                # Nobody waits for its reply any more.
                slot.answer.cancel()

    async def _probe(self, lanes: Lanes, deadline: float) -> None:
        """Return when the server has answered a PING; raise at once where it is not this caller's turn to send one."""
        # Or tasks that go on asking would never let the event loop read the answer.
        await asyncio.sleep(0)
        breaker = self.breaker
        if not breaker.is_open:
            return
        if not breaker.may_probe():
            await breaker.refused_task()
            raise failures.not_asked(self._where)
        seconds = breaker.ping_time(self.timeout)
        try:
            until = min(deadline, running_loop().time() + seconds)
            await lanes.decisions.ask(_PING, (scripts.pong,), until)
        except StorageError as error:
            # A refusal is an answer, and the circuit is closed.
            if breaker.is_open:
                raise failures.still_silent(self._where, seconds) from error

    def _refused(self, answer: ResponseError) -> None:
        """What else follows from a refusal."""

    def _of_loop(self) -> Lanes:
        loop = running_loop()
        return self._lanes.get(loop) or self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> Lanes:
        for other in [other for other in self._lanes.copy() if other.is_closed()]:
            self._lanes.pop(other, None)
        storage_error = partial(failures.storage_error, self._where, self.timeout)
        make = partial(MultiplexedConnection, loop, self._reach, self.timeout, self.breaker, storage_error)
        lanes = self._lanes[loop] = Lanes(make, self._most)
        return lanes


def _as_it_came(reply: Any) -> Any:  # Any: a reply
    return reply
