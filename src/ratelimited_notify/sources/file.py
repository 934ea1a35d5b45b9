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


# Splits the parser's message into its words and the position. Words that quote only punctuation contain no key.
_MESSAGE = re.compile(r"(.*) (\(at [^()]*\))", re.DOTALL).fullmatch
_PLAIN = re.compile(r"""(?:[^'"`()\[\]{}]|(['"])[^\w\s]{1,2}\1)*+""").fullmatch

# The parts of a TOML file that are not keys: strings in their four notations, and comments. Each ends with the line or the
# file at the latest, so one pass is enough.
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

_OTHERS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML"}
"""Formats that people have rules in, by the ending of the file."""

MOST_BYTES = 16 * 2**20
"""The largest file that is read. 10,000 rules with 100,000 overrides take less than half of it."""

_DEEPEST = 100
"""The most dots in one key; each of them nests a table. Rules nest four tables."""


def read_rules(path: str | os.PathLike[str]) -> RuleSet:
    """Read a rule set from a TOML file: `[[rules]]` tables, and optionally `fields`, `default` and `unknown_type`.

    Raises:
        RuleError: the file cannot be read, is larger than 16 MiB, is not TOML, or contains something that cannot be used. The error lists all
            problems.
    """
    source = Path(path)
    try:
        text = _text(source)
        if _is_deep(text):
            raise RecursionError
        document = tomllib.loads(text)
    except OSError as error:
        raise RuleError(
            [Problem("", f"The file cannot be read: {error.strerror or type(error).__name__}.")], str(source)
        ) from error
    except (ValueError, RecursionError) as error:
        # The file is not UTF-8, not TOML, or nested too deeply. The cause is dropped because it may quote a key.
        said = f"The file is not valid TOML: {_said(error)}."
        if (other := _OTHERS.get(source.suffix.lower())) is not None:
            said += f" Rules files are TOML; a program can read {other} itself and pass the result as rules."
        raise RuleError([Problem("", said)], str(source)) from None
    try:
        return rule_set_of(document)
    except RuleError as error:
        raise RuleError(error.problems, str(source)) from None


def _text(source: Path) -> str:
    with source.open("rb") as file:
        # A device or a pipe has no size, and may have no end.
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise RuleError(
            [Problem("", f"The file is larger than {MOST_BYTES // 2**20} MiB, the most that is read.")], str(source)
        )
    # Some editors write a byte order mark, which TOML 1.0 does not allow.
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _is_deep(text: str) -> bool:
    """Whether a key has too many dots. The parser starts again at each dot, and would take minutes."""
    if text.count(".") <= _DEEPEST:
        return False
    keys = _TEXT.sub("q", text).replace(" ", "").replace("\t", "")
    return any(key.count(".") > _DEEPEST for key in _BETWEEN_KEYS.split(keys))


def _said(error: Exception) -> str:
    """The parser's message without its quotes: a quoted key may be an address."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
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
