"""The synchronous storage on one Redis or Valkey server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from limits.storage import RedisStorage as LimitsRedisStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.pages import Pages
from ratelimited_notify.storage.engine import LimitsVerbs
from ratelimited_notify.storage.redis import connection, scripts
from ratelimited_notify.storage.redis.turns import Turns

# After `connection`, which says what to install where redis is missing.
from redis.connection import ConnectionPool, parse_url  # isort: skip  # pyright: ignore[reportUnknownVariableType]  # redis-py does not say
from redis.exceptions import NoScriptError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ratelimited_notify.windows import Grant, Request, Token, Window


class RedisStorage(LimitsVerbs, LimitsRedisStorage):
    """Windows on one Redis server, version 7 or newer, or on Valkey.

    A decision is one script, one round trip, by the server's clock; it is never sent twice. Threads share up to
    `max_connections` connections and wait for a free one while the server answers the others.

    Arguments:
        uri: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`; with user, password and database.
        timeout: the longest wait for a connection, and for an answer, in seconds; `?timeout=` in the URI wins.
        connection_pool: a pool of redis-py's to use instead of the URI, whose connections have a `socket_timeout`; it is
            not closed here.
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
        **options: Any,  # Any: whatever redis-py takes.
    ) -> None:
        pool = connection_pool
        if pool is None:
            pool = ConnectionPool(**connection.settings(uri, timeout, options, parse_url))  # pyright: ignore[reportUnknownArgumentType]  # as above
        self.timeout: float = connection.bounded(connection.checked(pool))
        super().__init__("redis://", pool, wrap_exceptions=wrap_exceptions)  # pyright: ignore[reportUnknownMemberType]  # as above
        self._pool: connection.Pool = pool
        self._owned = connection_pool is None
        self._where = connection.address(pool.connection_kwargs)
        self._scripts = scripts.Scripts(self._CLOCK_LUA)
        self._turns = Turns(connection.places(pool))
        # Whether the last thing known about the server is that it does not answer.
        self._silent = False

    def initialize_storage(self, _uri: str) -> None:
        """`limits`' own scripts are not used."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._where}>"

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return scripts.grant(self._run(self._scripts.acquire(windows, cost), keys))

    def acquire_many(self, requests: Sequence[Request]) -> Pages:
        """`acquire` for each request, in the order given, `scripts.REQUESTS_PER_CALL` in one round trip.

        Where a later round trip fails, what the earlier ones took stays taken, and what the one behind it takes, which is on
        its way already: pass no more requests at once than may be lost so.
        """
        if len(requests) <= scripts.REQUESTS_PER_CALL:
            batch = requests[:]
            if not batch:
                return Pages(())
            return Pages(
                (scripts.answers(self._run(self._scripts.acquire_many(batch), scripts.keys_of(batch)), batch),)
            )
        pages: list[scripts.Replies] = []
        for turn in scripts.turns(requests):
            conversation = scripts.conversation(self._scripts, turn)
            pages += self._exchange(next(conversation), partial(_converse, conversation))
        return Pages(pages)

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return scripts.grant(self._run(self._scripts.peek(windows, cost), keys))

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        counted = scripts.counted(windows, keys, tokens)
        if not counted.keys:
            return False
        given: int = self._run(self._scripts.release(counted, cost), counted.keys)
        return given > 0

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        if not keys:
            return 0
        held: int = self._run(self._scripts.forget(windows), keys)
        return held

    def check(self) -> bool:
        """Whether the server answers."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Make sure that the server answers; raises a `StorageError` that says why it does not."""
        self._ask(scripts.command(b"PING"))

    def reset(self) -> int | None:
        """Drop every window of this library on the server's database, of all namespaces; returns how many.

        It looks through the database in small steps, so it takes long where there is much else.
        """
        dropped, cursor = 0, b"0"
        while True:
            cursor, found = self._ask(scripts.scan(cursor))
            keys = scripts.ours(found)
            if keys:
                dropped += self._ask(scripts.command(b"UNLINK", *keys))
            if cursor == b"0":
                return dropped

    def close(self) -> None:
        if self._owned:
            self._pool.disconnect()

    def _run(self, call: scripts.Call, keys: Sequence[str]) -> Any:  # Any: what the script answers.
        try:
            return self._ask(call.by_name(keys))
        except NoScriptError:
            # Refused before anything ran, so it may be asked again.
            return self._ask(call.by_text(keys))

    def _ask(self, command: bytes) -> Any:  # Any: as redis-py has it.
        """One command and its answer."""
        return self._exchange(command, _answer)

    def _exchange(self, command: bytes, read: Callable[[connection.Connection], Any]) -> Any:  # Any: as above.
        """One or more commands and what is read then, on a connection of the pool's.

        Not by redis-py's client, which costs a third more, and may send a command again: a script sent twice counts twice.
        """
        if not self._turns.try_take():
            self._wait()
        connected: connection.Connection | None = None
        try:
            connected = self._pool.get_connection()
            connected.send_packed_command([command])
            answer = read(connected)
        except ResponseError as error:
            if isinstance(error, NoScriptError):
                raise
            raise self._failure(error, sent=True) from None
        except connection.FAILURES as error:
            if connected is not None:
                # Not all of redis-py's connections do it themselves.
                connected.disconnect()
            self._silent = True
            raise self._failure(error, sent=connected is not None) from error
        except BaseException:
            # An interrupt: a reply that was not read would be taken for the answer to another call.
            if connected is not None:
                connected.disconnect()
            raise
        finally:
            try:
                if connected is not None:
                    self._pool.release(connected)
            finally:
                self._turns.give()
        self._silent = False
        return answer

    def _wait(self) -> None:
        if not self._turns.wait(connection.PATIENCE * self.timeout):
            raise connection.crowded(self._where, self._turns.places)
        if self._silent:
            self._turns.give()
            raise connection.hopeless(self._where, self.timeout)

    def _failure(self, error: Exception, *, sent: bool) -> StorageError:
        return connection.failure(error, self._where, self.timeout, sent=sent)


def _converse(
    conversation: Generator[bytes, Any, connection.T],  # Any: as redis-py has it.
    connected: connection.Connection,
) -> connection.T:
    """The rest of a conversation whose first command has been sent."""
    try:
        step = next(conversation)
        while True:
            if step:
                connected.send_packed_command([step])
                step = next(conversation)
            else:
                step = conversation.send(connected.read_response(disable_decoding=True))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the generator returned
    except BaseException:
        # Another answer may be on its way, which the next call would take for its own.
        connected.disconnect()
        raise


def _answer(connected: connection.Connection) -> Any:  # Any: as redis-py has it.
    return connected.read_response(disable_decoding=True)
