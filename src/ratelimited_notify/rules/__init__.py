"""Rules: how many notifications may be sent. Pure data and functions, with no I/O and no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.rules.annotations import LimitNotation as LimitNotation
    from ratelimited_notify.rules.rule import OnLimit as OnLimit, Rule as Rule
    from ratelimited_notify.rules.ruleset import RuleSet as RuleSet
else:  # hidden from type checkers, which would accept every misspelt name because of it
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
