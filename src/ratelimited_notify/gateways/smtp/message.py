"""Build the bytes of a message, safe against injected headers and recipients.

No I/O except for the clock and the random part of the Message-ID. `email.message.EmailMessage` encodes the body. The
headers with text from the caller are written here, for two reasons. `EmailMessage` decodes encoded words in a value and,
in some releases of Python (3.11.7 for example), writes a line break that was hidden in one (`=?utf-8?q?a=0ABcc:_x?=`) as
a new header. And it turns a long URL, as in List-Unsubscribe, into encoded words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.gateways.base import InvalidMessage
from ratelimited_notify.gateways.smtp.header import folded, line, one_line, without_surrogates
from ratelimited_notify.gateways.smtp.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimited_notify.gateways.smtp.mailbox import Addresses

# Every server accepts 7 bits, so it does not matter which servers offer 8BITMIME.
_POLICY = SMTP.clone(cte_type="7bit")

_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,75}").fullmatch

_Head: TypeAlias = "str | tuple[str, Sequence[Mailbox]]"
"""A header line, or the name of a header and the mailboxes in it."""

_RESERVED = frozenset(
    {
        "date",
        "dkim-signature",
        "from",
        "message-id",
        "mime-version",
        "received",
        "return-path",
        "sender",
        "subject",
        "to",
    }
)
_RESERVED_FAMILIES = ("content-", "resent-")


@dataclass(frozen=True, slots=True, repr=False)
class Letter:
    """A message ready to be sent: its envelope, and its bytes with CRLF line endings. The repr shows none of it."""

    sender: str
    recipient: str
    copies: tuple[str, ...]
    """The other addresses that get the message."""
    message_id: str
    content: bytes
    international: bool
    """An address contains non-ASCII characters, so the server must support SMTPUTF8 (RFC 6531)."""
    in_ascii: Letter | None = None
    """The same message for a server without SMTPUTF8, with all domains in their xn-- form, if there is such a form."""


def compose(
    sender: Mailbox,
    recipient: str,
    subject: str,
    body: str,
    *,
    headers: Mapping[str, str] | None = None,
    html: str | None = None,
    cc: Addresses = (),
    bcc: Addresses = (),
    reply_to: Addresses = (),
) -> Letter:
    """Build the message. Raises `InvalidMessage` if anything is wrong with it."""
    to = Mailbox.parse(recipient, "the recipient")
    copies = Mailbox.parse_all(cc, "an address in cc")
    hidden = Mailbox.parse_all(bcc, "an address in bcc")
    answers = Mailbox.parse_all(reply_to, "an address in reply_to")
    domain = (sender.in_ascii() or sender).address.rpartition("@")[2]
    message_id = make_msgid(domain=domain if domain.isascii() else "localhost")
    heads: list[_Head] = [
        ("From", [sender]),
        ("To", [to]),
        ("Cc", copies),
        folded("Subject", one_line(subject, "the subject")),
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"Message-ID: {message_id}",
        ("Reply-To", answers),
        *_extra({} if headers is None else headers, {"reply-to"} if answers else set()),
    ]
    content = _content(body, html)
    envelope = (sender, to, *copies, *hidden)
    written = _letter(envelope, message_id, heads, content)
    if not written.international:
        return written
    ascii_heads = [head if isinstance(head, str) else (head[0], _in_ascii(head[1])) for head in heads]
    plain = _letter(_in_ascii(envelope), message_id, ascii_heads, content)
    return replace(written, in_ascii=None if plain.international else plain)


def _in_ascii(mailboxes: Sequence[Mailbox]) -> tuple[Mailbox, ...]:
    """The mailboxes, as far as they have a form in ASCII in that form."""
    return tuple(mailbox.in_ascii() or mailbox for mailbox in mailboxes)


def _letter(envelope: Sequence[Mailbox], message_id: str, heads: Sequence[_Head], content: bytes) -> Letter:
    head = "".join(f"{text}\r\n" for text in map(_written, heads) if text)
    sender, recipient, *copies = [mailbox.address for mailbox in envelope]
    # Each mailbox gets one copy.
    once = dict.fromkeys(copies)
    once.pop(recipient, None)
    international = not all(map(str.isascii, (head, sender, recipient, *once)))
    return Letter(sender, recipient, tuple(once), message_id, head.encode() + content, international)


def _written(head: _Head) -> str:
    if isinstance(head, str):
        return head
    name, mailboxes = head
    return f"{name}: " + ",\r\n ".join(mailbox.written(name) for mailbox in mailboxes) if mailboxes else ""


def _extra(headers: Mapping[str, str], seen: set[str]) -> Iterator[_Head]:
    """The caller's own headers. `seen` are those that the message already has."""
    if not isinstance(headers, Mapping):
        raise InvalidMessage(f"headers= must be a mapping from names to strings, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME(name):
            raise InvalidMessage("a header name must consist of ASCII letters, digits and hyphens, like X-Campaign")
        lower = name.lower()
        if lower in ("cc", "bcc"):
            raise InvalidMessage(f"the header {name} cannot be among the headers; pass the addresses as {lower}")
        if lower in _RESERVED or lower.startswith(_RESERVED_FAMILIES):
            raise InvalidMessage(f"the header {name} is set by the gateway and cannot be among the headers")
        if lower in seen:
            raise InvalidMessage(f"the header {name} appears twice")
        seen.add(lower)
        what = f"the header {name}"
        if lower == "reply-to":
            if not isinstance(value, str):
                raise InvalidMessage(f"{what} must be a string, not {type(value).__name__}")
            yield name, Mailbox.parse_all(value, what)
        else:
            yield folded(name, line(value, what))


def _content(body: str, html: str | None) -> bytes:
    """The content headers, an empty line, and the content, in lines that end with CRLF."""
    message = EmailMessage(_POLICY)
    body = _text(body, "the body")
    # NUL is the only ASCII character that SMTP does not allow and that set_content would leave unencoded.
    message.set_content(body, cte="quoted-printable" if "\0" in body else None)
    if html is not None:
        html = _text(html, "html")
        message.add_alternative(html, subtype="html", cte="quoted-printable" if "\0" in html else None)
    return message.as_bytes()


def _text(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} must be a string, not {type(text).__name__}")
    return without_surrogates(text)
