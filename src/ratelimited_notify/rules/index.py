"""Which rules are for a type, without asking each of them.

A type that is not a glob is found by itself. A glob is found by a text that every type has that it matches: how they begin, how
they end, or four letters somewhere in between; of these, by the one that the fewest others have. Only globs that have no such
text (`*`, `??`, `[ab]*`) are asked about every type.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.rules.glob import Glob, is_glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_LONGEST = 32
"""So many characters of a beginning or an ending are compared: longer ones would be cut out of each type for little."""
_GRAM = 4
_FEW = 8
"""So many globs may have the same beginning or ending. If more have, they are told apart by what is in between."""

_BEGINNING, _ENDING, _INSIDE = "^", "$", "~"
"""What a text to find a glob by is marked with, according to where it is in the types that match."""

# Most texts have one position, and the garbage collector has nothing to do with numbers.
_Positions: TypeAlias = int | list[int]


class TypeIndex:
    """The positions of types and globs in a sequence, by the types that they match.

    Arguments:
        patterns: the types and globs.
    """

    __slots__ = ("_always", "_beginnings", "_endings", "_globs", "_grams", "_named", "_patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns = tuple(patterns)
        named: dict[str, _Positions] = {}
        positions: list[int] = []
        for position, pattern in enumerate(patterns):
            if not is_glob(pattern):
                _add(named, pattern, position)
            else:
                positions.append(position)
                # A glob is always for itself, and does not match itself only if it has a set.
                if "[" in pattern and not Glob(pattern).matches(pattern):
                    _add(named, pattern, position)
        self._named = named
        # Taken apart when they are first asked.
        self._globs: dict[int, Glob] = {}
        always: list[int] = []
        texts: dict[str, _Positions] = {}
        for text, position in zip(_texts([patterns[position] for position in positions]), positions, strict=True):
            if text:
                _add(texts, text, position)
            else:
                always.append(position)
        self._always = tuple(always)
        self._beginnings = _by_length(texts, _BEGINNING)
        self._endings = _by_length(texts, _ENDING)
        self._grams = _by_length(texts, _INSIDE)

    def find(self, type: str) -> list[int]:
        """The positions of all patterns that match the type, in ascending order."""
        found: list[int] = []
        asked = list(self._always)
        _extend(found, self._named.get(type))
        # Most are not there.
        for length, beginnings in self._beginnings:
            if (more := beginnings.get(type[:length])) is not None:
                _extend(asked, more)
        for length, endings in self._endings:
            if (more := endings.get(type[-length:])) is not None:
                _extend(asked, more)
        for length, grams in self._grams:
            texts = {type[place : place + length] for place in range(len(type) - length + 1)}
            for text in texts & grams.keys():
                _extend(asked, grams[text])
        if asked:
            found += [position for position in asked if self._glob(position).matches(type)]
            found.sort()
        return found

    def _glob(self, position: int) -> Glob:
        glob = self._globs.get(position)
        if glob is None:
            glob = self._globs[position] = Glob(self._patterns[position])
        return glob


def _add(found: dict[str, _Positions], text: str, position: int) -> None:
    before = found.get(text)
    if before is None:
        found[text] = position
    elif isinstance(before, int):
        found[text] = [before, position]
    else:
        before.append(position)


def _extend(positions: list[int], more: _Positions | None) -> None:
    if isinstance(more, int):
        positions.append(more)
    elif more is not None:
        positions += more


def _texts(patterns: Sequence[str]) -> Iterator[str]:
    """For each glob the text to find it by, marked with where it is in the types that match. Empty: it has no such text."""
    around = [_around(Glob(pattern)) for pattern in patterns]
    number = Counter(text for each in around for text in each)
    many = [not each or min(map(number.__getitem__, each)) > _FEW for each in around]
    inside = {
        place: tuple(dict.fromkeys(_grams_of(Glob(pattern).texts)))
        for place, pattern in enumerate(patterns)
        if many[place]
    }
    number.update(text for each in inside.values() for text in each)
    for place, each in enumerate(around):
        yield min((*each, *inside.get(place, ())), key=number.__getitem__, default="")


def _around(glob: Glob) -> tuple[str, ...]:
    """How the types that the glob matches begin and end, as far as that is known."""
    beginning, ending = glob.beginning, glob.ending
    begun = (_BEGINNING + beginning[:_LONGEST],) if beginning else ()
    return (*begun, _ENDING + ending[-_LONGEST:]) if ending else begun


def _grams_of(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        size = min(_GRAM, len(text))
        # Of a long text, its first characters are enough.
        for place in range(min(len(text), _LONGEST) - size + 1):
            yield _INSIDE + text[place : place + size]


def _by_length(found: Mapping[str, _Positions], kind: str) -> list[tuple[int, dict[str, _Positions]]]:
    sorted_out: dict[int, dict[str, _Positions]] = {}
    for text, positions in found.items():
        if text[0] == kind:
            sorted_out.setdefault(len(text) - 1, {})[text[1:]] = positions
    return sorted(sorted_out.items())
