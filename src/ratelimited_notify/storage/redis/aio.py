"""The storage on one Redis or Valkey server for asyncio: the same windows and the same scripts as `sync`."""

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
from ratelimited_notify.storage.timeout import checked_timeout
from ratelimited_notify.storage.uri import parse
from ratelimited_notify.windows.lazy_verdicts import GroupedVerdicts
from ratelimited_notify.windows.strategies import Verdict

# After `options`, which says what to install where redis is missing.
import redis.asyncio.connection as redis_connection  # isort: skip
from redis.asyncio.connection import ConnectionPool  # isort: skip
from redis.exceptions import ConnectionError as RedisConnectionError, NoScriptError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.redis.multiplexed import Slot
    from ratelimited_notify.windows.strategies import Request, Token, Window

T = TypeVar("T")

_PING = scripts.command(b"PING")

_BATCHES = 4
"""The most connections for batches in one event loop: more would not be faster."""


class Lanes:
    """The connections of one event loop to a server. A connection only works in the loop that opened it.

    Single decisions share one connection. Batches use other connections, so that decisions do not queue behind them.

    Arguments:
        make: makes a connection, which is opened when it is first needed.
        most: the largest number of connections.
    """

    def __init__(self, make: Callable[[], MultiplexedConnection], most: int) -> None:
        self._make = make
        self._most = min(most - 1, _BATCHES)
        self.decisions = make()
        self.opened = [self.decisions]
        self.keeper = _closing(self.opened)
        """Closes the connections when the loop shuts down."""
        # This starts the generator, and so registers it with the loop, without switching to another task.
        with suppress(StopIteration):
            self.keeper.__anext__().send(None)

    def batches(self) -> MultiplexedConnection:
        """The connection with the shortest queue for a batch."""
        batches = self.opened[1:]
        least = min(batches, key=lambda connection: connection.waiting, default=None)
        if (least is None or least.waiting) and len(batches) < self._most:
            least = self._make()
            self.opened.append(least)
        return least or self.decisions

    def drop(self, error: Exception) -> None:
        """Close all connections. They are opened again when they are needed."""
        for connection in self.opened:
            connection.drop(error, ours=True)


async def _closing(connections: list[MultiplexedConnection]) -> AsyncGenerator[None, None]:
    """Close the connections when the event loop shuts down.

    Before an event loop is closed, it finishes the async generators that were started in it (`loop.shutdown_asyncgens`). This
    is the only hook for the end of a loop at which connections can still be closed properly.
    """
    try:
        yield
    except BaseException as error:
        for connection in connections:
            connection.drop(RedisConnectionError("The storage was closed"), ours=True)
        # The sockets are closed in the next iteration of the loop. An interrupt at the start must not be kept waiting for that.
        if isinstance(error, (GeneratorExit, asyncio.CancelledError)):
            await asyncio.sleep(0)
        raise


class AsyncRedisStorage(AsyncLimitsVerbs, LimitsRedisStorage):
    """Windows on one Redis server, version 7 or newer, or on Valkey, for asyncio.

    A decision is one script call, one round trip, by the server's clock. It is never sent twice. One object serves several
    event loops, one after another or at the same time, and closes the connections of a loop when it shuts down (`asyncio.run`
    does that). The tasks of one loop share a connection. Batches use others, up to `max_connections` in all. When a task is
    cancelled, its reply is discarded; whether its hit was counted is then unknown.

    Arguments:
        uri: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`; with user, password and database.
        timeout: the longest time that a decision takes, in seconds, 0.5 by default: connecting and the reply together.
            `?timeout=` in the URI takes precedence. A batch may take this long for every 250 requests.
        connection_pool: a pool of `redis.asyncio` whose connection class and options are used instead of the URI. Its
            own connections are not used.
        circuit: when to stop sending requests to a server that does not answer; None never stops.
        options: options of redis-py's connections (`socket_timeout`, `max_connections`, `ssl_ca_certs`, ...). The options for
            retries (`retry`, `retry_on_error`, `retry_on_timeout`) have no effect.

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
            pool = ConnectionPool(**server_options.settings(parse(uri, "redis"), timeout, options, redis_connection))
        waiting: float | None = server_options.checked(pool).socket_timeout
        self.timeout: float = (
            checked_timeout(timeout) if waiting is None else checked_timeout(waiting, "socket_timeout")
        )
        # `limits` uses the pool for its own client, which is never used.
        super().__init__("redis://", wrap_exceptions, "redispy", connection_pool=pool)  # type: ignore[arg-type]  # `limits` documents it
        self._where = server_options.address(pool.connection_kwargs)
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        # No reference to this object, so that it is freed as soon as it is dropped, without the garbage collector.
        self._reach: Callable[[float], Awaitable[Any]] = partial(  # Any: a connection of redis-py's
            connected, pool.connection_class, server_options.once(pool.connection_kwargs)
        )
        self._most = server_options.places(pool)
        self._uses_tls = issubclass(pool.connection_class, redis_connection.SSLConnection)
        self.breaker = breaker_for(server_options.circuit_of(self._where, pool, redis_connection), circuit, self._where)
        self.circuits = Circuits({self._where: self.breaker})
        """The state of the server's circuit, by its address."""
        self._lanes: dict[asyncio.AbstractEventLoop, Lanes] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._where}>"

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.acquire(windows, cost)
        loop = running_loop()
        deadline = loop.time() + self.timeout
        # Not by `_run`, whose coroutine a thousand tasks would keep alive a thousand times.
        slot = self._put_at_once(loop, call, keys, call.reads, deadline)
        if slot is None:
            return await self._run(call, keys, call.reads)
        answer = await slot.answer
        if isinstance(answer, list) and isinstance(answer[0], Verdict):
            return answer[0]
        return await self._answered(answer, call, keys, call.reads, deadline)

    async def acquire_many(self, requests: Sequence[Request]) -> GroupedVerdicts:
        """`acquire` for each request, in the given order, `scripts.REQUESTS_PER_CALL` in one round trip.

        If a round trip fails, the hits of the earlier round trips stay counted, and so do those of the next one, which is
        already on its way. Pass no more requests at once than you can afford to lose in this way.
        """
        if len(requests) <= scripts.REQUESTS_PER_CALL:
            batch = requests[:]
            if not batch:
                return GroupedVerdicts(())
            read = partial(scripts.answers, requests=batch)
            call = self._scripts.acquire_many(batch)
            return GroupedVerdicts((await self._run(call, scripts.keys_of(batch), (read,), batch=True),))
        groups: list[decided.Replies] = []
        try:
            for batches in scripts.round_trips(requests):
                groups += await self._converse(scripts.conversation(self._scripts, batches))
        except StorageError as error:
            failures.ended_batch(error, first=not groups)
            raise
        return GroupedVerdicts(groups)

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.peek(windows, cost)
        return await self._run(call, keys, call.reads)

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        hit = scripts.held_hit(windows, keys, tokens)
        if not hit.keys:
            return False
        read = partial(replies.given, windows=hit.windows)
        return await self._run(self._scripts.release(hit, cost), hit.keys, (read,)) > 0

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        if not keys:
            return 0
        return await self._run(self._scripts.forget(windows), keys, (partial(replies.number, most=len(keys)),))

    async def pause(self, window: Window, key: str, duration: int) -> int:
        read = partial(replies.paused_until, window=window)
        return await self._run(self._scripts.pause(window, duration), [key], (read,))

    async def check(self) -> bool:
        """Whether the server replies."""
        try:
            return await self._ask(_PING, scripts.pong)
        except StorageError:
            return False

    async def reset(self) -> int | None:
        """Delete every window of this library in the server's database, of all namespaces. Returns how many.

        It scans the database in small steps, so it takes long if there are many other keys.
        """
        dropped, cursor = 0, b"0"
        while True:
            cursor, keys = await self._ask(scripts.scan(cursor), scripts.scanned)
            if keys:
                dropped += await self._ask(scripts.command(b"UNLINK", *keys), partial(replies.number, most=len(keys)))
            if cursor == b"0":
                return dropped

    async def close(self) -> None:
        """Close the connections of this event loop. Other event loops close their own."""
        lanes = self._lanes.pop(running_loop(), None)
        if lanes is not None:
            await lanes.keeper.aclose()

    async def _run(
        self,
        call: scripts.Call,
        keys: Sequence[str],
        reads: tuple[Callable[[Any], T]],  # Any: a reply
        *,
        batch: bool = False,
    ) -> T:
        loop = running_loop()
        deadline = loop.time() + self.timeout
        slot = None if batch else self._put_at_once(loop, call, keys, reads, deadline)
        if slot is None:
            answer = await self._exchange(call.by_name(keys), reads, deadline, batch=batch)
            return await self._answered(answer, call, keys, reads, deadline, batch=batch)
        return await self._answered(await slot.answer, call, keys, reads, deadline)

    def _put_at_once(
        self,
        loop: asyncio.AbstractEventLoop,
        call: scripts.Call,
        keys: Sequence[str],
        reads: tuple[Callable[[Any], T]],  # Any: a reply
        deadline: float,
    ) -> Slot | None:
        """Send a script call without waiting; None if it would have to connect, or to wait, first.

        This is the same as `_exchange`, without its coroutines.
        """
        lanes = self._lanes.get(loop)
        if lanes is None or self.breaker.is_open:
            return None
        return lanes.decisions.put_at_once(call.by_name(keys), reads, deadline)

    async def _answered(
        self,
        answer: list[Any] | StorageError,  # Any: what was parsed from the reply
        call: scripts.Call,
        keys: Sequence[str],
        reads: tuple[Callable[[Any], T]],  # Any: a reply
        deadline: float,
        *,
        batch: bool = False,
    ) -> T:
        """The answer to a script call, which is sent once more if the server does not know the script yet."""
        if not isinstance(answer, list):
            raise answer
        (found,) = answer
        if isinstance(found, NoScriptError):
            # Refused before the script ran, so it is safe to send it again.
            (found,) = await self._exchange(call.by_text(keys), reads, deadline, batch=batch)
        checked: T = self._checked(found)
        return checked

    async def _ask(self, command: bytes, read: Callable[[Any], T]) -> T:  # Any: as above
        """Send one command and return its answer."""
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
        reads: Sequence[Callable[[Any], Any]],  # Any: replies, and what is parsed from them
        deadline: float,
        *,
        batch: bool = False,
    ) -> list[Any]:  # Any: as above
        """Send these commands and return the parsed replies, a `ResponseError` for each error reply."""
        lanes = self._of_loop()
        if self.breaker.is_open:
            await self._probe(lanes, deadline)
        connection = lanes.batches() if batch else lanes.decisions
        return await connection.ask(command, reads, deadline)

    async def _converse(self, conversation: Generator[bytes, Any, T]) -> T:  # Any: replies
        """Run a conversation and return its result. Each reply is for hundreds of requests and has a time-out of its own."""
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
                # No caller waits for its reply any more.
                slot.answer.cancel()

    async def _probe(self, lanes: Lanes, deadline: float) -> None:
        """Return when the server has answered a PING; raise at once if this caller does not have to send one."""
        # Without this, tasks that keep calling would never let the event loop read the reply.
        await asyncio.sleep(0)
        breaker = self.breaker
        if not breaker.is_open:
            return
        if not breaker.may_probe():
            await breaker.refused_task(deadline - running_loop().time())
            raise failures.not_asked(self._where, breaker.hint)
        seconds = breaker.ping_time(self.timeout)
        try:
            until = min(deadline, running_loop().time() + seconds)
            await lanes.decisions.ask(_PING, (scripts.pong,), until)
        except StorageError as error:
            # A refusal is a reply, and closes the circuit.
            if breaker.is_open:
                raise failures.still_silent(self._where, seconds, breaker.hint) from error

    def _refused(self, answer: ResponseError) -> None:
        """A hook for subclasses: the server refused the command."""

    def _of_loop(self) -> Lanes:
        loop = running_loop()
        return self._lanes.get(loop) or self._open(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> Lanes:
        for other in [other for other in self._lanes.copy() if other.is_closed()]:
            self._lanes.pop(other, None)
        storage_error = partial(failures.storage_error, self._where, self.timeout)
        make = partial(
            MultiplexedConnection,
            loop,
            self._reach,
            self.timeout,
            self.breaker,
            storage_error,
            uses_tls=self._uses_tls,
        )
        lanes = self._lanes[loop] = Lanes(make, self._most)
        return lanes


def _as_it_came(reply: Any) -> Any:  # Any: a reply
    return reply
