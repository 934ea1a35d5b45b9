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
from ratelimited_notify.storage.interrupts import of_the_caller
from ratelimited_notify.storage.redis import decided, failures, options as server_options, replies, scripts
from ratelimited_notify.storage.redis.connection import Connections
from ratelimited_notify.storage.redis.dial import connected
from ratelimited_notify.storage.redis.replies import UnreadableWindow
from ratelimited_notify.windows.lazy_verdicts import GroupedVerdicts

# After `options`, which says what to install where redis is missing.
from redis.connection import ConnectionPool, parse_url  # isort: skip  # pyright: ignore[reportUnknownVariableType]  # redis-py does not say
from redis.exceptions import NoScriptError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.redis.connection import Connection
    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

T = TypeVar("T")

_PING = scripts.command(b"PING")


class RedisStorage(LimitsVerbs, LimitsRedisStorage):
    """Windows on one Redis server, version 7 or newer, or on Valkey.

    A decision is one script, one round trip, by the server's clock; it is never sent twice. Threads share up to
    `max_connections` connections and wait for a free one while the server answers the others.

    Arguments:
        uri: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`; with user, password and database.
        timeout: the most seconds that a decision takes, 0.5 by default: waiting for a connection, connecting and the
            answer together. `?timeout=` in the URI wins. A batch may take as long for every 250 requests.
        connection_pool: a pool of redis-py's whose connection class and options to use instead of the URI, with a
            `socket_timeout`. Its connections are left alone.
        circuit: when to stop asking a server that does not answer; None never stops.
        options: what redis-py's connections take (`socket_timeout`, `max_connections`, `ssl_ca_certs`, ...). Those that
            make it try again (`retry`, `retry_on_error`, `retry_on_timeout`) have no effect.

    Raises:
        NotifyError: the URI or an option cannot be used.
    """

    STORAGE_SCHEME = ["notify+redis"]

    exact = True

    # Lua that sets `now`, in microseconds; `call` is `redis.call`. Tests put a clock of their own here, which reads a key;
    # keys still expire by the real time.
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
            pool = ConnectionPool(**server_options.settings(uri, timeout, options, parse_url))  # pyright: ignore[reportUnknownArgumentType]  # as above
        self.timeout: float = server_options.bounded(server_options.checked(pool))
        super().__init__("redis://", pool, wrap_exceptions=wrap_exceptions)  # pyright: ignore[reportUnknownMemberType]  # as above
        self._where = server_options.address(pool.connection_kwargs)
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        # Without a reference to this object: what is forgotten goes at once, and not with the garbage collector.
        reach = partial(connected, pool.connection_class, server_options.once(pool.connection_kwargs))
        self._connections = Connections(reach, server_options.places(pool))
        self.breaker = breaker_for(self._where, circuit)
        self.circuits = Circuits({self._where: self.breaker})
        """The state of the server's circuit, by its address."""

    def initialize_storage(self, _uri: str) -> None:
        """`limits`' own scripts are not used."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._where}>"

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.acquire(windows, cost)
        return self._run(call, keys, call.read)

    def acquire_many(self, requests: Sequence[Request]) -> GroupedVerdicts:
        """`acquire` for each request, in the order given, `scripts.REQUESTS_PER_CALL` in one round trip.

        Where a later round trip fails, what the earlier ones took stays taken, and what the one behind it takes, which is on
        its way already: pass no more requests at once than may be lost so.
        """
        if len(requests) <= scripts.REQUESTS_PER_CALL:
            batch = requests[:]
            if not batch:
                return GroupedVerdicts(())
            read = partial(scripts.answers, requests=batch)
            return GroupedVerdicts((self._run(self._scripts.acquire_many(batch), scripts.keys_of(batch), read),))
        pages: list[decided.Replies] = []
        for turn in scripts.turns(requests):
            conversation = scripts.conversation(self._scripts, turn)
            pages += self._exchange(partial(_converse, conversation, self.timeout), self._deadline())
        return GroupedVerdicts(pages)

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        call = self._scripts.peek(windows, cost)
        return self._run(call, keys, call.read)

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        counted = scripts.counted(windows, keys, tokens)
        if not counted.keys:
            return False
        read = partial(replies.given, windows=counted.windows)
        return self._run(self._scripts.release(counted, cost), counted.keys, read) > 0

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        if not keys:
            return 0
        return self._run(self._scripts.forget(windows), keys, partial(replies.number, most=len(keys)))

    def check(self) -> bool:
        """Whether the server answers."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Make sure that the server answers; raises a `StorageError` that says why it does not."""
        self._ask(_PING, scripts.pong)

    def reset(self) -> int | None:
        """Drop every window of this library on the server's database, of all namespaces; returns how many.

        It looks through the database in small steps, so it takes long where there is much else.
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
            # Refused before anything ran, so it may be asked again.
            answer = self._exchange(partial(_asked, call.by_text(keys), read), deadline)
        return self._checked(answer)

    def _ask(self, command: bytes, read: Callable[[Any], T]) -> T:  # Any: as above
        """One command and its answer."""
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
        """What `talk` returns, which has a connection for itself until the deadline.

        Not by redis-py's client, which costs a third more, and may send a command again: a script sent twice counts twice.
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
            # An interrupt too: a reply that was not read would be taken for the answer to another call.
            sent = connection is not None and connection.sent
            if connection is not None:
                connection.drop()
                places.freed()
            if not isinstance(error, (*failures.FAILURES, failures.UnexpectedReply)):
                raise
            alarm = of_the_caller(error)
            if alarm is not None:
                raise alarm from None
            raise self._unanswered(error, began, asked, sent=sent) from error
        if places is self._connections.places:
            places.give(connection)
        else:
            # The storage was closed meanwhile, or this is a forked child.
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
            # Others have used up the time: of a server that was given so little, it tells nothing.
            if not sent:
                return failures.out_of_time(self._where, self.timeout, error)
        elif failures.is_silence(error):
            breaker.failed(began, timed_out=late)
            if breaker.is_open:
                # What lies idle may lead nowhere, too: the PINGs would find that out one by one.
                self._connections.places.close()
        elif breaker.failures:
            breaker.answered()
        return failures.storage_error(self._where, self.timeout, error, sent)

    def _probe(self, deadline: float) -> None:
        """Return when the server has answered a PING; raise at once where it is not this caller's turn to send one."""
        breaker = self.breaker
        if not breaker.may_probe():
            breaker.refused()
            raise failures.not_asked(self._where)
        seconds = breaker.ping_time(self.timeout)
        try:
            self._exchange(
                partial(_asked, _PING, scripts.pong), min(deadline, time.monotonic() + seconds), probing=True
            )
        except StorageError as error:
            # A refusal is an answer, and the circuit is closed.
            if breaker.is_open:
                raise failures.still_silent(self._where, seconds) from error

    def _refused(self, answer: ResponseError) -> None:
        """What else follows from a refusal."""

    def _no_place(self) -> StorageError:
        if self.breaker.is_open:
            return failures.not_asked(self._where)
        return failures.no_free_connection(self._where, self._connections.places.most)

    def _failure(self, error: Exception, *, sent: bool) -> StorageError:
        return failures.failure(error, self._where, self.timeout, sent=sent)


def _asked(
    command: bytes,
    read: Callable[[Any], T],  # Any: a reply
    connection: Connection,
) -> T | ResponseError | UnreadableWindow:
    # It is read while the connection is held, so that one with a wrong reply is dropped.
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
