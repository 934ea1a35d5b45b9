"""Documents in TOML."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Splits the parser's message into its words and the position. Words that quote only punctuation contain no key.
_MESSAGE = re.compile(r"(.*) (\(at [^()]*\))", re.DOTALL).fullmatch
_PLAIN = re.compile(r"""(?:[^'"`()\[\]{}]|(['"])[^\w\s]{1,2}\1)*+""").fullmatch

# The parts of a TOML file that are not keys: strings in their four notations, and comments. Each ends with the line or the
# file at the latest, so one pass is enough.
TEXT = re.compile(
    r"""
    \"{3} (?: [^"\\] | \\. | "(?!"") )*+ (?: "{3,5} | \Z )
    | '{3} (?: [^'] | '(?!'') )*+ (?: '{3,5} | \Z )
    | " (?: [^"\\\n] | \\. )*+ "?
    | ' [^'\n]*+ '?
    | \# [^\n]*+
    """,
    re.DOTALL | re.VERBOSE,
)
_BETWEEN_KEYS = re.compile(r"[^\w.-]+")

_DEEPEST = 100
"""The most dots in one key; each of them nests a table. Rules nest four tables."""


def read_toml(text: str) -> Mapping[str, object]:
    """The document in a text.

    Raises:
        RuleError: the text is not TOML. The message quotes no key: it may be an address.
    """
    try:
        if _is_deep(text):
            raise RecursionError
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # The cause is dropped because it may quote a key.
        said = _said(error)
    raise RuleError(f"The file is not valid TOML: {said}.")


def _is_deep(text: str) -> bool:
    """Whether a key has too many dots. The parser starts again at each dot, and would take minutes."""
    if text.count(".") <= _DEEPEST:
        return False
    keys = TEXT.sub("q", text).replace(" ", "").replace("\t", "")
    return any(key.count(".") > _DEEPEST for key in _BETWEEN_KEYS.split(keys))


def _said(error: Exception) -> str:
    """The parser's message without its quotes: a quoted key may be an address."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    found = _MESSAGE(str(error))
    if found is None:
        return "it cannot be parsed"
    words, place = found.groups()
    if words.startswith(("Cannot", "Duplicate")):
        words = "a key or a table is defined twice"
    elif not _PLAIN(words):
        words = "a character is not allowed there"
    return f"{words} {place}"
