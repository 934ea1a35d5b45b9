"""The SMTP commands that deliver one message, and the meaning of each reply or missing reply. No I/O.

`hand_over` is a generator that yields commands and receives replies, so both gateways use the same logic.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.gateways.base import DeliveryUnknown

if TYPE_CHECKING:
    from collections.abc import Container, Generator

    from ratelimited_notify.gateways.smtp.message import Letter

IDLE_SECONDS = 60.0
"""A connection that was idle for longer is replaced: servers and firewalls drop idle connections, some silently."""

_GOING_AWAY = 421
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""OpenSSL's reasons for bytes that are not TLS."""
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?!\S)").match
# "452 4.5.3 Too many messages in this session, please reconnect"
_ABOUT_THE_CONNECTION = re.compile(r"\bre-?connect|\bconnection\b|\bsession\b", re.IGNORECASE).search


class SMTPError(NotifyError):
    """The message was not sent: the server refused it, could not be reached, or disconnected before the message.

    `code` is the server's reply code (550) and `status` its enhanced status code (5.1.1, RFC 3463); either can be None.
    The text of the server's reply is left out because it may quote the address.
    """

    def __init__(self, message: str, code: int | None = None, status: str | None = None) -> None:
        self.code = code
        self.status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[type[SMTPError], tuple[str, int | None, str | None]]:
        return type(self), (str(self), self.code, self.status)


class ServerUnreachable(SMTPError):
    """The server cannot be reached, or refuses the login. Nothing was sent, and the next message would fail too."""


class Stale(Exception):
    """A connection that was kept from an earlier message takes no more. Nothing of this message was sent on it."""


class Reply(NamedTuple):
    """A reply of the server."""

    code: int
    text: str

    @property
    def ends_the_connection(self) -> bool:
        """Whether the server takes nothing more on this connection, and may take it on another."""
        return self.code == _GOING_AWAY or (400 <= self.code <= 499 and bool(_ABOUT_THE_CONNECTION(self.text)))


class Step(NamedTuple):
    """What to send next. The gateways add CRLF."""

    payload: bytes
    wanted: int
    """The first digit of the reply code that means success."""
    what: str
    """What the server refused, for the error message, if it refuses this step."""
    message: bool = False
    """This is the message itself: after the first byte it may be delivered."""
    retried: bool = False
    """A step before the message on a reused connection: if the connection has ended, another one is tried."""

    def __repr__(self) -> str:
        # It may be the password or the message, and a tool may show the variables of a traceback.
        return "<Step>"


_RESET = Step(b"RSET", 2, "RSET")


class Line:
    """The state of one connection."""

    def __init__(self) -> None:
        self.used = False
        self.clean = True
        """No earlier message was left half delivered."""
        self.in_step = True
        """The server has answered the last command and waits for the next one."""
        self.ended = False
        """The server takes nothing more on this connection, or its answers are out of step."""
        self.rested_at = time.monotonic()

    def said(self) -> None:
        """Something is about to be sent."""
        self.in_step = False

    def heard(self, reply: Reply) -> None:
        """The server has answered."""
        self.in_step = reply.code // 100 in (2, 4, 5) and reply.code != _GOING_AWAY
        self.ended = reply.ends_the_connection
        self.rested_at = time.monotonic()

    @property
    def reusable(self) -> bool:
        """Whether the next message can go over this connection."""
        return self.in_step and not self.ended

    def rested_too_long(self) -> bool:
        """Whether the connection was idle so long that the server may have dropped it."""
        return time.monotonic() - self.rested_at > IDLE_SECONDS


def hand_over(letter: Letter, line: Line, extensions: Container[str], place: str) -> Generator[Step, Reply, None]:
    """Yield what to send and receive the replies. Ends when the server has accepted the message.

    Arguments:
        letter: the message.
        line: the state of the connection.
        extensions: the SMTP extensions that the server offers, in lower case.
        place: host and port of the server, for error messages.

    Raises:
        SMTPError: the server refused one of the recipients, or the message; nothing was sent.
        DeliveryUnknown: the last reply is not valid SMTP.
        Stale: the server takes nothing more on this connection; use another one.
    """
    if letter.international and "smtputf8" not in extensions:
        if letter.in_ascii is None:
            raise SMTPError(
                f"An address contains non-ASCII characters, and the SMTP server {place} does not support SMTPUTF8; nothing "
                "was sent. If it is the domain, write it in its xn-- form: the gateway cannot do this for every letter. The part "
                "before the @ has no such form."
            )
        letter = letter.in_ascii
    options = " SMTPUTF8 BODY=8BITMIME" if letter.international else ""
    if "size" in extensions:
        options += f" SIZE={len(letter.content)}"
    steps = [
        Step(f"MAIL FROM:<{letter.sender}>{options}".encode(), 2, "the sender"),
        Step(f"RCPT TO:<{letter.recipient}>".encode(), 2, "the recipient"),
        *(Step(f"RCPT TO:<{each}>".encode(), 2, "an address in cc or bcc") for each in letter.copies),
        Step(b"DATA", 3, "DATA"),
        # The content begins with a header and all its lines end with CRLF, so this replacement does all the dot-stuffing.
        Step(letter.content.replace(b"\r\n.", b"\r\n..") + b".", 2, "the message", message=True),
    ]
    if not line.clean:
        steps.insert(0, _RESET)
    reused = line.used
    line.used, line.clean = True, False
    for step in steps:
        asked = step._replace(retried=reused and not step.message)
        reply = yield asked
        if reply.code // 100 != step.wanted:
            if asked.retried and (reply.ends_the_connection or step is _RESET):
                line.ended = True
                raise Stale
            if 400 <= reply.code <= 599:
                raise _refused(step, reply, place)
            # Nobody knows what the server answers next.
            line.ended = True
            raise unanswered(asked, place)
    line.clean = True


def unanswered(step: Step, place: str) -> NotifyError | Stale:
    """The error for a step with no reply, or with a reply that is not valid SMTP."""
    if step.retried:
        return Stale()
    if step.message:
        return DeliveryUnknown(
            f"The SMTP server {place} gave no valid answer after sending of the message had begun; "
            "it is not known whether the message arrives."
        )
    return SMTPError(f"The SMTP server {place} gave no valid answer about {step.what}; nothing was sent.")


def unreachable(what: str, error: Exception, place: str) -> ServerUnreachable:
    """The error for a connection that could not be made. `what` says which part failed: the connection or the login."""
    code = _code(error)
    why = code or _why(what, error)
    return ServerUnreachable(f"The SMTP server {place}: {what} failed ({why}); nothing was sent.", code)


def _why(what: str, error: Exception) -> str:
    """The reason and what to check, for known errors; otherwise what the system says, but never the text of the error."""
    # aiosmtplib wraps the original error in its own.
    inner = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(inner, socket.gaierror | UnicodeError):
        return "the host name cannot be resolved: is it spelled correctly, and does DNS work?"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return "its certificate is not for this host, or is not signed by a trusted authority"
    if isinstance(inner, ssl.SSLError):
        return (
            "the server does not speak TLS on this port: is it smtp:// or smtp+starttls://?"
            if inner.reason in _NOT_TLS
            else f"the TLS handshake failed: {(inner.reason or 'no reason was given').replace('_', ' ').lower()}"
        )
    if isinstance(inner, ConnectionRefusedError):
        return "connection refused: is the server running on this port?"
    if isinstance(inner, TimeoutError):
        return "no answer within the timeout"
    # The exception classes of smtplib and aiosmtplib have only parts of their names in common.
    if "Disconnected" in type(inner).__name__:
        return "the server closed the connection, or did not answer in time: is it smtps://?"
    # aiosmtplib has no exception class for this case. Its text is only searched, never shown.
    if "not supported" in str(error):
        return (
            "the server does not support login"
            if what == "the login"
            else "the server does not support STARTTLS: is it smtps://?"
        )
    if isinstance(inner, OSError) and inner.errno:
        return os.strerror(inner.errno)
    return "no valid SMTP answer"


def telling(error: Exception) -> Exception | None:
    """The error, to be shown as the cause. None if it contains the text of a reply, which may quote an address."""
    return error if _code(error) is None else None


def _code(error: Exception) -> int | None:
    """The reply code in an error of smtplib or aiosmtplib, or None if the error is not about a reply."""
    code = getattr(error, "smtp_code", getattr(error, "code", None))
    return code if isinstance(code, int) else None


def _refused(step: Step, reply: Reply, place: str) -> SMTPError:
    enhanced = _ENHANCED(reply.text)
    status = enhanced[0] if enhanced else None
    said = f"{reply.code} {status}" if status else f"{reply.code}"
    return SMTPError(f"The SMTP server {place} refused {step.what} ({said}); nothing was sent.", reply.code, status)
