"""Takes the events for OpenTelemetry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ratelimited_notify.instrumentation.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.instrumentation.events import Event
    from ratelimited_notify.instrumentation.otel.metrics import Metrics
    from ratelimited_notify.instrumentation.otel.spans import DeliverySpan, Spans


class Telemetry(Watcher):
    """Counts events, and puts a span around each delivery.

    Arguments:
        metrics: counts events; None counts none.
        spans: makes spans; None makes none.
    """

    names_rules = False

    def __init__(self, metrics: Metrics | None, spans: Spans | None) -> None:
        super().__init__(_ignored if metrics is None else metrics.count)
        self.times_decisions = self.times_deliveries = metrics is not None
        self.surrounds = spans is not None
        self._metrics = metrics
        self._spans = spans

    def prepared(self, event: Event) -> Callable[[], object]:
        """A function that counts this event."""
        found = None if self._metrics is None else self._metrics.prepared(event)
        return partial(self.tell, event) if found is None else found

    def _what(self) -> str:
        return "What counts and traces for OpenTelemetry"

    def surround(self, type: object) -> DeliverySpan | None:
        """The span of a delivery."""
        return None if self._spans is None else self._spans.around(type)


def _ignored(event: Event) -> None:
    """There are no metrics."""
