"""Faults for a Lua script: replacements in its text, outside strings and comments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_IGNORED = re.compile(r"--[^\n]*|'[^'\n]*'|\"[^\"\n]*\"")

_REPLACED: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"<=", "<"),
    (r"<=", ">"),
    (r"<(?!=)", "<="),
    (r"<(?!=)", ">="),
    (r">=", ">"),
    (r">=", "<"),
    (r">(?!=)", ">="),
    (r">(?!=)", "<="),
    (r"==", "~="),
    (r"~=", "=="),
    (r"\band\b", "or"),
    (r"\bor\b", "and"),
    (r"\bnot\b ", ""),
    # `x + 0` makes a number of a string, and `x - 0` the same.
    (r"(?<= )\+(?= (?!0\b))", "-"),
    (r"(?<= )-(?= )", "+"),
    (r"(?<= )\*(?= )", "+"),
    (r"(?<= )/(?= )", "*"),
    (r"(?<![\w.])\d+(?![\w.])", lambda found: f"{int(found[0]) + 1}"),
    (r"(?<![\w.])\d+(?![\w.])", lambda found: f"({int(found[0]) - 1})"),
    (r"\bmath\.min\b", "math.max"),
    (r"\bmath\.max\b", "math.min"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    # A command, or an assignment to what is there already.
    (r"(?m)^( *)call\(.*\)$", r"\1"),
    (r"(?m)^( +)(?! |local\b)[\w.\[\]#+, ]+ = .*[^{(,=]$", r"\1"),
]


def faults(file: str, source: str, first: int = 0) -> Iterator[Fault]:
    """All faults that can be planted in this script, which begins at this place of the file."""
    code = _IGNORED.sub(lambda found: "\0" * len(found[0]), source)
    for pattern, text in _REPLACED:
        for found in re.finditer(pattern, code):
            instead = text(found) if callable(text) else found.expand(text)
            yield Fault(file, first + found.start(), first + found.end(), instead)
