"""All windows of one memory storage, by key, in shards small enough to be scanned without a noticeable pause.

One large dict would block all callers while it grows and rehashes its keys, and cannot be iterated while it changes. So there
are up to `PARTS` dicts. All windows of a recipient are in the same one. A shard is split when it is full, so a few windows take
little memory (extendible hashing: Fagin, Nievergelt, Pippenger and Strong, "Extendible hashing: a fast access method for
dynamic files", 1979).
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.storage.memory.packed import LOWEST, digit, is_over
from ratelimited_notify.windows.keys import tag_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify.storage.memory.packed import Value

# Plain dicts: the garbage collector skips them as long as they hold only strings and integers.
Shard: TypeAlias = "dict[str, Value]"

PARTS = 512
"""The most shards."""

_OVERFULL = 1024
_INTO_BITS = 3
_INTO = 1 << _INTO_BITS
_DEEPEST = PARTS.bit_length() - 1

# More than one, so that the sweep keeps up while windows come and go. With two, at most half as many expired windows are held
# as there are windows in use.
_LOOKS_PER_WINDOW = 2

_ROOM = 1000
_ROOM_EACH = 200
"""The most bytes that a shard may take: a base, and an amount for each window. A dict that has just grown takes some 100 each."""

_MOST_FINDS = 256
"""The most windows that one sweep drops: a pause of about twenty microseconds."""


class Shards:
    """The windows, and a sweep that drops expired ones. The caller must hold a lock."""

    def __init__(self) -> None:
        self.by_hash: list[Shard] = []
        """The shard for each `hash(tag) % PARTS`. The list itself always stays the same object."""
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        only: Shard = {}
        self.by_hash[:] = [only] * PARTS
        self._all = [only]
        # By shard number: how many low bits of their tags' hashes the keys of a shard have in common, and which bits.
        self._depths = [0]
        self._bits = [0]
        # The state of the sweep: the number of the current shard, and a copy of its contents still to be looked at.
        self._number = 0
        self._keys: list[str] = []
        self._values: list[Value] = []
        self.added = 0
        """How many new windows were stored since the last sweep. The code that stores a window counts it here."""

    def of(self, key: str) -> Shard:
        """The shard for this key, whether or not the key is in it."""
        return self.by_hash[hash(tag_in(key)) % PARTS]

    def get(self, key: str) -> Value | None:
        """The stored value of this key."""
        return self.of(key).get(key)

    def _divide(self, number: int) -> None:
        shard, depth, bits = self._all[number], self._depths[number], self._bits[number]
        # Into several parts at once, since each split goes through all keys.
        step, last = 1 << depth, _INTO - 1
        parts: list[Shard] = [{} for _ in range(_INTO)]
        for key, value in shard.items():
            parts[hash(tag_in(key)) >> depth & last][key] = value
        self._all[number] = parts[0]
        self._depths[number] = depth + _INTO_BITS
        for part in range(1, _INTO):
            self._all.append(parts[part])
            self._depths.append(depth + _INTO_BITS)
            self._bits.append(bits + part * step)
        # Replace the old shard in `by_hash`: at all places that end in its keys' bits.
        for place in range(bits, PARTS, step):
            self.by_hash[place] = parts[place >> depth & last]

    def sweep(self, now: int, least: int) -> None:
        """Look at a few windows and drop the expired ones: at least `least` windows, and more if more new ones were stored.

        The sweep continues for a while as long as it finds expired windows. It splits a shard that is too full.
        """
        looks, self.added = max(least, self.added * _LOOKS_PER_WINDOW), 0
        finds = _MOST_FINDS
        shard, keys, values = self._all[self._number], self._keys, self._values
        first = digit(now + 1, 0)
        while looks > 0 and finds > 0:
            if not keys:
                looks -= 1
                shard, keys, values = self._next()
                continue
            key, value = keys.pop(), values.pop()
            # The copied value usually decides, and is cheaper than a lookup. The check for integers is inlined for speed; it
            # does the same as `is_over`.
            if (value & LOWEST < first) if isinstance(value, int) else is_over(value, now):
                current = shard.get(key)
                if current is not None and is_over(current, now):
                    del shard[key]
                    finds -= 1
                    continue
            looks -= 1

    def _next(self) -> tuple[Shard, list[str], list[Value]]:
        """The next shard and its contents. A shard that is too full is split first; one that is mostly empty is copied."""
        self._number = number = (self._number + 1) % len(self._all)
        shard = self._all[number]
        if len(shard) > _OVERFULL and self._depths[number] < _DEEPEST:
            self._divide(number)
        elif getsizeof(shard) > _ROOM + len(shard) * _ROOM_EACH:
            # A dict keeps its memory, however many keys are deleted. All places change in one step: a signal handler that
            # raises between two of them would leave hits behind in the old dict.
            places = range(self._bits[number], PARTS, 1 << self._depths[number])
            self.by_hash[places.start :: places.step] = [dict(shard)] * len(places)
        self._all[number] = shard = self.by_hash[self._bits[number]]
        self._keys, self._values = list(shard), list(shard.values())
        return shard, self._keys, self._values

    def __len__(self) -> int:
        return sum(map(len, self._all))

    def __iter__(self) -> Iterator[str]:
        for shard in self._all:
            yield from shard
