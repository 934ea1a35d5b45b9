"""Connections and forks: a forked child closes its copies of the parent's connections before any other code runs.

If parent and child used the same connection, their replies would be mixed up. Closing the copy leaves the parent's connection
open. No lock is taken: a thread of the parent may have held it, and no thread in the child would release it.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

from ratelimited_notify.forking import in_children


class Closing(Protocol):
    """A connection that can be closed after a fork."""

    def close(self) -> None: ...


_connections: WeakSet[Closing] = WeakSet()
_process = object()


def this_process() -> object:
    """An object that identifies this process. A forked child has another one."""
    return _process


def close_in_children(connection: Closing) -> None:
    """Make every child that is forked while this connection is alive close its copy."""
    _connections.add(connection)


def _after_fork() -> None:
    global _process  # noqa: PLW0603  # the child is another process
    _process = object()
    for connection in tuple(_connections):
        connection.close()


in_children(_after_fork)
