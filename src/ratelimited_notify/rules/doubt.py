"""What in a rule is hardly meant as it is written: patterns of another language, and patterns where only names count.

A pattern that no name can match as it is meant is an error. What may be meant after all is a warning.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from ratelimited_notify.rules.glob import is_empty_set, parts_of, plain_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONGEST = 60

_ALTERNATIVES = re.compile(r"\{[^{},]*+,[^{}]*+\}").search
_PLACEHOLDER = re.compile(r"\{[^{},]*+\}").search
_REGULAR = re.compile(r"\A\^|\$\Z|\\[\[\]().*+?^$|dDwWsSbB-]|\.\+|\(\?").search
_SQL = re.compile(r"(?:\A|[._:/-])%(?:\Z|[._:/-])|[^0-9 ]%\Z").search
_LIST = re.compile(r"[,;|*]").search

_WILD_RECIPIENT = re.compile(r"[*%]++(?:@|\Z)").match
_WILD = re.compile(r"\A\^.*\$\Z|\*", re.DOTALL).search
_SEVERAL = re.compile(r"[,;\s]").search
_TWO_SIGNS = re.compile(r"@[^@\0]*+@").search
_AT_ONCE = 1000


def wrong_type(type: str) -> str | None:
    """A message about a type in a rule that cannot be meant as it is written, or None."""
    if plain_type(type):
        return None
    outside, _, _ = parts_of(type)
    if len(type) > 2 and type[0] == "^" and type[-1] == "$":
        return f"{_shown(type)} is a regular expression, but types are matched as globs. {_as_glob(type[1:-1])}"
    if _ALTERNATIVES(outside):
        return f"{_shown(type)} has alternatives in braces, which globs do not have. Write one rule for each of them."
    return None


def doubtful_type(type: str) -> Iterator[str]:
    """Messages about a type in a rule that is hardly meant as it is written."""
    if plain_type(type):
        return
    outside, sets, unclosed = parts_of(type)
    shown = _shown(type)
    itself = "matches only itself" if outside == type and not set(type) & set("*?") else "is matched as a glob"
    if type != type.strip():
        yield f"{shown} begins or ends with a space, and so must the types that it matches."
    if _REGULAR(outside):
        yield f"{shown} looks like a regular expression, but {itself}: only *, ? and [...] have a meaning."
    for character in "|,;":
        if character in outside:
            yield (
                f"{shown} looks like several types, but {itself}. Write one rule for each type, or [{character}] if the "
                "types have this character."
            )
            break
    if _PLACEHOLDER(outside):
        yield f"{shown} looks like a text in which something must still be filled in, but {itself}."
    if _SQL(outside):
        yield f"{shown} looks like a pattern of SQL, but {itself}. Write * for any characters, or [%] for a percent sign."
    if outside.startswith("!"):
        yield f"{shown} looks like an exclusion, but {itself}. A rule cannot exclude a type."
    if unclosed:
        yield f"{shown} has a bracket that is never closed, so it stands for itself. Close it, or write [[] for a bracket."
    yield from _doubtful_sets(sets, shown)


def _doubtful_sets(sets: Iterable[str], shown: str) -> Iterator[str]:
    for each in sets:
        if each.startswith("^") and len(each) > 1:
            yield f"{shown} has a set that begins with ^, which is one of its characters. To exclude characters, write [!...]."
        if is_empty_set(f"[{each}]"):
            yield f"{shown} has a range that ends before it begins, so no other type matches."
        elif any(each[at - 1] > each[at + 1] for at in range(1, len(each) - 1) if each[at] == "-"):
            yield f"{shown} has a range that ends before it begins, so the range matches nothing."


def wrong_override(value: str) -> bool:
    """Whether the recipient of an override, or another value, is a pattern that nobody is called by."""
    if value[0] not in "*%":
        return False
    found = _WILD_RECIPIENT(value)
    return found is not None and (found[0][-1] == "@" or "*" in found[0])


def is_suspicious(values: Iterable[str]) -> bool:
    """Whether one of these may be wrong or doubtful as the recipient of an override, at a quick look at all of them."""
    rest = iter(values)
    while some := list(islice(rest, _AT_ONCE)):
        text = "\0".join(some)
        if "*" in text or "%" in text or "^" in text or text.count("\0") >= len(some) or _TWO_SIGNS(text):
            return True
    return False


def doubtful_overrides(values: Iterable[str]) -> list[int]:
    """Which recipients of overrides, or other values, look like a pattern or like several."""
    return [
        index
        for index, value in enumerate(values)
        # What few have is looked for first.
        if ("*" in value or value[0] == "^" or value.count("@") > 1)
        and (_WILD(value) is not None or (value.count("@") > 1 and _SEVERAL(value.strip()) is not None))
    ]


def doubtful_names(names: Iterable[str]) -> Iterator[str]:
    """Messages about names of priorities or tiers that look like patterns, or like several."""
    for name in names:
        if name != name.strip() or _LIST(name):
            yield f"{_shown(name)} is taken as one name. It is not a pattern; write several names as a list."


def _as_glob(expression: str) -> str:
    """The advice to write a glob with the same meaning, if that is easily told."""
    glob = expression.replace("\\.", "\0").replace(".*", "*").replace(".+", "?*").replace("\0", ".")
    if len(glob) > _LONGEST or set(glob) & set("\\()|+{}^$[]"):
        return "Write a glob with *, ? and [...], or one rule for each type."
    return f"Write {glob!r}."


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
