"""The metrics, in the shape of those that the semantic conventions have for rate limiting (`aspnetcore.rate_limiting`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ratelimited_notify.instrumentation.events import (
    CircuitClosed,
    CircuitOpened,
    Decided,
    Delivered,
    RulesChanged,
    RulesRejected,
    StorageFailed,
    Waited,
)
from ratelimited_notify.instrumentation.otel.attributes import (
    BACKEND,
    ERROR_TYPE,
    POLICY,
    SERVER,
    VERDICT,
    Values,
    shown_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Meter

    from ratelimited_notify.instrumentation.events import Event

_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds: those that the conventions advise."""

_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *_BOUNDARIES)
"""The same for what mostly takes less than a millisecond."""


class Metrics:
    """Counts events.

    Arguments:
        meter: makes the instruments.
    """

    def __init__(self, meter: Meter) -> None:
        self._values = Values()
        self._open: dict[str, None] = {}
        self._decisions = meter.create_counter(
            "ratelimited_notify.decisions",
            "{decision}",
            "Number of notifications that a limiter decided about.",
        )
        self._decision_duration = meter.create_histogram(
            "ratelimited_notify.decision.duration",
            "s",
            "How long the storage took for a decision.",
            explicit_bucket_boundaries_advisory=_SHORT,
        )
        self._deliveries = meter.create_counter(
            "ratelimited_notify.deliveries",
            "{delivery}",
            "Number of notifications, by what became of them.",
        )
        self._delivery_duration = meter.create_histogram(
            "ratelimited_notify.delivery.duration",
            "s",
            "How long the gateway or the function took.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._wait_duration = meter.create_histogram(
            "ratelimited_notify.wait.duration",
            "s",
            "How long a notification waited for its turn.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )
        self._storage_errors = meter.create_counter(
            "ratelimited_notify.storage.errors", "{error}", "Number of failures of the storage."
        )
        self._circuits_open = meter.create_up_down_counter(
            "ratelimited_notify.circuits.open", "{circuit}", "Number of servers that are not asked at the moment."
        )
        self._rules_changes = meter.create_counter(
            "ratelimited_notify.rules.changes", "{change}", "Number of times that a limiter took other rules."
        )
        self._rules_rejections = meter.create_counter(
            "ratelimited_notify.rules.rejections",
            "{rejection}",
            "Number of times that a source failed, or had rules that cannot be used.",
        )
        self._counts: dict[type[Event], Callable[..., object]] = {
            CircuitClosed: self._circuit_closed,
            CircuitOpened: self._circuit_opened,
            Decided: self._decided,
            Delivered: self._delivered,
            RulesChanged: self._rules_changed,
            RulesRejected: self._rules_rejected,
            StorageFailed: self._storage_failed,
            Waited: self._waited,
        }

    def count(self, event: Event) -> None:
        """Count an event."""
        count = self._counts.get(event.__class__)
        if count is not None:
            count(event)

    def prepared(self, event: Event) -> Callable[[], object] | None:
        """A function that counts this event, which happens often; None if `count` has to."""
        if isinstance(event, Decided) and event.seconds is None:
            return partial(self._decisions.add, 1, self._values.decided(event))
        if isinstance(event, Delivered) and event.seconds is None:
            return partial(self._deliveries.add, 1, self._values.delivered(event))
        return None

    def _decided(self, event: Decided) -> None:
        self._decisions.add(1, self._values.decided(event))
        if event.seconds is not None:
            self._decision_duration.record(event.seconds, {BACKEND: event.backend})

    def _delivered(self, event: Delivered) -> None:
        attributes = self._values.delivered(event)
        self._deliveries.add(1, attributes)
        if event.seconds is not None:
            self._delivery_duration.record(event.seconds, attributes)

    def _waited(self, event: Waited) -> None:
        verdict = "allowed" if event.allowed else "refused"
        self._wait_duration.record(event.seconds, {**self._values.type(event.type), VERDICT: verdict})

    def _storage_failed(self, event: StorageFailed) -> None:
        self._storage_errors.add(
            1,
            {BACKEND: event.backend, POLICY: shown_policy(event.policy), ERROR_TYPE: self._values.error(event.error)},
        )

    def _circuit_opened(self, event: CircuitOpened) -> None:
        mine: dict[str, None] = {event.server: None}
        if event.server not in self._open:
            self._open.update(mine)
            self._circuits_open.add(1, {SERVER: event.server})

    def _circuit_closed(self, event: CircuitClosed) -> None:
        # A circuit that was open before this began was never counted.
        if event.server in self._open:
            self._open.pop(event.server, None)
            self._circuits_open.add(-1, {SERVER: event.server})

    def _rules_changed(self, _: RulesChanged) -> None:
        self._rules_changes.add(1)

    def _rules_rejected(self, _: RulesRejected) -> None:
        self._rules_rejections.add(1)
