"""Header lines: what text may stand in one, folding, and encoded words (RFC 2047). No text can inject another header."""

from __future__ import annotations

import re
from email.header import Header

from ratelimited_notify.gateways.base import InvalidMessage

LINE = 78
"""The length at which header lines are folded (RFC 5322, 2.1.1)."""

_LONGEST_WORD = 900
"""A longer run without a space would not fit in a line (998 bytes), so it is sent as encoded words."""

# Control characters (a tab is a space in a header), line and paragraph separators, lone surrogates.
_BREAKS = "\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029"
_UNPRINTABLE = re.compile(f"[{_BREAKS}\ud800-\udfff]").search
_SPACING = re.compile(f"[{_BREAKS}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


def line(text: object, what: str) -> str:
    """Return the text without surrounding spaces if it fits in one header line; otherwise raise `InvalidMessage`."""
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} must be a string, not {type(text).__name__}")
    text = text.rstrip("\r\n")
    if _UNPRINTABLE(text):
        raise InvalidMessage(f"{what} must not contain line breaks or control characters")
    return text.strip(" \t")


def one_line(text: object, what: str) -> str:
    """Return any text as one line: line breaks and control characters become spaces."""
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} must be a string, not {type(text).__name__}")
    return without_surrogates(_SPACING.sub(" ", text)).strip(" \t")


def without_surrogates(text: str) -> str:
    """The text with U+FFFD in place of lone surrogates, which stand for bytes that could not be decoded."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def is_plain(text: str) -> bool:
    """Whether mail clients show this text unchanged. They would decode a part that looks like an encoded word."""
    return text.isascii() and "=?" not in text and all(len(word) < _LONGEST_WORD for word in _words(text))


def folded(name: str, text: str) -> str:
    """One header, folded between words, and with encoded words only where they are necessary.

    A long text alone does not make them necessary: encoded words would break the URL of a List-Unsubscribe.
    """
    if not is_plain(text):
        return f"{name}: {encoded(name, text)}"
    written, width = f"{name}: ", len(name) + 2
    for number, word in enumerate(_words(text)):
        if number and width + len(word) > LINE:
            written, width = written + "\r\n", 0
        written, width = written + word, width + len(word)
    return written


def encoded(name: str, text: str) -> str:
    """The text in encoded words, folded, as it stands in the header with this name."""
    return Header(text, "utf-8", header_name=name).encode(linesep="\r\n")


def _words(text: str) -> list[str]:
    """The words, each with the space before it."""
    return re.findall(r"[ \t]*[^ \t]+", text)
