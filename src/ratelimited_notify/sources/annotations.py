"""Types for annotations. This module imports `limits`, so only the `__init__` modules import it, and only when you use a name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ratelimited_notify.rules.annotations import LimitNotation
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet

Rules: TypeAlias = (
    RuleSet | Mapping[str, LimitNotation] | Iterable[Rule | Mapping[str, object]] | str | os.PathLike[str]
)
"""The rules of a limiter: a rule set, a mapping from type to limit, several rules, or the path of a TOML file.

Each of several rules is a `Rule`, or a dict with the arguments of `Rule`.
"""
