"""The keys under which windows are stored: one per window, never shared by two windows, never over 200 bytes.

A key is `namespace:{tag}:rest:s`. The letter at the end stands for the strategy; a pause has a letter of its own. The tag is the recipient, so all windows of
a recipient are in one slot of a Redis cluster and in one record of memcached. A window that is not counted by recipient has
the value it is counted by as its tag. Every part is escaped to plain ASCII, or hashed if it is long, so no text of any kind
can imitate another part.
"""

from __future__ import annotations

import re
from string import ascii_letters, digits
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.windows.strategies import WindowKind

STRATEGY_LETTERS: dict[WindowKind, str] = {
    "moving-window": "m",
    "fixed-window": "f",
    "sliding-window-counter": "s",
    "pause": "p",
}
"""The last letter of a key, by strategy. A rule whose strategy changes therefore does not read the old counters."""

TAG_BYTES = 64
"""The longest tag that is used unchanged; a longer one is hashed."""

REST_BYTES = 96
"""The longest rest that is used unchanged; a longer one is hashed."""

NAMESPACE_BYTES = 32
"""The longest namespace."""

plain = re.compile(r"[A-Za-z0-9@._+=-]{1,64}").fullmatch
"""A match, if the part is used in a key unchanged. Where every call counts, it is called instead of `is_plain`."""

_PLAIN_PARTS = re.compile(r"[A-Za-z0-9@._+=:-]*").fullmatch
_PLAIN_BYTES = (ascii_letters + digits + "@._+=-").encode()
# What `quote` makes of ASCII characters.
_ESCAPES = {code: f"%{code:02X}" for code in range(128) if chr(code) not in ascii_letters + digits + "@._+=-~"}
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,32}").fullmatch
_OURS = re.compile(r"[A-Za-z0-9._-]{1,32}:\{[^{}]+\}:[^{}]+:[mfsp]").fullmatch
# Escaping never produces this, so a hashed part cannot be mistaken for an escaped one. Both contain a %; a plain part does not.
_HASHED = "%#"


def valid_namespace(namespace: str) -> bool:
    """Whether keys can begin with this text: letters, digits, `.`, `_` and `-`, at most 32 of them."""
    return _NAMESPACE(namespace) is not None


def digest(text: str, secret: bytes = b"") -> str:
    """The text's digest, 32 hexadecimal digits (BLAKE2b, RFC 7693); keyed if a secret is given."""
    # Imported here, as `quote` in `escape`: most programs never need it.
    from hashlib import blake2b

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=secret).hexdigest()


def is_plain(part: str) -> bool:
    """Whether the part is used in a key unchanged."""
    return plain(part) is not None


def escape(part: str) -> str:
    """The part in plain ASCII without separators, braces, spaces or control characters."""
    if plain(part):
        return part
    if part.isascii():
        return part.translate(_ESCAPES)
    from urllib.parse import quote

    return quote(part, safe="@+=", errors="surrogatepass")


def tag_of(recipient: str) -> str:
    """The recipient as written between the braces of a key."""
    if plain(recipient):
        return recipient
    escaped = escape(recipient)
    # Redis ignores an empty tag, so the recipient's windows would be in several slots.
    return escaped if 0 < len(escaped) <= TAG_BYTES else _HASHED + digest(recipient)


def tags_of(recipients: Sequence[str]) -> Sequence[str]:
    """`tag_of` for each recipient. If all of them are plain, as most addresses and ids are, one check covers them all."""
    if recipients and len(min(recipients, key=len)) > 0 and len(max(recipients, key=len)) <= TAG_BYTES:
        joined = "\n".join(recipients)
        # Without the plain characters only the line breaks added above are left, unless a recipient contains other characters.
        if joined.isascii() and len(joined.encode().translate(None, _PLAIN_BYTES)) == len(recipients) - 1:
            return recipients
    return [tag_of(recipient) for recipient in recipients]


def rest_of(parts: Sequence[str], strategy: WindowKind) -> str:
    """The part of a key after the tag: what distinguishes this window from the recipient's other windows."""
    rest = ":".join(parts)
    # Most names and types are plain, which is quickly seen of all of them at once.
    if not _PLAIN_PARTS(rest) or rest.count(":") >= len(parts):
        rest = ":".join(map(escape, parts))
    kept = rest if len(rest) <= REST_BYTES else _HASHED + digest(rest)
    return f"{kept}:{STRATEGY_LETTERS[strategy]}"


def foreign(key: str, strategy: WindowKind) -> str:
    """The key under which the storages keep a key that came through `limits` itself. Keys made by this library are unchanged.

    `limits` uses one key for all strategies and sets no limit to its length, so its keys get a namespace of their own.
    """
    if _OURS(key) and key.endswith(STRATEGY_LETTERS[strategy]):
        return key
    return f"limits:{{{tag_of(key)}}}:{rest_of(('item',), strategy)}"


def tag_in(key: str) -> str:
    """The text between a key's braces; the whole key if it has none."""
    _, brace, behind = key.partition("{")
    return behind.partition("}")[0] if brace else key


def split(key: str) -> tuple[str, str]:
    """A key's head, up to and including the tag, and its rest."""
    head, brace, rest = key.partition("}:")
    return head + brace, rest
