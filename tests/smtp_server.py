"""An SMTP server on a plain socket that accepts mail and can fail at any point of the conversation.

`aiosmtpd` is the real server of the tests. This one does what a correct server never does.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from typing import BinaryIO, NamedTuple, Self

CLOSE = "close"
"""Close the connection."""
RESET = "reset"
"""Close the connection with a TCP reset."""
HANG = "hang"
"""Stop answering."""
DRIP = "drip"
"""Send a reply that never ends, one byte at a time."""


class Mail(NamedTuple):
    """A message that arrived. A message is recorded if and only if the server took responsibility for it."""

    sender: str
    recipient: str
    content: bytes


class FailingServer:
    """Accepts mail on a free port of 127.0.0.1.

    Arguments:
        faults: maps a phase to what happens in it: one of the constants above, or a reply to send instead. The phases are
            greeting, EHLO, RSET, MAIL, RCPT, DATA, go (after the reply to DATA), body (part of the message has arrived),
            end (all of it has arrived), and after (the last reply has been sent).
        times: how many times faults happen; by default, on every connection.
        taken: whether the server takes responsibility for a message before a fault in the phase `end`.
        offers: the extensions that the server offers, separated by spaces.
        most: how many messages the server accepts on one connection. After that, what `over` says happens in the next
            message: a phase and a fault.

    A recipient in `refuses` gets the reply given there.
    """

    def __init__(
        self, faults: dict[str, str] | None = None, *, times: int | None = None, taken: bool = False, offers: str = "",
        most: int | None = None,
    ) -> None:  # fmt: skip
        self.faults = faults or {}
        self.times = times
        self.taken = taken
        self.offers = offers.split()
        self.most = most
        self.over = ("MAIL", CLOSE)
        self.refuses: dict[str, str] = {}
        self._accepted: Counter[socket.socket] = Counter()
        self.mails: list[Mail] = []
        self.commands: Counter[str] = Counter()
        self.connections = 0
        self.ended = threading.Semaphore(0)
        self.reached = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Close every connection, like a restart of the server."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with suppress(OSError, EOFError), connection.makefile("rb") as lines:
                self._converse(connection, lines)
        finally:
            self._open.discard(connection)
            connection.close()
            self.ended.release()

    def _fault(self, phase: str, connection: socket.socket) -> bool:
        """Let the fault of this phase happen, if there is one. True if it has sent the reply of this phase."""
        fault = self.faults.get(phase)
        if self.most is not None and self._accepted[connection] >= self.most and phase == self.over[0]:
            fault = self.over[1]
        elif fault is None or (self.times is not None and self.times <= 0):
            return False
        elif self.times is not None:
            self.times -= 1
        self.reached.set()
        if fault == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == HANG:
            self._stop.wait(30)
        elif fault == DRIP:
            while not self._stop.wait(0.05):
                connection.sendall(b"2")
        elif fault != CLOSE:
            connection.sendall(fault.encode() + b"\r\n")
            if not fault.startswith("421"):
                return True
        raise EOFError

    def _converse(self, connection: socket.socket, lines: BinaryIO) -> None:
        def say(reply: str) -> None:
            connection.sendall(reply.encode() + b"\r\n")

        sender = recipient = ""
        if not self._fault("greeting", connection):
            say("220 failing.example ESMTP")
        while line := lines.readline().decode(errors="replace"):
            verb, _, rest = line.strip().partition(" ")
            verb = verb.upper()
            self.commands[verb] += 1
            if self._fault(verb, connection):
                continue
            if verb == "EHLO":
                replies = ["failing.example", *self.offers]
                say("\r\n".join([*(f"250-{one}" for one in replies[:-1]), f"250 {replies[-1]}"]))
            elif verb == "MAIL":
                sender = rest
                say("250 2.1.0 ok")
            elif verb == "RCPT":
                recipient = rest
                say(self.refuses.get(rest.removeprefix("TO:<").removesuffix(">"), "250 2.1.5 ok"))
            elif verb == "DATA":
                say("354 go on")
                self._fault("go", connection)
                self._take(connection, lines, sender, recipient)
            elif verb == "QUIT":
                say("221 2.0.0 bye")
                return
            else:
                say("250 2.0.0 ok")

    def _take(self, connection: socket.socket, lines: BinaryIO, sender: str, recipient: str) -> None:
        content = b""
        while (line := lines.readline()) != b".\r\n":
            if not line:
                return
            content += line.removeprefix(b".") if line.startswith(b".") else line
            self._fault("body", connection)
        mail = Mail(sender, recipient, content)
        if self.taken and "end" in self.faults:
            self.mails.append(mail)
        if self._fault("end", connection):
            return
        self.mails.append(mail)
        self._accepted[connection] += 1
        connection.sendall(b"250 2.0.0 taken\r\n")
        self._fault("after", connection)
