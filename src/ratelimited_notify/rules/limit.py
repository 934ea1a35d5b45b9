"""Limits in the notation of `limits` (`"3/hour; 10 per 2 days"`), read strictly: nothing is dropped silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.errors import RuleError
from ratelimited_notify.notification.cost import LARGEST_AMOUNT
from ratelimited_notify.rules.wording import limit_text, limits_text

if TYPE_CHECKING:
    from limits import RateLimitItem

    from ratelimited_notify.rules.annotations import LimitNotation

    _Show: TypeAlias = Callable[[object], str]

LONGEST_PERIOD = 10_000 * 86_400
"""The longest period, in seconds: what every backend counts exactly, in microseconds."""

_EXAMPLES = "Write it like '5/day', '1 per 2 hours' or '3/hour; 10/day'; None, in a file 'none', is no limit."

# What `limits` reads, in one pass. Its own expression has two runs of spaces side by side, and tries every way to share the
# spaces between them; here every `++` and `*+` keeps what it took.
_SEPARATORS = re.compile(r"[,;|]")
_LIMIT = re.compile(r"\s*+([0-9]++)\s*+(?:/|per)\s*+([0-9]++)?\s*+([a-z]++)\s*+", re.IGNORECASE).fullmatch

# More digits than any amount or period within the bounds has; Python refuses to read very many.
_MOST_DIGITS = 20


def limits_of(notation: LimitNotation, *, shown: bool = True) -> tuple[RateLimitItem, ...]:
    """The limits that the notation names; none for None.

    Arguments:
        notation: one limit, several in one text, or several.
        shown: whether an error may show it; not where a recipient may stand in its place.

    Raises:
        RuleError: a part is not understood, an amount or a period is out of bounds, or two limits have one period. All
            that is wrong is named.
    """
    from limits import RateLimitItem

    if notation is None:
        return ()
    show: _Show = repr if shown else _unshown
    parts = [notation] if isinstance(notation, (str, RateLimitItem)) else _listed(notation)
    problems: list[str] = []
    items: list[RateLimitItem] = []
    for part in parts:
        if isinstance(part, str):
            read = [_read(text, show) for text in _SEPARATORS.split(part)]
        elif isinstance(part, RateLimitItem):
            read = [_plain(part)]
        else:
            read = [f"{show(part)} is not a limit. {_EXAMPLES}"]
        for item in read:
            if isinstance(item, str):
                problems.append(item)
            else:
                items.append(item)
    if not parts:
        problems.append(f"names no limit. {_EXAMPLES}")
    problems += _out_of_bounds(items, show)
    if problems:
        raise RuleError(" ".join(problems))
    return tuple(items)


def _listed(notation: object) -> list[object]:
    # Anything may come in here, from a file or from a caller without a type checker.
    return list(cast("Iterable[object]", notation)) if isinstance(notation, Iterable) else [notation]


def _unshown(_part: object) -> str:
    return "it"


def _read(text: str, show: _Show) -> RateLimitItem | str:
    """One limit, or what is wrong with it."""
    from limits.util import granularity_from_string

    match = _LIMIT(text)
    if match is None:
        return f"{show(text.strip())} is not a limit. {_EXAMPLES}"
    amount, multiples, granularity = match.groups()
    if max(len(amount), len(multiples or "")) > _MOST_DIGITS:
        return f"{show(f'{text.strip()[:_MOST_DIGITS]}...')} has a number of too many digits. {_EXAMPLES}"
    if multiples is not None and int(multiples) == 0:
        return f"{show(text.strip())} has a period of nothing. {_EXAMPLES}"
    try:
        item = granularity_from_string(granularity)
    except ValueError:
        return f"{show(text.strip())} has a period that is not known; use second, minute, hour, day, month or year."
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


def _out_of_bounds(items: list[RateLimitItem], show: _Show) -> list[str]:
    problems: list[str] = []
    seen: dict[int, RateLimitItem] = {}
    for item in items:
        period = item.get_expiry()
        if not 0 <= item.amount <= LARGEST_AMOUNT:
            problems.append(f"{show(limit_text(item))} has an amount out of 0 to {LARGEST_AMOUNT:,}.")
        if not 1 <= period <= LONGEST_PERIOD:
            problems.append(
                f"{show(limit_text(item))} has a period out of 1 second to {LONGEST_PERIOD // 86_400:,} days."
            )
        if period in seen:
            problems.append(f"{show(limits_text((seen[period], item)))} has one period twice; keep the smaller limit.")
        seen[period] = item
    return problems
