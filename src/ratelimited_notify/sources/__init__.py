"""Where rules come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.sources.annotations import Rules as Rules
    from ratelimited_notify.sources.load import rules_from as rules_from
else:  # a type checker would take every misspelt name for one that is found here
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
