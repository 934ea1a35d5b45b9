"""Limits on functions that send: `@rate_limited`, and `configure` for the whole process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.decorator.configuration import Configured as Configured, configure as configure
    from ratelimited_notify.decorator.deciding import limiter_of as limiter_of
    from ratelimited_notify.decorator.decorator import rate_limited as rate_limited
    from ratelimited_notify.decorator.signatures import (
        DroppingDecorator as DroppingDecorator,
        RaisingDecorator as RaisingDecorator,
    )
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "configuration": ("Configured", "configure"),
            "deciding": ("limiter_of",),
            "decorator": ("rate_limited",),
            "signatures": ("DroppingDecorator", "RaisingDecorator"),
        },
    )

__all__ = [
    "Configured",
    "DroppingDecorator",
    "RaisingDecorator",
    "configure",
    "limiter_of",
    "rate_limited",
]
