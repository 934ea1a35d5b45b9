"""A TCP proxy in a separate process. It shares no interpreter with the callers, so it is fast enough for a thousand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Self

HOST = "127.0.0.1"


class ProxyProcess:
    """Forwards everything to a port of this machine, unless a method changes that.

    Arguments:
        port: the server's port.
    """

    def __init__(self, port: int) -> None:
        command = [sys.executable, __file__, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._said())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def cut(self) -> None:
        """Close every open connection."""
        self._do("cut")

    def be_silent(self) -> None:
        """Forward nothing, but keep every connection open."""
        self._do("be silent")

    def pass_on(self) -> None:
        """Forward everything again, including what was held back."""
        self._do("pass on")

    def _do(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._said() == "done"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Ways:
    """All connections through the proxy."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open: set[asyncio.Transport] = set()
        self.passing = True
        self._connecting: set[asyncio.Task[object]] = set()

    def connect(self, client: End) -> None:
        """Connect a client to the server."""
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: End(self, client), HOST, self.port)
        except OSError:
            client.end()

    def do(self, what: str) -> None:
        """Carry out a command of the test."""
        match what:
            case "cut":
                for transport in tuple(self.open):
                    transport.abort()
            case "be silent":
                self.passing = False
                for transport in self.open:
                    transport.pause_reading()
            case "pass on":
                self.passing = True
                for transport in self.open:
                    transport.resume_reading()


class End(asyncio.Protocol):
    """One side of a connection through the proxy: the client's side, or the server's side that is made for it."""

    def __init__(self, ways: Ways, client: End | None = None) -> None:
        self._ways = ways
        self._other = client
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._other is None:
            transport.pause_reading()
            self._ways.connect(self)
        else:
            self._other._met(self)
            self._begin()

    def _met(self, other: End) -> None:
        self._other = other
        self._begin()

    def _begin(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            if self._other is not None:
                self._other.end()
            return
        self._ways.open.add(transport)
        if self._ways.passing:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._ways.open.discard(self._transport)
        if self._other is not None:
            self._other.end()

    def end(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


async def serve(port: int) -> None:
    """Run a proxy that reads commands from standard input."""
    ways = Ways(port)
    server = await asyncio.get_running_loop().create_server(lambda: End(ways), HOST, 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        ways.do(line.strip())
        sys.stdout.write("done\n")
        sys.stdout.flush()
    server.close()
    ways.do("cut")


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
