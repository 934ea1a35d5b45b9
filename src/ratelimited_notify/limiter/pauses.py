"""Which window is the pause of a rule, and for how long it may be paused. Nothing here asks the storage."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, is_name, type_text
from ratelimited_notify.notification.recipient import text_of
from ratelimited_notify.rules.counter import can_be_paused, pause_of
from ratelimited_notify.windows.strategies import MICROSECONDS, Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plans import Plans
    from ratelimited_notify.rules.rule import Rule

LONGEST = 366 * 24 * 3600
"""Seconds. A longer pause is most likely one in another unit."""


def duration_of(seconds: object) -> int:
    """The seconds of a pause in microseconds, rounded up.

    Raises:
        TypeError: they are not a number.
        NotifyError: they are not above 0 and at most 366 days.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(
            f"The seconds of a pause must be a number, not a {type(seconds).__name__}. "
            "Write limiter.pause('provider', 30), or delay.total_seconds() for a timedelta."
        )
    # NaN is not above 0 either, and no number is converted: an int may be too large for that.
    if not 0 < seconds <= LONGEST:
        raise NotifyError(
            f"The seconds of a pause must be above 0 and at most {LONGEST:,}, which is 366 days. "
            "To end a pause, call limiter.resume()."
        )
    return ceil(seconds * MICROSECONDS)


def pause_window(
    plans: Plans, namespace: str, rule: object, fields: Mapping[str, Recipient | None]
) -> tuple[Counter, str]:
    """The window of a rule's pause, and its key.

    Arguments:
        plans: the plans of the rules in force.
        namespace: the first part of every key.
        rule: the name of the rule.
        fields: the values of the fields that the rule counts by, as the caller passed them.

    Raises:
        TypeError: the name is not a string, or a value is not a `str`, `int` or `UUID`.
        NotifyError: there is no such rule, it counts by recipient, or a field is missing, or one too many.
    """
    if not isinstance(rule, str):
        raise TypeError(
            f"A pause is for a rule by its name, which is a string such as 'sms provider', not a {type(rule).__name__}."
        )
    found = _named(plans, rule)
    values = _values(found, {name: value for name, value in fields.items() if value is not None})
    window = pause_of(namespace, found[0], Mode.ENFORCE)
    return window, window.key([values[name] for name in window.by])


def _named(plans: Plans, name: str) -> list[Rule]:
    """The rules with this name, which have one pause together."""
    rules = plans.named(name)
    usable = [rule for rule in rules if can_be_paused(rule)]
    if len({rule.by for rule in usable}) > 1:
        raise NotifyError(
            f"Several rules are called {type_text(name)}, and count by different fields. Give each a name= of its own."
        )
    if usable:
        return usable
    if rules:
        raise NotifyError(
            f"The rule {type_text(name)} counts by recipient, so it cannot be paused: a pause is for everybody. "
            "Pause a rule that does not count by recipient, such as Rule('sms', None, by=(), name='provider')."
        )
    others = list(dict.fromkeys(repr(rule.name) for rule in plans.rules if can_be_paused(rule)))[:10]
    advice = (
        f"Rules that can be paused: {', '.join(others)}."
        if others
        else "A rule that can be paused does not count by recipient: Rule('sms', None, by=(), name='provider')."
    )
    raise NotifyError(f"There is no rule called {type_text(name)}. {advice}")


def _values(rules: Sequence[Rule], given: Mapping[str, Recipient]) -> dict[str, str]:
    """The values of the fields that these rules count by."""
    rule, types = rules[0], {rule.type for rule in rules}
    counted = f"The rule {rule.name!r} counts by {_listed(rule.by) or 'no field'}"
    surplus = [name for name in given if name not in rule.by]
    if surplus:
        # What does not look like a name may be a recipient.
        names = [name if is_name(name) else "a name that is not shown" for name in surplus]
        lacking = [f"{name}=" for name in rule.by if name not in given and name != "type"]
        needed = f", so a pause needs {_listed(lacking)}" if lacking else ""
        raise NotifyError(f"{counted}{needed}. Leave out {_listed(names)}.")
    values = {name: text_of(value, name) for name, value in given.items()}
    if "type" in rule.by and "type" not in values and len(types) == 1 and not set(rule.type) & set("*?["):
        values["type"] = rule.type
    missing = [name for name in rule.by if name not in values]
    if missing:
        raise NotifyError(f"{counted}, so a pause needs {_listed([f'{name}=' for name in missing])}.")
    if "type" in rule.by and not any(each.matches(values["type"]) for each in rules):
        shown = " and ".join(map(repr, sorted(types)))
        raise NotifyError(f"The rule {rule.name!r} is for {shown}, and not for {type_text(values['type'])}.")
    return values


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
