"""Connections to one server for threads: small, on top of redis-py's `Connection`, without its pool and its retries.

What holds here, whatever happens (an exception from a signal handler at any byte code, a fork at any time):

1. A connection is used again only if every command sent on it was answered, and each answer was read to its end and
   understood. After any exception it is dropped, so nobody reads an answer that was meant for somebody else.
2. A connection of redis-py's that stumbled is never connected again. So no half-made one comes back: without SELECT, or
   with the reply to AUTH still to come.
3. A place belongs to a connection object. What counts is which objects are alive, not how often somebody took and gave.
   An object that got lost is collected, and one that its thread does not give back in time counts no longer.
4. A forked child starts with no connection, and takes no lock of the parent's.
5. Everything in one exchange obeys one deadline: waiting for a place, all addresses, the greeting, each read and write.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

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
"""Seconds after which a waiting thread looks by itself: an interrupted one wakes nobody."""

_PATROLS = 500
"""How many waiting threads at most look by themselves in a second, all together."""

_TOO_LATE = 0.25
"""Who has less than this part of its time left is passed over while somebody waits who has more."""


class Connection:
    """One place, with a connection that is opened when it is first needed."""

    __slots__ = ("__weakref__", "_inner", "_reach", "_wire", "dropped", "lease", "sent")

    def __init__(self, reach: Callable[[float], Any], lease: float) -> None:  # Any: a connection of redis-py's
        self._reach = reach
        self._inner: Any = None  # Any: as above
        self._wire: Wire | None = None
        self.lease: float | None = lease
        """Until when a thread has it, by `time.monotonic`; None while nobody has."""
        self.dropped = False
        self.sent = False
        """Whether anything was sent in this exchange that may have taken effect."""

    def begin(self, deadline: float) -> None:
        """Start an exchange that must be over by the deadline; connect if that is needed."""
        self.sent = False
        wire = self._wire
        if wire is None or wire.is_stale() or failures.has_more(self._inner):
            # A server that was started anew has closed what was left open.
            self._close()
            self._inner = self._reach(deadline)
            wire = self._wire = self._inner._sock
        wire.begin(deadline)

    def extend(self, deadline: float) -> None:
        """Allow more time, for what is asked next."""
        self.lease = deadline + _GRACE
        if self._wire is not None:
            self._wire.begin(deadline)

    def ask(self, command: bytes) -> Any:  # Any: what the server answers
        """One command and its reply; a `ResponseError` is returned, not raised."""
        self.send(command)
        return self.reply()

    def send(self, command: bytes) -> None:
        """Send commands, each of which must be followed by a `reply`."""
        if self._wire is None:
            raise ConnectionError
        self.sent = True
        self._wire.sendall(command)

    def reply(self) -> Any:  # Any: as above
        """The next reply; a `ResponseError` is returned, not raised."""
        try:
            return self._inner.read_response(disable_decoding=True)
        except ResponseError as error:
            # With it, it would keep the frames and so this connection alive.
            error.__traceback__ = None
            return error
        except failures.GARBLED:
            raise failures.UnexpectedReply from None

    def drop(self) -> None:
        """Close it for good."""
        self.dropped = True
        self._close()

    def counts(self, now: float) -> bool:
        """Whether it takes up a place."""
        return not self.dropped and (self.lease is None or now < self.lease)

    def _close(self) -> None:
        inner, self._inner, self._wire = self._inner, None, None
        if inner is not None:
            inner.disconnect()


class _Waiting:
    """A thread that waits for a place."""

    __slots__ = ("deadline", "late_at", "turn", "woken")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.late_at = deadline - _TOO_LATE * (deadline - time.monotonic())
        self.turn = threading.Lock()
        self.turn.acquire()
        self.woken = False


class Places:
    """The connections of one process to one server, first come, first served.

    Arguments:
        reach: connects to the server before a deadline; returns a connection of redis-py's.
        most: how many there may be.
    """

    def __init__(self, reach: Callable[[float], Any], most: int) -> None:  # Any: as above
        self._reach = reach
        self.most = most
        self._idle: deque[Connection] = deque()
        # Which object has which place. No lock: one that an interrupt leaves locked would stop everybody.
        self._known: dict[int, ref[Connection]] = {}
        self._waiting: deque[_Waiting] = deque()

    def take(self, deadline: float, breaker: Breaker | None) -> Connection | None:
        """A connection for this thread alone, until the deadline; None if there is none in time.

        Whoever waits is also told None when the breaker opens.
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
                first = self._is_first(waiting)
                if waiting.woken or first or patrolling:
                    # Before it looks, so that who wakes it meanwhile does not do so in vain.
                    waiting.woken = False
                    found = self._idle_one(deadline) or self._another(deadline)
                    if found is not None:
                        return found
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                # There may be nobody left to wake it: an interrupted caller can stay at the head of the queue.
                pause = _PATROL if first else max(2 * _PATROL, len(self._waiting) / _PATROLS)
                patrolling = not waiting.turn.acquire(timeout=min(left, pause))
            return None
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiting)
            if found is None or self._idle:
                # Somebody may have woken this thread, who meant a thread that needs it.
                self.freed()

    def give(self, connection: Connection) -> None:
        """Give it back, clean."""
        # With nothing between the two at which CPython would run a signal handler or another thread.
        connection.lease = None
        self._idle.append(connection)
        if self._waiting:
            self._wake()

    def freed(self) -> None:
        """There may be a place for somebody who waits."""
        if self._waiting:
            self._wake()

    def close(self) -> None:
        """Close what nobody uses."""
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
        """A new one, if there is a place."""
        now = time.monotonic()
        made = Connection(self._reach, deadline + _GRACE)
        mine, known = ref(made), self._known
        for place in range(self.most):
            reference = known.get(place)
            connection = None if reference is None else reference()
            if connection is not None and connection.counts(now):
                continue
            if reference is not None:
                removed = known.pop(place, None)
                if removed is not None and removed is not reference:
                    # Somebody else was quicker.
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
        """Let the one look that has waited longest, of those who have time enough left to be served.

        First come, first served would serve only those who are about to give up, once there are too many: what they begin
        is not finished, and costs the next one a new connection.
        """
        now, newest = time.monotonic(), None
        # Not a tuple: to make one may start the garbage collector, and so let others change the queue meanwhile.
        for waiting in list(self._waiting):
            if waiting.deadline < now:
                # It is about to leave, or was interrupted before it could.
                with suppress(ValueError):
                    self._waiting.remove(waiting)
            elif not waiting.woken:
                newest = waiting
                if now < waiting.late_at:
                    break
        if newest is not None:
            newest.woken = True
            with suppress(RuntimeError):
                newest.turn.release()


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
        """Close what nobody uses; what is in use is closed by the garbage collector when it is given back."""
        former, self.places = self.places, Places(self._reach, self._most)
        former.close()

    def forked(self) -> None:
        """Start anew: the sockets are the parent's."""
        # The old ones are dropped without a word to the server, which would end them for the parent too.
        self.places = Places(self._reach, self._most)


_all: WeakSet[Connections] = WeakSet()


def _after_fork() -> None:
    for connections in list(_all):
        connections.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
