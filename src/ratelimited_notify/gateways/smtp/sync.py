"""The SMTP gateway for threads, on `smtplib`."""

from __future__ import annotations

import io
import os
import smtplib
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.gateways.smtp.conversation import (
    Line,
    Reply,
    Stale,
    hand_over,
    telling,
    unanswered,
    unreachable,
)
from ratelimited_notify.gateways.smtp.settings import GOODBYE_SECONDS, SMTPSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from ratelimited_notify.gateways.smtp.conversation import Step
    from ratelimited_notify.gateways.smtp.mailbox import Addresses
    from ratelimited_notify.gateways.smtp.message import Letter

_REPLY_BYTES = 65_536
"""The longest reply that is read, in bytes."""


class SMTPGateway(SMTPSettings):
    """Sends mail over SMTP, one recipient per message. Safe to call from any thread.

    A notifier with this gateway counts the address of a recipient. Its name, as in `Ana Lee <ana@example.com>`, is only
    for the header.

    Connections are kept and reused. If one died while it was idle, or the server takes no more messages on it, the
    message goes over a new one. `close()`, or the end of the `with` block, closes them all. After a fork, the child
    process makes its own connections.

    Arguments:
        host: the name or address of the server.
        port: 25 by default, 587 with `tls="starttls"`, 465 with `tls="implicit"`.
        sender: the address that messages come from, `news@example.com` or `Shop <news@example.com>`. A name may be in
            quotes, or what `email.utils.formataddr` returns.
        username: the username, if the server needs a login.
        password: the password, if the server needs a login.
        tls: `"starttls"` (encrypted, or nothing is sent), `"implicit"` (encrypted from the first byte), or None, the
            default (not encrypted).
        timeout: how long to wait for the connection and for each answer of the server, in seconds; 60 by default. A
            server may need long for its last answer, and if you give up before it, the outcome is unknown.
        connections: how many connections may be open at the same time; 4 by default. Further calls wait for one of
            them.
        tls_context: for your own certificates. By default, certificates are checked against those of the system.
        local_hostname: the name of this machine in EHLO; by default the name that the system returns.
        plaintext_login: allow a login over an unencrypted connection to another host. False by default.

    Raises:
        NotifyError: an argument is invalid.
    """

    def __call__(
        self,
        recipient: str,
        subject: str,
        body: str,
        *,
        headers: Mapping[str, str] | None = None,
        html: str | None = None,
        cc: Addresses = (),
        bcc: Addresses = (),
        reply_to: Addresses = (),
    ) -> str:
        """Send one message.

        Arguments:
            recipient: one address, `ana@example.com` or `Ana Lee <ana@example.com>`.
            subject: any text. Line breaks and control characters in it become spaces.
            body: any text. Line endings are normalized.
            headers: more headers, such as `List-Unsubscribe`, but not those that the gateway sets.
            html: the body as HTML, for mail clients that show it.
            cc: who gets a copy: an address, several with commas between them, or a list of addresses. If the server
                refuses one of them, nobody gets the message. Rules count the recipient only.
            bcc: who gets a copy that the others do not see, in the same form.
            reply_to: where answers go, in the same form.

        Returns:
            The Message-ID, with its angle brackets.

        Raises:
            InvalidMessage: the message is invalid, for example a line break in a header, or not exactly one recipient;
                nothing was sent.
            SMTPError: the server refused, or could not be reached; nothing was sent.
            DeliveryUnknown: the connection was lost while the message was being sent. It may arrive.
        """
        letter = self._letter(recipient, subject, body, headers, html, cc, bcc, reply_to)
        pool = self._pool()
        with pool.slots:
            self._check_open()
            connection = self._rested(pool)
            if connection is not None:
                with suppress(Stale):
                    return self._deliver(letter, connection, pool)
            return self._deliver(letter, self._connect(), pool)

    def close(self) -> None:
        """Close all connections. Calls that are already running finish; later calls raise `SMTPError`."""
        self._closed = True
        pool = self._pool()
        while pool.resting:
            pool.resting.pop().quit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        self._pools: dict[int, _Pool] = {}
        for text in self._login or ():
            if not text.isascii():
                raise NotifyError(
                    "username and password must be ASCII, because smtplib supports nothing else; AsyncSMTPGateway "
                    "supports any characters"
                )

    def _pool(self) -> _Pool:
        """The connections of this process. After a fork, two processes must not use the same connection."""
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            for other in list(self._pools):
                inherited = self._pools.pop(other, None)
                for connection in inherited.resting if inherited else ():
                    connection.drop()
            pool = self._pools.setdefault(process, _Pool(self._connections))
        return pool

    def _rested(self, pool: _Pool) -> _Connection | None:
        while pool.resting:
            with suppress(IndexError):
                connection = pool.resting.pop()
                if not connection.rested_too_long():
                    return connection
                connection.drop()
        return None

    def _connect(self) -> _Connection:
        client: smtplib.SMTP | None = None
        what = "the connection"
        try:
            if self.tls == "implicit":
                client = _TLSClient(
                    self.host, self.port, self._local_hostname, timeout=self.timeout, context=self._tls_context
                )
            else:
                client = _Client(self.host, self.port, self._local_hostname, timeout=self.timeout)
            if self.tls == "starttls":
                client.starttls(context=self._tls_context)
            client.ehlo_or_helo_if_needed()
            if self._login:
                what = "the login"
                client.login(*self._login)
        except BaseException as error:
            if client is not None:
                client.close()
            # A host name that cannot be encoded raises ValueError.
            if isinstance(error, (OSError, ValueError)):
                raise unreachable(what, error, self._place) from None if what == "the login" else telling(error)
            raise
        return _Connection(client)

    def _deliver(self, letter: Letter, connection: _Connection, pool: _Pool) -> str:
        conversation = hand_over(letter, connection, connection.client.esmtp_features, self._place)
        try:
            with suppress(StopIteration):
                step = next(conversation)
                while True:
                    step = conversation.send(self._exchange(connection, step))
            return letter.message_id
        finally:
            if connection.reusable:
                pool.resting.append(connection)
                if self._closed:
                    self.close()
            else:
                connection.drop()

    def _exchange(self, connection: _Connection, step: Step) -> Reply:
        try:
            return connection.exchange(step)
        # smtplib's exceptions are OSErrors.
        except OSError as error:
            raise unanswered(step, self._place) from telling(error)


class _Pool:
    def __init__(self, connections: int) -> None:
        self.slots = threading.Semaphore(connections)
        self.resting: deque[_Connection] = deque()


class _Connection(Line):
    def __init__(self, client: smtplib.SMTP) -> None:
        super().__init__()
        self.client = client

    def exchange(self, step: Step) -> Reply:
        self.said()
        self.client.send(step.payload + b"\r\n")
        code, text = self.client.getreply()
        reply = Reply(code, text.decode("ascii", "replace"))
        self.heard(reply)
        return reply

    def quit(self) -> None:
        """Send QUIT, wait a short time for the answer, and close the connection."""
        with suppress(Exception):
            self.client.timeout = min(self.client.timeout, GOODBYE_SECONDS)
            self.client.quit()
        self.drop()

    def drop(self) -> None:
        with suppress(Exception):
            self.client.close()


class _Replies(io.RawIOBase):
    """Reads the server's replies. A reply must be complete within one timeout, and its length is limited."""

    def __init__(self, wire: socket.socket, timeout: float) -> None:
        self._wire = wire
        self._timeout = timeout
        self._deadline = 0.0
        self._room = 0

    def begin(self, timeout: float) -> None:
        """Start the timeout and the length limit for the next reply."""
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._room = _REPLY_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # io passes nothing but memoryviews
        left = self._deadline - time.monotonic()
        if left <= 0 or self._room <= 0:
            raise TimeoutError("the reply was too long or too slow")
        self._wire.settimeout(left)
        try:
            got = self._wire.recv_into(buffer)
        finally:
            self._wire.settimeout(self._timeout)
        self._room -= got
        return got


class _Client(smtplib.SMTP):
    """Limits the time for a whole reply, where `smtplib.SMTP` limits each part, and leaves no socket open on interrupts."""

    def connect(
        self,
        host: str = "localhost",
        port: int = 0,
        source_address: Any = None,  # Any: passed through unchanged; the standard library decides on its type.
    ) -> tuple[int, bytes]:
        try:
            return super().connect(host, port, source_address)
        except BaseException:
            self.close()
            raise

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_Replies(self.sock, self.timeout))
        if self.file is not None:
            self.file.raw.begin(self.timeout)
        return super().getreply()


class _TLSClient(_Client, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""
