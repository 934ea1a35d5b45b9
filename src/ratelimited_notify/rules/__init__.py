"""What may be sent: rules as pure data and functions, with no I/O and no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.rules.annotations import LimitNotation as LimitNotation
    from ratelimited_notify.rules.rule import OnLimit as OnLimit, Rule as Rule
    from ratelimited_notify.rules.ruleset import RuleSet as RuleSet
else:  # a type checker would take every misspelt name for one that is found here
    __getattr__ = lazily(
        __name__,
        {
            "annotations": ("LimitNotation",),
            "rule": ("OnLimit", "Rule"),
            "ruleset": ("RuleSet",),
        },
    )

__all__ = [
    "LimitNotation",
    "OnLimit",
    "Rule",
    "RuleSet",
]
