"""See what limiters decide and what became of the messages: events, and the tools that they are shown in.

from ratelimited_notify.instrumentation import watch

handle = watch(print)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation.events import (
        CircuitClosed as CircuitClosed,
        CircuitOpened as CircuitOpened,
        Decided as Decided,
        Delivered as Delivered,
        Event as Event,
        Released as Released,
        RulesChanged as RulesChanged,
        RulesRejected as RulesRejected,
        StorageFailed as StorageFailed,
        UnknownType as UnknownType,
        Waited as Waited,
    )
    from ratelimited_notify.instrumentation.watcher import Handle as Handle, watch as watch
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "events": (
                "CircuitClosed",
                "CircuitOpened",
                "Decided",
                "Delivered",
                "Event",
                "Released",
                "RulesChanged",
                "RulesRejected",
                "StorageFailed",
                "UnknownType",
                "Waited",
            ),
            "watcher": ("Handle", "watch"),
        },
    )

__all__ = [
    "CircuitClosed",
    "CircuitOpened",
    "Decided",
    "Delivered",
    "Event",
    "Handle",
    "Released",
    "RulesChanged",
    "RulesRejected",
    "StorageFailed",
    "UnknownType",
    "Waited",
    "watch",
]
