"""The hits of a moving window as the file has them: one block of `windows.hits`, so that no hit is looked at one by one."""

from __future__ import annotations

from array import array

from ratelimited_notify.windows.hits import Hits


class StoredHits(Hits):
    """`Hits` that are made of a block, and give it back."""

    __slots__ = ()

    @classmethod
    def of_block(cls, block: array[int]) -> StoredHits:
        """The hits of a block that `block` returned. They share the array: it changes with them."""
        hits = cls()
        hits._blocks.append(block)
        hits.total = block[-1] - block[2]
        return hits

    def block(self) -> array[int] | None:
        """All hits as one array: places 0 and 1 are free for the caller, then the sum before the first hit, then stamp, mark and
        sum of each hit. None if there are no hits, more than about a thousand, or numbers of more than 64 bits.
        """
        only = self._blocks[0] if len(self._blocks) == 1 else None
        return only if isinstance(only, array) else None
