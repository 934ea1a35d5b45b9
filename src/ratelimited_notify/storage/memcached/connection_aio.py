"""Connections to memcached for asyncio.

This is our own code, because neither existing client survives cancellation (aiomcache 0.8.2 and memcachio 0.5.1, both
tried). After a cancelled call aiomcache hands that call's reply to the next call, and it spins for ever when the server
closes the connection. memcachio loses a place in its pool with each call cancelled while connecting, until none is left.

These invariants hold at whatever await a task is cancelled, and whatever else is raised:

1. A connection is clean only while no reply is pending. It becomes unclean before the first byte of a request is sent, and
   clean again when the last byte of the reply has been read and understood. Only clean connections are kept for reuse.
2. A connection is either used by one task, or idle, or closed.
3. A request that changes something is sent once. A request that only reads is sent again, once, if the connection was
   reused: a restarted server has closed it.
4. A plain socket belongs to no event loop, so the next event loop can reuse a connection of an earlier one.
5. A forked child starts without connections: see `forking`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from ratelimited_notify.storage.event_loop import connect, resolve
from ratelimited_notify.storage.memcached.forking import close_in_children
from ratelimited_notify.storage.memcached.hosts import LANES
from ratelimited_notify.storage.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.storage.memcached.hosts import Address, Host
    from ratelimited_notify.storage.memcached.protocol import Exchange

T = TypeVar("T")

_CHUNK = 65536


class AsyncConnection:
    """One socket, for one task at a time."""

    __slots__ = ("__weakref__", "_socket", "is_clean", "is_stale")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.is_clean = True
        self.is_stale = Wire(connected, 0).is_stale
        close_in_children(self)

    @classmethod
    async def open(cls, address: Address, deadline: float) -> AsyncConnection:
        """Connect to the first of the server's addresses that accepts.

        Arguments:
            address: the address of the server.
            deadline: by the event loop's clock; each address gets its share of the time that is left.
        """
        if isinstance(address, str):
            found: Sequence[tuple[Any, ...]] = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address)]  # Any: an address
        else:
            found = await resolve(*address)
        return cls(await connect(found, deadline, _at_once))

    async def ask(self, exchange: Exchange[T]) -> T:
        """Send a request and return the answer.

        Raises:
            OSError: the connection is lost.
            Refusal: the server could not process the request.
            Garbled: the reply does not match the request.
        """
        loop = asyncio.get_running_loop()
        self.is_clean = False
        request = exchange.request
        try:
            sent = self._socket.send(request)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < len(request):
            await loop.sock_sendall(self._socket, memoryview(request)[sent:])
        received: bytes | bytearray = await loop.sock_recv(self._socket, _CHUNK)
        if not received:
            raise ConnectionResetError
        while (answer := exchange.read(received)) is None:
            part = await loop.sock_recv(self._socket, _CHUNK)
            if not part:
                raise ConnectionResetError
            received = bytearray(received) if isinstance(received, bytes) else received
            received += part
        self.is_clean = True
        return answer

    def close(self) -> None:
        """Close the connection, even if a reply is pending."""
        self.is_clean = False
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()


class Idle:
    """Idle connections, of all event loops."""

    __slots__ = ("_connections",)

    def __init__(self) -> None:
        self._connections: dict[Host, list[AsyncConnection]] = {}

    def take(self, host: Host) -> AsyncConnection | None:
        """An idle connection to this host, if there is one."""
        connections = self._connections.get(host)
        while connections:
            try:
                connection = connections.pop()
            except IndexError:
                # The event loop of another thread has just taken it.
                break
            if connection.is_clean and not connection.is_stale():
                return connection
            connection.close()
        return None

    def put(self, host: Host, connection: AsyncConnection) -> None:
        """Keep a connection for reuse if it is clean and there are only a few; otherwise close it."""
        connections = self._connections.setdefault(host, [])
        if connection.is_clean and len(connections) < LANES:
            connections.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while self._connections:
            _, connections = self._connections.popitem()
            for connection in connections:
                connection.close()


def _at_once(connecting: socket.socket) -> None:
    """Disable Nagle's algorithm, so that requests are sent without delay."""
    if connecting.family != getattr(socket, "AF_UNIX", None):
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
