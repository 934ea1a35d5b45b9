"""Print a rules file as a table: the limits of each rule, the fields that it counts by, and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ratelimited_notify.cli.report import say, show, shown, table
from ratelimited_notify.rules.rule import FIELDS
from ratelimited_notify.rules.wording import limits_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet


_NOTHING = "nothing: one window for all"


def show_rules(screen: Console, rules: RuleSet, title: str = "Rules") -> None:
    """Print the rules as a table, including the default."""
    if not len(rules) and rules.default is None:
        say(screen, "There are no rules.", "yellow")
    made = table(title, "rule", "type", "limit", "counted by", "options")
    for rule in rules:
        made.add_row(*map(Text, _cells(rule)))
    if rules.default is not None:
        name, _, *cells = _cells(rules.default)
        made.add_row(*map(Text, (name, "(any other)", *cells)))
    elif not any(rule.is_for_every_type for rule in rules):
        made.add_row("", "(any other)", "", "", "an error" if rules.unknown_type == "raise" else "sent, with a warning")
    show(screen, made)
    declared = sorted(rules.fields.difference(FIELDS))
    if declared:
        say(screen, f"Declared fields: {', '.join(declared)}")


def _cells(rule: Rule) -> tuple[str, str, str, str, str]:
    limits = limits_text(rule.limits)
    return shown(rule.name), shown(rule.type), limits, " and ".join(rule.by) or _NOTHING, "; ".join(_options(rule))


def _options(rule: Rule) -> Iterator[str]:
    if not rule.enforce:
        yield "shadow mode"
    if rule.strategy != "moving-window":
        yield rule.strategy
    if rule.exempt:
        counted = "" if rule.count_exempt else ", uncounted"
        yield f"exempt{counted}: {', '.join(map(shown, sorted(rule.exempt)))}"
    if rule.required:
        yield f"required: {', '.join(rule.required)}"
    if rule.on_limit is not None:
        yield f"over the limit: {rule.on_limit}"
    for number, one in ((len(rule.overrides), "override"), (len(rule.tiers), "tier")):
        if number:
            yield f"{number} {one}{'' if number == 1 else 's'}"
