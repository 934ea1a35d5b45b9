"""What somebody may have meant who wrote a text that is not a limit, for the error message."""

from __future__ import annotations

import re
from fractions import Fraction

from ratelimited_notify.rules.period import period_of

_LONGEST = 60
"""Characters. Nobody writes a longer limit, and a guess about a longer text would be wrong."""

_TOKENS = re.compile(r"[0-9]++(?:[.,'_\u00a0\u202f ][0-9]++)*+|[a-z]++", re.IGNORECASE)
_ONLY = re.compile(r"[\w\s/.,':\u00a0\u202f]*+").fullmatch
_GROUPS = re.compile(r"[1-9][0-9]{0,2}(?:[.,'_\u00a0\u202f ][0-9]{3})++").fullmatch
_DECIMAL = re.compile(r"([0-9]{1,3})[.,]([0-9]{1,2})").fullmatch
_SEVERAL = re.compile(r"\n++|&|\band\b", re.IGNORECASE)

_FILLERS = frozenset(("a", "an", "at", "each", "every", "in", "max", "most", "of", "once", "per", "time", "times", "x"))
_NUMBERS = {"once": 1, "one": 1, "twice": 2, "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10}
_OTHER_PERIODS = {
    "hourly": (1, "hour"),
    "daily": (1, "day"),
    "weekly": (1, "week"),
    "fortnight": (2, "week"),
    "fortnightly": (2, "week"),
    "monthly": (1, "month"),
    "quarter": (3, "month"),
    "quarterly": (3, "month"),
    "yearly": (1, "year"),
    "annually": (1, "year"),
}
_WELL_SPELT = ("second", "minute", "hour", "day", "week", "month", "year")


def proposals(text: str) -> list[str]:
    """The limits that the text may stand for, in the notation that is understood. Mostly one or none."""
    if len(text) > _LONGEST:
        return []
    parts = [part for part in _SEVERAL.split(text) if part.strip()]
    found = [_one(part) for part in parts]
    if len(found) == 1:
        return found[0]
    return ["; ".join(each[0] for each in found)] if found and all(len(each) == 1 for each in found) else []


def _one(text: str) -> list[str]:
    if not _ONLY(text) or text.count("/") > 1:
        return []
    numbers: list[Fraction] = []
    periods: list[tuple[int, str]] = []
    for token in _TOKENS.findall(text):
        if periods:
            return []
        number = _number(token)
        if number is not None:
            numbers.append(number)
        elif token.lower() not in _FILLERS:
            periods = _periods(token)
            if not periods:
                return []
    if not numbers or len(numbers) > 2 or not periods:
        return []
    amount, times = numbers[0], numbers[1] if len(numbers) == 2 else Fraction(1)
    return [_written(amount, times * multiple, period) for multiple, period in periods]


def _number(token: str) -> Fraction | None:
    if token[0].isdigit():
        if _GROUPS(token):
            return Fraction(re.sub(r"[^0-9]", "", token))
        decimal = _DECIMAL(token)
        if decimal:
            return Fraction(f"{decimal[1]}.{decimal[2]}")
        return Fraction(token) if token.isdigit() else None
    number = _NUMBERS.get(token.lower())
    return None if number is None else Fraction(number)


def _periods(word: str) -> list[tuple[int, str]]:
    from difflib import get_close_matches

    if word == "M":
        return [(1, "minute"), (1, "month")]
    known = period_of(word)
    if known is not None:
        return [(1, "week") if known == ("day", 7) else (1, known[0])]
    other = _OTHER_PERIODS.get(word.lower())
    if other is not None:
        return [other]
    return [(1, name) for name in get_close_matches(word.lower(), _WELL_SPELT, 1)]


def _written(amount: Fraction, times: Fraction, period: str) -> str:
    # Of "1.5 per day" the same as "3 per 2 days": no limit has half a notification.
    whole = Fraction(amount.denominator * times.denominator)
    amount, times = amount * whole, times * whole
    return f"{amount}/{period}" if times == 1 else f"{amount} per {times} {period}s"
