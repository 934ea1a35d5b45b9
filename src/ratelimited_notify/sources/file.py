"""Rules from a TOML file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.document import rule_set_of

if TYPE_CHECKING:
    import os

    from ratelimited_notify.rules.ruleset import RuleSet


# The parser's words, and the place. Words that quote nothing but punctuation show no key.
_MESSAGE = re.compile(r"(.*) (\(at [^()]*\))", re.DOTALL).fullmatch
_PLAIN = re.compile(r"""(?:[^'"`()\[\]{}]|(['"])[^\w\s]{1,2}\1)*+""").fullmatch

# What in a TOML file is no key: texts in their four notations, and comments. Each ends at the latest with the line or the
# file, so that one pass is enough.
_TEXT = re.compile(
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
"""So many tables in one another are looked through; rules have four."""


def read_rules(path: str | os.PathLike[str]) -> RuleSet:
    """The rule set that a TOML file describes: `[[rules]]` tables, and optionally `fields`, `default`, `unknown_type`.

    Raises:
        RuleError: the file cannot be read, is not TOML, or holds something that cannot be used.
    """
    source = Path(path)
    try:
        # Some editors begin a file with a byte order mark, which TOML 1.0 does not know.
        text = source.read_text(encoding="utf-8-sig")
        if _is_deep(text):
            raise RecursionError
        document = tomllib.loads(text)
    except OSError as error:
        raise RuleError(
            [Problem("", f"it cannot be read: {error.strerror or type(error).__name__}.")], str(source)
        ) from error
    except (ValueError, RecursionError) as error:
        # What is not UTF-8, what is not TOML, and what is nested without end. Without its cause, which may show a key.
        raise RuleError([Problem("", f"it is not a TOML file: {_said(error)}.")], str(source)) from None
    try:
        return rule_set_of(document)
    except RuleError as error:
        raise RuleError(error.problems, str(source)) from None


def _is_deep(text: str) -> bool:
    """Whether a key has so many dots that the parser, which begins anew at each of them, would take minutes."""
    if text.count(".") <= _DEEPEST:
        return False
    keys = _TEXT.sub("q", text).replace(" ", "").replace("\t", "")
    return any(key.count(".") > _DEEPEST for key in _BETWEEN_KEYS.split(keys))


def _said(error: Exception) -> str:
    """What the parser says, without what it quotes: a key may be somebody's address."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    found = _MESSAGE(str(error))
    if found is None:
        return "it cannot be understood"
    words, place = found.groups()
    if words.startswith(("Cannot", "Duplicate")):
        words = "a key or a table is given twice"
    elif not _PLAIN(words):
        words = "a character cannot stand there"
    return f"{words} {place}"
