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
_EVERY = ("each", "every")
_BEFORE_PERIODS = (*_EVERY, "in", "per", "/")
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
_MOST_MISSPELT = 2
"""Characters that a misspelt period may have too many or too few."""

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
    before, end, bare = "", 0, False
    for found in _TOKENS.finditer(text):
        token = found[0]
        if periods:
            return []
        number = _number(token)
        if number is not None:
            if not numbers:
                before = text[: found.start()].rstrip().lower()
            numbers.append(number)
            end = found.end()
        elif token.lower() not in _FILLERS:
            periods = _periods(token)
            if not periods:
                return []
            bare = not text[end : found.start()].strip() and token.lower() not in _OTHER_PERIODS
    if not numbers or len(numbers) > 2 or not periods:
        return []
    amount, times = numbers[0], numbers[1] if len(numbers) == 2 else Fraction(1)
    readings = [(amount, times)]
    if before.endswith(_BEFORE_PERIODS):
        # The number is one of periods: "every 5 minutes". With "per 5 minutes" the amount is missing.
        readings = [(times, amount)] if len(numbers) == 1 and before.endswith(_EVERY) else []
    elif bare and len(numbers) == 1:
        # "5 minutes" may be a period, too.
        readings.append((times, amount))
    written = [_written(*each, multiple, period) for each in readings for multiple, period in periods]
    return list(dict.fromkeys(written))


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
    # A word that begins otherwise, or is much longer, is another word: a millisecond, a weekday.
    alike = [
        name for name in _WELL_SPELT if name[0] == word[0].lower() and abs(len(name) - len(word)) <= _MOST_MISSPELT
    ]
    return [(1, name) for name in get_close_matches(word.lower(), alike, 1)]


def _written(amount: Fraction, times: Fraction, multiple: int, period: str) -> str:
    times *= multiple
    # Of "1.5 per day" the same as "3 per 2 days": no limit has half a notification.
    whole = Fraction(amount.denominator * times.denominator)
    amount, times = amount * whole, times * whole
    return f"{amount}/{period}" if times == 1 else f"{amount} per {times} {period}s"
