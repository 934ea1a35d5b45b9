"""Which rules apply to a notification, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.cli.report import shown
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.rules.glob import is_glob
from ratelimited_notify.rules.plans import check_fields
from ratelimited_notify.rules.rule import overridden_field
from ratelimited_notify.rules.wording import limits_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from limits import RateLimitItem

    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet


class Line(NamedTuple):
    """What is said about one rule."""

    cells: tuple[str, str, str, str]
    """The rule, its limit, what it counts by, and why it applies or does not."""
    applies: bool


def applying(
    rules: RuleSet, type: str, to: str | None, tier: str | None, priority: str | None, fields: Mapping[str, str]
) -> Iterator[Line]:
    """A line for each rule that matches the type, in the order in which they count.

    Arguments:
        rules: the rules.
        type: the type of the notification.
        to: the recipient in the form in which it is counted; None for any without an override.
        tier: the tier of the recipient.
        priority: the priority.
        fields: the fields of the notification.

    Raises:
        NotifyError: a field is not declared, or the type is empty.
    """
    if not type:
        raise NotifyError("The type is empty; it must be a name such as 'news'.")
    check_fields(fields, rules)
    values = {**fields, "type": type} | ({} if to is None else {"recipient": to})
    for rule in rules.matching(type):
        missing = [name for name in rule.by if name != "recipient" and name not in values]
        why = _why(rule, type, rules)
        limits, other = _limits(rule, values, tier)
        applies = bool(limits) and not missing
        if missing:
            why += f"; does not apply: the notification has no {' and no '.join(missing)}"
        elif other:
            why += f"; {other}"
        if not missing and priority is not None and priority in rule.exempt:
            why += f"; exempt, {'counted' if rule.count_exempt else 'not counted'}"
            applies = applies and rule.count_exempt
        if not rule.enforce:
            why += "; shadow mode: refuses nothing"
        if any(name not in values for name in rule.required if name != "recipient"):
            why += "; an error, because a required field is missing"
        yield Line((shown(rule.name), limits_text(limits), " and ".join(rule.by) or "nothing", why), applies)


def _why(rule: Rule, type: str, rules: RuleSet) -> str:
    if rule is rules.default:
        return "the default, because no other rule matches"
    if rule.type == type and not is_glob(type):
        return "is for this type"
    return "is for every type" if not rule.type.strip("*") else f"matches {shown(rule.type)}"


def _limits(rule: Rule, values: Mapping[str, str], tier: str | None) -> tuple[tuple[RateLimitItem, ...], str]:
    """The limits that apply, and what they are if they are not those that most have."""
    field = overridden_field(rule.by)
    value = None if field is None else values.get(field)
    if value is not None and value in rule.overrides:
        return rule.overrides[value], f"the override for this {field}"
    if tier is not None and tier in rule.tiers:
        return rule.tiers[tier], f"the tier {shown(tier)}"
    return rule.limits, ""
