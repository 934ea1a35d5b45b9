"""All windows of one memory, by key, in parts that are small enough to be looked through without a pause.

One large dict would stop everybody when it grows, for as long as it takes to place all of its keys anew, and cannot be gone
through while it changes. So there are up to `PARTS` of them, by recipient: a recipient's windows lie in one. They divide as
they fill, so that few windows take little room (extendible hashing: Fagin, Nievergelt, Pippenger and Strong, "Extendible
hashing: a fast access method for dynamic files", 1979).
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.storage.memory.packed import LOWEST, digit, is_over
from ratelimited_notify.windows.keys import tag_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify.storage.memory.packed import Value

# Plain dicts: as long as they hold texts and numbers, the garbage collector passes them by.
Shard: TypeAlias = "dict[str, Value]"

PARTS = 512
"""The most shards."""

_OVERFULL = 1024
_INTO_BITS = 3
_INTO = 1 << _INTO_BITS
_DEEPEST = PARTS.bit_length() - 1

# More than one, so that the sweep comes round while windows come and go: with two, at most half as many again are held as
# are in use.
_LOOKS_PER_WINDOW = 2

_ROOM = 1000
_ROOM_EACH = 200
"""The most bytes that a shard may take by itself and for each window; a dict that has just grown takes some 100 for each."""

_MOST_FINDS = 256
"""The most windows that one sweep drops: a pause of some twenty microseconds."""


class Shards:
    """The windows, and a sweep that drops those that are over. To be used under a lock."""

    def __init__(self) -> None:
        self.by_hash: list[Shard] = []
        """The shard for each `hash(tag) % PARTS`; the list itself stays the same object."""
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        only: Shard = {}
        self.by_hash[:] = [only] * PARTS
        self._all = [only]
        # By number: how many of the lowest bits of their tags' hashes the keys of a shard have in common, and which.
        self._depths = [0]
        self._bits = [0]
        # What the sweep has before it: the shard that it has come to, and what was there then.
        self._turn = 0
        self._keys: list[str] = []
        self._values: list[Value] = []
        self.came = 0
        """How many windows were stored anew since the last sweep; those who store them count them here."""

    def of(self, key: str) -> Shard:
        """The shard where this key lies, or would."""
        return self.by_hash[hash(tag_in(key)) % PARTS]

    def get(self, key: str) -> Value | None:
        """What is kept for this key."""
        return self.of(key).get(key)

    def _divide(self, number: int) -> None:
        shard, depth, bits = self._all[number], self._depths[number], self._bits[number]
        # Into several at once, since each division goes through all keys.
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
        # Wherever the old shard was found: at the places that end in its keys' bits.
        for place in range(bits, PARTS, step):
            self.by_hash[place] = parts[place >> depth & last]

    def sweep(self, now: int, least: int) -> None:
        """Look at a few windows, and drop those that are over: at least so many, and more where more have come.

        As long as it finds such windows it goes on for a while. A shard that has become crowded is divided.
        """
        looks, self.came = max(least, self.came * _LOOKS_PER_WINDOW), 0
        finds = _MOST_FINDS
        shard, keys, values = self._all[self._turn], self._keys, self._values
        first = digit(now + 1, 0)
        while looks > 0 and finds > 0:
            if not keys:
                looks -= 1
                shard, keys, values = self._next()
                continue
            key, value = keys.pop(), values.pop()
            # What was there then tells mostly enough, and at less cost than looking it up. Numbers first, with as little ado as
            # there can be: `is_over` says the same.
            if (value & LOWEST < first) if isinstance(value, int) else is_over(value, now):
                current = shard.get(key)
                if current is not None and is_over(current, now):
                    del shard[key]
                    finds -= 1
                    continue
            looks -= 1

    def _next(self) -> tuple[Shard, list[str], list[Value]]:
        """The next shard, and what is there; divided if it has become crowded, and made anew if it has become mostly empty."""
        self._turn = turn = (self._turn + 1) % len(self._all)
        shard = self._all[turn]
        if len(shard) > _OVERFULL and self._depths[turn] < _DEEPEST:
            self._divide(turn)
        elif getsizeof(shard) > _ROOM + len(shard) * _ROOM_EACH:
            # A dict keeps its room, however much of it is deleted. All places change at once: a signal handler that raises
            # between two of them would leave hits behind in the old one.
            places = range(self._bits[turn], PARTS, 1 << self._depths[turn])
            self.by_hash[places.start :: places.step] = [dict(shard)] * len(places)
        self._all[turn] = shard = self.by_hash[self._bits[turn]]
        self._keys, self._values = list(shard), list(shard.values())
        return shard, self._keys, self._values

    def __len__(self) -> int:
        return sum(map(len, self._all))

    def __iter__(self) -> Iterator[str]:
        for shard in self._all:
            yield from shard
