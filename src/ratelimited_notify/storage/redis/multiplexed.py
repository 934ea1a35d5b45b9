"""One connection of an event loop to a server, shared by many tasks at the same time.

Commands are pipelined: commands that come together go out in one write, and replies come back in the same order. Invariants:

1. Every command that was written owns a slot in the queue of replies. A caller that is cancelled or out of time leaves its
   slot in the queue: its reply is read when it comes, and discarded. So each reply goes to its own caller, or to none.
2. When the oldest slot is older than the time-out, when a reply is not understood or when the connection breaks, the
   connection is dropped, and all waiting callers get an error that says that the outcome is unknown. A dropped connection
   is never used again. The same goes for a connection on which an interrupt lost something that was sent or read (see `incoming`).
3. No task is left behind: replies are split off as they arrive (see `incoming`), and a task waits only for redis-py's parser,
   if a reply needs it. It ends with the last byte that has arrived.

redis-py's `Connection` connects (TLS, AUTH, SELECT).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import ref

from ratelimited_notify.storage.redis import failures
from ratelimited_notify.storage.redis.dial_aio import abort
from ratelimited_notify.storage.redis.incoming import Incoming
from ratelimited_notify.storage.redis.replies import checked_reply

# After `failures`, which says what to install where redis is missing.
from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimited_notify.errors import StorageError
    from ratelimited_notify.storage.breaker import Breaker

_GRACE = 0.02
"""Seconds for which a reply that has arrived may wait to be read: the event loop may have been busy."""

_TOGETHER = 64
"""The most commands in one write: the server processes them while this process builds the next ones."""


class Slot:
    """The place of some commands' replies, whether or not their caller still waits for them."""

    __slots__ = ("answer", "counted", "reads", "replies", "until")

    def __init__(
        self,
        answer: asyncio.Future[list[Any] | StorageError],  # Any: parsed replies
        reads: Sequence[Callable[[Any], Any]],  # Any: a reply, and what is parsed from it
        until: float,
    ) -> None:
        self.answer = answer
        self.reads = reads
        """The parser of each reply; it raises an `UnexpectedReply` if the reply does not match."""
        self.replies: list[Any] | None = None  # Any: as above
        """Those that have come; None before the first."""
        self.until = until
        """When its time-out ends, by the clock of the event loop."""
        self.counted = False
        """Whether its time-out has been reported to the circuit breaker."""


class MultiplexedConnection:
    """A connection that is opened when it is first needed, and reopened after it was dropped.

    Arguments:
        loop: the event loop to which it belongs.
        reach: connects before a deadline, by the clock of the event loop; returns a connection object of redis-py.
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
        self._incoming: Incoming | None = None
        self._is_unproven = False
        """Whether the connection has no TLS, and the server has sent nothing on it yet: it may expect TLS."""
        self._slots: deque[Slot] = deque()
        self._unsent: list[bytes] = []
        self._lost: Exception | None = None
        """What ended the last connection before some callers had sent anything on it."""
        self._opening: asyncio.Task[Exception | None] | None = None
        self._is_counted = False
        """Whether a caller has reported to the circuit breaker that connecting takes too long."""
        self._joining = 0
        self._reference: ref[MultiplexedConnection] = ref(self)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many callers are ahead of the next one."""
        return len(self._slots) + self._joining

    @property
    def expects_replies(self) -> bool:
        """Whether a command was sent whose reply has not come."""
        return bool(self._slots)

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
        if self._inner is None:
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
        return None if self._inner is None else self._send(command, reads, until)

    def _send(
        self,
        command: bytes,
        reads: Sequence[Callable[[Any], Any]],  # Any: as in `Slot`
        until: float,
    ) -> Slot:
        loop, slots = self._loop, self._slots
        slot = Slot(loop.create_future(), reads, until)
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
                    self._breaker.failed(self._began(slot), timed_out=True)
                    raise self._failed(RedisTimeoutError(), True) from None
                found = slot.answer.result()
        if isinstance(found, list):
            return found
        raise found

    def drop(self, error: Exception, *, ours: bool = False) -> None:
        """Close the connection and pass the error to all waiting callers. `ours`: the server is not the cause."""
        incoming, self._incoming, self._inner = self._incoming, None, None
        slots = self._slots
        self._unsent.clear()
        if self._joining:
            self._lost = error
        if ours and self._opening is not None:
            self._opening.cancel()
        if incoming is not None:
            incoming.close()
        silent, late = failures.is_silence(error) and not ours, failures.has_timed_out(error)
        # One by one, so that after an interrupt the remaining slots are still in the queue.
        while slots:
            slot = slots[0]
            if silent and not slot.counted:
                slot.counted = True
                self._breaker.failed(self._began(slot), timed_out=late, hint=failures.hint(error))
                # A lost connection counts once, however many callers used it.
                silent = late
            if not slot.answer.done():
                # Not as an exception: asyncio would log it as never retrieved if the caller is cancelled just now.
                slot.answer.set_result(self._failed(error, True))
            slots.popleft()
        self._slots = deque()

    def _began(self, slot: Slot) -> float:
        """When the time-out of this slot began, by `time.monotonic`."""
        return time.monotonic() - self._loop.time() + slot.until - self._timeout

    async def _open(self, deadline: float) -> None:
        opening = self._opening
        if opening is None or opening.done():
            # It is done if it was interrupted before it began.
            opening = self._loop.create_task(self._connect())
            # An eager task may be done by now.
            self._opening = None if opening.done() else opening
        left = deadline - self._loop.time()
        # `wait` does not cancel the task, because other callers may wait for it too.
        done = left > 0 and (await asyncio.wait((opening,), timeout=left))[0]
        if not done:
            # If the event loop was busy for long, the time-out says nothing about the server.
            late = failures.NoHandshake() if self._uses_tls else RedisTimeoutError()
            if self._loop.time() < deadline + _GRACE:
                self._breaker.failed(time.monotonic() - self._timeout, timed_out=True, hint=failures.hint(late))
                self._is_counted = True
            raise self._failed(late, False)
        error = RedisConnectionError("The event loop ended") if opening.cancelled() else opening.result()
        if isinstance(error, (*failures.FAILURES, failures.UnexpectedReply)):
            raise self._failed(error, False)
        if error is not None:
            # An error of the caller's own code, such as a credential provider.
            raise error
        if self._inner is None:
            # The server has closed it already. Trying again at once would do the same, over and over.
            raise self._failed(self._lost or RedisConnectionError("The storage was closed"), False)

    async def _connect(self) -> Exception | None:
        """Connect once, for all waiting callers. Returns the error, if any."""
        began, until = time.monotonic(), self._loop.time() + self._timeout
        self._lost, self._is_counted = None, False
        inner = None
        try:
            inner = await self._reach(until)
            if self._inner is None:
                self._incoming = Incoming(inner, self._reference)
                self._inner = inner
                self._is_unproven = not self._uses_tls
        except Exception as error:  # noqa: BLE001  # raised again, for each waiting caller
            late = failures.has_timed_out(error)
            known = late and (self._is_counted or self._loop.time() > until + _GRACE)
            if failures.is_silence(error) and not known:
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
            if inner is not None and self._inner is not inner:
                # It was interrupted, or the server has closed the connection already, or another one was opened meanwhile.
                abort(inner)
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

    def receive(self, found: Sequence[Any]) -> None:  # Any: replies
        slots, breaker = self._slots, self._breaker
        for reply in found:
            if not slots:
                # The server has sent more than it was asked for.
                raise failures.UnexpectedReply
            slot = slots[0]
            answers = slot.replies
            if answers is None:
                answers = slot.replies = [checked_reply(slot.reads[0], reply)]
            else:
                answers.append(checked_reply(slot.reads[len(answers)], reply))
            if breaker.failures:
                breaker.answered()
            if len(answers) == len(slot.reads):
                # In this order: after an interrupt in between, no caller waits for a slot that is no longer in the queue.
                if not slot.answer.done():
                    slot.answer.set_result(answers)
                slots.popleft()
        self._is_unproven = False

    def stumbled(self, inner: Any, error: Exception, *, ours: bool = False) -> None:  # Any: as above
        if self._inner is inner:
            if self._is_unproven and type(error) is RedisConnectionError and not ours:
                error = failures.NeverAnswered(str(error))
            if self._joining and not self._slots and failures.is_silence(error) and not ours:
                # It was made for callers that have not sent anything yet.
                self._breaker.failed(time.monotonic(), timed_out=False, hint=failures.hint(error))
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
