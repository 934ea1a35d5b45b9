"""Rate limits for notifications: no recipient gets more than the rules allow."""

from __future__ import annotations

from ratelimited_notify._version import __version__
from ratelimited_notify.configuration import configure
from ratelimited_notify.decision import Decision, WindowState
from ratelimited_notify.decorator import rate_limited
from ratelimited_notify.delivery import Delivery, Status
from ratelimited_notify.errors import (
    MissingExtra,
    NotifyError,
    RateLimitExceeded,
    RuleError,
    StorageError,
)
from ratelimited_notify.limiter import AsyncLimiter, Limiter
from ratelimited_notify.notification import Notification
from ratelimited_notify.notifier import AsyncNotifier, Notifier
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet

__all__ = [
    "AsyncLimiter",
    "AsyncNotifier",
    "Decision",
    "Delivery",
    "Limiter",
    "MissingExtra",
    "Notification",
    "Notifier",
    "NotifyError",
    "RateLimitExceeded",
    "Rule",
    "RuleError",
    "RuleSet",
    "Status",
    "StorageError",
    "WindowState",
    "__version__",
    "configure",
    "rate_limited",
]
