"""Connections and forks: SQLite's connections are closed before a fork, so that no child inherits one.

A child must neither use nor close a connection of its parent: closing could delete the log under the parent, and SQLite would
take the parent's locks for the child's own, even in a new connection. So the parent closes its connections first, and parent
and child each open the file anew when they need it. The lock beside the database is closed, too: a child that is still
running would otherwise keep it locked after its parent was killed.
"""

from __future__ import annotations

import os
import time
from threading import get_ident
from typing import Protocol
from weakref import WeakSet

_LONGEST = 0.5
"""Seconds that a fork waits at most for the transactions of other threads."""


class Forked(Protocol):
    """What has a connection."""

    def is_used_here(self) -> bool:
        """Whether this thread is in the middle of using it: a signal handler forks."""
        ...

    def before_fork(self, seconds: float) -> None:
        """Close the connection, and open none until `after_fork`, unless a transaction does not end within these seconds."""
        ...

    def after_fork(self) -> None:
        """Allow connections again, in the parent. Does nothing if `before_fork` was not called or did nothing."""
        ...

    def in_child(self) -> None:
        """Allow connections again, in the child. If there is a connection, it is the parent's, and is left alone."""
        ...


_all: WeakSet[Forked] = WeakSet()
# By thread, because several may fork at once. The newest is last: a signal handler may fork while this thread is about to.
_forks: dict[int, list[list[Forked]]] = {}


def close_before_forks(forked: Forked) -> None:
    """Close its connection before each fork, as long as the object lives."""
    _all.add(forked)


def _before() -> None:
    until = time.monotonic() + _LONGEST
    closing = [each for each in tuple(_all) if not each.is_used_here()]
    # First, so that all are freed afterwards even if a signal handler raises in between.
    _forks.setdefault(get_ident(), []).append(closing)
    for each in closing:
        each.before_fork(max(0.0, until - time.monotonic()))


def _in_parent() -> None:
    try:
        _free()
    except BaseException:
        # A signal handler raised. Nothing may stay locked.
        _free()
        raise


def _free() -> None:
    forks = _forks.get(get_ident())
    if not forks:
        return
    for each in forks[-1]:
        each.after_fork()
    forks.pop()
    if not forks:
        _forks.pop(get_ident(), None)


def _in_child() -> None:
    _forks.clear()
    for each in tuple(_all):
        each.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
    # Once more, for a signal handler that raises as soon as they begin. They do nothing the second time.
    os.register_at_fork(after_in_parent=_in_parent, after_in_child=_in_child)
