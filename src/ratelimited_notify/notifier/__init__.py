"""Notifiers: they put a limiter in front of a gateway, so that only what the rules allow is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.notifier.aio import AsyncNotifier as AsyncNotifier
    from ratelimited_notify.notifier.delivery import Delivery as Delivery, Status as Status
    from ratelimited_notify.notifier.sync import Notifier as Notifier
else:  # hidden from type checkers, which would accept every misspelt name because of it
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
