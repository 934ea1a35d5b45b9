"""Notifications: what to send, and to which recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.notification.notification import Notification as Notification
    from ratelimited_notify.notification.recipient import Recipient as Recipient
else:  # hidden from type checkers, which would accept every misspelt name because of it
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
