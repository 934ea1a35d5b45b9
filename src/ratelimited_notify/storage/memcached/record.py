"""One memcached item: all windows under one key head, as bytes and as records. Pure: no I/O, no clock.

An item is MessagePack: `[format, next mark, {rest of the key: [end, [integers]]}]`. Windows that a decision does not need
stay encoded. An item either decodes to windows that this library may have written, or raises a `StorageError`: never another
exception, and it is never read as empty.
"""

from __future__ import annotations

from itertools import accumulate
from secrets import randbits
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from ratelimited_notify.errors import StorageError
from ratelimited_notify.windows.strategies import (
    MICROSECONDS,
    RECORDS,
    FixedWindow,
    MovingWindow,
    Pause,
    SlidingWindowCounter,
)

if TYPE_CHECKING:
    from ratelimited_notify.windows.strategies import Record, Window

T = TypeVar("T")

FORMAT = 1
"""The version of the layout above. An item of another version is an error, never read as empty."""

SLACK = 10
"""Seconds that an item outlives its last window: memcached's own clock is coarse and lets short-lived items expire early."""

LONGEST_RELATIVE = 30 * 24 * 3600
"""Seconds. Memcached takes a longer time to live as an instant, in seconds since 1970."""

LATEST_INSTANT = 2**31 - 1
"""The latest instant that memcached accepts, in the year 2038."""

NO_END = 0
"""The time to live of an item that stays until memcached needs the memory."""

AT_ONCE = -1
"""The time to live of an item that expires as soon as it is written: a compare-and-swap that deletes."""

_LATEST = 2**61
"""Microseconds. A window that begins later, or as long before 1970, cannot be read. A clock in milliseconds is within it, and
sums with periods still fit into 64 bits.
"""

_LARGEST_COUNT = 2**62
_LARGEST_MARK = 2**63
"""Up to these, sums with new hits still fit into 64 bits."""

_ITEM = msgspec.msgpack.Decoder(tuple[int, int, dict[str, tuple[int, msgspec.Raw]]])
_INTEGERS = msgspec.msgpack.Decoder(list[int])
_ENCODER = msgspec.msgpack.Encoder()


class Item:
    """The windows under one key head, for one decision: decoded from the stored value, changed, encoded again."""

    __slots__ = ("_opened", "_stored", "mark")

    def __init__(self, value: bytes | None) -> None:
        self._opened: dict[str, tuple[Window, Record]] = {}
        self._stored: dict[str, tuple[int, msgspec.Raw]] = {}
        # A random start, so that an item that is deleted and created again within a microsecond has no equal marks.
        self.mark = randbits(40)
        """A number that no hit under this head has so far."""
        if value is not None:
            decoded = _decoded(_ITEM, value)
            if decoded is None or decoded[0] != FORMAT or not 0 <= decoded[1] < _LARGEST_MARK:
                raise _unreadable("an item", "these windows")
            _, self.mark, self._stored = decoded

    def record(self, rest: str, window: Window) -> Record:
        """The record of one window, a fresh one if there was none."""
        opened = self._opened.get(rest)
        if opened is None:
            stored = self._stored.get(rest)
            record = RECORDS[window.strategy]() if stored is None else _unpacked(window, stored[1])
            if record is None:
                raise _unreadable("a count", f"the rule {window.rule!r}")
            self._opened[rest] = opened = window, record
        return opened[1]

    def drop(self, rest: str, window: Window, now: int) -> Literal["absent", "over", "held"]:
        """Drop one window, even if it cannot be read. Returns whether it was there, and whether it held anything."""
        stored = self._stored.pop(rest, None)
        if stored is None:
            return "absent"
        return "held" if now < stored[0] or _unpacked(window, stored[1]) is None else "over"

    def encode(self, now: int) -> tuple[bytes, int] | None:
        """The bytes to store, and the instant at which the last window ends; None if no window holds anything."""
        windows: dict[str, tuple[int, msgspec.Raw | list[int]]] = {
            rest: stored for rest, stored in self._stored.items() if now < stored[0] and rest not in self._opened
        }
        for rest, (window, record) in self._opened.items():
            end = record.ends(now, window.period)
            if now < end:
                windows[rest] = end, _pack(record)
        if not windows:
            return None
        return _ENCODER.encode((FORMAT, self.mark, windows)), max(end for end, _ in windows.values())

    def outgrown(self) -> StorageError:
        """The error for an item too large for memcached. It names the rule that fills the item, and what to do."""
        if not self._opened:
            return StorageError(
                "memcached rejected a nearly empty item as too large. Nothing was counted.", nothing_counted=True
            )
        moving = [window for window, record in self._opened.values() if isinstance(record, MovingWindow)]
        window = max(moving or (window for window, _ in self._opened.values()), key=lambda window: window.amount)
        return StorageError(
            f"With one more hit, the rule {window.rule!r} ({window.amount} hits, {window.strategy}) would exceed what "
            "memcached stores in one item (1 MB unless its -I says otherwise): a moving window keeps every hit, and all "
            "windows of a recipient are in one item. Nothing was counted. Give rules with many hits "
            "strategy='sliding-window-counter' or 'fixed-window', or use a Redis storage.",
            nothing_counted=True,
        )


def time_to_live(end: int, now: int, wall: float) -> int:
    """The expiry time to store with an item whose last window ends at `end`.

    `now` is the instant of the decision. `wall` is the seconds since 1970, which memcached needs for long-lived items.
    """
    seconds = -((now - end) // MICROSECONDS) + SLACK
    if seconds <= LONGEST_RELATIVE:
        return seconds
    instant = int(wall) + seconds
    return instant if instant <= LATEST_INSTANT else NO_END


def _pack(record: Record) -> list[int]:
    if isinstance(record, FixedWindow):
        return [record.end, record.count, record.mark]
    if isinstance(record, SlidingWindowCounter):
        return [record.start, record.previous, record.current, record.mark]
    if isinstance(record, MovingWindow):
        return _pack_entries(record)
    if isinstance(record, Pause) and record.until is not None:
        return [record.until]
    raise TypeError(f"No layout for {type(record).__name__}")


def _pack_entries(record: MovingWindow) -> list[int]:
    # The differences from hit to hit are small numbers, which MessagePack encodes in few bytes. A cost of 1 is left out.
    alike = record.hits.total == len(record.hits)
    packed = [2 if alike else 3]
    last_stamp = last_mark = 0
    for stamp, mark, cost in record.hits:
        packed += (stamp - last_stamp, mark - last_mark) if alike else (stamp - last_stamp, mark - last_mark, cost)
        last_stamp, last_mark = stamp, mark
    return packed


def _unpacked(window: Window, stored: msgspec.Raw) -> Record | None:
    """The record that these bytes encode; None if they do not encode one."""
    packed = _decoded(_INTEGERS, stored)
    if packed is None:
        return None
    try:
        if window.strategy == "fixed-window":
            return _unpack_fixed(packed)
        if window.strategy == "sliding-window-counter":
            return _unpack_sliding(packed)
        if window.strategy == "pause":
            return _unpack_pause(packed)
        return _unpack_moving(packed)
    except ValueError:
        # Too many numbers, or too few.
        return None


def _unpack_fixed(packed: list[int]) -> FixedWindow | None:
    fixed = FixedWindow()
    fixed.end, fixed.count, fixed.mark = packed
    return fixed if _is_instant(fixed.end) and _is_count(fixed.count) and _is_mark(fixed.mark) else None


def _unpack_sliding(packed: list[int]) -> SlidingWindowCounter | None:
    sliding = SlidingWindowCounter()
    sliding.start, sliding.previous, sliding.current, sliding.mark = packed
    if not _is_instant(sliding.start) or not _is_mark(sliding.mark):
        return None
    return sliding if _is_count(sliding.previous) and _is_count(sliding.current) else None


def _unpack_pause(packed: list[int]) -> Pause | None:
    (until,) = packed
    return Pause(until) if _is_instant(until) else None


def _unpack_moving(packed: list[int]) -> MovingWindow | None:
    width = packed[0] if packed else 0
    if width not in {2, 3} or len(packed) % width != 1:
        return None
    # The first stamp and the first mark are stored as they are, the others as differences.
    stamps, marks = list(accumulate(packed[1::width])), list(accumulate(packed[2::width]))
    costs = packed[3::width] if width > 2 else [1] * len(stamps)
    if not stamps:
        return MovingWindow()
    if min(costs) < 1 or not _is_count(sum(costs)):
        return None
    if not all(map(_is_instant, (min(stamps), max(stamps)))) or not all(map(_is_mark, (min(marks), max(marks)))):
        return None
    # Earlier releases stored hits of equal stamps in order of arrival.
    return MovingWindow(sorted(zip(stamps, marks, costs, strict=True)))


def _is_instant(number: int) -> bool:
    return -_LATEST < number < _LATEST


def _is_count(number: int) -> bool:
    return 0 <= number < _LARGEST_COUNT


def _is_mark(number: int) -> bool:
    return 0 <= number < _LARGEST_MARK


def _decoded(decoder: msgspec.msgpack.Decoder[T], value: bytes | msgspec.Raw) -> T | None:
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        # msgspec raises other errors too: for text that is not UTF-8, and for arrays nested by the thousand.
        return None


def _unreadable(what: str, whose: str) -> StorageError:
    return StorageError(
        f"memcached holds {what} of {whose} that this release cannot read. Nothing was counted. Did another program or "
        "another release write it? `clear` empties the windows of a recipient, and a namespace= of its own separates this "
        "limiter from other programs.",
        nothing_counted=True,
    )
