"""Globs over types, as `fnmatch` reads them."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(pattern: str, type: str) -> bool:
    """Whether the glob matches the type, with case. A type always matches itself."""
    return pattern == type or fnmatchcase(type, _closed(pattern))


def parts_of(pattern: str) -> tuple[str, list[str], bool]:
    """Take a glob apart.

    Returns:
        What is outside of sets, with a space in the place of each set; what is inside of each set; and whether there is
        an opening bracket that is never closed. It stands for itself, and so do those after it.
    """
    sets: list[str] = []
    outside: list[str] = []
    begun = 0
    start = pattern.find("[")
    while start >= 0:
        end = _end(pattern, start)
        if end < 0:
            break
        outside.append(pattern[begun:start])
        sets.append(pattern[start + 1 : end])
        begun = end + 1
        start = pattern.find("[", begun)
    outside.append(pattern[begun:])
    return " ".join(outside), sets, start >= 0


def _closed(pattern: str) -> str:
    """The same glob with each unclosed bracket escaped.

    An unclosed bracket stands for itself. `fnmatch` would still search the whole pattern for its end, once per bracket.
    """
    start = pattern.find("[")
    while start >= 0:
        end = _end(pattern, start)
        if end < 0:
            return pattern[:start] + pattern[start:].replace("[", "[[]")
        start = pattern.find("[", end + 1)
    return pattern


def _end(pattern: str, start: int) -> int:
    """Where the set that begins at `start` ends, or -1."""
    inside = start + 1
    # As in `fnmatch`: a closing bracket in first place is one of the characters.
    inside += pattern.startswith("!", inside)
    inside += pattern.startswith("]", inside)
    return pattern.find("]", inside)
