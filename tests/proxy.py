"""A TCP proxy on 127.0.0.1 that loses or delays what the server answers, as a network does."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"


class Proxy:
    """Passes everything on to a port of this machine, until told otherwise.

    Arguments:
        port: the server's port.
    """

    def __init__(self, port: int) -> None:
        self._server = (HOST, port)
        self._listener = socket.create_server((HOST, 0))
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self.losing: Literal["nothing", "one", "all"] = "nothing"
        """Which of the answers to scripts to lose: the server has done what it was asked, and nobody hears of it."""
        self.hanging = False
        """Whether the connection of a lost answer stays open; otherwise it is closed."""
        self.delay: Callable[[], float] | None = None
        """How long to hold each answer back, in seconds."""
        self.requests = 0
        """How often a client sent something."""
        self.lost = 0
        """How many answers were lost."""
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, and wait for the threads."""
        # A listener that another thread waits at is only woken by its shutdown.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._sockets:
                _end(one)
        for thread in self._threads:
            thread.join(5)
        for one in self._sockets:
            one.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
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
            script = threading.Event()
            self._start(self._ask, client, server, script)
            self._start(self._answer, server, client, script)

    def _ask(self, client: socket.socket, server: socket.socket, script: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                self.requests += 1
                if b"EVAL" in data:
                    script.set()
                server.sendall(data)
        _end(server)

    def _answer(self, server: socket.socket, client: socket.socket, script: threading.Event) -> None:
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
                client.sendall(data)
        _end(client)
        _end(server)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
