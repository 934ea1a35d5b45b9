"""The hits of one moving window. Finding, counting and dropping hits stays fast, however many there are.

Hits are stored in blocks. Each block is one array of integers, so the garbage collector has nothing to look at, and a block
is dropped in one step. Blocks are sorted, and so are the hits in a block: by stamp, then by mark. Each hit carries a
running sum of costs. The cost of a hit is its sum minus the sum of the hit before it, so a cost is found by bisection. The
first place of a block holds no hit: it holds the sum before the first hit.

Each change of a block, or of the list of blocks, is one step of the interpreter, so an exception from a signal handler
leaves the hits in order. It may leave `total` too large until the window is empty. That never admits too many hits.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from operator import sub
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Hit: TypeAlias = tuple[int, int, int]
"""Stamp, mark and cost."""

# A list where a number is too large for an array.
_Block: TypeAlias = "array[int] | list[int]"

# Stamp, mark, sum.
_WIDTH = 3

_FULL = 1024 * _WIDTH
"""The length at which a block is full. With a million hits, searching one block takes as long as searching the list of blocks."""


class Hits:
    """Hits of one window, in order."""

    __slots__ = ("_blocks", "total")

    def __init__(self, hits: Iterable[Hit] = ()) -> None:
        self._blocks: list[_Block] = []
        self.total = 0
        """The cost of all hits together."""
        flat: list[int] = []
        for stamp, mark, cost in hits:
            if not len(flat) % _FULL:
                flat += (0, 0, self.total)
            self.total += cost
            flat += (stamp, mark, self.total)
        for start in range(0, len(flat), _FULL):
            self._blocks.append(_block(flat[start : start + _FULL]))

    def few_of_one(self, most: int) -> tuple[Sequence[int], Sequence[int]] | None:
        """Stamps and marks, if there are between 1 and `most` hits, all of cost 1; None otherwise."""
        # Every hit costs at least 1, so many hits have a large total.
        if not 0 < self.total <= most or self.total != len(self) or len(self._blocks) > 1:
            return None
        block = self._blocks[0]
        return block[3::_WIDTH], block[4::_WIDTH]

    @property
    def oldest(self) -> int:
        """The stamp of the first hit. There must be one."""
        return self._blocks[0][_WIDTH]

    @property
    def newest(self) -> int:
        """The stamp of the last hit. There must be one."""
        return self._blocks[-1][-3]

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __len__(self) -> int:
        if len(self._blocks) == 1:
            return len(self._blocks[0]) // _WIDTH - 1
        return sum(len(block) // _WIDTH - 1 for block in self._blocks)

    def __iter__(self) -> Iterator[Hit]:
        for block in self._blocks:
            sums = block[2::_WIDTH]
            yield from zip(block[3::_WIDTH], block[4::_WIDTH], map(sub, sums[1:], sums), strict=True)

    def cost_until(self, stamp: int) -> int:
        """The cost of all hits up to and including this stamp."""
        return self._until(stamp)[2] if self._blocks and self.oldest <= stamp else 0

    def reached(self, cost: int) -> int:
        """The stamp of the first hit at which the running cost reaches `cost`."""
        for block in self._blocks:
            held = block[-1] - block[2]
            if cost <= held:
                places = range(_WIDTH + 2, len(block), _WIDTH)
                return block[places[bisect_left(places, block[2] + cost, key=block.__getitem__)] - 2]
            cost -= held
        return self.newest

    def add(self, stamp: int, mark: int, cost: int) -> None:
        """Add a hit. Its stamp is the newest one or later."""
        blocks = self._blocks
        # The total goes first: an exception in between then never admits too many hits.
        self.total = self.total + cost if blocks else cost
        last: _Block = blocks[-1] if blocks else []
        if last and stamp == last[-3] and mark < last[-2]:
            self._insert(stamp, mark, cost)
        elif not last or len(last) >= _FULL:
            blocks.append(_block([0, 0, 0, stamp, mark, cost]))
        else:
            hit = (stamp, mark, last[-1] + cost)
            try:
                last.extend(array("q", hit))
            except OverflowError:
                blocks[-1] = [*last, *hit]

    def remove(self, stamp: int, mark: int, cost: int) -> bool:
        """Remove this hit; False if it is not there."""
        blocks = self._blocks
        # Two hits with equal stamp and mark are rare: one in a thousand while a clock stands still.
        for number in range(bisect_left(blocks, (stamp, mark), key=_last), len(blocks)):
            block = blocks[number]
            at = _first(block, (stamp, mark))
            while at < len(block):
                if (block[at], block[at + 1]) != (stamp, mark):
                    return False
                if block[at + 2] - block[at - 1] == cost:
                    self._take_out(number, at, cost)
                    return True
                at += _WIDTH
        return False

    def drop_until(self, stamp: int) -> None:
        """Drop all hits up to and including this stamp."""
        blocks = self._blocks
        if not blocks or self.oldest > stamp:
            return
        number, at, cost = self._until(stamp)
        if at:
            # The last dropped hit keeps its place, because its sum is needed.
            del blocks[number][: at - _WIDTH]
        del blocks[:number]
        self.total = self.total - cost if blocks else 0

    def _until(self, stamp: int) -> tuple[int, int, int]:
        """How many whole blocks end at this stamp or earlier, where the newer hits begin in the next block (0 if with its
        first hit), and the cost of all hits before that place.
        """
        blocks = self._blocks
        number = bisect_right(blocks, stamp, key=_newest)
        cost = sum(block[-1] - block[2] for block in blocks[:number])
        if number == len(blocks) or blocks[number][_WIDTH] > stamp:
            return number, 0, cost
        block = blocks[number]
        at = _first(block, (stamp + 1,))
        return number, at, cost + block[at - 1] - block[2]

    def _insert(self, stamp: int, mark: int, cost: int) -> None:
        """Insert a hit that may belong before other hits of its stamp."""
        blocks = self._blocks
        number = min(bisect_left(blocks, (stamp, mark), key=_last), len(blocks) - 1)
        block = blocks[number]
        at = _first(block, (stamp, mark))
        hit = _block([stamp, mark, block[at - 1] + cost])
        whole = _joined(_joined(block[:at], hit), _raised(block[at:], cost))
        if len(whole) < 2 * _FULL:
            blocks[number] = whole
        else:
            middle = len(whole) // _WIDTH // 2 * _WIDTH
            blocks[number : number + 1] = [whole[:middle], whole[middle - _WIDTH :]]

    def _take_out(self, number: int, at: int, cost: int) -> None:
        blocks = self._blocks
        block = blocks[number]
        if len(block) == 2 * _WIDTH:
            del blocks[number]
        elif at + _WIDTH == len(block):
            del block[at:]
        else:
            blocks[number] = _joined(block[:at], _raised(block[at + _WIDTH :], -cost))
        self.total -= cost
        # Join small neighbours, so that a window keeps no more blocks than it needs after many removals.
        for first in (number - 1, number):
            if 0 <= first < len(blocks) - 1 and len(blocks[first]) + len(blocks[first + 1]) <= _FULL // 2:
                left, right = blocks[first : first + 2]
                blocks[first : first + 2] = [_joined(left, _raised(right[_WIDTH:], left[-1] - right[2]))]


def _newest(block: _Block) -> int:
    return block[-3]


def _last(block: _Block) -> tuple[int, int]:
    return block[-3], block[-2]


def _first(block: _Block, least: tuple[int, ...]) -> int:
    """The place of the first hit in the block with at least this stamp, or stamp and mark."""
    places = range(_WIDTH, len(block), _WIDTH)
    return _WIDTH + _WIDTH * bisect_left(places, least, key=lambda place: (block[place], block[place + 1]))


def _block(flat: list[int]) -> _Block:
    try:
        return array("q", flat)
    except OverflowError:
        return flat


def _joined(one: _Block, other: _Block) -> _Block:
    if isinstance(one, array) and isinstance(other, array):
        return one + other
    return [*one, *other]


def _raised(hits: _Block, by: int) -> _Block:
    """The hits with `by` added to their sums. Changes `hits`, so pass a copy."""
    sums = [total + by for total in hits[2::_WIDTH]]
    if isinstance(hits, array):
        try:
            hits[2::_WIDTH] = array("q", sums)
        except OverflowError:
            return _raised(list(hits), by)
    else:
        hits[2::_WIDTH] = sums
    return hits
