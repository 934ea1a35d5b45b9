"""Read the overrides of a rule as they are written: fast if nothing is wrong with them, otherwise one by one, for the messages."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.errors import NotifyError, Problem, RuleError
from ratelimited_notify.notification.recipient import text_of
from ratelimited_notify.rules.doubt import is_suspicious, wrong_override
from ratelimited_notify.rules.limit import limits_at, limits_of, pairs
from ratelimited_notify.rules.overrides import Overrides

if TYPE_CHECKING:
    from limits import RateLimitItem

    from ratelimited_notify.notification.annotations import Recipient

    Limits: TypeAlias = tuple[RateLimitItem, ...]

SINGLE = "but an override is for a single {}. Write one for each, or a tier, and let tier_of= say who is in it."
"""The advice for a recipient that is a pattern."""

_AT_ONCE = 10_000
"""Other threads can run after so many."""

_FEW = 8
_SHORT = 200
_MOST_REMEMBERED = 1024
"""So many combinations of a few short texts of limits are remembered with what they mean."""

_TEXTS = {str}
_TEXTS_OR_NONE = {str, type(None)}


def overrides_of(given: object, field: str, problems: list[Problem]) -> Overrides:
    """Read the overrides of a rule.

    Arguments:
        given: what was passed as `overrides`.
        field: the field whose values they are for.
        problems: a list to which problems are added.
    """
    sound = _sound(given)
    if sound is not None:
        return sound
    # Messages show no address. So places are numbers instead of recipients, and limits are not quoted either: key and
    # value may have been swapped.
    read: dict[str, Limits] = {}
    for index, (recipient, notation) in enumerate(pairs("overrides", given, problems)):
        place = f"overrides[{index}]"
        try:
            text = text_of(cast("Recipient", recipient), field)
        except (TypeError, NotifyError) as error:
            problems.append(Problem(place, str(error)))
            continue
        if wrong_override(text):
            problems.append(Problem(place, f"is a pattern, {SINGLE.format(field)}"))
        if text in read:
            problems.append(Problem(place, f"is a second override for the same {field}."))
        read[text] = limits_at(place, notation, problems, shown=False)
    return Overrides.of(read)


def _sound(given: object) -> Overrides | None:
    """What `overrides_of` returns for texts without problems, faster. None for all others."""
    if given.__class__ is not dict:
        return None
    # Whether they are texts is seen next.
    notations = cast("dict[str, str | None]", given)
    if not _TEXTS.issuperset(map(type, notations)) or not _TEXTS_OR_NONE.issuperset(map(type, notations.values())):
        return None
    suspicious = is_suspicious(notations)
    if "" in notations or (suspicious and any(map(wrong_override, notations))):
        return None
    distinct = tuple(dict.fromkeys(notations.values()))
    few = len(distinct) <= _FEW and sum(map(len, filter(None, distinct))) <= _SHORT
    try:
        numbering, kinds = (_remembered if few else _kinds)(distinct)
    except RuleError:
        return None
    numbered = zip(notations, map(numbering.__getitem__, notations.values()), strict=True)
    numbers = dict(islice(numbered, _AT_ONCE))
    while len(numbers) < len(notations):
        numbers.update(islice(numbered, _AT_ONCE))
    return Overrides(numbers, kinds, suspicious)


def _kinds(notations: tuple[str | None, ...]) -> tuple[dict[str | None, int], tuple[Limits, ...]]:
    """The position of the limits of each notation, and the limits."""
    kinds = tuple(limits_of(notation, shown=False) for notation in notations)
    return {notation: number for number, notation in enumerate(notations)}, kinds


_remembered = lru_cache(maxsize=_MOST_REMEMBERED)(_kinds)
