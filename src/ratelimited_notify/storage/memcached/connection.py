"""One asyncio connection to a memcached server, with the three commands that compare-and-swap needs.

Own code, because neither client that there is survives what asyncio programs do (aiomcache 0.8.2, memcachio 0.5.1, both
tried): after a cancelled call aiomcache hands that call's reply to the next, and spins for ever when the server closes
the connection; memcachio loses a place in its pool with each call cancelled while connecting, until none is left.

A plain socket belongs to no event loop, so a connection that one loop left idle serves the next.
The protocol: https://docs.memcached.org/protocols/basic/
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratelimited_notify.storage.memcached.hosts import Address

_CHUNK = 65536
_LOST = frozenset((b"EXISTS", b"NOT_FOUND", b"NOT_STORED"))


class Refusal(Exception):
    """The server answered something other than what was asked for."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Connection:
    """One socket, for one task at a time. Whoever is interrupted in a call must close it."""

    __slots__ = ("_received", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = bytearray()

    @classmethod
    async def open(cls, address: Address) -> Connection:
        """Connect to the first of the server's addresses that accepts."""
        if isinstance(address, str):
            return cls(await _connected(socket.AF_UNIX, address))
        host, port = address
        try:
            # A numeric address needs no resolver, and so no thread.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, _, _, _, resolved in found:
            try:
                return cls(await _connected(family, resolved))
            except OSError as error:
                failure = error
        raise failure or OSError("The name of the host has no address")

    async def gets(self, key: bytes) -> tuple[bytes | None, bytes | None]:
        """The value under a key, and the number that a compare-and-swap of it needs; two None if there is none."""
        await self._send(b"gets %b\r\n" % key)
        line = await self._line()
        if line == b"END":
            return None, None
        try:
            kind, _, _, length, unique = line.split(b" ")
            size = int(length)
        except ValueError:
            raise _refusal(line) from None
        if kind != b"VALUE":
            raise _refusal(line)
        value = await self._exactly(size + 2)
        line = await self._line()
        if line != b"END":
            raise _refusal(line)
        return value[:-2], unique

    async def store(self, key: bytes, value: bytes, expire: int, unique: bytes | None) -> bool:
        """Store a value where it is still the one that `gets` saw. False if somebody else was quicker."""
        if unique is None:
            head = b"add %b 0 %d %d\r\n" % (key, expire, len(value))
        else:
            head = b"cas %b 0 %d %d %b\r\n" % (key, expire, len(value), unique)
        await self._send(head + value + b"\r\n")
        line = await self._line()
        if line == b"STORED":
            return True
        if line in _LOST:
            return False
        raise _refusal(line)

    def close(self) -> None:
        """Drop the connection, with whatever answer is still on its way."""
        self._socket.close()

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _receive(self) -> None:
        received = await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)
        if not received:
            raise ConnectionResetError("The server closed the connection")
        self._received += received

    async def _line(self) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            await self._receive()
        return self._take(end + 2)[:-2]

    async def _exactly(self, length: int) -> bytes:
        while len(self._received) < length:
            await self._receive()
        return self._take(length)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken


async def _connected(family: int, address: tuple[Any, ...] | str) -> socket.socket:  # Any: what the resolver gave
    connection = socket.socket(family)
    try:
        connection.setblocking(False)
        if family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _refusal(line: bytes) -> Refusal:
    # What the server says of itself is shown; any other line may hold a key, and so a recipient.
    kind, _, said = line.decode(errors="replace").partition(" ")
    return Refusal(said if kind == "SERVER_ERROR" else kind)
