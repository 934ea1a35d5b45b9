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
    gateway_seconds: bool


_begun: dict[CollectorRegistry, _Begun] = {}

# A signal handler may call `instrument` too.
_beginning = forkable(threading.RLock())


def instrument(registry: CollectorRegistry | None = None, *, gateway_seconds: bool = False) -> Handle:
    """Count in metrics for Prometheus what all limiters of the process decide, and what becomes of the messages.

    Call it once, when the program starts. If you call it again for the same registry, nothing changes, and you get the same
    handle. It shows the metrics nowhere: use what `prometheus_client` has for that, such as `start_http_server`.

    Arguments:
        registry: shows the metrics; by default `prometheus_client.REGISTRY`.
        gateway_seconds: True also measures how long gateways and decorated functions take, in a histogram for each type. It costs
            one or two microseconds for each message. False by default.

    Returns:
        A handle. Its `close()` ends the counting and takes the metrics out of the registry.

    Raises:
        MissingExtra: `prometheus_client` is not installed. The import of this module raises it.
        NotifyError: an argument cannot be used, or this registry is in use with another `gateway_seconds`, or already has metrics
            of these names.
    """
    chosen = REGISTRY if registry is None else registry
    if not isinstance(chosen, CollectorRegistry):
        raise NotifyError(
            f"registry= must be a CollectorRegistry of prometheus_client, not a {type(registry).__name__}."
        )
    if not isinstance(gateway_seconds, bool):
        raise NotifyError("gateway_seconds= must be True or False.")
    with _beginning:
        begun = _begun.get(chosen)
        if begun is None:
            begun = _begun[chosen] = _Begun(_begin(chosen, gateway_seconds=gateway_seconds), gateway_seconds)
    if begun.gateway_seconds != gateway_seconds:
        raise NotifyError(
            f"This registry is instrumented already, with gateway_seconds={begun.gateway_seconds}. Call instrument() in one place, or "
            "close the handle that it returned before you call it again."
        )
    return begun.handle


def _begin(chosen: CollectorRegistry, *, gateway_seconds: bool) -> Handle:
    metrics = Metrics(chosen, gateway_seconds=gateway_seconds)
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
