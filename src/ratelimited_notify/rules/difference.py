"""What has changed between two rule sets, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.rules.wording import limits_text, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from limits import RateLimitItem

    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet

    _Limits = tuple[RateLimitItem, ...]

_KEPT = "counts kept"
_SOME_KEPT = "counts kept where the period is the same"
_ANEW = "counting starts anew"


def differences(before: RuleSet, after: RuleSet) -> Iterator[str]:
    """What has changed, a line for each rule: `news: 1 per day -> 2 per day, counts kept`.

    Rules are compared by their names, to which their counts belong. Recipients with an override are not shown, only how many of
    them have changed.
    """
    old, new = _by_name(before), _by_name(after)
    for name in dict.fromkeys((*old, *new)):
        for change in _of_one_name(old.get(name, []), new.get(name, [])):
            yield f"{quoted(name)[1:-1]}: {change}"
    if _limits_of(before.default) != _limits_of(after.default):
        yield f"default: {_text(before.default)} -> {_text(after.default)}"
    for what, names in (("added", after.fields - before.fields), ("removed", before.fields - after.fields)):
        if names:
            yield f"fields {what}: {', '.join(sorted(names))}"
    if before.unknown_type != after.unknown_type:
        yield f"unknown_type: {before.unknown_type} -> {after.unknown_type}"
    order, other = [rule.name for rule in before], [rule.name for rule in after]
    if order != other and sorted(order) == sorted(other):
        yield "the order of the rules has changed"


def _of_one_name(before: list[Rule], after: list[Rule]) -> Iterator[str]:
    if len(before) == len(after) == 1:
        changes = "; ".join(_changes(before[0], after[0]))
        if changes:
            yield changes
        return
    # Rules that share a name differ in their types, or in what they count by.
    old, new = ({(rule.type, rule.by): rule for rule in rules} for rules in (before, after))
    if max(len(before), len(after)) == 1 or len(old) < len(before) or len(new) < len(after):
        yield from (f"removed ({limits_text(rule.limits)})" for rule in before if rule not in after)
        yield from (f"added ({limits_text(rule.limits)})" for rule in after if rule not in before)
        return
    for key in dict.fromkeys((*old, *new)):
        one, other = old.get(key), new.get(key)
        what = f"the rule for {quoted(key[0])} by {' and '.join(key[1]) or 'nothing'}"
        if one is None or other is None:
            rule = one or other
            how = "added" if one is None else "removed"
            yield f"{what} {how} ({limits_text(rule.limits) if rule else ''})"
            continue
        changes = "; ".join(_changes(one, other))
        if changes:
            yield f"{what}: {changes}"


def _by_name(rules: RuleSet) -> dict[str, list[Rule]]:
    by_name: dict[str, list[Rule]] = {}
    for rule in rules:
        by_name.setdefault(rule.name, []).append(rule)
    return by_name


def _changes(before: Rule, after: Rule) -> Iterator[str]:
    anew = [
        what
        for what, changed in (
            ("strategy", before.strategy != after.strategy),
            ("by", set(before.by) != set(after.by)),
        )
        if changed
    ]
    if before.type != after.type:
        yield f"type: {quoted(before.type)[1:-1]} -> {quoted(after.type)[1:-1]}"
    if before.limits != after.limits:
        counts = _ANEW if anew else _counts(_periods(before.limits), _periods(after.limits))
        yield f"{limits_text(before.limits)} -> {limits_text(after.limits)}, {counts}"
    if anew:
        for what in anew:
            yield f"{what}: {_shown(getattr(before, what))} -> {_shown(getattr(after, what))}"
        if before.limits == after.limits:
            yield _ANEW
    for what, earlier, later in (
        ("overrides", before.overrides, after.overrides),
        ("tiers", before.tiers, after.tiers),
    ):
        if earlier != later:
            yield f"{what}: {_numbers(earlier, later)}"
    for what in ("on_limit", "exempt", "count_exempt", "enforce", "required"):
        if getattr(before, what) != getattr(after, what):
            yield f"{what}: {_shown(getattr(before, what))} -> {_shown(getattr(after, what))}"


def _numbers(before: Mapping[str, _Limits], after: Mapping[str, _Limits]) -> str:
    added, removed = len(after.keys() - before.keys()), len(before.keys() - after.keys())
    changed = sum(before[each] != after[each] for each in before.keys() & after.keys())
    counted = ((added, "added"), (removed, "removed"), (changed, "changed"))
    return ", ".join(f"{number} {what}" for number, what in counted if number)


def _counts(before: set[int], after: set[int]) -> str:
    if after <= before:
        return _KEPT
    return _SOME_KEPT if after & before else _ANEW


def _periods(limits: _Limits) -> set[int]:
    return {item.get_expiry() for item in limits}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " and ".join(map(str, value)) or "nothing"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # texts
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value))) or "none"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  # texts
    return str(value)


def _limits_of(rule: Rule | None) -> _Limits | None:
    return None if rule is None else rule.limits


def _text(rule: Rule | None) -> str:
    return "none" if rule is None else limits_text(rule.limits)
