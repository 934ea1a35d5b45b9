"""A window's count as one whole number, which is the smallest thing that Python can keep for it, and the quickest to change.

Numbers are what the garbage collector never looks at: with millions of windows as objects, it would stop the program for
seconds. And they do not change, so what a decision has read stays what it was, and is explained only when somebody asks.

The number is written in digits of 64 bits. The lowest says when the window is over, in thousandths of a microsecond; what is
below a microsecond tells hits of one microsecond apart. Behind it, by strategy:

- moving-window: nothing but such digits, one a hit of cost 1: when it leaves the window, the newest lowest;
- fixed-window: the count;
- sliding-window-counter: where the window begins, its count, and the count of the one before.

What does not fit (many hits, hits of another cost, a clock before 1970) is kept as a record of `windows`, with its period.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.windows import FITS, RECORDS, FixedWindow, MovingWindow, Reading, SlidingWindowCounter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.windows import Record, StrategyName, Window

Value: TypeAlias = "int | Kept"
"""What is kept for one window: the number, or the record that does not fit into one."""

MARKS = 1000
"""So many hits of one microsecond are told apart: more than can be decided in one."""

MOST_HITS = 512
"""The most hits of a moving window that are kept in a number, which is made anew at each hit; then a record is quicker."""

DIGIT = 64
LOWEST = (1 << DIGIT) - 1


class Kept:
    """A record, and the window's period."""

    __slots__ = ("period", "record")

    def __init__(self, record: Record, period: int) -> None:
        self.record = record
        self.period = period

    def __lt__(self, number: int) -> bool:
        """False: it is more than any number."""
        return False


def digit(instant: int, mark: int) -> int:
    """An instant in microseconds, and what tells it from its like; they sort by the instant."""
    return instant * MARKS + mark


def is_over(value: Value, now: int) -> bool:
    """Whether the window says nothing any more."""
    if isinstance(value, int):
        return (value & LOWEST) // MARKS <= now
    return value.record.ends(now, value.period) <= now


def packed(record: Record, period: int) -> Value:
    """The window's count as a number, or as it is where it does not fit."""
    number: int | None = None
    if isinstance(record, MovingWindow):
        number = _moving(record, period)
    elif isinstance(record, FixedWindow):
        number = _fixed(record)
    elif isinstance(record, SlidingWindowCounter):
        number = _sliding(record, period)
    return Kept(record, period) if number is None else number


def _moving(record: MovingWindow, period: int) -> int | None:
    entries = record.entries
    if not 0 < len(entries) <= MOST_HITS:
        return None
    digits = array("Q")
    for stamp, mark, cost in reversed(entries):
        if cost != 1 or not _fits(stamp + period, mark):
            return None
        digits.append(digit(stamp + period, mark))
    return int.from_bytes(_lowest_first(digits).tobytes(), "little")


def _fixed(record: FixedWindow) -> int | None:
    if not record.count or not _fits(record.end, record.mark):
        return None
    return record.count << DIGIT | digit(record.end, record.mark)


def _sliding(record: SlidingWindowCounter, period: int) -> int | None:
    ends = record.start + (2 if record.current else 1) * period
    if not (record.current or record.previous) or not _fits(ends, record.mark):
        return None
    if record.start < 0 or record.current > LOWEST:
        return None
    return ((record.previous << DIGIT | record.current) << DIGIT | record.start) << DIGIT | digit(ends, record.mark)


def _fits(ends: int, mark: int) -> bool:
    return 0 < ends < LOWEST // MARKS and 0 <= mark < MARKS


def unpacked(value: Value | None, strategy: StrategyName, period: int) -> Record:
    """The record that the number stands for; a fresh one for None."""
    if isinstance(value, Kept):
        return value.record
    record = RECORDS[strategy]()
    if value is None:
        return record
    if isinstance(record, MovingWindow):
        digits = _lowest_first(array("Q", value.to_bytes((value.bit_length() + DIGIT - 1) // DIGIT * 8, "little")))
        record.entries.extend((each // MARKS - period, each % MARKS, 1) for each in reversed(digits))
        record.count = len(digits)
    elif isinstance(record, FixedWindow):
        record.count = value >> DIGIT
        record.end, record.mark = divmod(value & LOWEST, MARKS)
    elif isinstance(record, SlidingWindowCounter):
        record.mark = (value & LOWEST) % MARKS
        record.start = value >> DIGIT & LOWEST
        record.current = value >> 2 * DIGIT & LOWEST
        record.previous = value >> 3 * DIGIT
    return record


def _lowest_first(digits: array[int]) -> array[int]:
    """The digits with their bytes as a number has them in which the lowest comes first."""
    if sys.byteorder == "big":
        digits.byteswap()
    return digits


class Snapshot:
    """What windows held when one hit was decided; what there is to say about them is worked out when somebody asks.

    As `windows.Grant`, for a hit of cost 1 that enforced windows took or refused.
    """

    __slots__ = ("_readings", "_values", "_windows", "granted", "now")

    def __init__(self, granted: bool, now: int, windows: Sequence[Window], values: Sequence[Value | None]) -> None:
        self.granted = granted
        self.now = now
        self._windows = windows
        # After the hit where it was taken, before it where it was not.
        self._values = values
        self._readings: list[Reading] | None = None

    @property
    def readings(self) -> list[Reading]:
        """What each window says."""
        if self._readings is None:
            self._readings = [self._reading(*pair) for pair in zip(self._windows, self._values, strict=True)]
        return self._readings

    def _reading(self, window: Window, value: Value | None) -> Reading:
        record = unpacked(value, window.strategy, window.period)
        count, retry_at, reset_at = record.read(self.now, window.period, window.amount, 1)
        if not self.granted:
            return Reading(count, retry_at, reset_at, None)
        ends, mark = divmod(cast("int", value) & LOWEST, MARKS)
        token = (ends - window.period, mark) if window.strategy == "moving-window" else (ends, mark)
        return Reading(count, FITS, reset_at, token)
