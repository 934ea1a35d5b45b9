"""Connections to memcached for threads, and the lanes in which threads wait for them.

What always holds, whatever exception passes at whatever byte code (a signal handler may raise anywhere):

1. A connection is clean only while no reply is on its way: it ceases to be before the first byte of a request is sent, and
   is again when the last byte of the reply has been read and understood. Only a clean connection is used; any other is
   closed, so that nobody reads a reply to somebody else's request.
2. A place in a lane is a connection object: it is in its lane, in the hands of one thread, or gone. It cannot leak: where
   an exception came before it was put back, it is gone, and a fresh one takes its place.
3. Nothing is locked while the server is asked. Lanes are C queues, which signal handlers and destructors may enter.
4. A request that changes something is sent once, on the connection on which the item was read. What only reads is sent
   again, once, if the connection had been used before: a server that was started anew has closed it.
5. A forked child starts with no connection and with new lanes: see `forking`.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from ratelimited_notify.storage.memcached import failures
from ratelimited_notify.storage.memcached.forking import close_in_children, this_process
from ratelimited_notify.storage.memcached.hosts import LANES, lane_of
from ratelimited_notify.storage.memcached.protocol import FAILURES, Garbled, OutOfTime, Refusal, TooLarge
from ratelimited_notify.storage.wire import Wire, connect, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ratelimited_notify.storage.circuit import Breaker
    from ratelimited_notify.storage.memcached.hosts import Address, Host
    from ratelimited_notify.storage.memcached.protocol import Exchange

T = TypeVar("T")

_CHUNK = 65536

_OVERDUE = 1.0
"""Seconds after the deadline of a thread, when it is certain that it lost its connection and did not put it back."""


class Connection:
    """A place in a lane, and the connection that belongs to it, made when it is first needed."""

    __slots__ = ("__weakref__", "_is_clean", "_lane", "_wire")

    def __init__(self, lane: Lane) -> None:
        # Not held: a lane that nobody uses any more goes, with what is in it.
        self._lane: Callable[[], Lane | None] = ref(lane)
        self._wire: Wire | None = None
        self._is_clean = False
        close_in_children(self)

    def ask(self, exchange: Exchange[T], lane: Lane, deadline: float) -> T:
        """The answer to a request; connects first where that is needed.

        Arguments:
            exchange: what is asked.
            lane: where this connection belongs.
            deadline: by `time.monotonic`, for all that it takes.

        Raises:
            OutOfTime: there was no time left to ask.
            OSError: no answer; a `TimeoutError` if none came in time.
            Refusal: the server could not do it.
            Garbled: what came is no answer.
        """
        began = time.monotonic()
        if began >= deadline:
            raise OutOfTime
        breaker = lane.breaker
        try:
            answer = self._asked(exchange, lane, deadline)
        except OSError as error:
            self.close()
            is_late = isinstance(error, TimeoutError)
            if not is_late or deadline - began >= lane.patience:
                breaker.failed(began, timed_out=is_late)
            raise
        except BaseException as error:
            self.close()
            if isinstance(error, (Refusal, Garbled)):
                breaker.answered()
            raise
        if breaker.failures:
            breaker.answered()
        return answer

    def close(self) -> None:
        """Drop the connection, with whatever reply is still on its way. The place stays."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def retire(self) -> None:
        """Drop the connection and the place."""
        self._lane = _no_lane
        self.close()

    def __del__(self) -> None:
        self.close()
        lane = self._lane()
        if lane is not None:
            lane.put(Connection(lane))

    def _asked(self, exchange: Exchange[T], lane: Lane, deadline: float) -> T:
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
        wire = self._wire = Wire(connect(_addresses(lane.host.address), deadline, _prepare), deadline)
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


def _no_lane() -> None:
    return None


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
    try:
        return resolve(*address)
    except UnicodeError:
        raise OSError("The name of the host is none") from None


def _prepare(connecting: socket.socket) -> None:
    if connecting.family != getattr(socket, "AF_UNIX", None):
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Lane(SimpleQueue[Connection]):
    """Where a connection to a host waits while no thread uses it.

    Arguments:
        host: the server.
        breaker: its circuit.
        timeout: the most seconds that a decision takes.
    """

    def __init__(self, host: Host, breaker: Breaker, timeout: float) -> None:
        super().__init__()
        self.host = host
        self.breaker = breaker
        self._timeout = timeout
        self.patience = timeout / 2
        """Seconds: a server that was given less time than this is not blamed for being late."""
        self.until = float("-inf")
        """The deadline of the last thread that took the connection."""
        self.put(Connection(self))

    def ask(self, connection: Connection, exchange: Exchange[T], deadline: float) -> T:
        """The answer to a request, on the connection that was taken from here; failures are in words.

        Raises:
            StorageError: there is no answer.
            TooLarge: the value to be stored is too large for the server.
        """
        try:
            return connection.ask(exchange, self, deadline)
        except TooLarge:
            raise
        except FAILURES as error:
            raise failures.told(self.host, self._timeout, error, sent=exchange.changes) from None

    def notice_loss(self) -> None:
        """Put in a fresh connection where one is overdue; for those who waited in vain.

        The destructor of a connection has done it long before, unless a signal handler raised just there.
        """
        if time.monotonic() > self.until + _OVERDUE and self.empty():
            self.put(Connection(self))

    def trim(self) -> None:
        """Let go of a connection too many: one that was overdue came back after all."""
        with suppress(Empty):
            self.get_nowait().retire()


class Lanes:
    """The connections of one process to all hosts: a few to each, every recipient always on the same one.

    Arguments:
        hosts: the servers.
        breakers: their circuits, by the name of the host.
        timeout: the most seconds that a decision takes.
    """

    __slots__ = ("_lanes", "process")

    def __init__(self, hosts: Sequence[Host], breakers: Mapping[str, Breaker], timeout: float) -> None:
        self.process = this_process()
        self._lanes = {host: [Lane(host, breakers[host.name], timeout) for _ in range(LANES)] for host in hosts}

    def of(self, host: Host, head: str) -> Lane:
        """Where the connection waits that serves this head."""
        return self._lanes[host][lane_of(head)]

    def close(self) -> None:
        """Close the connections that nobody uses. Those in use are closed when their threads are done with these lanes."""
        for lanes in self._lanes.values():
            for lane in lanes:
                with suppress(Empty):
                    connection = lane.get_nowait()
                    connection.close()
                    lane.put(connection)
