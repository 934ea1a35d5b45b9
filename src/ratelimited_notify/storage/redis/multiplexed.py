"""One connection of an event loop to a server, shared by many tasks at the same time.

Commands are pipelined: commands that come together go out in one write, and replies come back in the same order. Invariants:

1. Every command that was written owns a slot in the queue of replies. A caller that is cancelled or out of time leaves its
   slot in the queue: its reply is read when it comes, and discarded. So each reply goes to its own caller, or to none.
2. When the oldest slot is older than the time-out, when a reply is not understood or when the connection breaks, the
   connection is dropped, and all waiting callers get an error that says that the outcome is unknown. A dropped connection
   is never used again.
3. No task is left behind: one task reads while there are slots, and ends with the last of them.

redis-py's `Connection` connects (TLS, AUTH, SELECT) and parses.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import ref

from ratelimited_notify.storage.redis import failures, replies
from ratelimited_notify.storage.redis.dial_aio import abort

# After `failures`, which says what to install where redis is missing.
from redis.exceptions import ConnectionError as RedisConnectionError, ResponseError, TimeoutError as RedisTimeoutError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimited_notify.errors import StorageError
    from ratelimited_notify.storage.breaker import Breaker

_GRACE = 0.02
"""Seconds for which a reply that has arrived may wait to be read: the event loop may have been busy."""

_TOGETHER = 64
"""The most commands in one write: the server processes them while this process builds the next ones."""

_READING: set[asyncio.Task[None]] = set()


class Slot:
    """The place of some commands' replies, whether or not their caller still waits for them."""

    __slots__ = ("answer", "began", "counted", "reads", "replies", "until")

    def __init__(
        self,
        answer: asyncio.Future[list[Any] | StorageError],  # Any: parsed replies
        reads: Sequence[Callable[[Any], Any]],  # Any: a reply, and what is parsed from it
        began: float,
        until: float,
    ) -> None:
        self.answer = answer
        self.reads = reads
        """The parser of each reply; it raises an `UnexpectedReply` if the reply does not match."""
        self.replies: list[Any] = []  # Any: as above
        self.began = began
        """By `time.monotonic`."""
        self.until = until
        """By the clock of the event loop."""
        self.counted = False
        """Whether its time-out has been reported to the circuit breaker."""


class MultiplexedConnection:
    """A connection that is opened when it is first needed, and reopened after it was dropped.

    Arguments:
        loop: the event loop to which it belongs.
        reach: connects; returns a connection object of redis-py.
        timeout: the longest wait for a reply, and for connecting, in seconds.
        breaker: counts requests without a reply.
        failed: makes the error for waiting callers, from redis-py's error and whether anything was sent.
        uses_tls: whether `reach` connects with TLS.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reach: Callable[[float], Awaitable[Any]],  # Any: a connection of redis-py's
        timeout: float,
        breaker: Breaker,
        failed: Callable[[Exception, bool], StorageError],
        *,
        uses_tls: bool = False,
    ) -> None:
        self._loop = loop
        self._reach = reach
        self._timeout = timeout
        self._breaker = breaker
        self._failed = failed
        self._uses_tls = uses_tls
        self._inner: Any = None  # Any: as above
        self._is_unproven = False
        """Whether the connection has no TLS, and the server has sent nothing on it yet: it may expect TLS."""
        self._slots: deque[Slot] = deque()
        self._unsent: list[bytes] = []
        self._opening: asyncio.Task[Exception | None] | None = None
        self._joining = 0
        self._reference: ref[MultiplexedConnection] = ref(self)
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many callers are ahead of the next one."""
        return len(self._slots) + self._joining

    async def ask(
        self,
        command: bytes,
        reads: Sequence[Callable[[Any], Any]],  # Any: as in `Slot`
        deadline: float,
    ) -> list[Any]:  # Any: as in `Slot`
        """Send these commands and return the parsed replies, a `ResponseError` for each error reply.

        Arguments:
            command: as many commands as there are `reads`.
            reads: the parser of each reply.
            deadline: by the clock of the event loop.
        """
        slot = await self.put(command, reads, deadline)
        return await self.answer(slot, deadline)

    async def put(
        self,
        command: bytes,
        reads: Sequence[Callable[[Any], Any]],  # Any: as in `Slot`
        deadline: float,
    ) -> Slot:  # Any: as in `Slot`
        """Send commands. The returned slot receives their replies."""
        if self._inner is None or self._is_stale():
            self._joining += 1
            try:
                await self._open(deadline)
            finally:
                self._joining -= 1
        return self._send(command, reads, self._loop.time() + self._timeout)

    def put_at_once(
        self,
        command: bytes,
        reads: Sequence[Callable[[Any], Any]],  # Any: as in `Slot`
        until: float,
    ) -> Slot | None:
        """`put` without waiting; None if it would have to connect first.

        Arguments:
            until: when the time-out that begins now ends, by the clock of the event loop. The connection makes sure that the
                slot has an answer by then.
        """
        return None if self._inner is None or self._is_stale() else self._send(command, reads, until)

    def _send(
        self,
        command: bytes,
        reads: Sequence[Callable[[Any], Any]],  # Any: as in `Slot`
        until: float,
    ) -> Slot:
        loop, slots = self._loop, self._slots
        slot = Slot(loop.create_future(), reads, time.monotonic(), until)
        try:
            slots.append(slot)
            if self._unsent:
                self._unsent.append(command)
                if len(self._unsent) >= _TOGETHER:
                    self._flush()
            elif len(slots) > 1:
                self._unsent.append(command)
                loop.call_soon(self._flush)
            else:
                # No other caller is waiting, so waiting for more commands would gain nothing.
                inner: Any = self._inner  # Any: as above
                inner._writer.write(command)  # redis-py has no public name for it
            if self._reading is None:
                reading = loop.create_task(self._read(self._inner))
                # An eager task may be done by now.
                self._reading = None if reading.done() else reading
                # A reference to the task is needed even if the storage is dropped in the meantime.
                _READING.add(reading)
                reading.add_done_callback(_READING.discard)
            if self._timer is None:
                self._timer = loop.call_at(slot.until, _look, self._reference, None)
        except BaseException:
            # After an interrupt there may be a slot whose command was not sent.
            self.drop(RedisConnectionError("It was interrupted"), ours=True)
            raise
        return slot

    async def answer(self, slot: Slot, deadline: float) -> list[Any]:  # Any: as in `Slot`
        """Wait for this slot's replies until the deadline, and return them."""
        if deadline > slot.until - _GRACE:
            # The connection's own timer is early enough.
            found = await slot.answer
        else:
            try:
                async with asyncio.timeout_at(deadline):
                    found = await slot.answer
            except TimeoutError:
                if not slot.answer.done() or slot.answer.cancelled():
                    slot.counted = True
                    self._breaker.failed(slot.began, timed_out=True)
                    raise self._failed(RedisTimeoutError(), True) from None
                found = slot.answer.result()
        if isinstance(found, list):
            return found
        raise found

    def drop(self, error: Exception, *, ours: bool = False) -> None:
        """Close the connection and pass the error to all waiting callers. `ours`: the server is not the cause."""
        inner, self._inner = self._inner, None
        slots = self._slots
        self._unsent.clear()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if ours and self._opening is not None:
            self._opening.cancel()
        if inner is not None:
            abort(inner)
        silent, late = failures.is_silence(error) and not ours, failures.has_timed_out(error)
        # One by one, so that after an interrupt the remaining slots are still in the queue.
        while slots:
            slot = slots[0]
            if silent and not slot.counted:
                slot.counted = True
                self._breaker.failed(slot.began, timed_out=late, hint=failures.hint(error))
                # A lost connection counts once, however many callers used it.
                silent = late
            if not slot.answer.done():
                # Not as an exception: asyncio would log it as never retrieved if the caller is cancelled just now.
                slot.answer.set_result(self._failed(error, True))
            slots.popleft()
        self._slots = deque()

    def _is_stale(self) -> bool:
        """Whether the connection cannot be reused: it is closed, or the server sent data without a request."""
        if self._slots:
            return False
        stream = self._inner._reader
        # `at_eof` is False while there is data in the buffer, and the buffer has no public name.
        if not (stream.at_eof() or stream.exception() is not None or stream._buffer or failures.has_more(self._inner)):
            return False
        # A restarted server has closed its old connections.
        self.drop(RedisConnectionError())
        return True

    async def _open(self, deadline: float) -> None:
        while self._inner is None:
            opening = self._opening
            if opening is None:
                opening = self._loop.create_task(self._connect())
                # An eager task may be done by now.
                self._opening = None if opening.done() else opening
            left = deadline - self._loop.time()
            # `wait` does not cancel the task, because other callers may wait for it too.
            done = left > 0 and (await asyncio.wait((opening,), timeout=left))[0]
            if not done:
                # If the event loop was busy for long, the time-out says nothing about the server.
                if self._loop.time() < deadline + _GRACE:
                    self._breaker.failed(time.monotonic() - self._timeout, timed_out=True)
                raise self._failed(failures.NoHandshake() if self._uses_tls else RedisTimeoutError(), False)
            error = RedisConnectionError("The event loop ended") if opening.cancelled() else opening.result()
            if isinstance(error, (*failures.FAILURES, failures.UnexpectedReply)):
                raise self._failed(error, False)
            if error is not None:
                # An error of the caller's own code, such as a credential provider.
                raise error

    async def _connect(self) -> Exception | None:
        """Connect once, for all waiting callers. Returns the error, if any."""
        began, until = time.monotonic(), self._loop.time() + self._timeout
        try:
            async with asyncio.timeout_at(until):
                self._inner = await self._reach(until)
            self._is_unproven = not self._uses_tls
        except Exception as error:  # noqa: BLE001  # raised again, for each waiting caller
            late = failures.has_timed_out(error)
            if failures.is_silence(error) and not (late and self._loop.time() > until + _GRACE):
                self._breaker.failed(began, timed_out=late, hint=failures.hint(error))
            elif (
                isinstance(error, (*failures.FAILURES, failures.UnexpectedReply))
                and self._breaker.failures
                and not late
            ):
                self._breaker.answered()
            # Without the traceback, whose frames would keep each other alive.
            error.__traceback__ = None
            return error
        finally:
            self._opening = None
        return None

    def _flush(self) -> None:
        try:
            if self._unsent and self._inner is not None:
                commands = b"".join(self._unsent)
                self._unsent.clear()
                self._inner._writer.write(commands)
        except BaseException:
            self.drop(RedisConnectionError("It was interrupted"), ours=True)
            raise

    async def _read(self, inner: Any) -> None:  # Any: a connection of redis-py's
        """Read replies as long as there are slots."""
        slots, breaker, answered = self._slots, self._breaker, False
        try:
            while slots:
                slot = slots[0]
                try:
                    reply = await inner.read_response(disable_decoding=True, disconnect_on_error=False)
                except ResponseError as error:
                    # The traceback would keep the frames, and so this connection, alive.
                    error.__traceback__ = None
                    slot.replies.append(error)
                else:
                    slot.replies.append(replies.checked_reply(slot.reads[len(slot.replies)], reply))
                answered = True
                if breaker.failures:
                    breaker.answered()
                if len(slot.replies) == len(slot.reads):
                    # In this order: after an interrupt in between, no caller waits for a slot that is no longer in the queue.
                    if not slot.answer.done():
                        slot.answer.set_result(slot.replies)
                    slots.popleft()
        except failures.GARBLED:
            self._stumbled(inner, failures.UnexpectedReply())
        except (*failures.FAILURES, failures.UnexpectedReply) as error:
            if self._is_unproven and not answered and type(error) is RedisConnectionError:
                error = failures.NeverAnswered(str(error))
            self._stumbled(inner, error)
        except BaseException:
            # The event loop ends.
            self._stumbled(inner, RedisConnectionError("The event loop ended"), ours=True)
            raise
        finally:
            if self._inner is inner:
                self._reading = None
                self._is_unproven = False

    def _stumbled(self, inner: Any, error: Exception, *, ours: bool = False) -> None:  # Any: as above
        if self._inner is inner:
            # This task is about to end by itself, so `drop` must not cancel it.
            self._reading = None
            self.drop(error, ours=ours)

    def look_at_the_oldest(self, before: float | None) -> None:
        """Drop the connection if its oldest slot is too old, and was too old already at the previous check, at `before`."""
        self._timer = None
        if not self._slots:
            return
        oldest = self._slots[0]
        try:
            now = self._loop.time()
            if oldest.until > now:
                self._timer = self._loop.call_at(oldest.until, _look, self._reference, None)
            elif before is not None and oldest.until <= before:
                self.drop(RedisTimeoutError())
            else:
                # Its reply may have arrived, and may be read in this very iteration of the event loop.
                self._timer = self._loop.call_later(_GRACE, _look, self._reference, now)
        except BaseException:
            self.drop(RedisConnectionError("It was interrupted"), ours=True)
            raise


def _look(reference: ref[MultiplexedConnection], before: float | None) -> None:
    # A weak reference: the timer must not keep a connection alive that is not used elsewhere.
    connection = reference()
    if connection is not None:
        connection.look_at_the_oldest(before)
