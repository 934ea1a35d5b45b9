"""Keeps forked children from waiting for a thread of their parent.

Each metric of `prometheus_client` has a lock. If a process forks while another thread is counting, the lock is copied locked,
and the child, which does not have this thread, would wait for ever when it counts the same thing: in the middle of a send.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import values

from ratelimited_notify.forking import forkable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Counter, Gauge, Histogram

_M = TypeVar("_M", bound="Counter | Gauge | Histogram")


def free_in_children(metric: _M) -> _M:
    """Return this metric, whose locks are free in every forked child from now on."""
    for lock in _locks_of(metric):
        forkable(lock)
    return metric


def _locks_of(metric: object) -> Iterator[object]:
    """Its locks, and those of its values. Their names are not public; where they have others, nothing is found."""
    for value in (metric, *_parts(metric)):
        lock = getattr(value, "_lock", None)
        if hasattr(lock, "_at_fork_reinit"):
            yield lock


def _parts(metric: object) -> Iterator[object]:
    for part in vars(metric).values():
        if isinstance(part, list):
            yield from part
        else:
            yield part


def free_shared_lock_in_children() -> None:
    """Do the same with the one lock that all metrics share if several processes count together."""
    for value in inspect.getclosurevars(vars(values.ValueClass)["__init__"]).nonlocals.values():
        if hasattr(value, "_at_fork_reinit"):
            forkable(value)
