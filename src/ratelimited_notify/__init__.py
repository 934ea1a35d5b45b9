"""Rate limits for notifications: no recipient gets more than the rules allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._version import __version__

if TYPE_CHECKING:
    from ratelimited_notify.circuit import Circuit
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
    "Circuit",
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

# Each name is loaded when it is first used (PEP 562): who needs the errors does not pay for the decorator.
_MODULES = {
    "circuit": ("Circuit",),
    "configuration": ("configure",),
    "decision": ("Decision", "WindowState"),
    "decorator": ("rate_limited",),
    "delivery": ("Delivery", "Status"),
    "errors": ("MissingExtra", "NotifyError", "RateLimitExceeded", "RuleError", "StorageError"),
    "limiter": ("AsyncLimiter", "Limiter"),
    "notification": ("Notification",),
    "notifier": ("AsyncNotifier", "Notifier"),
    "rules.rule": ("Rule",),
    "rules.ruleset": ("RuleSet",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that is found here

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
