"""Addresses in a message: who it is from, who gets it, and who gets the answer. Each may have a name."""

from __future__ import annotations

import re
import unicodedata
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from typing import TypeAlias, cast

from ratelimited_notify.gateways.base import InvalidMessage
from ratelimited_notify.gateways.smtp.header import LINE, encoded, is_plain, line
from ratelimited_notify.notification.address import NamedAddress

Addresses: TypeAlias = str | Iterable[str]
"""One or several addresses: a string, with commas between them, or an iterable of single ones."""

_ATOMS = r"[^\s\"(),:;<>@\[\\\]]+"
_LABEL = r"[^\s\"(),:;<>@\[\\\]./]+"
_ADDRESS = re.compile(rf"({_ATOMS})@(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Za-z:.]+\])").fullmatch

_ENCODED_WORD = r"=\?[^?\s]{1,75}\?[bBqQ]\?[^?\s]*\?="
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD}(?:[ \t]+{_ENCODED_WORD})*")


@dataclass(frozen=True, slots=True, repr=False)
class Mailbox:
    """An address with its display name. The name may be empty."""

    name: str
    address: str

    @classmethod
    def parse(cls, text: object, what: str) -> Mailbox:
        """Parse one address, alone or with a name, in all forms that `NamedAddress` and `email.utils.formataddr` write.

        Arguments:
            text: `ana@example.com`, `Ana Lee <ana@example.com>`, `"Lee, Ana" <ana@example.com>`, or with encoded words
                in the name (RFC 2047).
            what: names the value in the error message.

        Raises:
            InvalidMessage: it is not a single address, or the name contains line breaks or control characters.
        """
        if not isinstance(text, str):
            return cls("", address(text, what))
        parts = NamedAddress.split(text)
        name = parts.name
        if not parts.quoted:
            if "@" in name and ("," in name or ";" in name):
                raise _not_single(what)
            name = _ENCODED_WORDS.sub(lambda found: _decoded(found[0]), name)
        return cls(line(name, f"the name in {what}"), address(parts.address, what))

    @classmethod
    def parse_all(cls, addresses: object, what: str) -> tuple[Mailbox, ...]:
        """Parse several addresses: a string with commas between them, or an iterable of strings."""
        if isinstance(addresses, str):
            return tuple(cls.parse(each, what) for each in _split(addresses) if each.strip())
        if not isinstance(addresses, Iterable):
            raise InvalidMessage(
                f"{what} must be an e-mail address as a string, or several, not {type(addresses).__name__}"
            )
        return tuple(cls.parse(each, what) for each in cast("Iterable[object]", addresses))

    def written(self, header: str) -> str:
        """The mailbox as it stands in the header with this name."""
        if not self.name:
            return self.address
        if is_plain(self.name) and len(self.name) < LINE:
            shown = '"' + re.sub(r'(["\\])', r"\\\1", self.name) + '"'
        else:
            shown = encoded(header, self.name)
        return f"{shown}\r\n <{self.address}>"

    def in_ascii(self) -> Mailbox | None:
        """The same mailbox with the domain in its xn-- form; None if the address has no form in ASCII.

        The `idna` codec of Python is for the standard of 2003. It maps some characters to others that today's standard
        keeps apart: `straße.example` would become `strasse.example`, which may belong to somebody else. So the result
        counts only if it decodes to the same domain.
        """
        local, _, domain = self.address.rpartition("@")
        if domain.isascii():
            return self if local.isascii() else None
        plain = unicodedata.normalize("NFC", domain.lower())
        try:
            written = plain.encode("idna")
            same = written.decode("idna") == plain
        except UnicodeError:
            return None
        return Mailbox(self.name, f"{local}@{written.decode('ascii')}") if same and local.isascii() else None


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
            raise _not_single(what)
        if len(found[1].encode()) > 64 or len(form.encode()) > 254:
            raise InvalidMessage(
                f"{what} is too long for an e-mail address: at most 64 bytes before the @, and 254 in total"
            )
    return text


def _not_single(what: str) -> InvalidMessage:
    return InvalidMessage(
        f"{what} must be a single e-mail address like name@example.com or Name <name@example.com>: one @, and no spaces, "
        "line breaks, commas, quotes or angle brackets within the address"
    )


def _decoded(words: str) -> str:
    """The text of encoded words; the words themselves if they cannot be decoded."""
    try:
        return "".join(
            part if isinstance(part, str) else part.decode(charset or "ascii") for part, charset in decode_header(words)
        )
    except (HeaderParseError, Base64Error, LookupError, ValueError):
        # A ValueError: bytes that are not in this character set, or a NUL in its name.
        return words


def _split(text: str, *, with_quotes: bool = True) -> list[str]:
    """Split at the commas between addresses. A comma in quotes, or in a name before its address, separates nothing."""
    parts: list[str] = []
    start, complete = 0, False
    quoted = escaped = False
    for at, character in enumerate(text):
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"' and with_quotes:
            quoted = True
        elif character == "@":
            complete = True
        elif character == "," and complete:
            parts.append(text[start:at])
            start, complete = at + 1, False
    if quoted:
        # The last quote is never closed, so quotes mean nothing here.
        return _split(text, with_quotes=False)
    return [*parts, text[start:]]
