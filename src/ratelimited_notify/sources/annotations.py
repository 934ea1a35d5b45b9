"""Types for annotations. This module imports `limits`, so only the `__init__` modules import it, and only when you use a name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ratelimited_notify.rules.annotations import LimitNotation
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet
from ratelimited_notify.sources.base import RuleSource

FixedRules: TypeAlias = (
    RuleSet | Mapping[str, LimitNotation] | Iterable[Rule | Mapping[str, object]] | str | os.PathLike[str]
)
"""Rules that do not change by themselves: a rule set, a mapping from type to limit, several rules, or the path of a file.

Each of several rules is a `Rule`, or a dict with the arguments of `Rule`.
"""

Rules: TypeAlias = FixedRules | RuleSource
"""The rules of a limiter: `FixedRules`, or a source of rules that change while the program runs. A text with a scheme, such as
`"file:rules.toml"`, is a source, too.
"""
