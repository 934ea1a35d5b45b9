"""Limits in the notation of `limits` (`"3/hour; 10 per 2 days"`), read strictly: nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.errors import RuleError

if TYPE_CHECKING:
    from limits import RateLimitItem

    LimitNotation: TypeAlias = str | RateLimitItem | Iterable[str | RateLimitItem] | None

LARGEST_AMOUNT = 1_000_000_000
"""The largest amount of a limit, and the largest cost of a hit."""

LONGEST_PERIOD = 10_000 * 86_400
"""The longest period, in seconds: what every backend counts exactly, in microseconds."""

_EXAMPLES = "Write it like '5/day', '1 per 2 hours' or '3/hour; 10/day'; None, in a file 'none', is no limit."

# More digits than any amount or period within the bounds has; Python refuses to read very many.
_MOST_DIGITS = 20


def limits_of(notation: LimitNotation) -> tuple[RateLimitItem, ...]:
    """The limits that the notation names; none for None.

    Raises:
        RuleError: a part is not understood, an amount or a period is out of bounds, or two limits have one period. All
            that is wrong is named.
    """
    from limits import RateLimitItem

    if notation is None:
        return ()
    parts = [notation] if isinstance(notation, (str, RateLimitItem)) else _listed(notation)
    problems: list[str] = []
    items: list[RateLimitItem] = []
    for part in parts:
        if isinstance(part, str):
            read = [_read(text) for text in _split(part)]
        elif isinstance(part, RateLimitItem):
            read = [_plain(part)]
        else:
            read = [f"{part!r} is not a limit. {_EXAMPLES}"]
        for item in read:
            if isinstance(item, str):
                problems.append(item)
            else:
                items.append(item)
    if not parts:
        problems.append(f"names no limit. {_EXAMPLES}")
    problems += _out_of_bounds(items)
    if problems:
        raise RuleError(" ".join(problems))
    return tuple(items)


def _listed(notation: object) -> list[object]:
    # Anything may come in here, from a file or from a caller without a type checker.
    return list(cast("Iterable[object]", notation)) if isinstance(notation, Iterable) else [notation]


def _split(text: str) -> list[str]:
    from limits.util import SEPARATORS

    return SEPARATORS.split(text)


def _read(text: str) -> RateLimitItem | str:
    """One limit, or what is wrong with it."""
    from limits.util import SINGLE_EXPR, granularity_from_string

    match = SINGLE_EXPR.fullmatch(text)
    if match is None:
        return f"{text.strip()!r} is not a limit. {_EXAMPLES}"
    amount, _, multiples, granularity = match.groups()
    if max(len(amount), len(multiples or "")) > _MOST_DIGITS:
        return f"{text.strip()[:_MOST_DIGITS]!r}... has a number of too many digits. {_EXAMPLES}"
    if multiples is not None and int(multiples) == 0:
        return f"{text.strip()!r} has a period of nothing. {_EXAMPLES}"
    try:
        item = granularity_from_string(granularity)
    except ValueError:
        return f"{text.strip()!r}: there is no period {granularity!r}; use second, minute, hour, day, month or year."
    return item(int(amount), int(multiples or 1))


def _plain(item: RateLimitItem) -> RateLimitItem | str:
    """The item as text would have made it, or what is wrong with it.

    Items that are equal may bear different namespaces, and then hash differently: here none bears one.
    """
    from limits import RateLimitItem

    kind = next((kind for kind in type(item).__mro__ if "GRANULARITY" in vars(kind)), RateLimitItem)
    if kind is RateLimitItem:
        return f"a {type(item).__name__} has no period. Use one that has, such as RateLimitItemPerDay."
    made: RateLimitItem = kind(item.amount, item.multiples)
    return made


def _out_of_bounds(items: list[RateLimitItem]) -> list[str]:
    problems: list[str] = []
    seen: dict[int, RateLimitItem] = {}
    for item in items:
        period = item.get_expiry()
        if not 0 <= item.amount <= LARGEST_AMOUNT:
            problems.append(f"'{item}' has an amount out of 0 to {LARGEST_AMOUNT:,}.")
        if not 1 <= period <= LONGEST_PERIOD:
            problems.append(f"'{item}' has a period out of 1 second to {LONGEST_PERIOD // 86_400:,} days.")
        if period in seen:
            problems.append(f"'{seen[period]}' and '{item}' have one period; keep the smaller one.")
        seen[period] = item
    return problems
