"""Sources of rules: mappings, lists of rules, and TOML files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.sources.annotations import Rules as Rules
    from ratelimited_notify.sources.load import rules_from as rules_from
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "annotations": ("Rules",),
            "load": ("rules_from",),
        },
    )

__all__ = [
    "Rules",
    "rules_from",
]
