"""A web server on a free port of 127.0.0.1 that does to a client whatever the path says, over real sockets.

- `/hang` reads the request and never answers; `/cut` closes the connection then, `/reset` resets it;
- `/half` closes it in the middle of the answer; `/garbage` answers something that is not HTTP;
- `/plain` answers without encryption, although the connection has TLS; `/loop` redirects to itself;
- `/many` answers 200 with more headers than clients read;
- `/undecodable` answers 200 with a body that is not what its headers say, `/text` with one that is no JSON;
- `/not-ok` answers as Slack does when it refuses a message, `/fatal` as it does when it failed itself;
- `/429`, or any other number, answers with that status.

What follows in the path does not matter. A path can name several, for the first request, the second and so on: `/503,429`.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

HOST = "127.0.0.1"


def _answer(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    size = len(body) if length is None else length
    lines = (f"HTTP/1.1 {status} {phrase}", f"Content-Length: {size}", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode() + body


_ANSWERS = {
    "cut": b"",
    "half": _answer(200, b"half of", "Content-Type: application/json", length=100),
    "garbage": b"\x00\x01 this is not HTTP\r\n\r\n",
    "loop": _answer(307, b"", "Location: /loop"),
    "many": _answer(200, b"{}", *(f"X-{number}: 1" for number in range(300))),
    "undecodable": _answer(200, b"this is not compressed", "Content-Type: application/json", "Content-Encoding: gzip"),
    "text": _answer(200, b"<p>this is not JSON</p>", "Content-Type: text/html"),
    "not-ok": _answer(200, b'{"ok": false, "error": "msg_too_long"}', "Content-Type: application/json"),
    "fatal": _answer(200, b'{"ok": false, "error": "fatal_error"}', "Content-Type: application/json"),
}


class UnreliableServer:
    """The server. It keeps the requests that it got in `received`."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.tunnels = 0
        """As a proxy, the status that requests for a tunnel get."""
        self._tls: ssl.SSLContext | None = None
        self._closing = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def with_tls(self, context: ssl.SSLContext) -> str:
        """Speak TLS from now on; the address for it."""
        self._tls = context
        return f"{self.url.replace('http:', 'https:')}/text"

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), self._tls.wrap_socket(connection, True) if self._tls else connection as connection:
            for request in _requests(connection):
                if request.startswith(b"CONNECT"):
                    connection.sendall(_answer(self.tunnels, b""))
                    return
                self.received.append(request)
                behaviours = request.split(b" ", 2)[1].decode().split("/")[1].split(",")
                behaviour = behaviours[min(len(self.received), len(behaviours)) - 1]
                if behaviour == "hang":
                    self._closing.wait(60)
                elif behaviour == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif behaviour == "plain":
                    os.write(connection.fileno(), _answer(200, b"{}"))
                else:
                    body = b'{"error": "no"}'
                    connection.sendall(
                        _ANSWERS[behaviour]
                        if behaviour in _ANSWERS
                        else _answer(int(behaviour), body, "Content-Type: application/json")
                    )
                return

    def close(self) -> None:
        self._closing.set()
        # Ends the call of accept(), which closing the socket alone would not do.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._sockets:
            each.close()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _requests(connection: socket.socket) -> Iterator[bytes]:
    """The requests that come on a connection, each with its body."""
    read = b""
    while True:
        while b"\r\n\r\n" not in read:
            more = connection.recv(65536)
            if not more:
                return
            read += more
            if read.startswith(b"\x16"):  # TLS, to a server that does not speak it
                connection.sendall(_answer(400, b""))
                return
        head, _, rest = read.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if b"\nexpect: 100-continue" in head.lower():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(lengths[0]) if lengths else 0
        while len(rest) < length:
            more = connection.recv(65536)
            if not more:
                return
            rest += more
        yield head + b"\r\n\r\n" + rest[:length]
        read = rest[length:]


class FullServer:
    """A server that takes no more connections: its queue is full, so that connecting to it hangs."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=0)
        self._waiting: list[socket.socket] = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(self._listener.getsockname())
            self._waiting.append(waiting)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        for each in (self._listener, *self._waiting):
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
