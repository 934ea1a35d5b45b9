"""Globs over types, as `fnmatch` reads them, matched without regular expressions of their own.

`fnmatch` compiles an expression for each glob, which takes longer than a decision, and remembers few of them. Here a glob is
taken apart once. Each part between two `*` has a fixed length, and it is enough to find the first place for each of them in
turn: no glob takes exponential time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    _Atom: TypeAlias = "str | Callable[[str], object] | None"

_MOST_GLOBS = 1024

plain_type = re.compile(r"[\w.:/*?-]*+").fullmatch
"""A match, if the type in a rule is neither wrong nor doubtful, as most are."""


class Glob:
    """A glob, taken apart.

    Arguments:
        pattern: the glob. A bracket that is never closed stands for itself.
    """

    __slots__ = ("_parts", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        if "?" not in pattern and "[" not in pattern:
            self._parts: tuple[str | _Part, ...] = tuple(pattern.split(_STAR))
            return
        parts: list[str | _Part] = []
        atoms: list[_Atom] = []
        for atom in [*_atoms(pattern), _STAR]:
            if atom == _STAR:
                parts.append(_part(atoms))
                atoms = []
            else:
                atoms.append(atom)
        # The collector has nothing to do with tuples of texts, which most are.
        self._parts = tuple(parts)
        """What is between the stars; one more than there are stars."""

    @property
    def texts(self) -> list[str]:
        """The literal texts in the pattern, in order."""
        atoms = [each for part in self._parts for each in ((part,) if isinstance(part, str) else part.atoms)]
        return [each for each in atoms if isinstance(each, str) and each]

    @property
    def beginning(self) -> str:
        """The literal text with which every type begins that matches. Empty if there is none."""
        first = self._parts[0]
        text = first if isinstance(first, str) else first.atoms[0]
        return text if isinstance(text, str) else ""

    @property
    def ending(self) -> str:
        """The literal text with which every type ends that matches. Empty if there is none."""
        last = self._parts[-1]
        text = last if isinstance(last, str) else last.atoms[-1]
        return text if isinstance(text, str) else ""

    def matches(self, type: str) -> bool:
        """Whether the glob matches the whole type, with case."""
        first, *others = self._parts
        if not others:
            return len(type) == len(first) and _is_at(first, type, 0)
        *middle, last = others
        place, end = len(first), len(type) - len(last)
        if place > end or not _is_at(first, type, 0) or not _is_at(last, type, end):
            return False
        for part in middle:
            found = type.find(part, place, end) if isinstance(part, str) else part.find(type, place, end)
            if found < 0:
                return False
            place = found + len(part)
        return True


class _Part:
    """What is between two stars, if it is more than a text: texts, and things that match one character each."""

    __slots__ = ("atoms", "length")

    def __init__(self, atoms: list[_Atom]) -> None:
        self.atoms = tuple(atoms)
        self.length = sum(len(atom) if isinstance(atom, str) else 1 for atom in atoms)

    def __len__(self) -> int:
        return self.length

    def is_at(self, type: str, place: int) -> bool:
        """Whether the part matches from here on. There must be enough characters."""
        for atom in self.atoms:
            if isinstance(atom, str):
                if not type.startswith(atom, place):
                    return False
                place += len(atom)
            else:
                if atom is not None and not atom(type[place]):
                    return False
                place += 1
        return True

    def find(self, type: str, start: int, end: int) -> int:
        """The first place between these two where the part matches, or -1."""
        return next((place for place in range(start, end - self.length + 1) if self.is_at(type, place)), -1)


def _part(atoms: list[_Atom]) -> str | _Part:
    text = atoms[0] if len(atoms) == 1 else None if atoms else ""
    return text if isinstance(text, str) else _Part(atoms)


def _is_at(part: str | _Part, type: str, place: int) -> bool:
    return type.startswith(part, place) if isinstance(part, str) else part.is_at(type, place)


_STAR = "*"


def _atoms(pattern: str) -> list[_Atom]:
    """The pattern in pieces: a star, a literal text, None for any character, or a function that knows a set's characters.

    A literal text is never a star: a star in a set is part of the set.
    """
    atoms: list[_Atom] = []
    literal: list[str] = []
    place = 0
    closed = True

    def flush() -> None:
        if literal:
            atoms.append("".join(literal))
            literal.clear()

    while place < len(pattern):
        character = pattern[place]
        end = place + 1
        if character == "[" and closed:
            found = _end(pattern, place)
            # Brackets behind one that is never closed cannot be closed either: do not search again for each of them.
            closed = found >= 0
            end = found + 1 if closed else end
        if end > place + 1:
            flush()
            atoms.append(_set(pattern[place:end]))
        elif character in "*?":
            flush()
            atoms.append(_STAR if character == "*" else None)
        else:
            literal.append(character)
        place = end
    flush()
    return atoms


@lru_cache(maxsize=_MOST_GLOBS)
def _set(text: str) -> Callable[[str], object]:
    """Tells whether a character is in the set, by the expression that `fnmatch` has for it."""
    from fnmatch import translate

    return re.compile(translate(text)).match


def is_empty_set(text: str) -> bool:
    """Whether no character is in the set."""
    from fnmatch import translate

    return "(?!)" in translate(text)


@lru_cache(maxsize=_MOST_GLOBS)
def _taken_apart(pattern: str) -> Glob:
    return Glob(pattern)


def matches(pattern: str, type: str) -> bool:
    """Whether the glob matches the type, with case. A type always matches itself."""
    return pattern == type or (is_glob(pattern) and _taken_apart(pattern).matches(type))


def is_glob(pattern: str) -> bool:
    """Whether the pattern can match more than itself."""
    return "*" in pattern or "?" in pattern or "[" in pattern


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


def _end(pattern: str, start: int) -> int:
    """Where the set that begins at `start` ends, or -1."""
    inside = start + 1
    # As in `fnmatch`: a closing bracket in first place is one of the characters.
    inside += pattern.startswith("!", inside)
    inside += pattern.startswith("]", inside)
    return pattern.find("]", inside)
