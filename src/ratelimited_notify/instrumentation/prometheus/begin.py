"""Begin and end the counting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.forking import forkable
from ratelimited_notify.instrumentation import registry as watchers
from ratelimited_notify.instrumentation.prometheus.counting import Counting
from ratelimited_notify.instrumentation.prometheus.locks import free_shared_lock_in_children, unblocked
from ratelimited_notify.instrumentation.prometheus.metrics import Metrics
from ratelimited_notify.instrumentation.watcher import Handle

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation.watcher import Watcher


class _Begun(NamedTuple):
    handle: Handle
    measured: dict[str, bool]


_begun: dict[CollectorRegistry, _Begun] = {}

# A signal handler may call `instrument` too.
_beginning = forkable(threading.RLock())


def instrument(
    registry: CollectorRegistry | None = None, *, decision_seconds: bool = True, gateway_seconds: bool = False
) -> Handle:
    """Count in metrics for Prometheus what all limiters of the process decide, and what becomes of the messages.

    Call it once, when the program starts. If you call it again for the same registry, nothing changes, and you get the same
    handle. It shows the metrics nowhere: use what `prometheus_client` has for that, such as `start_http_server`.

    Arguments:
        registry: shows the metrics; by default `prometheus_client.REGISTRY`.
        decision_seconds: whether to measure how long storages take that are not in memory, in a histogram for each kind. It costs
            one or two microseconds for each decision. True by default.
        gateway_seconds: True also measures how long gateways and decorated functions take, in a histogram for each type. It costs
            one or two microseconds for each message. False by default.

    Returns:
        A handle. Its `close()` ends the counting and takes the metrics out of the registry.

    Raises:
        MissingExtra: `prometheus_client` is not installed. The import of this module raises it.
        NotifyError: an argument cannot be used, or this registry is in use and something else is measured, or it already has
            metrics of these names.
    """
    chosen = REGISTRY if registry is None else registry
    if not isinstance(chosen, CollectorRegistry):
        raise NotifyError(
            f"registry= must be a CollectorRegistry of prometheus_client, not a {type(registry).__name__}."
        )
    measured = {"decision_seconds": decision_seconds, "gateway_seconds": gateway_seconds}
    for name, value in measured.items():
        if not isinstance(value, bool):
            raise NotifyError(f"{name}= must be True or False.")
    with _beginning:
        begun = _begun.get(chosen)
        if begun is None:
            begun = _begun[chosen] = _Begun(_begin(chosen, measured), measured)
    if begun.measured != measured:
        said = ", ".join(f"{name}={value}" for name, value in begun.measured.items())
        raise NotifyError(
            f"This registry is instrumented already, with {said}. Call instrument() in one place, or close the handle that it "
            "returned before you call it again."
        )
    return begun.handle


def _begin(chosen: CollectorRegistry, measured: dict[str, bool]) -> Handle:
    metrics = Metrics(chosen, **measured)
    free_shared_lock_in_children()
    for metric in metrics.made:
        unblocked(metric)

    def end(watcher: Watcher) -> None:
        with _beginning:
            found = _begun.get(chosen)
            if found is not None and found.handle.watcher is watcher:
                del _begun[chosen]
        watchers.end(watcher)
        metrics.unregister()

    return Handle.begun(Counting(metrics), watchers.begin, end)
