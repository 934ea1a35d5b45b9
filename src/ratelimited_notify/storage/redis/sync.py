"""The synchronous storage on one Redis or Valkey server."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from limits.storage import RedisStorage as LimitsRedisStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.engine import LimitsVerbs
from ratelimited_notify.storage.interrupts import raised_by_caller
from ratelimited_notify.storage.redis import decided, failures, options as server_options, replies, scripts
from ratelimited_notify.storage.redis.connection import Connections
from ratelimited_notify.storage.redis.dial import connected
from ratelimited_notify.storage.redis.replies import UnreadableWindow
from ratelimited_notify.storage.uri import parse
from ratelimited_notify.windows.lazy_verdicts import GroupedVerdicts

# After `options`, which says what to install where redis is missing.
import redis.connection as redis_connection  # isort: skip
from redis.connection import ConnectionPool  # isort: skip
from redis.exceptions import ConnectionError as RedisConnectionError, NoScriptError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.redis.connection import Connection
    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

T = TypeVar("T")

_PING = scripts.command(b"PING")


class RedisStorage(LimitsVerbs, LimitsRedisStorage):
    """Windows on one Redis server, version 7 or newer, or on Valkey.

    A decision is one script call, one round trip, by the server's clock. It is never sent twice. Threads share up to
    `max_connections` connections. If all are in use, a thread waits for a free one.

    Arguments:
        uri: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`; with user, password and database.
        timeout: the longest time that a decision takes, in seconds, 0.5 by default: waiting for a connection, connecting and
            the reply together. `?timeout=` in the URI takes precedence. A batch may take this long for every 250 requests.
        connection_pool: a pool of redis-py, with a `socket_timeout`, whose connection class and options are used instead of
            the URI. Its own connections are not used.
        circuit: when to stop sending requests to a server that does not answer; None never stops.
        options: options of redis-py's connections (`socket_timeout`, `max_connections`, `ssl_ca_certs`, ...). The options for
            retries (`retry`, `retry_on_error`, `retry_on_timeout`) have no effect.

    Raises:
        NotifyError: the URI or an option cannot be used.
    """

    STORAGE_SCHEME = ["notify+redis"]

    exact = True

    # Lua that sets `now`, in microseconds; `call` is `redis.call`. Tests replace it with a clock that reads a key. Keys still
    # expire by the real time.
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
        self.timeout: float = server_options.bounded(server_options.checked(pool))
        super().__init__("redis://", pool, wrap_exceptions=wrap_exceptions)  # pyright: ignore[reportUnknownMemberType]  # as above
        self._where = server_options.address(pool.connection_kwargs)
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        # No reference to this object, so that it is freed as soon as it is dropped, without the garbage collector.
        reach = partial(connected, pool.connection_class, server_options.once(pool.connection_kwargs))
        self._connections = Connections(reach, server_options.places(pool))
        self.breaker = breaker_for(server_options.circuit_of(self._where, pool, redis_connection), circuit, self._where)
        self.circuits = Circuits({self._where: self.breaker})
        """The state of the server's circuit, by its address."""

    def initialize_storage(self, _uri: str) -> None:
        """Does nothing: `limits`' own scripts are not used."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._where}>"

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.acquire(windows, cost)
        return self._run(call, keys, call.read)

    def acquire_many(self, requests: Sequence[Request]) -> GroupedVerdicts:
        """`acquire` for each request, in the given order, `scripts.REQUESTS_PER_CALL` in one round trip.

        If a round trip fails, the hits of the earlier round trips stay counted, and so do those of the next one, which is
        already on its way. Pass no more requests at once than you can afford to lose in this way.
        """
        if len(requests) <= scripts.REQUESTS_PER_CALL:
            batch = requests[:]
            if not batch:
                return GroupedVerdicts(())
            read = partial(scripts.answers, requests=batch)
            return GroupedVerdicts((self._run(self._scripts.acquire_many(batch), scripts.keys_of(batch), read),))
        groups: list[decided.Replies] = []
        try:
            for batches in scripts.round_trips(requests):
                conversation = scripts.conversation(self._scripts, batches)
                groups += self._exchange(partial(_converse, conversation, self.timeout), self._deadline())
        except StorageError as error:
            failures.ended_batch(error, first=not groups)
            raise
        return GroupedVerdicts(groups)

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.peek(windows, cost)
        return self._run(call, keys, call.read)

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        hit = scripts.held_hit(windows, keys, tokens)
        if not hit.keys:
            return False
        read = partial(replies.given, windows=hit.windows)
        return self._run(self._scripts.release(hit, cost), hit.keys, read) > 0

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        if not keys:
            return 0
        return self._run(self._scripts.forget(windows), keys, partial(replies.number, most=len(keys)))

    def pause(self, window: Window, key: str, duration: int) -> int:
        return self._run(self._scripts.pause(window, duration), [key], partial(replies.paused_until, window=window))

    def check(self) -> bool:
        """Whether the server replies."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Check that the server replies. Raises a `StorageError` that says why it does not."""
        self._ask(_PING, scripts.pong)

    def reset(self) -> int | None:
        """Delete every window of this library in the server's database, of all namespaces. Returns how many.

        It scans the database in small steps, so it takes long if there are many other keys.
        """
        dropped, cursor = 0, b"0"
        while True:
            cursor, keys = self._ask(scripts.scan(cursor), scripts.scanned)
            if keys:
                dropped += self._ask(scripts.command(b"UNLINK", *keys), partial(replies.number, most=len(keys)))
            if cursor == b"0":
                return dropped

    def close(self) -> None:
        self._connections.close()

    def _deadline(self) -> float:
        return time.monotonic() + self.timeout

    def _run(self, call: scripts.Call, keys: Sequence[str], read: Callable[[Any], T]) -> T:  # Any: a reply
        deadline = self._deadline()
        answer = self._exchange(partial(_asked, call.by_name(keys), read), deadline)
        if isinstance(answer, NoScriptError):
            # Refused before the script ran, so it is safe to send it again.
            answer = self._exchange(partial(_asked, call.by_text(keys), read), deadline)
        return self._checked(answer)

    def _ask(self, command: bytes, read: Callable[[Any], T]) -> T:  # Any: as above
        """Send one command and return its answer."""
        answer = self._exchange(partial(_asked, command, read), self._deadline())
        return self._checked(answer)

    def _checked(self, answer: T | ResponseError | UnreadableWindow) -> T:
        if isinstance(answer, ResponseError):
            self._refused(answer)
            raise self._failure(answer, sent=True) from None
        if isinstance(answer, UnreadableWindow):
            raise answer
        return answer

    def _exchange(
        self,
        talk: Callable[[Connection], T],
        deadline: float,
        *,
        probing: bool = False,
    ) -> T:
        """Run `talk` with a connection of its own until the deadline, and return its result.

        This does not use redis-py's client, which takes a third longer and may resend a command: a script sent twice counts
        twice.
        """
        breaker = self.breaker
        if breaker.is_open and not probing:
            self._probe(deadline)
        began = asked = time.monotonic()
        places = self._connections.places
        connection: Connection | None = None
        try:
            connection = places.take(deadline, None if probing else breaker)
            if connection is None:
                raise self._no_place()
            asked = time.monotonic()
            connection.begin(deadline)
            answer = talk(connection)
        except BaseException as error:
            # Also for an interrupt: an unread reply would be taken for the answer to another call.
            sent = connection is not None and connection.sent
            if connection is not None:
                connection.drop()
                places.freed()
            if not isinstance(error, (*failures.FAILURES, failures.UnexpectedReply)):
                raise
            alarm = raised_by_caller(error)
            if alarm is not None:
                raise alarm from None
            if connection is not None and failures.is_silence(error):
                places.slow_down()
            if connection is not None and connection.is_unproven and type(error) is RedisConnectionError:
                error = failures.NeverAnswered(str(error))
            told = self._unanswered(error, began, asked, sent=sent)
            # The server's own words may contain the user or a key.
            raise told from (
                None if isinstance(error, ResponseError) or isinstance(told, failures.AccessRefused) else error
            )
        if places is self._connections.places:
            places.give(connection)
        else:
            # The storage was closed in the meantime, or this is a forked child.
            connection.drop()
        if breaker.failures:
            breaker.answered()
        return answer

    def _unanswered(self, error: Exception, began: float, asked: float, *, sent: bool) -> StorageError:
        breaker = self.breaker
        if isinstance(error, ResponseError):
            self._refused(error)
        late = failures.has_timed_out(error)
        if late and time.monotonic() - asked < self.timeout / 2:
            # Other callers used up the time. The server had too little for the time-out to count against it.
            if not sent:
                return failures.out_of_time(self._where, self.timeout, error)
        elif failures.is_silence(error):
            breaker.failed(began, timed_out=late, hint=failures.hint(error))
            if breaker.is_open:
                # Idle connections may be broken too, and the PINGs would find that out only one by one.
                self._connections.places.close()
        elif breaker.failures:
            breaker.answered()
        return failures.storage_error(self._where, self.timeout, error, sent)

    def _probe(self, deadline: float) -> None:
        """Return when the server has answered a PING; raise at once if this caller does not have to send one."""
        breaker = self.breaker
        if not breaker.may_probe():
            breaker.refused(deadline - time.monotonic())
            raise failures.not_asked(self._where, breaker.hint)
        seconds = breaker.ping_time(self.timeout)
        try:
            self._exchange(
                partial(_asked, _PING, scripts.pong), min(deadline, time.monotonic() + seconds), probing=True
            )
        except StorageError as error:
            # A refusal is a reply, and closes the circuit.
            if breaker.is_open:
                raise failures.still_silent(self._where, seconds, breaker.hint) from error

    def _refused(self, answer: ResponseError) -> None:
        """A hook for subclasses: the server refused the command."""

    def _no_place(self) -> StorageError:
        if self.breaker.is_open:
            return failures.not_asked(self._where, self.breaker.hint)
        return failures.no_free_connection(self._where, self._connections.places.most)

    def _failure(self, error: Exception, *, sent: bool) -> StorageError:
        return failures.failure(error, self._where, self.timeout, sent=sent)


def _asked(
    command: bytes,
    read: Callable[[Any], T],  # Any: a reply
    connection: Connection,
) -> T | ResponseError | UnreadableWindow:
    # The reply is checked while the caller still has the connection, so that a connection with a wrong reply is dropped.
    return replies.checked_reply(read, connection.ask(command))


def _converse(
    conversation: Generator[bytes, Any, T],  # Any: replies
    timeout: float,
    connection: Connection,
) -> T:
    try:
        step = next(conversation)
        while True:
            if step:
                connection.extend(time.monotonic() + timeout)
                connection.send(step)
                step = next(conversation)
            else:
                # Each reply is for hundreds of requests, and has a time-out of its own.
                connection.extend(time.monotonic() + timeout)
                reply = connection.reply()
                if isinstance(reply, ResponseError):
                    raise reply
                step = conversation.send(reply)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the generator returned
