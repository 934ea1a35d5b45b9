"""A window's count as one integer: the smallest object that Python can keep for it, and the fastest to change.

The garbage collector never looks at integers. With millions of windows as objects, it would stop the program for seconds.
Integers are immutable, so the values that a decision has read stay as they were, and can be explained later, when a caller
asks.

The integer consists of digits of 64 bits. The lowest digit is the instant at which the window ends, in thousandths of a
microsecond; the part below a microsecond distinguishes hits of the same microsecond. Above it, depending on the strategy:

- moving-window: more digits of this kind, one per hit of cost 1: the instant at which the hit leaves the window, the newest
  hit lowest;
- fixed-window: the count;
- sliding-window-counter: the start of the window, its count, and the count of the previous window;
- pause: nothing.

A count that does not fit (many hits, hits of another cost, a clock before 1970) is kept as a record of
`windows.strategies`, with its period.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, insort_right
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.windows.strategies import (
    FITS,
    NEVER,
    RECORDS,
    FixedWindow,
    MovingWindow,
    Pause,
    Reading,
    SlidingWindowCounter,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.windows.strategies import Record, Token, Window, WindowKind

Value: TypeAlias = "int | UnpackedRecord"
"""The stored count of one window: an integer, or a record that does not fit into one."""

MARKS = 1000
"""How many hits of the same microsecond can be distinguished: more than can be decided in a microsecond."""

MOST_HITS = 512
"""The most hits of a moving window that are kept in one integer. Each hit makes a new integer; above this a record is faster."""

DIGIT = 64
LOWEST = (1 << DIGIT) - 1


class UnpackedRecord:
    """A record, and the window's period."""

    __slots__ = ("period", "record")

    def __init__(self, record: Record, period: int) -> None:
        self.record = record
        self.period = period

    def __lt__(self, number: int) -> bool:
        """False: a record counts as greater than any number."""
        return False


class Digits:
    """A moving window that is read and changed in its packed form, so that only the hits concerned are looked at.

    It becomes a `MovingWindow` once it no longer fits into an integer.
    """

    __slots__ = ("_digits", "_moving")

    def __init__(self, number: int | None) -> None:
        self._digits: array[int] = array("Q")
        """For each hit the instant at which it leaves the window, and its mark; the oldest first."""
        self._moving: MovingWindow | None = None
        if number is not None:
            self._digits.frombytes(number.to_bytes((number.bit_length() + DIGIT - 1) // DIGIT * 8, "little"))
            _lowest_first(self._digits).reverse()

    def stored(self) -> array[int] | MovingWindow:
        """The value to store: the digits, or the `MovingWindow` that they have become."""
        return self._moving or self._digits

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        if self._moving is not None:
            return self._moving.read(now, period, amount, cost)
        digits, left = self._digits, (now + 1) * MARKS
        if not digits or digits[-1] < left:
            return 0, FITS if cost <= amount else NEVER, now
        over = 0 if digits[0] >= left else bisect_left(digits, left)
        count = len(digits) - over
        if cost > amount:
            retry_at = NEVER
        elif count + cost > amount:
            retry_at = digits[over + count + cost - amount - 1] // MARKS
        else:
            retry_at = FITS
        return count, retry_at, digits[-1] // MARKS

    def take(self, now: int, period: int, cost: int, mark: int) -> Token:
        digits, left = self._digits, (now + 1) * MARKS
        if self._moving is None and digits and digits[0] < left:
            del digits[: bisect_left(digits, left)]
        # Stamps never run backwards, even if the clock does.
        ends = max(now + period, digits[-1] // MARKS) if digits else now + period
        if self._moving is None and (cost != 1 or len(digits) >= MOST_HITS or not _fits(ends, mark)):
            self._moving = MovingWindow((each // MARKS - period, each % MARKS, 1) for each in digits)
        if self._moving is not None:
            return self._moving.take(now, period, cost, mark)
        insort_right(digits, digit(ends, mark))
        return ends - period, mark

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        if self._moving is not None:
            return self._moving.give(now, period, cost, token)
        stamp, mark = token
        if cost != 1 or stamp + period <= now or not _fits(stamp + period, mark):
            return False
        wanted = digit(stamp + period, mark)
        at = bisect_left(self._digits, wanted)
        if at == len(self._digits) or self._digits[at] != wanted:
            return False
        del self._digits[at]
        return True

    def ends(self, now: int, period: int) -> int:
        if self._moving is not None:
            return self._moving.ends(now, period)
        return self._digits[-1] // MARKS if self._digits else now


def digit(instant: int, mark: int) -> int:
    """An instant in microseconds combined with a mark that distinguishes equal instants. Digits sort by instant."""
    return instant * MARKS + mark


def is_over(value: Value, now: int) -> bool:
    """Whether the window has ended and counts nothing any more."""
    if isinstance(value, int):
        return (value & LOWEST) // MARKS <= now
    return value.record.ends(now, value.period) <= now


def packed(record: Record, period: int) -> Value:
    """The window's count as an integer, or the record with its period if it does not fit."""
    number: int | None = None
    if isinstance(record, Digits):
        stored = record.stored()
        if isinstance(stored, array):
            return _number(stored)
        record = stored
    if isinstance(record, MovingWindow):
        number = _moving(record, period)
    elif isinstance(record, FixedWindow):
        number = _fixed(record)
    elif isinstance(record, SlidingWindowCounter):
        number = _sliding(record, period)
    elif isinstance(record, Pause) and record.until is not None and _fits(record.until, 0):
        number = digit(record.until, 0)
    return UnpackedRecord(record, period) if number is None else number


def _moving(record: MovingWindow, period: int) -> int | None:
    found = record.hits.few_of_one(MOST_HITS)
    if found is None:
        return None
    stamps, marks = found
    # Stamps are sorted.
    if not (_fits(stamps[0] + period, min(marks)) and _fits(stamps[-1] + period, max(marks))):
        return None
    added = period * MARKS
    return _number(array("Q", [stamp * MARKS + mark + added for stamp, mark in zip(stamps, marks, strict=True)]))


def _number(digits: array[int]) -> int:
    """The integer made of these digits, which come oldest first."""
    newest_first = digits[::-1]
    return int.from_bytes(_lowest_first(newest_first).tobytes(), "little")


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


def unpacked(value: Value | None, strategy: WindowKind) -> Record:
    """The record that the stored value stands for; a fresh one for None."""
    if isinstance(value, UnpackedRecord):
        return value.record
    if strategy == "moving-window":
        return Digits(value)
    if value is None:
        return RECORDS[strategy]()
    record = RECORDS[strategy]()
    if isinstance(record, FixedWindow):
        record.count = value >> DIGIT
        record.end, record.mark = divmod(value & LOWEST, MARKS)
    elif isinstance(record, SlidingWindowCounter):
        record.mark = (value & LOWEST) % MARKS
        record.start = value >> DIGIT & LOWEST
        record.current = value >> 2 * DIGIT & LOWEST
        record.previous = value >> 3 * DIGIT
    elif isinstance(record, Pause):
        record.until = value // MARKS
    return record


def _lowest_first(digits: array[int]) -> array[int]:
    """The digits with their bytes in little-endian order."""
    if sys.byteorder == "big":
        digits.byteswap()
    return digits


class Snapshot:
    """The values of the windows when one hit was decided. The readings are lazily computed.

    It stands in for a `Verdict`, for a hit of cost 1 in enforced windows.
    """

    __slots__ = ("_readings", "_values", "_windows", "granted", "now")

    def __init__(self, granted: bool, now: int, windows: Sequence[Window], values: Sequence[Value | None]) -> None:
        self.granted = granted
        self.now = now
        self._windows = windows
        # Including the hit if it was counted.
        self._values = values
        self._readings: list[Reading] | None = None

    @property
    def readings(self) -> list[Reading]:
        """A reading of each window."""
        if self._readings is None:
            self._readings = [self._reading(*pair) for pair in zip(self._windows, self._values, strict=True)]
        return self._readings

    def _reading(self, window: Window, value: Value | None) -> Reading:
        record = unpacked(value, window.strategy)
        count, retry_at, reset_at = record.read(self.now, window.period, window.amount, 1)
        if not self.granted:
            return Reading(count, retry_at, reset_at, None)
        ends, mark = divmod(cast("int", value) & LOWEST, MARKS)
        token = (ends - window.period, mark) if window.strategy == "moving-window" else (ends, mark)
        return Reading(count, FITS, reset_at, token)
