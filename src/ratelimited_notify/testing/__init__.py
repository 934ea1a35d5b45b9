"""For your own tests, with any test runner: a clock to move, fresh limits, no limits, outboxes, a mixin for unittest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.testing.case import NotifyTestMixin as NotifyTestMixin
    from ratelimited_notify.testing.clock import Clock as Clock
    from ratelimited_notify.testing.limits import (
        Limits as Limits,
        disabled_limits as disabled_limits,
        isolated_limits as isolated_limits,
    )
    from ratelimited_notify.testing.outbox import AsyncOutbox as AsyncOutbox, Outbox as Outbox, Sent as Sent
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "case": ("NotifyTestMixin",),
            "clock": ("Clock",),
            "limits": ("Limits", "disabled_limits", "isolated_limits"),
            "outbox": ("AsyncOutbox", "Outbox", "Sent"),
        },
    )

__all__ = [
    "AsyncOutbox",
    "Clock",
    "Limits",
    "NotifyTestMixin",
    "Outbox",
    "Sent",
    "disabled_limits",
    "isolated_limits",
]
