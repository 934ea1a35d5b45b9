"""What is to be sent, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.notification.notification import Notification as Notification
    from ratelimited_notify.notification.recipient import Recipient as Recipient
else:  # a type checker would take every misspelt name for one that is found here
    __getattr__ = lazily(
        __name__,
        {
            "notification": ("Notification",),
            "recipient": ("Recipient",),
        },
    )

__all__ = [
    "Notification",
    "Recipient",
]
