"""Connections to memcached for threads, and the lanes in which threads wait for them.

These invariants hold whatever exception is raised at whatever bytecode (a signal handler may raise anywhere):

1. A connection is clean only while no reply is pending. It becomes unclean before the first byte of a request is sent, and
   clean again when the last byte of the reply has been read and understood. Only a clean connection is used; any other is
   closed, so no caller reads the reply to another caller's request.
2. A lane is one connection and one lock. The thread that holds the lock has the connection for itself. If a second exception
   is raised while the first is about to release the lock, the lane is lost: waiting threads notice that no live call holds
   it, and replace it with a new lane. If the lane was not lost after all, there is one lane too many, which does no harm.
3. A thread waits for a lane until its deadline at most. A thread never waits for itself: a decision within a decision (in a
   signal handler) gets a connection of its own.
4. A request that changes something is sent once, on the connection on which the item was read. A request that only reads is
   sent again, once, if the connection had been used before: a restarted server has closed it.
5. A forked child starts without connections and with new lanes: see `forking`.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from ratelimited_notify.forking import forkable
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
"""Seconds after which a thread that waits for a lane checks again whether a live call holds it. It doubles with each check
that finds one: hundreds of waiting threads that all wake up often would leave no time for those that have a lane."""

_OVERDUE = 1.0
"""Seconds after a thread's deadline after which it certainly no longer holds its lane."""


class Connection:
    """One connection to a host, opened when it is first needed, used by one thread at a time.

    Arguments:
        host: the server.
        breaker: its circuit breaker.
        timeout: the longest time that a decision takes, in seconds.
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
        """Send a request and return the answer; connect first if needed.

        Arguments:
            exchange: the request.
            deadline: by `time.monotonic`, for connecting, sending and receiving together.

        Raises:
            StorageError: there is no answer.
            TooLarge: the value to be stored is too large for the server.
        """
        began = time.monotonic()
        try:
            if began >= deadline:
                raise OutOfTime
            answer = self._answer(exchange, deadline)
        except BaseException as error:
            self.close()
            if isinstance(error, FAILURES):
                self._report(error, began, deadline)
                if not isinstance(error, TooLarge):
                    raise failures.storage_error(self._host, self._timeout, error, sent=exchange.changes) from None
            raise
        if self._breaker.failures:
            self._breaker.answered()
        return answer

    def _report(self, error: Exception, began: float, deadline: float) -> None:
        """Report a failed exchange to the circuit breaker."""
        if not isinstance(error, OSError):
            # The server replied, whatever the content.
            self._breaker.answered()
        elif not isinstance(error, TimeoutError):
            self._breaker.failed(began, timed_out=False)
        elif deadline - began >= self._timeout / 2:
            # If the server had less time than this, a time-out does not count against it.
            self._breaker.failed(began, timed_out=True)

    def close(self) -> None:
        """Close the connection, even if a reply is pending."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def __del__(self) -> None:
        self.close()

    def _answer(self, exchange: Exchange[T], deadline: float) -> T:
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
    """The answer in a reply that arrives in several parts, of which the first is here."""
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
    """A call that holds a lane. The object lives as long as the call."""

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Lane:
    """A connection to a host, and the lock that a thread holds while it uses it.

    Arguments:
        host: the server.
        breaker: its circuit breaker.
        timeout: the longest time that a decision takes, in seconds.
    """

    __slots__ = ("_until", "breaker", "connection", "holder", "lock")

    def __init__(self, host: Host, breaker: Breaker, timeout: float) -> None:
        self.breaker = breaker
        self.connection = Connection(host, breaker, timeout)
        # An RLock knows which thread holds it, so after an exception a thread can find out whether it has the lock.
        self.lock = forkable(threading.RLock())
        self.holder: Callable[[], Holder | None] = nobody
        """The call that holds the lock, as far as is known."""
        self._until = float("-inf")

    def is_held_by(self, holder: Holder, until: float) -> None:
        """Record which call has taken the lock, and its deadline."""
        self._until = until
        self.holder = ref(holder)

    def is_held_here(self) -> bool:
        """Whether this very thread is in the middle of a decision: this call then comes from a signal handler or its clock."""
        holder = self.holder()
        return holder is not None and holder.thread == threading.get_ident()

    def is_lost(self) -> bool:
        """Whether no live call could release a lock that is taken. It can be wrong if a thread took the lock just now."""
        return self.holder() is None or time.monotonic() > self._until + _OVERDUE


def nobody() -> None:
    """The holder of a lane that is free."""
    return


class Lanes:
    """The connections of one process to all hosts: a few to each host. A recipient always uses the same one.

    Arguments:
        hosts: the servers.
        breakers: their circuit breakers, by the name of the host.
        timeout: the longest time that a decision takes, in seconds.
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
        """The lane that serves this key head."""
        return self._lanes[host][lane_of(head)]

    def take(self, host: Host, head: str, deadline: float) -> Lane | None:
        """The lane that serves this key head, locked for the caller; None if other callers held the lock until the deadline."""
        lane, wait, is_suspect, pause = self.of(host, head), 0.0, False, _LOOK
        if lane.is_held_here():
            lane = self._lane(host)
        while wait >= 0:
            try:
                if lane.lock.acquire(True, min(wait, pause)):
                    return lane
            except BaseException:
                # A signal handler raised, perhaps just after the lock was taken.
                with suppress(RuntimeError):
                    lane.lock.release()
                raise
            # A lane counts as lost only if it looks lost twice in a row: the first time, a thread may have just taken it.
            is_lost = lane.is_lost()
            if is_lost and is_suspect:
                self._replace(host, head, lane)
            is_suspect = is_lost and not is_suspect
            pause = _LOOK if is_lost else 2 * pause
            lane, wait = self.of(host, head), deadline - time.monotonic()
        return None

    def _replace(self, host: Host, head: str, lost: Lane) -> None:
        lanes, number = self._lanes[host], lane_of(head)
        if lanes[number] is lost:
            lanes[number] = self._lane(host)

    def close(self) -> None:
        """Close idle connections. A connection in use is closed when its thread is done with this lane."""
        for lanes in self._lanes.values():
            for lane in lanes:
                if lane.lock.acquire(blocking=False):
                    try:
                        lane.connection.close()
                    finally:
                        lane.lock.release()
