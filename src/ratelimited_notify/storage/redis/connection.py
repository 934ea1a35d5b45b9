"""A small connection pool to one server for threads, on top of redis-py's `Connection`, without its pool and its retries.

These invariants hold whatever happens (an exception from a signal handler at any bytecode, a fork at any time):

1. A connection is reused only if every command sent on it got its reply, and each reply was read to its end and understood.
   After any exception it is dropped, so no caller reads a reply meant for another caller.
2. A connection object of redis-py that failed is never connected again. So a half-initialised connection is never reused:
   one without SELECT, or with the reply to AUTH still pending.
3. A place in the pool belongs to a connection object. The pool counts the live objects, not the calls of `take` and `give`.
   An object that got lost is garbage-collected, and an object that its thread does not give back in time no longer counts.
4. A forked child starts without connections, and takes no lock of the parent.
5. One deadline covers a whole exchange: waiting for a place, trying all addresses, the handshake, each read and write.
6. After failures few new connections are opened at the same time, and more with each exchange that succeeds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from ratelimited_notify.forking import in_children
from ratelimited_notify.storage.redis import failures

# After `failures`, which says what to install where redis is missing.
from redis.exceptions import ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.storage.breaker import Breaker
    from ratelimited_notify.storage.wire import Wire

_GRACE = 1.0
"""Seconds after its deadline for which a connection that was not given back still counts."""

_PATROL = 0.1
"""Seconds after which a waiting thread checks by itself: an interrupted thread may not have woken the next one."""

_PATROLS = 500
"""How many such checks all waiting threads together make per second at most."""

_TOO_LATE = 0.25
"""A thread with less than this share of its time left is skipped while another thread with more time waits."""

_TOO_LATE_TO_OPEN = 0.5
"""The same after failures, when the thread may have to open a connection."""

_FAR_TOO_LATE = 0.05
"""A thread with less than this share of its time left gets no connection: it would only break it."""


class Connection:
    """One place in the pool, with a connection that is opened when it is first needed."""

    __slots__ = ("__weakref__", "_inner", "_reach", "_wire", "dropped", "is_unproven", "lease", "sent")

    def __init__(self, reach: Callable[[float], Any], lease: float) -> None:  # Any: a connection of redis-py's
        self._reach = reach
        self._inner: Any = None  # Any: as above
        self._wire: Wire | None = None
        self.lease: float | None = lease
        """Until when a thread uses it, by `time.monotonic`; None while it is idle."""
        self.dropped = False
        self.sent = False
        """Whether a command was sent in this exchange, which may have taken effect."""
        self.is_unproven = False
        """Whether it was opened for this exchange and without TLS: the port may be one that expects TLS."""

    def begin(self, deadline: float) -> None:
        """Start an exchange that must finish by the deadline; connect if needed."""
        self.sent = False
        wire = self._wire
        if wire is None or wire.is_stale() or failures.has_more(self._inner):
            # A restarted server has closed its old connections.
            self._close()
            self._inner = self._reach(deadline)
            wire = self._wire = self._inner._sock
            self.is_unproven = not wire.uses_tls
        else:
            self.is_unproven = False
        wire.begin(deadline)

    def extend(self, deadline: float) -> None:
        """Set a later deadline, for the next command."""
        self.lease = deadline + _GRACE
        if self._wire is not None:
            self._wire.begin(deadline)

    def ask(self, command: bytes) -> Any:  # Any: what the server answers
        """Send one command and return its reply. A `ResponseError` is returned, not raised."""
        self.send(command)
        return self.reply()

    def send(self, command: bytes) -> None:
        """Send commands. The caller must call `reply` once for each command."""
        if self._wire is None:
            raise ConnectionError
        self.sent = True
        self._wire.sendall(command)

    def reply(self) -> Any:  # Any: as above
        """Return the next reply. A `ResponseError` is returned, not raised."""
        try:
            return self._inner.read_response(disable_decoding=True)
        except ResponseError as error:
            # The traceback would keep the frames, and so this connection, alive.
            error.__traceback__ = None
            return error
        except failures.GARBLED:
            raise failures.UnexpectedReply from None

    def drop(self) -> None:
        """Close the connection for good."""
        self.dropped = True
        self._close()

    def counts(self, now: float) -> bool:
        """Whether it occupies a place."""
        return not self.dropped and (self.lease is None or now < self.lease)

    def _close(self) -> None:
        inner, self._inner, self._wire = self._inner, None, None
        if inner is not None:
            inner.disconnect()


class _Waiting:
    """A thread that waits for a place."""

    __slots__ = ("deadline", "late_at", "late_to_open_at", "leave_at", "signal", "woken")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        left = deadline - time.monotonic()
        self.late_at = deadline - _TOO_LATE * left
        self.late_to_open_at = deadline - _TOO_LATE_TO_OPEN * left
        self.leave_at = deadline - _FAR_TOO_LATE * left
        self.signal = threading.Lock()
        """A lock used as a signal: it is released to wake the thread."""
        self.signal.acquire()
        self.woken = False


class Places:
    """The connections of one process to one server, first come, first served.

    Arguments:
        reach: connects to the server before a deadline; returns a connection object of redis-py.
        most: the largest number of connections.
    """

    def __init__(self, reach: Callable[[float], Any], most: int) -> None:  # Any: as above
        self._reach = reach
        self.most = most
        self._idle: deque[Connection] = deque()
        # The connection object at each place. No lock: a lock that an interrupt leaves locked would block all threads.
        self._known: dict[int, ref[Connection]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._ceiling = most
        """How many places may get a new connection. Updates that get lost between threads do no harm."""

    def take(self, deadline: float, breaker: Breaker | None) -> Connection | None:
        """A connection for this thread alone, until the deadline; None if none becomes free in time.

        A thread that waits also gets None when the circuit breaker opens.
        """
        if not self._waiting:
            found = self._idle_one(deadline) or self._another(deadline)
            if found is not None:
                return found
        waiting, found, patrolling = _Waiting(deadline), None, False
        try:
            self._waiting.append(waiting)
            if self._idle:
                self._wake()
            while breaker is None or not breaker.is_open:
                left = waiting.leave_at - time.monotonic()
                if left <= 0:
                    return None
                first = self._is_first(waiting)
                if waiting.woken or first or patrolling:
                    # Reset before the check, so that a wake-up during the check is not lost.
                    waiting.woken = False
                    found = self._idle_one(deadline) or self._another(deadline)
                    if found is not None:
                        return found
                # It may never be woken: an interrupted caller can stay at the head of the queue.
                pause = _PATROL if first else max(2 * _PATROL, len(self._waiting) / _PATROLS)
                patrolling = not waiting.signal.acquire(timeout=min(left, pause))
            return None
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiting)
            if found is None or self._idle:
                # This thread may have been woken for a place that it does not need now: wake the next one.
                self.freed()

    def give(self, connection: Connection) -> None:
        """Return a clean connection to the pool."""
        # Between these two lines CPython runs neither a signal handler nor another thread.
        connection.lease = None
        self._idle.append(connection)
        if self._ceiling < self.most:
            self._ceiling += 1
            self.freed()
        if self._waiting:
            self._wake()

    def slow_down(self) -> None:
        """Open fewer connections at the same time, after an exchange that failed.

        Opening a connection takes several round trips and, with many busy threads, much longer than an exchange. If all places
        were filled at once, none of the new connections might be ready in time, and all of them would be opened anew, again
        and again. TCP avoids this in the same way: slow start and multiplicative decrease (Jacobson, 1988).
        """
        self._ceiling = max(1, self._ceiling // 2)

    def freed(self) -> None:
        """Wake a waiting thread: there may be a free place."""
        if self._waiting:
            self._wake()

    def close(self) -> None:
        """Close the idle connections."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            connection.drop()

    def _idle_one(self, deadline: float) -> Connection | None:
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        connection.lease = deadline + _GRACE
        return connection

    def _another(self, deadline: float) -> Connection | None:
        """A new connection, if there is a free place below the ceiling."""
        now = time.monotonic()
        made = Connection(self._reach, deadline + _GRACE)
        mine, known = ref(made), self._known
        for place in range(self._ceiling):
            reference = known.get(place)
            connection = None if reference is None else reference()
            if connection is not None and connection.counts(now):
                continue
            if reference is not None:
                removed = known.pop(place, None)
                if removed is not None and removed is not reference:
                    # Another thread took this place first.
                    known.setdefault(place, removed)
                    continue
            if known.setdefault(place, mine) is mine:
                return made
        return None

    def _is_first(self, waiting: _Waiting) -> bool:
        try:
            return self._waiting[0] is waiting
        except IndexError:
            return False

    def _wake(self) -> None:
        """Wake the thread that has waited longest among those with enough time left to be served.

        Once too many threads wait, strict first come, first served would serve only threads that are about to time out: their
        exchanges do not finish, and cost the next thread a new connection.
        """
        now, newest, is_slow = time.monotonic(), None, self._ceiling < self.most
        # Not a tuple: making one may start the garbage collector, and so let other threads change the queue meanwhile.
        for waiting in list(self._waiting):
            if waiting.deadline < now:
                # The thread is about to leave the queue, or was interrupted before it could.
                with suppress(ValueError):
                    self._waiting.remove(waiting)
            elif not waiting.woken:
                newest = waiting
                if now < (waiting.late_to_open_at if is_slow else waiting.late_at):
                    break
        if newest is not None:
            newest.woken = True
            with suppress(RuntimeError):
                newest.signal.release()


class Connections:
    """The `Places` of this process; a forked child has its own.

    Arguments:
        reach: as for `Places`.
        most: as for `Places`.
    """

    __slots__ = ("__weakref__", "_most", "_reach", "places")

    def __init__(self, reach: Callable[[float], Any], most: int) -> None:  # Any: as above
        self._reach = reach
        self._most = most
        self.places = Places(reach, most)
        _all.add(self)

    def close(self) -> None:
        """Close the idle connections. A connection in use is closed when its thread gives it back."""
        former, self.places = self.places, Places(self._reach, self._most)
        former.close()

    def forked(self) -> None:
        """Start with a new pool: the sockets belong to the parent."""
        # The old connections are dropped without sending anything to the server, which would close them for the parent too.
        self.places = Places(self._reach, self._most)


_all: WeakSet[Connections] = WeakSet()


def _after_fork() -> None:
    for connections in list(_all):
        connections.forked()


in_children(_after_fork)
