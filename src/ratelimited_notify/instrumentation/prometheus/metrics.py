"""The metrics: their names, their labels, and what they tell."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from prometheus_client import Counter, Gauge, Histogram

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

_PREFIX = "ratelimited_notify_"

_DECISION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_GATEWAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """All metrics, in one registry.

    Arguments:
        registry: shows them.
        decision_seconds: whether to measure how long storages take.
        gateway_seconds: whether to measure how long gateways take.

    Raises:
        NotifyError: the registry has other metrics with these names.
    """

    def __init__(self, registry: CollectorRegistry, *, decision_seconds: bool, gateway_seconds: bool) -> None:
        self._registry = registry
        self.made: list[Counter | Gauge | Histogram] = []
        """All of them."""
        try:
            self._make(decision_seconds=decision_seconds, gateway_seconds=gateway_seconds)
        except ValueError:
            self.unregister()
            raise NotifyError(
                "The registry already has metrics whose names begin with ratelimited_notify_, and they are not of this instrument(). "
                "Pass another registry, or unregister them first."
            ) from None

    def _make(self, *, decision_seconds: bool, gateway_seconds: bool) -> None:
        self.decisions = self._counter(
            "decisions_total",
            "Decisions about notifications, by verdict. The rule is the first one that refuses or would refuse.",
            "type", "verdict", "rule",
        )  # fmt: skip
        self.deliveries = self._counter("deliveries_total", "Notifications, by what became of them.", "type", "status")
        self.decision_seconds = (
            self._histogram(
                "decision_seconds",
                "How long the storage took to answer, in seconds. Windows in the memory of the process are not measured.",
                _DECISION_BUCKETS,
                "backend",
            )
            if decision_seconds
            else None
        )
        self.gateway_seconds = (
            self._histogram("gateway_seconds", "How long the gateway took, in seconds.", _GATEWAY_BUCKETS, "type")
            if gateway_seconds
            else None
        )
        self.degraded = self._counter(
            "degraded_total", "Decisions by another storage, because the storage failed.", "backend"
        )
        self.storage_errors = self._counter(
            "storage_errors_total",
            "Failures of the storage, by what the limiter does then: its on_storage_error.",
            "backend", "policy",
        )  # fmt: skip
        self.circuit_open = self._gauge(
            "circuit_open",
            "1 while the circuit of a server is open, so that it gets no requests; otherwise 0.",
            "server",
            # One process that cannot reach the server is enough to know. Processes that are gone do not count.
            multiprocess_mode="livemax",
        )
        self.rules_loaded = self._gauge(
            "rules_loaded_timestamp_seconds",
            "When rules were last put in force, in seconds since 1970.",
            multiprocess_mode="mostrecent",
        )
        self.rules_rejected = self._counter(
            "rules_rejected_total", "How often a source of rules failed, or had rules that cannot be used."
        )

    def unregister(self) -> None:
        """Show the metrics no more."""
        for metric in self.made:
            # Somebody else may have done that.
            with suppress(KeyError):
                self._registry.unregister(metric)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        made = Counter(_PREFIX + name, meaning, labels, registry=self._registry)
        self.made.append(made)
        return made

    def _gauge(
        self, name: str, meaning: str, *labels: str, multiprocess_mode: Literal["livemax", "mostrecent"]
    ) -> Gauge:
        made = Gauge(_PREFIX + name, meaning, labels, registry=self._registry, multiprocess_mode=multiprocess_mode)
        self.made.append(made)
        return made

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        made = Histogram(_PREFIX + name, meaning, labels, registry=self._registry, buckets=buckets)
        self.made.append(made)
        return made
