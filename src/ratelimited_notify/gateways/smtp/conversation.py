"""What is said to an SMTP server to hand over one message, and what each answer, or none, means. No I/O.

`hand_over` is a generator: it yields what to send and is given the replies, so both gateways speak and decide alike.
"""

from __future__ import annotations

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
"""A connection that rested longer is replaced: servers and firewalls drop such ones, some without a word."""

_GOING_AWAY = 421
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""What OpenSSL says of bytes that are no TLS."""
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?!\S)").match


class SMTPError(NotifyError):
    """The message was not sent: the server refused it, could not be reached, or went away before it had the message.

    `code` is the server's reply code (550) and `status` its enhanced status code (5.1.1, RFC 3463), or None. The
    server's own words are left out, since they may quote the address.
    """

    def __init__(self, message: str, code: int | None = None, status: str | None = None) -> None:
        self.code = code
        self.status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[type[SMTPError], tuple[str, int | None, str | None]]:
        return type(self), (str(self), self.code, self.status)


class ServerUnreachable(SMTPError):
    """The server cannot be reached, or refuses the login; nothing was sent, and the next message would fare no better."""


class Stale(Exception):
    """A connection kept from an earlier message is of no use any more; nothing of this one was sent on it."""


class Reply(NamedTuple):
    """What the server answered."""

    code: int
    text: str


class Step(NamedTuple):
    """What to send next; the shells add CRLF."""

    payload: bytes
    wanted: int
    """The first digit of the reply that lets the conversation go on."""
    what: str
    """What the server refuses when it refuses this."""
    message: bool = False
    """It is the message itself: once on its way, it may be delivered."""
    probe: bool = False
    """First on a connection that was used before, where a failure tells no more than that the connection is old."""


_RESET = Step(b"RSET", 2, "RSET")


class Line:
    """How one connection stands with its server."""

    def __init__(self) -> None:
        self.used = False
        self.clean = True
        """No earlier message was left half handed over."""
        self.in_step = True
        """The server answered the last thing said, and waits for the next command."""
        self.rested_at = time.monotonic()

    def said(self) -> None:
        """Something is about to be sent."""
        self.in_step = False

    def heard(self, reply: Reply) -> None:
        """The server answered."""
        self.in_step = reply.code // 100 in (2, 4, 5) and reply.code != _GOING_AWAY
        self.rested_at = time.monotonic()

    def rested_too_long(self) -> bool:
        """Whether the server may have dropped it meanwhile."""
        return time.monotonic() - self.rested_at > IDLE_SECONDS


def hand_over(letter: Letter, line: Line, extensions: Container[str], place: str) -> Generator[Step, Reply, None]:
    """Yields what to send and takes the replies; ends when the server has taken the message.

    Arguments:
        letter: the message.
        line: the connection it goes over.
        extensions: what the server offers, in lower case.
        place: the server's name for errors.

    Raises:
        SMTPError: the server refused; nothing was sent.
        DeliveryUnknown: the last answer cannot be understood.
        Stale: the connection was old; try another.
    """
    if letter.international and "smtputf8" not in extensions:
        raise SMTPError(
            f"An address is not ASCII, and the SMTP server {place} does not offer SMTPUTF8; nothing was sent. "
            "A domain can be written in its xn-- form."
        )
    options = " SMTPUTF8 BODY=8BITMIME" if letter.international else ""
    if "size" in extensions:
        options += f" SIZE={len(letter.content)}"
    steps = [
        Step(f"MAIL FROM:<{letter.sender}>{options}".encode(), 2, "the sender"),
        Step(f"RCPT TO:<{letter.recipient}>".encode(), 2, "the recipient"),
        Step(b"DATA", 3, "DATA"),
        # The content begins with a header and all its lines end with CRLF, so this is all the dot-stuffing it takes.
        Step(letter.content.replace(b"\r\n.", b"\r\n..") + b".", 2, "the message", message=True),
    ]
    if not line.clean:
        steps.insert(0, _RESET)
    probe = line.used
    line.used, line.clean = True, False
    for step in steps:
        asked = step._replace(probe=probe)
        reply = yield asked
        if reply.code // 100 != step.wanted:
            if probe and (reply.code == _GOING_AWAY or step is _RESET):
                raise Stale
            if 400 <= reply.code <= 599:
                raise _refused(step, reply, place)
            raise unanswered(asked, place)
        probe = False
    line.clean = True


def unanswered(step: Step, place: str) -> NotifyError | Stale:
    """The error for a step that got no answer, or none that can be understood."""
    if step.probe:
        return Stale()
    if step.message:
        return DeliveryUnknown(
            f"The SMTP server {place} gave no answer after the message was on its way; whether it arrives is unknown."
        )
    return SMTPError(f"The SMTP server {place} gave no answer about {step.what}; nothing was sent.")


def unreachable(what: str, error: Exception, place: str) -> ServerUnreachable:
    """The error for a connection that could not be made; `what` failed, the connection or the login."""
    code = _code(error)
    why = code or _why(what, error)
    return ServerUnreachable(f"The SMTP server {place}: {what} failed ({why}); nothing was sent.", code)


def _why(what: str, error: Exception) -> str:
    """What is wrong, in words that say what to do; otherwise the class of the error, never the words in it."""
    # aiosmtplib wraps what happened into an error of its own.
    inner = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(inner, socket.gaierror | UnicodeError):
        return "there is no host of that name, or names cannot be looked up"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return "its certificate is not for this host, or nobody trusted vouches for it"
    if isinstance(inner, ssl.SSLError):
        return (
            "the server does not speak TLS on this port: is it smtp:// or smtp+starttls://?"
            if inner.reason in _NOT_TLS
            else f"TLS could not be agreed on: {inner.reason or type(inner).__name__}"
        )
    if isinstance(inner, ConnectionRefusedError):
        return "nobody listens on this port: is the server running?"
    if isinstance(inner, TimeoutError):
        return "no answer within the time-out"
    # The classes of smtplib and aiosmtplib have only their names in common.
    if "Disconnected" in type(inner).__name__:
        return "the server closed the connection, or gave no answer in time: is it smtps://?"
    # aiosmtplib has no class of its own for it. Of the text no word is shown.
    if "not supported" in str(error):
        return "the server offers no login" if what == "the login" else "the server offers no STARTTLS: is it smtps://?"
    return type(error).__name__


def telling(error: Exception) -> Exception | None:
    """The error, to be shown as the cause, unless it holds the server's words, which may quote an address."""
    return error if _code(error) is None else None


def _code(error: Exception) -> int | None:
    """The reply code in an error of smtplib or aiosmtplib; None where it is not about a reply."""
    code = getattr(error, "smtp_code", getattr(error, "code", None))
    return code if isinstance(code, int) else None


def _refused(step: Step, reply: Reply, place: str) -> SMTPError:
    enhanced = _ENHANCED(reply.text)
    status = enhanced[0] if enhanced else None
    said = f"{reply.code} {status}" if status else f"{reply.code}"
    return SMTPError(f"The SMTP server {place} refused {step.what} ({said}); nothing was sent.", reply.code, status)
