"""A TCP proxy on 127.0.0.1 that can lose, delay, hold back or garble the answers of a server."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "127.0.0.1"


class Proxy:
    """Forwards everything to a port of this machine, unless an attribute or a method changes that.

    Arguments:
        port: the server's port.
        hosts: the addresses to listen on, all with the same port. On Linux all of 127.0.0.0/8 can be used.
    """

    def __init__(self, port: int, hosts: Sequence[str] = (HOST,)) -> None:
        self._server = (HOST, port)
        self._hosts = hosts
        self._listeners: list[socket.socket] = []
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._closed = False
        self.port = 0
        self.losing: Literal["nothing", "one", "all"] = "nothing"
        """The answers to scripts that are lost: the server has run the script, but the client gets no answer."""
        self.hanging = False
        """Whether the connection stays open after a lost answer. If not, it is closed."""
        self.delay: Callable[[], float] | None = None
        """Returns how long to hold back the next answer, in seconds."""
        self.since = b""
        """On each connection, `drip`, `silent` and `garbage` take effect from the first request that contains these bytes."""
        self.drip: float | None = None
        """The pause before each byte of an answer, in seconds."""
        self.garbage: bytes | None = None
        """Clients get these bytes instead of each answer."""
        self.requests = 0
        """How often clients have sent something."""
        self.lost = 0
        """How many answers have been lost."""
        self.listen()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def silent(self) -> bool:
        """Whether the proxy holds everything back while connections stay open. The data is forwarded later, like in TCP."""
        return not self._passing.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._passing.clear()
        else:
            self._passing.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def listen(self) -> None:
        """Accept connections. After `refuse`, the port is the same as before."""
        for host in self._hosts:
            listener = socket.create_server((host, self.port), backlog=1024)
            self.port = int(listener.getsockname()[1])
            self._listeners.append(listener)
            self._start(self._accept, listener)

    def refuse(self) -> None:
        """Refuse new connections. Open connections stay open."""
        while self._listeners:
            listener = self._listeners.pop()
            # If another thread waits in accept(), only a shutdown wakes it.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def cut(self) -> None:
        """Close every open connection."""
        with self._lock:
            for one in list(self._sockets):
                _end(one)

    def close(self) -> None:
        """Close every connection and wait for the threads."""
        self._closed = True
        self.refuse()
        self._passing.set()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for one in list(self._sockets):
            one.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            script, begun = threading.Event(), threading.Event()
            self._start(self._ask, client, server, script, begun)
            self._start(self._answer, server, client, script, begun)

    def _ask(
        self, client: socket.socket, server: socket.socket, script: threading.Event, begun: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                self.requests += 1
                if b"EVAL" in data:
                    script.set()
                if self.since in data:
                    begun.set()
                self._hold(begun)
                server.sendall(data)
        self._leave(client, server)

    def _answer(
        self, server: socket.socket, client: socket.socket, script: threading.Event, begun: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if self.losing != "nothing" and script.is_set():
                    self.lost += 1
                    if self.losing == "one":
                        self.losing = "nothing"
                    if self.hanging:
                        continue
                    break
                if self.delay is not None:
                    time.sleep(self.delay())
                if self.garbage is not None and begun.is_set():
                    data = self.garbage
                self._hold(begun)
                if self.drip is None or not begun.is_set():
                    client.sendall(data)
                else:
                    self._drip(client, data)
        self._leave(client, server)

    def _hold(self, begun: threading.Event) -> None:
        if not self._passing.is_set() and begun.is_set():
            self._passing.wait()

    def _drip(self, client: socket.socket, data: bytes) -> None:
        for at in range(len(data)):
            seconds = self.drip
            if seconds is None or self._closed:
                client.sendall(data[at:])
                return
            time.sleep(seconds)
            client.sendall(data[at : at + 1])

    def _leave(self, client: socket.socket, server: socket.socket) -> None:
        _end(client)
        _end(server)
        with self._lock:
            # The last of the two threads closes the sockets.
            if client in self._sockets:
                self._sockets -= {client, server}
            else:
                client.close()
                server.close()


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
