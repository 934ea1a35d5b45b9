"""The most frequent decision: a hit of cost 1 fits into enforced moving windows whose hits are in the row.

It does what `take` of `windows.strategies` does, on the stored bytes: of the numbers of a window it reads the first and last few,
and the rest is copied in one step. Whatever is less simple is left to `take`: None is returned then, and nothing has been
changed.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from struct import Struct
from typing import TYPE_CHECKING, Final

from ratelimited_notify.storage.sqlite.item import MOST_HITS
from ratelimited_notify.storage.sqlite.numbers import numbers
from ratelimited_notify.windows.strategies import FITS, Reading, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.storage.sqlite.item import Item
    from ratelimited_notify.windows.strategies import Token, Window

LONGEST = MOST_HITS * 24
"""The most bytes of a window to which a hit is added here."""

# Bytes and places in the block of a window, which `item` and `windows.hits` describe.
_HIT: Final = 24
_SHORTEST: Final = 2 * _HIT
_SUM_BEFORE: Final = 16

# A Reading without a call of the class, which costs as much again.
_made: Callable[[type[Reading], tuple[int, int, int, Token]], Reading] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # it is for any tuple
_pack_first = Struct("<6q").pack
_pack_head = Struct("<2q").pack
_pack_hit = Struct("<3q").pack
_hit_at = Struct("<3q").unpack_from
_number_at = Struct("<q").unpack_from
_sum_before_and_oldest_at = Struct("<2q").unpack_from


def quick_take(windows: Sequence[Window], places: Sequence[tuple[Item, str]], now: int, mark: int) -> Verdict | None:
    """Count a hit of cost 1.

    Arguments:
        windows: the windows, each of another key.
        places: for each window its row, and the rest of its key.
        now: the instant.
        mark: a number that no other hit has.
    """
    values: list[bytes] = []
    readings: list[Reading] = []
    token = (now, mark)
    try:
        for window, (item, rest) in zip(windows, places, strict=True):
            if window.strategy != "moving-window" or window.mode or rest in item.opened:
                return None
            period = window.period
            ends = now + period
            stored = item.stored.get(rest)
            if stored is None:
                count = 1
                value = _pack_first(ends, 0, 0, now, mark, 1)
            else:
                length = len(stored)
                if length % _HIT or length < _SHORTEST or length > LONGEST:
                    return None
                newest, newest_mark, total = _hit_at(stored, length - _HIT)
                if newest >= now and (newest > now or mark < newest_mark):
                    return None
                before, oldest = _sum_before_and_oldest_at(stored, _SUM_BEFORE)
                if oldest <= now - period:
                    # The last hit that has run out keeps its place, because its sum is needed.
                    stored = stored[_HIT * bisect_right(numbers(stored)[3::3], now - period) :]
                    (before,) = _number_at(stored, _SUM_BEFORE)
                count = total - before + 1
                value = _pack_head(ends, 0) + stored[_SUM_BEFORE:] + _pack_hit(now, mark, total + 1)
            if not 0 < count <= window.amount:
                return None
            values.append(value)
            readings.append(_made(Reading, (count, FITS, ends, token)))
    except struct.error:
        # A number of more than 64 bits.
        return None
    for (item, rest), value in zip(places, values, strict=True):
        item.stored[rest] = value
    return Verdict(True, now, readings)
