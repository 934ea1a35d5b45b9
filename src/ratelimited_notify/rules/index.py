"""Which rules are for a type, without asking each of them.

A type that is not a glob is found by itself. A glob is found by a text that every type has that it matches: how they begin, how
they end, or four letters somewhere in between; of these, by the one that the fewest others have. Only globs that have no such
text (`*`, `??`, `[ab]*`) are asked about every type.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ratelimited_notify.rules.glob import Glob, is_glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LONGEST = 32
"""So many characters of a beginning or an ending are compared: longer ones would be cut out of each type for little."""
_GRAM = 4
_FEW = 8
"""So many globs may have the same beginning or ending. If more have, they are told apart by what is in between."""

_FOUND = tuple[int, Glob]


class TypeIndex:
    """The positions of types and globs in a sequence, by the types that they match.

    Arguments:
        patterns: the types and globs.
    """

    __slots__ = ("_always", "_beginnings", "_endings", "_grams", "_named")

    def __init__(self, patterns: Sequence[str]) -> None:
        named: defaultdict[str, list[int]] = defaultdict(list)
        globs: list[_FOUND] = []
        for position, pattern in enumerate(patterns):
            if is_glob(pattern):
                globs.append((position, Glob(pattern)))
                # A glob always matches itself, and most do so as a glob.
                if globs[-1][1].matches(pattern):
                    continue
            named[pattern].append(position)
        # The collector has nothing to do with tuples of numbers.
        self._named = {name: tuple(positions) for name, positions in named.items()}
        self._always: list[_FOUND] = []
        beginnings: dict[str, list[_FOUND]] = {}
        endings: dict[str, list[_FOUND]] = {}
        grams: dict[str, list[_FOUND]] = {}
        kinds = (beginnings, endings, grams)
        for (kind, text), each in zip(_texts([glob for _, glob in globs]), globs, strict=True):
            if kind is None:
                self._always.append(each)
            else:
                kinds[kind].setdefault(text, []).append(each)
        self._beginnings = _by_length(beginnings)
        self._endings = _by_length(endings)
        self._grams = _by_length(grams)

    def find(self, type: str) -> list[int]:
        """The positions of all patterns that match the type, in ascending order."""
        found = list(self._named.get(type, ()))
        asked = list(self._always)
        for length, beginnings in self._beginnings:
            asked += beginnings.get(type[:length], ())
        for length, endings in self._endings:
            asked += endings.get(type[-length:], ())
        for length, grams in self._grams:
            texts = {type[place : place + length] for place in range(len(type) - length + 1)}
            for text in texts & grams.keys():
                asked += grams[text]
        found += (position for position, glob in asked if glob.matches(type))
        found.sort()
        return found


_BEGINNING, _ENDING, _INSIDE = range(3)


def _texts(globs: Sequence[Glob]) -> list[tuple[int | None, str]]:
    """For each glob the text to find it by, and where it is in the types that match. None: it has no such text."""
    around = [_around(glob) for glob in globs]
    number = Counter(text for each in around for text in each)
    many = [
        glob.runs[0] if min((number[text] for text in each), default=_FEW + 1) > _FEW else []
        for each, glob in zip(around, globs, strict=True)
    ]
    inside = [list(dict.fromkeys(_grams_of(runs))) for runs in many]
    number.update(text for each in inside for text in each)
    return [
        min((*each, *more), key=number.__getitem__, default=(None, ""))
        for each, more in zip(around, inside, strict=True)
    ]


def _around(glob: Glob) -> list[tuple[int, str]]:
    """How the types that the glob matches begin and end, as far as that is known."""
    runs, begins, ends = glob.runs
    texts: list[tuple[int, str]] = []
    if begins:
        texts.append((_BEGINNING, runs[0][:_LONGEST]))
    if ends:
        texts.append((_ENDING, runs[-1][-_LONGEST:]))
    return texts


def _grams_of(runs: Iterable[str]) -> Iterable[tuple[int, str]]:
    for run in runs:
        size = min(_GRAM, len(run))
        # Of a long text, its first characters are enough.
        for place in range(min(len(run), _LONGEST) - size + 1):
            yield _INSIDE, run[place : place + size]


def _by_length(found: Mapping[str, list[_FOUND]]) -> list[tuple[int, dict[str, list[_FOUND]]]]:
    sorted_out: dict[int, dict[str, list[_FOUND]]] = {}
    for text, globs in found.items():
        sorted_out.setdefault(len(text), {})[text] = globs
    return sorted(sorted_out.items())
