"""Build the bytes of a message to one recipient, safe against injected headers and recipients.

No I/O except for the clock and the random part of the Message-ID. `email.message.EmailMessage` encodes the body. The
headers with text from the caller are written here, for two reasons. `EmailMessage` decodes encoded words in a value and,
in some releases of Python (3.11.7 for example), writes a line break that was hidden in one (`=?utf-8?q?a=0ABcc:_x?=`) as
a new header. And it turns a long URL, as in List-Unsubscribe, into encoded words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING

from ratelimited_notify.gateways.base import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every server accepts 7 bits, so it does not matter which servers offer 8BITMIME.
_POLICY = SMTP.clone(cte_type="7bit")

_LINE = 78
"""The length at which header lines are folded (RFC 5322, 2.1.1)."""

_LONGEST_WORD = 900
"""A longer run without a space would not fit in a line (998 bytes), so it is sent as encoded words."""

_ATOMS = r"[^\s\"(),:;<>@\[\\\]]+"
_LABEL = r"[^\s\"(),:;<>@\[\\\]./]+"
_ADDRESS = re.compile(rf"({_ATOMS})@(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Za-z:.]+\])").fullmatch
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>").fullmatch
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,75}").fullmatch
# Control characters (a tab is a space in a header), line and paragraph separators, lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search

_RESERVED = frozenset(
    {
        "bcc",
        "cc",
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
    message_id: str
    content: bytes
    international: bool
    """An address contains non-ASCII characters, so the server must support SMTPUTF8 (RFC 6531)."""


@dataclass(frozen=True, slots=True, repr=False)
class Mailbox:
    """An address with its display name. The name may be empty."""

    name: str
    address: str

    @classmethod
    def parse(cls, text: object, what: str) -> Mailbox:
        """Parse `ana@example.com` or `Ana Lee <ana@example.com>`. `what` names the value in the error message."""
        named = _NAMED(text) if isinstance(text, str) else None
        if named is None:
            return cls("", address(text, what))
        return cls(line(named["name"].strip().strip('"'), f"the name in {what}"), address(named["address"], what))

    def header(self, name: str) -> str:
        """The header line for this mailbox."""
        if not self.name:
            return f"{name}: {self.address}"
        if _plain(self.name) and len(self.name) < _LINE:
            shown = '"' + re.sub(r'(["\\])', r"\\\1", self.name) + '"'
        else:
            shown = _encoded(name, self.name)
        return f"{name}: {shown}\r\n <{self.address}>"


def address(text: object, what: str) -> str:
    """Return the text if it is one plausible address; otherwise raise `InvalidMessage`, which does not quote it."""
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} must be an e-mail address as a string, not {type(text).__name__}")
    # Check the compatibility form too: a server that maps a full-width comma to a comma would see two recipients.
    for kind in (None, "NFKC"):
        # Normalizing a long text is slow, but the first pass has already refused it.
        form = text if kind is None else unicodedata.normalize("NFKC", text)
        found = _ADDRESS(form) if form.isprintable() else None
        if found is None:
            raise InvalidMessage(
                f"{what} must be a single e-mail address like name@example.com: one @, and no spaces, line breaks, "
                "commas, quotes or angle brackets"
            )
        if len(found[1].encode()) > 64 or len(form.encode()) > 254:
            raise InvalidMessage(
                f"{what} is too long for an e-mail address: at most 64 bytes before the @, and 254 in total"
            )
    return text


def line(text: object, what: str) -> str:
    """Return the text without surrounding spaces if it fits in one header line; otherwise raise `InvalidMessage`."""
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} must be a string, not {type(text).__name__}")
    if _UNPRINTABLE(text):
        raise InvalidMessage(f"{what} must not contain line breaks or control characters")
    return text.strip(" \t")


def compose(
    sender: Mailbox,
    recipient: str,
    subject: str,
    body: str,
    *,
    headers: Mapping[str, str] | None = None,
    html: str | None = None,
) -> Letter:
    """Build the message. Raises `InvalidMessage` if anything is wrong with it."""
    to = Mailbox("", address(recipient, "the recipient"))
    domain = sender.address.rpartition("@")[2]
    message_id = make_msgid(domain=domain if domain.isascii() else "localhost")
    lines = [
        sender.header("From"),
        to.header("To"),
        _header("Subject", line(subject, "the subject")),
        f"Date: {format_datetime(datetime.now(UTC))}",
        f"Message-ID: {message_id}",
        *_extra({} if headers is None else headers),
    ]
    head = "".join(f"{text}\r\n" for text in lines)
    return Letter(
        sender.address,
        to.address,
        message_id,
        head.encode() + _content(body, html),
        not (sender.address + to.address + head).isascii(),
    )


def _extra(headers: Mapping[str, str]) -> Iterator[str]:
    """The caller's own header lines."""
    if not isinstance(headers, Mapping):
        raise InvalidMessage(f"headers= must be a mapping from names to strings, not {type(headers).__name__}")
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME(name):
            raise InvalidMessage("a header name must consist of ASCII letters, digits and hyphens, like X-Campaign")
        lower = name.lower()
        if lower in _RESERVED or lower.startswith(_RESERVED_FAMILIES):
            raise InvalidMessage(f"the header {name} is set by the gateway and cannot be passed in headers=")
        if lower in seen:
            raise InvalidMessage(f"the header {name} appears twice")
        seen.add(lower)
        if lower == "reply-to":
            yield Mailbox.parse(value, f"the header {name}").header(name)
        else:
            yield _header(name, line(value, f"the header {name}"))


def _plain(text: str) -> bool:
    """Whether mail clients show this text unchanged. They would decode a part that looks like an encoded word."""
    return text.isascii() and "=?" not in text and all(len(word) < _LONGEST_WORD for word in _words(text))


def _words(text: str) -> list[str]:
    """The words, each with the space before it."""
    return re.findall(r"[ \t]*[^ \t]+", text)


def _header(name: str, text: str) -> str:
    """One header, folded between words, and with encoded words (RFC 2047) only where they are necessary.

    A long text alone does not make them necessary: encoded words would break the URL of a List-Unsubscribe.
    """
    if not _plain(text):
        return f"{name}: {_encoded(name, text)}"
    folded, width = f"{name}: ", len(name) + 2
    for number, word in enumerate(_words(text)):
        if number and width + len(word) > _LINE:
            folded, width = folded + "\r\n", 0
        folded, width = folded + word, width + len(word)
    return folded


def _encoded(name: str, text: str) -> str:
    return Header(text, "utf-8", header_name=name).encode(linesep="\r\n")


def _content(body: str, html: str | None) -> bytes:
    """The content headers, an empty line, and the content, in lines that end with CRLF."""
    message = EmailMessage(_POLICY)
    _text(body, "the body")
    # NUL is the only ASCII character that SMTP does not allow and that set_content would leave unencoded.
    message.set_content(body, cte="quoted-printable" if "\0" in body else None)
    if html is not None:
        _text(html, "html=")
        message.add_alternative(html, subtype="html", cte="quoted-printable" if "\0" in html else None)
    return message.as_bytes()


def _text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} must be a string, not {type(text).__name__}")
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise InvalidMessage(f"{what} contains a lone surrogate, which cannot be sent in a message")
