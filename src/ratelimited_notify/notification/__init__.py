"""Notifications: what to send, and to which recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.notification.annotations import Recipient as Recipient
    from ratelimited_notify.notification.notification import Notification as Notification
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "notification": ("Notification",),
            "annotations": ("Recipient",),
        },
    )

__all__ = [
    "Notification",
    "Recipient",
]
