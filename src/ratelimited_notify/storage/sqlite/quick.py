"""The most frequent decision: a hit of cost 1 fits into enforced moving windows whose hits are in the row.

It does what `take` of `windows.strategies` does, on the stored numbers, without an object for each window. Whatever is less
simple is left to `take`: None is returned then, and nothing has been changed.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from ratelimited_notify.storage.sqlite.item import MOST_HITS
from ratelimited_notify.windows.strategies import FITS, Reading, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.storage.sqlite.item import Item
    from ratelimited_notify.windows.strategies import Window

_HIT = 24
"""The bytes of a hit in a block."""

_USABLE = sys.byteorder == "little"


def quick_take(windows: Sequence[Window], places: Sequence[tuple[Item, str]], now: int, mark: int) -> Verdict | None:
    """Count a hit of cost 1.

    Arguments:
        windows: the windows, each of another key.
        places: for each window its row, and the rest of its key.
        now: the instant.
        mark: a number that no other hit has.
    """
    blocks: list[array[int]] = []
    readings: list[Reading] = []
    token = (now, mark)
    for window, (item, rest) in zip(windows, places, strict=True):
        if window.mode or window.strategy != "moving-window" or window.amount < 1 or rest in item.opened or not _USABLE:
            return None
        period = window.period
        ends = now + period
        stored = item.stored.get(rest)
        if stored is None:
            block = array("q", (ends, 0, 0, now, mark, 1))
        else:
            if len(stored) % _HIT or not 2 * _HIT <= len(stored) <= MOST_HITS * _HIT:
                return None
            block = array("q", stored)
            if now < block[-3] or (now == block[-3] and mark < block[-2]):
                return None
            if block[3] <= now - period:
                over = bisect_right(block[3::3], now - period)
                # The last hit that has run out keeps its place, because its sum is needed.
                del block[: 3 * over]
            if block[-1] - block[2] >= window.amount:
                return None
            block.extend((now, mark, block[-1] + 1))
            block[0], block[1] = ends, 0
        blocks.append(block)
        readings.append(Reading(block[-1] - block[2], FITS, ends, token))
    for (item, rest), block in zip(places, blocks, strict=True):
        item.stored[rest] = block.tobytes()
    return Verdict(True, now, readings)
