"""Counts events. It is called in the middle of decisions and deliveries, so what happens often is prepared once."""

from __future__ import annotations

import time
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
)
from ratelimited_notify.instrumentation.labels import MOST_VALUES, Label
from ratelimited_notify.instrumentation.prometheus.locks import unblocked
from ratelimited_notify.instrumentation.watcher import Watcher
from ratelimited_notify.rules.glob import is_glob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client import Counter, Gauge, Histogram

    from ratelimited_notify.instrumentation.events import DeliveryStatus, Event, VerdictName
    from ratelimited_notify.instrumentation.prometheus.metrics import Metrics
    from ratelimited_notify.rules.rule import Rule

_FROM_THE_START: tuple[VerdictName, ...] = ("allowed", "failed_open", "failed_closed")
_STATUSES: tuple[DeliveryStatus, ...] = ("sent", "suppressed", "failed")


class Counting(Watcher):
    """Counts events in metrics. A callback that asks limiters could lead here again; this asks none.

    Arguments:
        metrics: the metrics.
    """

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(self._count)
        self.metrics = metrics
        self.names_rules = False
        self.times_decisions = metrics.decision_seconds is not None
        self.times_deliveries = metrics.gateway_seconds is not None
        self._types = Label()
        self._rules = Label()
        # The types that began at 0, and the rules for more than one type, by name.
        self._met: set[str] = set()
        self._families: dict[str, Rule] = {}
        # The children by the values of their labels: asking a metric for a child takes a microsecond, and a lock.
        self._decisions: dict[tuple[str, VerdictName, str], Callable[[], object]] = {}
        self._deliveries: dict[tuple[str, DeliveryStatus], Callable[[], object]] = {}
        self._decision_timers: dict[str, Callable[[float], None]] = {}
        self._gateway_timers: dict[str, Callable[[float], None]] = {}
        self._has_rules = False
        self._counts: dict[type[Event], Callable[..., object]] = {
            CircuitClosed: self._circuit_closed,
            CircuitOpened: self._circuit_opened,
            Decided: self._decided,
            Delivered: self._delivered,
            RulesChanged: self._rules_changed,
            RulesRejected: self._rules_rejected,
            StorageFailed: self._storage_failed,
        }

    def tell(self, event: Event) -> None:
        """Count an event. It raises nothing but what a signal handler raised."""
        try:
            # First what happens most, with as few calls as possible.
            if isinstance(event, Decided):
                self._decided(event)
            else:
                self._count(event)
        except Exception as error:  # noqa: BLE001  # a full disk, with several processes; it must not reach the sender
            self.raised(error)

    def prepared(self, event: Event) -> Callable[[], object]:
        """A function that counts this event."""
        try:
            if isinstance(event, Decided) and event.seconds is None and not event.degraded:
                return self._decision(event.type, event.verdict, event.rule)
            if isinstance(event, Delivered) and event.seconds is None:
                return self._delivery(event.type, event.status)
        except Exception as error:  # noqa: BLE001  # as above
            self.raised(error)
        return partial(self.tell, event)

    def prepared_decision(self, event: Decided) -> Callable[[float], object]:
        """A function that counts this decision, of which only the seconds differ from time to time."""
        try:
            if self.metrics.decision_seconds is not None and not event.degraded:
                count = self._decision(event.type, event.verdict, event.rule)
                observe = self._decision_timer(self.metrics.decision_seconds, event.backend)

                def counted(seconds: float) -> None:
                    count()
                    observe(seconds)

                return counted
        except Exception as error:  # noqa: BLE001  # as above
            self.raised(error)
        return super().prepared_decision(event)

    def _what(self) -> str:
        return "What counts for Prometheus"

    def _count(self, event: Event) -> None:
        count = self._counts.get(event.__class__)
        if count is not None:
            count(event)

    def _decided(self, event: Decided) -> None:
        self._decision(event.type, event.verdict, event.rule)()
        if event.degraded:
            self._degraded(event.backend).inc()
        if event.seconds is not None and self.metrics.decision_seconds is not None:
            self._decision_timer(self.metrics.decision_seconds, event.backend)(event.seconds)

    def _delivered(self, event: Delivered) -> None:
        self._delivery(event.type, event.status)()
        if event.seconds is not None and self.metrics.gateway_seconds is not None:
            self._gateway_timer(self.metrics.gateway_seconds, event.type)(event.seconds)

    def _storage_failed(self, event: StorageFailed) -> None:
        self._failure(event.backend, event.policy).inc()

    def _circuit_opened(self, event: CircuitOpened) -> None:
        self._circuit(event.server).set(1)

    def _circuit_closed(self, event: CircuitClosed) -> None:
        self._circuit(event.server).set(0)

    def _rules_changed(self, _: RulesChanged) -> None:
        self._has_rules = True
        self.metrics.rules_loaded.set(time.time())

    def _rules_rejected(self, _: RulesRejected) -> None:
        self.metrics.rules_rejected.inc()

    def _decision(self, type: str, verdict: VerdictName, rule: str | None) -> Callable[[], object]:
        values = self._types.of(type), verdict, "" if rule is None else self._rules.of(rule)
        count = self._decisions.get(values)
        if count is None:
            count = self._decisions[values] = _increment(self.metrics.decisions.labels(*values))
            if values[0] not in self._met:
                self._begin_type(type)
        return count

    def _delivery(self, type: str, status: DeliveryStatus) -> Callable[[], object]:
        values = self._types.of(type), status
        count = self._deliveries.get(values)
        if count is None:
            count = self._deliveries[values] = _increment(self.metrics.deliveries.labels(*values))
            if values[0] not in self._met:
                self._begin_type(type)
        return count

    def _decision_timer(self, histogram: Histogram, backend: str) -> Callable[[float], None]:
        timer = self._decision_timers.get(backend)
        if timer is None:
            timer = self._decision_timers[backend] = unblocked(histogram.labels(backend)).observe
        return timer

    def _gateway_timer(self, histogram: Histogram, type: str) -> Callable[[float], None]:
        value = self._types.of(type)
        timer = self._gateway_timers.get(value)
        if timer is None:
            timer = self._gateway_timers[value] = unblocked(histogram.labels(value)).observe
        return timer

    def rules_in_force(self, rules: Sequence[Rule]) -> None:
        """Begin at 0 with what can happen by these rules. Otherwise nobody would see the first time that it happens: Prometheus
        sees no increase in a series that begins with 1.
        """
        try:
            if rules and not self._has_rules:
                self._has_rules = True
                self.metrics.rules_loaded.set(time.time())
            self._begin(rules)
        except Exception as error:  # noqa: BLE001  # as above
            self.raised(error)

    def _begin(self, rules: Sequence[Rule]) -> None:
        families = [rule for rule in rules if is_glob(rule.type)]
        # Of many rules, most are perhaps never used here. The places are for those that are.
        if self._rules.has_room_for(rule.name for rule in families):
            if len(self._families) > MOST_VALUES:
                # Those of rules that were replaced.
                self._families.clear()
            self._families.update((rule.name, rule) for rule in families)
        by_type: dict[str, list[Rule]] = {}
        for rule in rules:
            if not is_glob(rule.type):
                by_type.setdefault(rule.type, []).append(rule)
        if not self._types.has_room_for(by_type):
            return
        for type, own in by_type.items():
            self._begin_type(type, own)

    def _begin_type(self, type: str, own: Iterable[Rule] = ()) -> None:
        self._met.add(self._types.of(type))
        for verdict in _FROM_THE_START:
            self._decision(type, verdict, None)
        for status in _STATUSES:
            self._delivery(type, status)
        refusing = [*own, *(family for family in list(self._families.values()) if family.matches(type))]
        if any(rule.exempt for rule in refusing):
            self._decision(type, "exempt", None)
        if self._rules.has_room_for(rule.name for rule in refusing):
            for rule in refusing:
                self._decision(type, "refused" if rule.enforce else "would_refuse", rule.name)

    def storage_in_use(self, backend: str, policy: str, circuits: Mapping[str, str]) -> None:
        """Begin at 0 with the failures of a storage, and show the circuits of its servers."""
        try:
            if backend == "memory":
                return
            self._failure(backend, policy)
            self._degraded(backend)
            for server in circuits:
                self._show_circuit(server, circuits)
        except Exception as error:  # noqa: BLE001  # as above
            self.raised(error)

    def _show_circuit(self, server: str, circuits: Mapping[str, str]) -> None:
        gauge = self._circuit(server)
        if circuits[server] != "closed":
            gauge.set(1)
            # It may have closed meanwhile, which was told before it was said to be open.
            if circuits[server] == "closed":
                gauge.set(0)

    def _failure(self, backend: str, policy: str) -> Counter:
        return unblocked(self.metrics.storage_errors.labels(backend, _shown(policy)))

    def _degraded(self, backend: str) -> Counter:
        return unblocked(self.metrics.degraded.labels(backend))

    def _circuit(self, server: str) -> Gauge:
        return unblocked(self.metrics.circuit_open.labels(server))


def _increment(counter: Counter) -> Callable[[], object]:
    """What adds 1 to a counter."""
    unblocked(counter)
    # `inc` checks each time what is known here: that the counter has its labels, and that 1 is not negative. Its value, whose name
    # is not public, adds in half the time.
    value: object = getattr(counter, "_value", None)
    add: object = getattr(value, "inc", None)
    return partial(add, 1) if callable(add) else counter.inc


def _shown(policy: str) -> str:
    """A policy without what follows its scheme: that of a storage may contain a password."""
    scheme, colon, _ = policy.partition("://")
    return scheme + colon
