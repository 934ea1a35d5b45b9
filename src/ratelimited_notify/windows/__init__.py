"""What a window is and how it counts: pure arithmetic, and the keys under which windows are kept."""

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
else:  # a type checker would take every misspelt name for one that is found here
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
