"""Rate limits for notifications: no recipient gets more than the rules allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily
from ratelimited_notify._version import __version__

if TYPE_CHECKING:
    from ratelimited_notify.decorator import configure, limiter_of, rate_limited
    from ratelimited_notify.errors import MissingExtra, NotifyError, Problem, RuleError, SendFailed, StorageError
    from ratelimited_notify.limiter import (
        AsyncLimiter,
        Decision,
        Limiter,
        OnStorageError,
        RateLimitExceeded,
        Refund,
        WindowState,
    )
    from ratelimited_notify.notification import Notification, Recipient
    from ratelimited_notify.notifier import AsyncNotifier, Delivery, Notifier, Status
    from ratelimited_notify.rules import LimitNotation, OnLimit, Rule, RuleSet
    from ratelimited_notify.sources import Rules
    from ratelimited_notify.storage import Circuit
else:  # hidden from type checkers, which would accept every misspelt name because of it
    # Lazy, so that importing the errors, for example, does not import the decorator.
    __getattr__ = lazily(
        __name__,
        {
            "decorator.configuration": ("configure",),
            "decorator.deciding": ("limiter_of",),
            "decorator.decorator": ("rate_limited",),
            "errors": ("MissingExtra", "NotifyError", "Problem", "RuleError", "SendFailed", "StorageError"),
            "limiter.aio": ("AsyncLimiter",),
            "limiter.decision": ("Decision",),
            "limiter.exceeded": ("RateLimitExceeded",),
            "limiter.options": ("OnStorageError",),
            "limiter.refund": ("Refund",),
            "limiter.sync": ("Limiter",),
            "limiter.window_state": ("WindowState",),
            "notification.notification": ("Notification",),
            "notification.annotations": ("Recipient",),
            "notifier.aio": ("AsyncNotifier",),
            "notifier.delivery": ("Delivery", "Status"),
            "notifier.sync": ("Notifier",),
            "rules.annotations": ("LimitNotation",),
            "rules.rule": ("OnLimit", "Rule"),
            "rules.ruleset": ("RuleSet",),
            "sources.annotations": ("Rules",),
            "storage.circuit": ("Circuit",),
        },
    )

__all__ = [
    "AsyncLimiter",
    "AsyncNotifier",
    "Circuit",
    "Decision",
    "Delivery",
    "LimitNotation",
    "Limiter",
    "MissingExtra",
    "Notification",
    "Notifier",
    "NotifyError",
    "OnLimit",
    "OnStorageError",
    "Problem",
    "RateLimitExceeded",
    "Recipient",
    "Refund",
    "Rule",
    "RuleError",
    "RuleSet",
    "Rules",
    "SendFailed",
    "Status",
    "StorageError",
    "WindowState",
    "__version__",
    "configure",
    "limiter_of",
    "rate_limited",
]


def __dir__() -> list[str]:
    return sorted(__all__)
