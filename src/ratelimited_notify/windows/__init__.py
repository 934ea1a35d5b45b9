"""What a window is and how it counts (pure arithmetic), and the keys under which windows are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.windows.strategies import (
        Mode as Mode,
        Reading as Reading,
        Request as Request,
        StrategyName as StrategyName,
        Token as Token,
        Verdict as Verdict,
        Window as Window,
    )
else:  # with `__getattr__` in sight, a type checker would accept every misspelt name
    __getattr__ = lazily(
        __name__,
        {
            "strategies": ("Mode", "Reading", "Request", "StrategyName", "Token", "Verdict", "Window"),
        },
    )

__all__ = [
    "Mode",
    "Reading",
    "Request",
    "StrategyName",
    "Token",
    "Verdict",
    "Window",
]
