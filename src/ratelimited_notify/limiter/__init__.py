"""Limiters: they decide by rules and storage whether a notification may be sent, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.limiter.aio import AsyncLimiter as AsyncLimiter
    from ratelimited_notify.limiter.decision import Decision as Decision
    from ratelimited_notify.limiter.exceeded import RateLimitExceeded as RateLimitExceeded
    from ratelimited_notify.limiter.options import (
        LimiterOptions as LimiterOptions,
        OnStorageError as OnStorageError,
    )
    from ratelimited_notify.limiter.outcome import outcome_unknown as outcome_unknown
    from ratelimited_notify.limiter.refund import Refund as Refund
    from ratelimited_notify.limiter.sync import Limiter as Limiter
    from ratelimited_notify.limiter.tiers import TierOf as TierOf, TierOfFields as TierOfFields
    from ratelimited_notify.limiter.window_state import WindowState as WindowState
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "aio": ("AsyncLimiter",),
            "decision": ("Decision",),
            "exceeded": ("RateLimitExceeded",),
            "options": ("LimiterOptions", "OnStorageError"),
            "outcome": ("outcome_unknown",),
            "refund": ("Refund",),
            "sync": ("Limiter",),
            "tiers": ("TierOf", "TierOfFields"),
            "window_state": ("WindowState",),
        },
    )

__all__ = [
    "AsyncLimiter",
    "Decision",
    "Limiter",
    "LimiterOptions",
    "OnStorageError",
    "RateLimitExceeded",
    "Refund",
    "TierOf",
    "TierOfFields",
    "WindowState",
    "outcome_unknown",
]
