"""Limiter times gateway: notifications are sent as far as the rules allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.notifier.aio import AsyncNotifier as AsyncNotifier
    from ratelimited_notify.notifier.delivery import Delivery as Delivery, Status as Status
    from ratelimited_notify.notifier.sync import Notifier as Notifier
else:  # a type checker would take every misspelt name for one that is found here
    __getattr__ = lazily(
        __name__,
        {
            "aio": ("AsyncNotifier",),
            "delivery": ("Delivery", "Status"),
            "sync": ("Notifier",),
        },
    )

__all__ = [
    "AsyncNotifier",
    "Delivery",
    "Notifier",
    "Status",
]
