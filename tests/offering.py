"""Sources of rules that offer what a test says."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ratelimited_notify.sources import RuleSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify import Limiter

WITHIN = 20.0
"""Seconds, on a machine with little to run it on. It takes an interval."""
SOON = 0.02


class Offered(RuleSource):
    """A source that offers what the test says: a document, or something to raise."""

    def __init__(self, offer: Any = None, **options: Any) -> None:
        super().__init__(**{"interval": SOON, **options})
        self.offer = offer
        self.version = 0
        self.loads: list[str | None] = []
        self.closed = 0

    def say(self, offer: Any) -> None:
        self.offer = offer
        self.version += 1

    def load(self, known: str | None) -> Any:
        self.loads.append(known)
        if isinstance(self.offer, BaseException):
            raise self.offer
        if callable(self.offer):
            return self.offer()
        return None if known == str(self.version) else (str(self.version), self.offer)

    def close(self) -> None:
        self.closed += 1


def limits(**limits: str) -> dict[str, Any]:
    """A document."""
    return {"rules": [{"type": type, "limit": limit} for type, limit in limits.items()]}


def until(true: Callable[[], object], within: float = WITHIN) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.005)


def amount(limiter: Limiter) -> int:
    """What a limiter allows for news."""
    (window,) = limiter.windows("news", "nobody")
    return window.item.amount


def threads() -> int:
    """How many threads keep rules up to date."""
    return sum(thread.name == "ratelimited-notify rules" for thread in threading.enumerate())
