"""What users annotate with. It loads `limits`, so only the faces import it, and they do so when somebody asks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ratelimited_notify.rules.annotations import LimitNotation
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet

Rules: TypeAlias = RuleSet | Mapping[str, LimitNotation] | Iterable[Rule] | str | os.PathLike[str]
"""What a limiter takes as rules: a rule set, a mapping from type to limit, rules, or the path of a TOML file."""
