"""Where rules come from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.rules.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratelimited_notify.rules.limit import LimitNotation
    from ratelimited_notify.rules.rule import Rule

Rules: TypeAlias = "RuleSet | Mapping[str, LimitNotation] | Iterable[Rule] | str | os.PathLike[str]"
"""What a limiter takes as rules: a rule set, a mapping from type to limit, rules, or the path of a TOML file."""


def rules_from(rules: Rules | None) -> RuleSet:
    """The rule set that is meant; an empty one for None.

    Raises:
        RuleError: something in it cannot be used; all problems are named, each with its place.
    """
    if isinstance(rules, RuleSet):
        return rules
    if rules is None:
        return RuleSet()
    if isinstance(rules, (str, os.PathLike)):
        from ratelimited_notify.sources.file import read_rules

        return read_rules(rules)
    return RuleSet(rules)
