"""Metrics and traces for OpenTelemetry. `instrument()` makes them, about what all limiters of the process decide.

`begin` begins and ends it. `watcher` takes the events, `metrics` counts them, `spans` puts a span around each delivery, and
`attributes` has the names and values of their attributes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily
from ratelimited_notify.errors import MissingExtra

try:
    # Said here once for all modules of this package.
    import_module("opentelemetry.metrics")
except ImportError:
    raise MissingExtra("otel", "ratelimited_notify.instrumentation.otel") from None

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation.otel.begin import instrument as instrument
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(__name__, {"begin": ("instrument",)})

__all__ = ["instrument"]
