"""Sources of rules: what is read once, and what is kept up to date while the program runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.sources.annotations import FixedRules as FixedRules, Rules as Rules
    from ratelimited_notify.sources.base import Loaded as Loaded, RuleSource as RuleSource
    from ratelimited_notify.sources.file import FileRules as FileRules
    from ratelimited_notify.sources.function import FunctionRules as FunctionRules
    from ratelimited_notify.sources.live import LiveRules as LiveRules
    from ratelimited_notify.sources.load import rules_from as rules_from
    from ratelimited_notify.sources.redis import RedisRules as RedisRules
    from ratelimited_notify.sources.sql.source import SQLRules as SQLRules
    from ratelimited_notify.sources.status import SourceStatus as SourceStatus
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "annotations": ("FixedRules", "Rules"),
            "base": ("Loaded", "RuleSource"),
            "file": ("FileRules",),
            "function": ("FunctionRules",),
            "live": ("LiveRules",),
            "load": ("rules_from",),
            "redis": ("RedisRules",),
            "sql.source": ("SQLRules",),
            "status": ("SourceStatus",),
        },
    )

__all__ = [
    "FileRules",
    "FixedRules",
    "FunctionRules",
    "LiveRules",
    "Loaded",
    "RedisRules",
    "RuleSource",
    "Rules",
    "SQLRules",
    "SourceStatus",
    "rules_from",
]
