"""Limits on functions that send: `@rate_limited`, and `configure` for the whole process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.decorator.configuration import configure as configure
    from ratelimited_notify.decorator.decorator import (
        DroppingDecorator as DroppingDecorator,
        RaisingDecorator as RaisingDecorator,
        rate_limited as rate_limited,
    )
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "configuration": ("configure",),
            "decorator": ("DroppingDecorator", "RaisingDecorator", "rate_limited"),
        },
    )

__all__ = [
    "DroppingDecorator",
    "RaisingDecorator",
    "configure",
    "rate_limited",
]
