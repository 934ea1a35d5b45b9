"""What `rules check` and `rules push` say about rules that can be used. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify.rules.ruleset import RuleSet


def doubts(rules: RuleSet) -> list[Problem]:
    """What is hardly meant as it is written."""
    if rules.rules or rules.default is not None:
        return list(rules.warnings)
    said = (
        "There are no rules, so nothing is limited. A program that reads them from a source keeps the rules that it has, unless "
        "it passes allow_empty=True."
    )
    return [Problem("", said)]


def needs(rules: RuleSet) -> Iterator[Problem]:
    """What the rules need of the program that goes by them. It refuses the rules as a whole if it does not have that."""
    for index, rule in enumerate(rules):
        if rule.tiers:
            yield Problem(f"rules[{index}].tiers", "need tier_of= on the limiter of the program.")
        if rule.on_limit == "wait":
            yield Problem(f"rules[{index}].on_limit", "needs max_wait= on the notifier, or on the decorated function.")
