"""Metrics for Prometheus. `instrument()` makes them, and counts what all limiters of the process decide.

`begin` begins and ends the counting. `counting` counts events, `metrics` are the metrics. `locks` keeps locks from blocking a sender.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily
from ratelimited_notify.errors import MissingExtra

try:
    # Said here once for all modules of this package.
    import_module("prometheus_client")
except ImportError:
    raise MissingExtra("prometheus", "ratelimited_notify.instrumentation.prometheus") from None

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation.prometheus.begin import instrument as instrument
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(__name__, {"begin": ("instrument",)})

__all__ = ["instrument"]
