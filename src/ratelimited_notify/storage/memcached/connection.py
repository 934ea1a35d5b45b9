"""Connections to memcached for threads, and the lanes in which threads wait for them.

What always holds, whatever exception passes at whatever byte code (a signal handler may raise anywhere):

1. A connection is clean only while no reply is on its way: it ceases to be before the first byte of a request is sent, and
   is again when the last byte of the reply has been read and understood. Only a clean connection is used; any other is
   closed, so that nobody reads a reply to somebody else's request.
2. A lane is one connection and one lock, and whoever holds the lock has the connection for himself. Should a second exception
   come while the first is on its way to release the lock, the lane is lost: those who wait for it notice that no call which
   is still alive holds it, and put a new lane in its place. One that was not lost after all is then one too many, no harm.
3. Who waits for a lane waits until his deadline at most. A thread never waits for itself: a decision within a decision (by a
   signal handler) has a connection of its own.
4. A request that changes something is sent once, on the connection on which the item was read. What only reads is sent
   again, once, if the connection had been used before: a server that was started anew has closed it.
5. A forked child starts with no connection and with new lanes: see `forking`.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from ratelimited_notify.storage.memcached import failures
from ratelimited_notify.storage.memcached.forking import close_in_children, this_process
from ratelimited_notify.storage.memcached.hosts import LANES, lane_of
from ratelimited_notify.storage.memcached.protocol import FAILURES, OutOfTime, TooLarge
from ratelimited_notify.storage.wire import Wire, connect, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ratelimited_notify.storage.breaker import Breaker
    from ratelimited_notify.storage.memcached.hosts import Address, Host
    from ratelimited_notify.storage.memcached.protocol import Exchange

T = TypeVar("T")

_CHUNK = 65536

_LOOK = 0.03
"""Seconds that a thread waits for a lane before it looks whether there is still somebody who holds it."""

_OVERDUE = 1.0
"""Seconds after the deadline of a thread, when it is certain that it does not hold its lane any more."""


class Connection:
    """One connection to a host, made when it is first needed, for one thread at a time.

    Arguments:
        host: the server.
        breaker: its circuit.
        timeout: the most seconds that a decision takes.
    """

    __slots__ = ("__weakref__", "_breaker", "_host", "_is_clean", "_timeout", "_wire")

    def __init__(self, host: Host, breaker: Breaker, timeout: float) -> None:
        self._host = host
        self._breaker = breaker
        self._timeout = timeout
        self._wire: Wire | None = None
        self._is_clean = False
        close_in_children(self)

    def ask(self, exchange: Exchange[T], deadline: float) -> T:
        """The answer to a request; connects first where that is needed.

        Arguments:
            exchange: what is asked.
            deadline: by `time.monotonic`, for all that it takes.

        Raises:
            StorageError: there is no answer.
            TooLarge: the value to be stored is too large for the server.
        """
        began = time.monotonic()
        try:
            if began >= deadline:
                raise OutOfTime
            answer = self._asked(exchange, deadline)
        except BaseException as error:
            self.close()
            if isinstance(error, FAILURES):
                self._tell(error, began, deadline)
                if not isinstance(error, TooLarge):
                    raise failures.storage_error(self._host, self._timeout, error, sent=exchange.changes) from None
            raise
        if self._breaker.failures:
            self._breaker.answered()
        return answer

    def _tell(self, error: Exception, began: float, deadline: float) -> None:
        """Tell the circuit what became of an exchange."""
        if not isinstance(error, OSError):
            # It answered, whatever it said.
            self._breaker.answered()
        elif not isinstance(error, TimeoutError):
            self._breaker.failed(began, timed_out=False)
        elif deadline - began >= self._timeout / 2:
            # A server that was given less time is not blamed for being late.
            self._breaker.failed(began, timed_out=True)

    def close(self) -> None:
        """Drop the connection, with whatever reply is still on its way."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def __del__(self) -> None:
        self.close()

    def _asked(self, exchange: Exchange[T], deadline: float) -> T:
        wire = self._wire
        if exchange.changes:
            if wire is None:
                raise ConnectionResetError
            return self._exchange(exchange, wire, deadline)
        if wire is not None and self._is_clean and not wire.is_stale():
            try:
                return self._exchange(exchange, wire, deadline)
            except TimeoutError:
                raise
            except OSError:
                pass
        self.close()
        wire = self._wire = Wire(connect(_addresses(self._host.address), deadline, _prepare), deadline)
        return self._exchange(exchange, wire, deadline)

    def _exchange(self, exchange: Exchange[T], wire: Wire, deadline: float) -> T:
        self._is_clean = False
        wire.begin(deadline)
        wire.sendall(exchange.request)
        first = wire.recv(_CHUNK)
        answer = exchange.read(first)
        if answer is None:
            answer = _rest(exchange, wire, first)
        self._is_clean = True
        return answer


def _rest(exchange: Exchange[T], wire: Wire, first: bytes) -> T:
    """The answer to a reply that comes in several parts, of which one is here."""
    part, received = first, bytearray(first)
    while part:
        part = wire.recv(_CHUNK)
        received += part
        answer = exchange.read(received)
        if answer is not None:
            return answer
    raise ConnectionResetError


def _addresses(address: Address) -> Sequence[tuple[Any, ...]]:  # Any: as `socket.getaddrinfo` has them
    if isinstance(address, str):
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address)]
    return resolve(*address)


def _prepare(connecting: socket.socket) -> None:
    if connecting.family != getattr(socket, "AF_UNIX", None):
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Holder:
    """A call that holds a lane; alive as long as the call is."""

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Lane:
    """A connection to a host, and the lock of whoever uses it.

    Arguments:
        host: the server.
        breaker: its circuit.
        timeout: the most seconds that a decision takes.
    """

    __slots__ = ("_until", "breaker", "connection", "holder", "lock")

    def __init__(self, host: Host, breaker: Breaker, timeout: float) -> None:
        self.breaker = breaker
        self.connection = Connection(host, breaker, timeout)
        # Of the kind that knows which thread has it, so that a thread can tell after an exception.
        self.lock = threading.RLock()
        self.holder: Callable[[], Holder | None] = nobody
        """Who has the lock, as far as it is known."""
        self._until = float("-inf")

    def is_held_by(self, holder: Holder, until: float) -> None:
        """Note who has taken the lock, and by when he is sure to be done."""
        self._until = until
        self.holder = ref(holder)

    def is_held_here(self) -> bool:
        """Whether this very thread is in the middle of a decision: it asks again from a signal handler, or from its clock."""
        holder = self.holder()
        return holder is not None and holder.thread == threading.get_ident()

    def is_lost(self) -> bool:
        """Whether a lock that cannot be had has nobody who could release it; or somebody has taken it this very moment."""
        return self.holder() is None or time.monotonic() > self._until + _OVERDUE


def nobody() -> None:
    """The holder of a lane that is free."""
    return


class Lanes:
    """The connections of one process to all hosts: a few to each, every recipient always on the same one.

    Arguments:
        hosts: the servers.
        breakers: their circuits, by the name of the host.
        timeout: the most seconds that a decision takes.
    """

    __slots__ = ("_breakers", "_lanes", "_timeout", "process")

    def __init__(self, hosts: Sequence[Host], breakers: Mapping[str, Breaker], timeout: float) -> None:
        self.process = this_process()
        self._breakers = breakers
        self._timeout = timeout
        self._lanes = {host: [self._lane(host) for _ in range(LANES)] for host in hosts}

    def _lane(self, host: Host) -> Lane:
        return Lane(host, self._breakers[host.name], self._timeout)

    def of(self, host: Host, head: str) -> Lane:
        """The lane that serves this head."""
        return self._lanes[host][lane_of(head)]

    def take(self, host: Host, head: str, deadline: float) -> Lane | None:
        """The lane that serves this head, with its lock taken for the caller; None if others had it until the deadline."""
        lane, wait, is_suspect = self.of(host, head), 0.0, False
        if lane.is_held_here():
            lane = self._lane(host)
        while wait >= 0:
            try:
                if lane.lock.acquire(True, min(wait, _LOOK)):
                    return lane
            except BaseException:
                # A signal handler raised, perhaps just after the lock was taken.
                with suppress(RuntimeError):
                    lane.lock.release()
                raise
            # Lost is what looks so twice: nobody had just taken it.
            is_lost = wait > 0 and lane.is_lost()
            if is_lost and is_suspect:
                self._replace(host, head, lane)
            is_suspect = is_lost and not is_suspect
            lane, wait = self.of(host, head), deadline - time.monotonic()
        return None

    def _replace(self, host: Host, head: str, lost: Lane) -> None:
        lanes, number = self._lanes[host], lane_of(head)
        if lanes[number] is lost:
            lanes[number] = self._lane(host)

    def close(self) -> None:
        """Close the connections that nobody uses. Those in use are closed when their threads are done with these lanes."""
        for lanes in self._lanes.values():
            for lane in lanes:
                if lane.lock.acquire(blocking=False):
                    try:
                        lane.connection.close()
                    finally:
                        lane.lock.release()
