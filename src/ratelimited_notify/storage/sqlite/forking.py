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

    def before_fork(self, seconds: float) -> bool:
        """Close the connection, and open none until `after_fork`. False if a transaction did not end within these seconds."""
        ...

    def after_fork(self) -> None:
        """Allow connections again. Called in parent and child, if `before_fork` returned True."""
        ...

    def inherited(self) -> None:
        """Called in a child instead, if `before_fork` returned False."""
        ...


_all: WeakSet[Forked] = WeakSet()
# By thread, because several may fork at once.
_closed: dict[int, list[Forked]] = {}


def close_before_forks(forked: Forked) -> None:
    """Close its connection before each fork, as long as the object lives."""
    _all.add(forked)


def _before() -> None:
    until = time.monotonic() + _LONGEST
    _closed[get_ident()] = [each for each in tuple(_all) if each.before_fork(max(0.0, until - time.monotonic()))]


def _in_parent() -> None:
    for each in _closed.pop(get_ident(), ()):
        each.after_fork()


def _in_child() -> None:
    closed = _closed.pop(get_ident(), [])
    _closed.clear()
    for each in tuple(_all):
        if each in closed:
            each.after_fork()
        else:
            each.inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
