"""Keeps the locks of metrics from blocking a sender for ever.

Each metric of `prometheus_client` has a lock. If a process forks while another thread is counting, the lock is copied locked, and the
child, which does not have this thread, would wait for it in the middle of a send. If a signal handler sends while the thread that it
interrupts is counting, that thread would wait for itself.
"""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import values

from ratelimited_notify.forking import forkable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Counter, Gauge, Histogram

_M = TypeVar("_M", bound="Counter | Gauge | Histogram")

_PLAIN = type(threading.Lock())


def unblocked(metric: _M) -> _M:
    """Return this metric of ours, whose locks are free in every forked child, and for the thread that holds them."""
    for part in _parts(metric):
        # Its name is not public. Where it has another one, everything stays as it is.
        lock = getattr(part, "_lock", None)
        if isinstance(lock, _PLAIN):
            part._lock = forkable(threading.RLock())
    return metric


def _parts(metric: object) -> Iterator[Any]:  # Any: the types of what is inside are not public
    yield metric
    for part in vars(metric).values():
        if isinstance(part, list):
            yield from part
        else:
            yield part


def free_shared_lock_in_children() -> None:
    """Make the one lock free in forked children that all metrics share if several processes count together.

    It is not only ours, so it is not replaced: a signal handler must not send in this mode.
    """
    for value in inspect.getclosurevars(vars(values.ValueClass)["__init__"]).nonlocals.values():
        if hasattr(value, "_at_fork_reinit"):
            forkable(value)
