"""One memcached item: all windows under one key head, as bytes and as records. Pure: no I/O, no clock.

An item is MessagePack: `[format, next mark, {rest of the key: [end, [integers]]}]`. Windows that a decision does not
ask for stay the bytes they are.
"""

from __future__ import annotations

from secrets import randbits
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ratelimited_notify.errors import StorageError
from ratelimited_notify.windows import MICROSECONDS, RECORDS, FixedWindow, MovingWindow, SlidingWindowCounter

if TYPE_CHECKING:
    from ratelimited_notify.windows import Record, Window

T = TypeVar("T")

FORMAT = 1
"""The version of the layout above. Items of another version are an error, never read as empty."""

SLACK = 10
"""Seconds that an item outlives its last window: memcached's own clock is coarse and ends short lives early."""

LONGEST_RELATIVE = 30 * 24 * 3600
"""Above so many seconds memcached takes a time to live for an instant, in seconds since 1970."""

LATEST_INSTANT = 2**31 - 1
"""The latest instant that memcached can read, in the year 2038."""

NO_END = 0
"""The time to live of an item that stays until memcached needs its room."""

AT_ONCE = -1
"""The time to live of an item that is gone as soon as it is written: a compare-and-swap that deletes."""

_ITEM = msgspec.msgpack.Decoder(tuple[int, int, dict[str, tuple[int, msgspec.Raw]]])
_INTEGERS = msgspec.msgpack.Decoder(list[int])
_ENCODER = msgspec.msgpack.Encoder()


class Item:
    """The windows under one head, for one decision: decoded from what memcached holds, changed, encoded again."""

    __slots__ = ("_opened", "_stored", "mark")

    def __init__(self, value: bytes | None) -> None:
        self._opened: dict[str, tuple[Window, Record]] = {}
        self._stored: dict[str, tuple[int, msgspec.Raw]] = {}
        # A random start: an item forgotten and made anew within a microsecond has no hit of the same mark.
        self.mark = randbits(40)
        """A number that no hit under this head has yet."""
        if value is not None:
            version, self.mark, self._stored = _decoded(_ITEM, value)
            if version != FORMAT:
                raise _foreign()

    def record(self, rest: str, window: Window) -> Record:
        """The count of one window, a fresh one where there was none."""
        opened = self._opened.get(rest)
        if opened is None:
            stored = self._stored.get(rest)
            record = RECORDS[window.strategy]() if stored is None else _unpack(window, _decoded(_INTEGERS, stored[1]))
            self._opened[rest] = opened = window, record
        return opened[1]

    def drop(self, rest: str, now: int) -> bool:
        """Forget one window. True if it held anything."""
        stored = self._stored.pop(rest, None)
        return stored is not None and now < stored[0]

    def encode(self, now: int) -> tuple[bytes, int] | None:
        """The bytes to store, and the instant of the last window's end; None if no window holds anything."""
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
        """What to say when the item is too large for memcached: the rule that fills it, and the way out."""
        moving = [window for window, record in self._opened.values() if isinstance(record, MovingWindow)]
        window = max(moving or (window for window, _ in self._opened.values()), key=lambda window: window.amount)
        return StorageError(
            f"A hit under the rule {window.rule!r} ({window.amount} hits, {window.strategy}) outgrew what memcached "
            "keeps in one item (1 MB unless its -I says otherwise): a moving window keeps every hit, and all windows "
            "of a recipient lie in one item. Nothing was counted. Give rules of many hits "
            "strategy='sliding-window-counter' or 'fixed-window', or use a Redis storage."
        )


def time_to_live(end: int, now: int, wall: float) -> int:
    """The expiry to store with an item whose last window ends at `end`.

    `now` is the instant of the decision, `wall` the seconds since 1970: memcached wants those for what lives long.
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
    raise TypeError(f"No layout for {type(record).__name__}")


def _pack_entries(record: MovingWindow) -> list[int]:
    # The differences from hit to hit are small numbers, and small numbers are short; a cost of 1 goes without saying.
    alike = record.hits.total == len(record.hits)
    packed = [2 if alike else 3]
    last_stamp = last_mark = 0
    for stamp, mark, cost in record.hits:
        packed += (stamp - last_stamp, mark - last_mark) if alike else (stamp - last_stamp, mark - last_mark, cost)
        last_stamp, last_mark = stamp, mark
    return packed


def _unpack(window: Window, packed: list[int]) -> Record:
    try:
        if window.strategy == "fixed-window":
            fixed = FixedWindow()
            fixed.end, fixed.count, fixed.mark = packed
            return fixed
        if window.strategy == "sliding-window-counter":
            sliding = SlidingWindowCounter()
            sliding.start, sliding.previous, sliding.current, sliding.mark = packed
            return sliding
        return _unpack_entries(packed)
    except (ValueError, IndexError):
        raise _foreign() from None


def _unpack_entries(packed: list[int]) -> MovingWindow:
    width = packed[0]
    stamps, marks = packed[1::width], packed[2::width]
    costs = packed[3::width] if width > 2 else [1] * len(stamps)
    hits: list[tuple[int, int, int]] = []
    stamp = mark = 0
    for later, further, cost in zip(stamps, marks, costs, strict=True):
        stamp += later
        mark += further
        hits.append((stamp, mark, cost))
    # Earlier releases kept hits of one stamp in the order in which they came.
    return MovingWindow(sorted(hits))


def _decoded(decoder: msgspec.msgpack.Decoder[T], value: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(value)
    except msgspec.MsgspecError:
        raise _foreign() from None


def _foreign() -> StorageError:
    return StorageError(
        "memcached holds an item under one of this library's keys that this release cannot read. Did another program, "
        "or another release, write it? Give the limiter a namespace= of its own."
    )
