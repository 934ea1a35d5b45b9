"""One row of the file: all windows under one key head, as bytes and as records.

A row is a MessagePack map from the rest of a key to the window's count: numbers, the first of which is the instant at which the
window is over. Behind it, depending on the strategy:

- moving-window: the rest of a block of `windows.hits`, so that no hit has to be looked at one by one; or, for a window with
  very many hits, its number, its total and the stamp of its oldest hit (see `large`), which no other window has the length of;
- fixed-window: count and mark;
- sliding-window-counter: start, previous count, current count, mark;
- pause: nothing.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from ratelimited_notify.storage.sqlite import failures
from ratelimited_notify.storage.sqlite.large import MOST_WINDOWS, LargeWindow
from ratelimited_notify.storage.sqlite.numbers import as_bytes, numbers
from ratelimited_notify.storage.sqlite.stored_hits import StoredHits
from ratelimited_notify.windows.strategies import RECORDS, FixedWindow, MovingWindow, Pause, SlidingWindowCounter

if TYPE_CHECKING:
    from sqlite3 import Cursor

    from ratelimited_notify.windows.strategies import Record, Window

MOST_HITS = 500
"""The most hits of a moving window that are kept in the row itself, since each decision writes the row."""

_DECODER = msgspec.msgpack.Decoder(dict[str, bytes])
_ENCODER = msgspec.msgpack.Encoder()
_SHORTEST = 8
"""The fewest bytes of a window."""

_LARGE = 4
"""How many numbers are stored of a window whose hits are elsewhere. No other window has as many."""


class Item:
    """The windows under one key head, for one decision: decoded from the stored value, changed, encoded again.

    Arguments:
        head: the head of the keys.
        expires: the instant under which the row is indexed: when its last window is over, or later. None: there is no row.
        value: the row's content.
    """

    __slots__ = ("expires", "head", "opened", "stored")

    def __init__(self, head: str, expires: int | None, value: bytes) -> None:
        self.head = head
        self.expires = expires
        self.opened: dict[str, tuple[Window, Record]] = {}
        """The windows that have become records, by the rest of their keys. They count, not what is stored of them."""
        self.stored: dict[str, bytes] = {} if expires is None else _decoded(value)
        """The windows as they are stored."""

    def record(self, rest: str, window: Window, cursor: Cursor) -> Record:
        """The record of one window, a fresh one if there was none."""
        opened = self.opened.get(rest)
        if opened is None:
            stored = self.stored.get(rest)
            record = RECORDS[window.strategy]() if stored is None else _unpacked(window, numbers(stored), cursor)
            self.opened[rest] = opened = window, record
        return opened[1]

    def drop(self, rest: str, now: int, cursor: Cursor) -> tuple[bool, bool]:
        """Drop one window. Returns whether it was there, and whether it held anything."""
        stored = self.stored.pop(rest, None)
        self.opened.pop(rest, None)
        if stored is None:
            return False, False
        _drop_hits(stored, cursor)
        # What cannot be read counts as held.
        return True, len(stored) < _SHORTEST or now < int.from_bytes(stored[:8], "little", signed=True)

    def drop_all(self, cursor: Cursor) -> None:
        """Drop all windows."""
        for stored in self.stored.values():
            _drop_hits(stored, cursor)

    def encode(self, now: int, cursor: Cursor) -> tuple[bytes, int] | None:
        """The bytes to store, and the instant at which the last window is over; None if no window holds anything."""
        windows: dict[str, bytes] = {}
        last, from_bytes = now, int.from_bytes
        for rest, stored in self.stored.items():
            if rest not in self.opened:
                end = from_bytes(stored[:8], "little", signed=True)
                if end <= now:
                    _drop_hits(stored, cursor)
                    continue
                windows[rest] = stored
                if end > last:
                    last = end
        for rest, (window, record) in self.opened.items():
            end = record.ends(now, window.period)
            if now < end:
                windows[rest] = _packed(record, end, cursor)
                last = max(last, end)
            elif isinstance(record, LargeWindow):
                record.drop()
        return (_ENCODER.encode(windows), last) if windows else None


def _drop_hits(stored: bytes, cursor: Cursor) -> None:
    """Delete the hits of a window that has them elsewhere."""
    if len(stored) == 8 * _LARGE:
        _, number, _, _ = numbers(stored)
        # Of another number there are no hits: another program wrote it. Whoever sweeps or clears must not fail because of it.
        if 0 < number < MOST_WINDOWS:
            LargeWindow(cursor, number, 0, 0, 0).drop()


def _decoded(value: bytes) -> dict[str, bytes]:
    try:
        return _DECODER.decode(value)
    except (msgspec.MsgspecError, ValueError, TypeError):
        raise failures.unreadable("a row") from None


def _unpacked(window: Window, stored: array[int], cursor: Cursor) -> Record:
    try:
        if window.strategy == "fixed-window":
            fixed = FixedWindow()
            fixed.end, fixed.count, fixed.mark = stored
            _check_counts(fixed.count)
            return fixed
        if window.strategy == "sliding-window-counter":
            sliding = SlidingWindowCounter()
            _, sliding.start, sliding.previous, sliding.current, sliding.mark = stored
            _check_counts(sliding.previous, sliding.current)
            return sliding
        if window.strategy == "pause":
            (until,) = stored
            return Pause(until)
        if len(stored) == _LARGE:
            end, number, total, oldest = stored
            if not 0 < number < MOST_WINDOWS:
                raise ValueError
            _check_counts(total)
            return LargeWindow(cursor, number, total, end - window.period, oldest)
        if len(stored) < 6 or len(stored) % 3:
            raise ValueError
        _check_counts(stored[-1] - stored[2])
    except ValueError:
        raise failures.unreadable(f"a count of the rule {window.rule!r}") from None
    moving = MovingWindow()
    moving.hits = StoredHits.of_block(stored)
    return moving


def _check_counts(*counts: int) -> None:
    """Check that these are numbers of hits. A window with fewer hits than none would have more left than its limit."""
    if min(counts) < 0:
        raise ValueError


def _packed(record: Record, end: int, cursor: Cursor) -> bytes:
    if isinstance(record, MovingWindow):
        if len(record.hits) > MOST_HITS:
            record = LargeWindow.of(cursor, record.hits)
        else:
            hits = record.hits if isinstance(record.hits, StoredHits) else StoredHits(record.hits)
            block = hits.block()
            if block is None:
                raise failures.too_large()
            block[0] = end
            return as_bytes(block)
    if isinstance(record, FixedWindow):
        found = [end, record.count, record.mark]
    elif isinstance(record, SlidingWindowCounter):
        found = [end, record.start, record.previous, record.current, record.mark]
    elif isinstance(record, Pause):
        found = [end]
    elif isinstance(record, LargeWindow):
        found = [end, record.number, record.total, record.oldest]
    else:
        raise TypeError(f"No layout for {type(record).__name__}")
    try:
        return as_bytes(array("q", found))
    except OverflowError:
        raise failures.too_large() from None
