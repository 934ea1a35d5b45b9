"""What a server sends on a connection of asyncio: replies, split off as they arrive.

Strings and whole numbers are the replies to almost all requests. They are split off here, all that have arrived in one step,
without a task. redis-py's parser awaits several coroutines for each reply, so it gets only what is left: errors, lists and the
other types of the protocol (RESP, https://redis.io/docs/latest/develop/reference/protocol-spec/).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from ratelimited_notify.storage.redis import failures
from ratelimited_notify.storage.redis.dial_aio import abort

# After `failures`, which says what to install where redis is missing.
from redis.exceptions import ConnectionError as RedisConnectionError, ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Rest: TypeAlias = Literal["incomplete", "other", "garbled"]
"""What follows the last reply that was split off: the beginning of another one or nothing, a reply of another type, or bytes
that are no reply."""

_STRING, _NUMBER = b"$:"
_END = b"\r\n"

_LONGEST_LINE = 24
"""The most bytes of a number and its line break."""

_LONGEST = 2**16
"""The most bytes of a string that is split off here. redis-py's parser takes longer ones, without copying the first part again
when the next one arrives."""

_CLOSED = "Connection closed by server."

_ROOM = 2**16
"""The most bytes to read from the socket at once."""

_UNTOUCHED = b"\xc1" * 8
"""The beginning of the buffer while nothing in it is unread. No reply has it."""

_parsing: set[asyncio.Task[None]] = set()


def split(data: bytes) -> tuple[list[bytes | int], int, Rest]:
    """The complete strings and numbers at the beginning of the data, how many bytes they take, and what follows."""
    found: list[bytes | int] = []
    at, size = 0, len(data)
    while at < size:
        kind = data[at]
        if kind != _STRING and kind != _NUMBER:
            return found, at, "other"
        end = data.find(_END, at, at + _LONGEST_LINE)
        if end < 0:
            return found, at, "incomplete" if size < at + _LONGEST_LINE else "other"
        digits = data[at + 1 : end]
        if kind == _NUMBER:
            if not digits.removeprefix(b"-").isdigit():
                return found, at, "other"
            found.append(int(digits))
            at = end + 2
            continue
        # `int` would accept more than digits.
        length = int(digits) if digits.isdigit() else _LONGEST + 1
        if length > _LONGEST:
            return found, at, "other"
        begin = end + 2
        end = begin + length
        if data[end : end + 2] != _END:
            return found, at, "garbled" if size >= end + 2 else "incomplete"
        found.append(data[begin:end])
        at = end + 2
    return found, at, "incomplete"


class Receiver(Protocol):
    """What replies are handed to."""

    @property
    def expects_replies(self) -> bool: ...

    def receive(self, found: Sequence[Any]) -> None:  # Any: replies
        """Take the next replies. It raises an `UnexpectedReply` if one of them does not match its request."""
        ...

    def stumbled(self, inner: Any, error: Exception, *, ours: bool = False) -> None:  # Any: a connection of redis-py's
        """The connection cannot be used any more. `ours`: the server is not the cause."""
        ...


def _nobody() -> None:
    """There is no receiver any more."""


class Incoming(asyncio.BufferedProtocol):
    """Reads from a connection that redis-py has connected, in the place of redis-py's own reader.

    The event loop reads from the socket into a buffer of this object. A signal handler may raise between that and the call of
    `buffer_updated`: what was read would be missing, and the next replies would go to the wrong callers. So the buffer's
    beginning shows whether it holds anything unread.

    Arguments:
        inner: the connection.
        receiver: a weak reference: the event loop must not keep a connection alive that is not used elsewhere.

    Raises:
        RedisError: the server has closed the connection, or has sent an error without a request.
        UnexpectedReply: the server has sent something else without a request.
    """

    def __init__(self, inner: Any, receiver: Callable[[], Receiver | None]) -> None:  # Any: a connection of redis-py's
        self._inner = inner
        self._stream = inner._reader  # redis-py has no public name for it
        self._receiver = receiver
        self._buffer = bytearray(_UNTOUCHED).ljust(_ROOM)
        self._room = memoryview(self._buffer)
        self._rest = b""
        """The beginning of a reply."""
        self._task: asyncio.Task[None] | None = None
        """Waits for redis-py's parser. Until it is done, all data goes there."""
        if self._has_more():
            abort(inner)
            raise self._unasked(self._stream._buffer)
        if self._has_ended():
            abort(inner)
            raise RedisConnectionError(_CLOSED)
        inner._writer.transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if not self._buffer.startswith(_UNTOUCHED):
            receiver = self._receiver()
            if receiver is not None:
                receiver.stumbled(self._inner, RedisConnectionError("It was interrupted"), ours=True)
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        receiver = self._receiver()
        try:
            data = bytes(self._room[:nbytes])
            self._buffer[: len(_UNTOUCHED)] = _UNTOUCHED
            if receiver is None:
                abort(self._inner)
            elif self._task is not None:
                self._stream.feed_data(data)
            else:
                self._split(receiver, self._rest + data if self._rest else data)
        except BaseException as error:
            if receiver is None or not self._failed(receiver, error):
                raise

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        receiver = self._receiver()
        if receiver is None:
            return
        error = RedisConnectionError(_CLOSED if exc is None else str(exc))
        if self._task is None:
            receiver.stumbled(self._inner, error)
        else:
            # What has arrived before is still read.
            self._stream.feed_eof()

    def close(self) -> None:
        """Close the connection at once, without waiting. Nothing that arrives later is read."""
        self._receiver = _nobody
        if self._task is not None:
            self._task.cancel()
        abort(self._inner)

    def _split(self, receiver: Receiver, data: bytes) -> None:
        found, at, follows = split(data)
        self._rest = data[at:]
        if found:
            receiver.receive(found)
        if follows == "garbled":
            raise failures.UnexpectedReply
        if self._rest and not receiver.expects_replies:
            raise self._unasked(self._rest)
        if follows == "other":
            self._stream.feed_data(self._rest)
            self._rest = b""
            task = asyncio.get_running_loop().create_task(self._parse(receiver))
            # An eager task may be done by now.
            self._task = None if task.done() else task
            # A reference to the task is needed even if the storage is dropped in the meantime.
            _parsing.add(task)
            task.add_done_callback(_parsing.discard)

    async def _parse(self, receiver: Receiver) -> None:
        """Read replies with redis-py's parser until it has taken all that has arrived."""
        try:
            while receiver.expects_replies:
                try:
                    reply = await self._inner.read_response(disable_decoding=True, disconnect_on_error=False)
                except ResponseError as error:
                    # The traceback would keep the frames, and so this connection, alive.
                    error.__traceback__ = None
                    reply = error
                receiver.receive((reply,))
                if not self._has_more():
                    break
            if self._has_more():
                raise failures.UnexpectedReply
            if self._has_ended():
                raise RedisConnectionError(_CLOSED)
        except BaseException as error:
            # This task is about to end by itself, so `close` must not cancel it.
            self._task = None
            if not self._failed(receiver, error):
                raise
        finally:
            self._task = None

    def _failed(self, receiver: Receiver, error: BaseException) -> bool:
        """Tell the receiver. Returns whether that was all; otherwise the error has to be raised again."""
        if isinstance(error, failures.GARBLED):
            receiver.stumbled(self._inner, failures.UnexpectedReply())
        elif isinstance(error, (*failures.FAILURES, failures.UnexpectedReply)):
            # Its frames would keep the receiver alive.
            error.__traceback__ = None
            receiver.stumbled(self._inner, error)
        else:
            # The event loop ends, or a signal handler raised it.
            receiver.stumbled(self._inner, RedisConnectionError("The event loop ended"), ours=True)
            return False
        return True

    def _unasked(self, data: bytes) -> Exception:
        """The error for data without a request. A server that accepts no more connections says so in this way."""
        line, end, _ = data.partition(_END)
        if not end or not line.startswith(b"-"):
            return failures.UnexpectedReply()
        try:
            error: Exception = self._inner._parser.parse_error(line[1:].decode("utf-8", "replace"))
        except failures.GARBLED:
            # redis-py parses some errors further, such as redirections.
            return failures.UnexpectedReply()
        return error

    def _has_more(self) -> bool:
        # `at_eof` is False while there is data in the buffer, and the buffer has no public name.
        return bool(self._stream._buffer) or failures.has_more(self._inner)

    def _has_ended(self) -> bool:
        return self._stream.at_eof() or self._stream.exception() is not None
