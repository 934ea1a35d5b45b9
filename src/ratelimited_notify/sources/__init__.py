"""Where rules come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.sources.load import Rules as Rules, rules_from as rules_from
else:  # a type checker would take every misspelt name for one that is found here
    __getattr__ = lazily(
        __name__,
        {
            "load": ("Rules", "rules_from"),
        },
    )

__all__ = [
    "Rules",
    "rules_from",
]
