"""Limits and durations in words, for messages and tables."""

from __future__ import annotations

import reprlib
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits import RateLimitItem

_UNITS = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxlevel = 3


def quoted(value: object) -> str:
    """A value from a rule as a message shows it: cut if it is long or deep."""
    return _short.repr(value)


def limit_text(limit: RateLimitItem) -> str:
    """A limit such as "1 per day" or "3 per 2 hours", or "paused"."""
    if getattr(limit, "strategy", None) == "pause":
        return "paused"
    period = limit.GRANULARITY.name
    return f"{limit.amount} per {period if limit.multiples == 1 else f'{limit.multiples} {period}s'}"


def limits_text(limits: tuple[RateLimitItem, ...]) -> str:
    """Several limits in words, or "none"."""
    return "; ".join(map(limit_text, limits)) or "none"


def duration_text(seconds: float) -> str:
    """A duration in its two largest units, rounded up so that waiting for it is long enough."""
    whole = ceil(seconds)
    if whole <= 0:
        return "0 s"
    for (unit, size), (smaller, part) in pairwise(_UNITS):
        if whole >= size:
            rounded = -(-whole // part) * part
            if rounded != whole:
                return duration_text(rounded)
            rest = whole % size // part
            return (
                f"{_counted(whole // size, unit)} {_counted(rest, smaller)}" if rest else _counted(whole // size, unit)
            )
    return f"{whole} s"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}s" if unit == "day" and number != 1 else f"{number} {unit}"
