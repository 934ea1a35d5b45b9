"""Parse limits in the notation of `limits` (`"3/hour; 10 per 2 days"`), and as people write them (`"1,000/week"`).

Strict: no part is silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.notification.cost import LARGEST_AMOUNT
from ratelimited_notify.rules.period import period_of
from ratelimited_notify.rules.wording import limit_text, limits_text, quoted

if TYPE_CHECKING:
    from limits import RateLimitItem

    from ratelimited_notify.rules.annotations import LimitNotation

    _Show: TypeAlias = Callable[[object], str]

LONGEST_PERIOD = 10_000 * 86_400
"""The longest period, in seconds. Every backend counts it exactly, in microseconds."""

_EXAMPLES = "Write it like '5/day', '1 per 2 hours' or '3/hour; 10/day'. For no limit, write None, or 'none' in a file."

# A comma between a digit and three digits belongs to a number ("1,000"). Every limit ends in a letter.
_SEPARATORS = re.compile(r"[;|]|(?<![0-9]),|,(?![0-9]{3}(?![0-9]))")

# The notation of `limits`, matched in one pass. The expression in `limits` has two runs of spaces next to each other and
# tries every way to split the spaces between them. The possessive `++` and `*+` here never backtrack.
_NUMBER = r"[0-9]++(?:[,_][0-9]{3})*+"
_LIMIT = re.compile(rf"\s*+({_NUMBER})\s*+(?:/|per)\s*+({_NUMBER})?\s*+([a-z]++)\s*+", re.IGNORECASE).fullmatch
_GROUPS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})++|[1-9][0-9]{0,2}(?:_[0-9]{3})++").fullmatch

# No amount or period within the bounds has more digits. Python refuses to parse thousands of digits.
_MOST_DIGITS = 20

_MOST_LIMITS = 100
"""The most limits in one text or list."""

_MOST_PROBLEMS = 10
"""So many problems are said about them."""

_SHORT = 200
_MOST_TEXTS = 1024
"""So many texts of limits up to this length are remembered with what they mean: large rule sets have few different limits."""


def limits_of(notation: LimitNotation, *, shown: bool = True) -> tuple[RateLimitItem, ...]:
    """Parse a notation into limits. The result is empty for None.

    Arguments:
        notation: one limit, several limits in one string, or an iterable of limits.
        shown: whether errors may quote the notation. Pass False if it may contain a recipient by mistake.

    Raises:
        RuleError: a part cannot be parsed, an amount or a period is out of bounds, or two limits have the same period.
            The error lists all problems.
    """
    if notation is None:
        return ()
    if isinstance(notation, str) and notation.__class__ is str and len(notation) <= _SHORT:
        try:
            return _remembered(notation)
        except RuleError:
            # Read again, for messages that may quote it.
            if not shown:
                raise
    return _read_all(notation, shown=shown)


def limits_at(
    place: str, notation: LimitNotation, problems: list[Problem], *, shown: bool = True
) -> tuple[RateLimitItem, ...]:
    """Parse a notation into limits. If that fails, add the problems, each with its place.

    Arguments:
        place: where the notation is, for messages.
        notation: the notation.
        problems: a list to which problems are added.
        shown: whether messages may quote the notation.
    """
    try:
        return limits_of(notation, shown=shown)
    except RuleError as error:
        problems += (problem.under(place) for problem in error.problems)
        return ()


def pairs(place: str, mapping: object, problems: list[Problem]) -> Iterable[tuple[object, LimitNotation]]:
    """The items of a table of limits; none, and a problem, if it is no table."""
    if not isinstance(mapping, Mapping):
        problems.append(Problem(place, "must be a table of limits."))
        return ()
    return cast("Mapping[object, LimitNotation]", mapping).items()


@lru_cache(maxsize=_MOST_TEXTS)
def _remembered(text: str) -> tuple[RateLimitItem, ...]:
    """The limits in a text, as the same tuple each time. Errors are not remembered."""
    return _read_all(text, shown=False)


def _read_all(notation: LimitNotation, *, shown: bool) -> tuple[RateLimitItem, ...]:
    from limits import RateLimitItem

    show: _Show = quoted if shown else _unshown
    parts = [notation] if isinstance(notation, (str, RateLimitItem)) else _listed(notation)
    problems: list[str] = []
    items: list[RateLimitItem] = []
    if len(parts) > _MOST_LIMITS:
        problems.append(f"has {len(parts):,} limits; at most {_MOST_LIMITS} are read.")
        parts = parts[:1]
    for part in parts:
        if isinstance(part, str):
            read = _read_several(part, show)
        elif isinstance(part, RateLimitItem):
            read = [_plain(part)]
        elif isinstance(part, Mapping):
            # It may be a whole rule, whose overrides are recipients, so it is not shown.
            read = [f"a {type(cast('object', part)).__name__} is not a limit. {_EXAMPLES}"]
        else:
            read = [f"{show(part)} is not a limit. {_EXAMPLES}"]
        for item in read:
            if isinstance(item, str):
                problems.append(item)
            else:
                items.append(item)
    if not parts:
        problems.append(f"contains no limit. {_EXAMPLES}")
    problems += _out_of_bounds(items, show)
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise RuleError(" ".join([*problems[:_MOST_PROBLEMS], *([f"... and {more:,} more."] if more > 0 else [])]))
    return tuple(items)


def is_limit(notation: object) -> bool:
    """Whether this can be parsed into limits. None can."""
    try:
        limits_of(cast("LimitNotation", notation), shown=False)
    except RuleError:
        return False
    return True


def _listed(notation: object) -> list[object]:
    # The value may be of any type: it comes from a file, or from a caller that uses no type checker.
    several = isinstance(notation, Iterable) and not isinstance(notation, Mapping)
    return list(cast("Iterable[object]", notation)) if several else [notation]


def _unshown(_part: object) -> str:
    return "it"


def _read_several(text: str, show: _Show) -> list[RateLimitItem | str]:
    """Parse the limits in a string. A separator at the end is allowed."""
    parts = _SEPARATORS.split(text)
    if len(parts) > 1 and not parts[-1].strip():
        parts.pop()
    if len(parts) > _MOST_LIMITS:
        return [f"{show(text)} has {len(parts):,} limits; at most {_MOST_LIMITS} are read."]
    limits = [part for part in parts if part.strip()]
    read = [_read(part, show) for part in limits or [""]]
    if limits and len(limits) < len(parts):
        sound = show is quoted and not any(isinstance(each, str) for each in read)
        meant = f" Write {quoted('; '.join(limit.strip() for limit in limits))}." if sound else ""
        read.append(f"{show('')} is not a limit, and there is one separator too many.{meant}")
    return read


def _read(text: str, show: _Show) -> RateLimitItem | str:
    """Parse one limit; return it, or a message that says what is wrong."""
    from limits.util import granularity_from_string

    match = _LIMIT(text)
    if match is None:
        return f"{show(text.strip())} is not a limit. {_advice(text, show) or _EXAMPLES}"
    amount, multiples, granularity = match.groups()
    if max(len(amount), len(multiples or "")) > _MOST_DIGITS:
        return f"{show(f'{text.strip()[:_MOST_DIGITS]}...')} has a number with too many digits. {_EXAMPLES}"
    if not all(number.isdigit() or _GROUPS(number) for number in (amount, multiples or "1")):
        return f"{show(text.strip())} is not a limit. {_advice(text, show) or _EXAMPLES}"
    if multiples is not None and _integer(multiples) == 0:
        return f"{show(text.strip())} has a period of length 0. {_EXAMPLES}"
    period = period_of(granularity)
    if period is None:
        said = f"{show(text.strip())} has an unknown period; use second, minute, hour, day, week, month or year."
        return f"{said} {_advice(text, show)}".rstrip()
    name, times = period
    return granularity_from_string(name)(_integer(amount), _integer(multiples or "1") * times)


def _integer(number: str) -> int:
    return int(number.replace(",", "_"))


def _advice(text: str, show: _Show) -> str:
    """What to write instead, if that can be guessed. Empty if the text must not be shown: the advice repeats its numbers."""
    if show is not quoted:
        return ""
    from ratelimited_notify.rules.proposal import proposals

    usable = [each for each in proposals(text) if is_limit(each)]
    return f"Write {' or '.join(map(repr, usable))}." if usable else ""


def _plain(item: RateLimitItem) -> RateLimitItem | str:
    """The item without its namespace, as if it were parsed from a string; or a message that says what is wrong with it.

    Items with different namespaces can be equal and still have different hashes.
    """
    from limits import RateLimitItem

    kind = next((kind for kind in type(item).__mro__ if "GRANULARITY" in vars(kind)), RateLimitItem)
    if kind is RateLimitItem:
        return f"a {type(item).__name__} has no period. Use a class that has one, such as RateLimitItemPerDay."
    made: RateLimitItem = kind(item.amount, item.multiples)
    return made


def _out_of_bounds(items: list[RateLimitItem], show: _Show) -> list[str]:
    problems: list[str] = []
    seen: dict[int, RateLimitItem] = {}
    for item in items:
        period = item.get_expiry()
        if not 0 <= item.amount <= LARGEST_AMOUNT:
            problems.append(f"{show(limit_text(item))} has an amount that is not between 0 and {LARGEST_AMOUNT:,}.")
        if not 1 <= period <= LONGEST_PERIOD:
            problems.append(
                f"{show(limit_text(item))} has a period that is not between 1 second and "
                f"{LONGEST_PERIOD // 86_400:,} days."
            )
        if period in seen:
            problems.append(
                f"{show(limits_text((seen[period], item)))} has two limits with the same period; keep the smaller one."
            )
        seen[period] = item
    return problems
