"""What a forked child does with the connections that it inherits: it closes its copies before anything else runs there.

A connection that parent and child both use mixes up their replies. Closing the copy leaves the parent's open. No lock is
taken: a thread of the parent may have held it, and there is nobody in the child to open it.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Closing(Protocol):
    """A connection, as far as a fork is concerned."""

    def close(self) -> None: ...


_connections: WeakSet[Closing] = WeakSet()
_process = object()


def this_process() -> object:
    """Something that every process has for itself, a forked child too."""
    return _process


def close_in_children(connection: Closing) -> None:
    """Have every child that is forked while this connection is alive close its copy."""
    _connections.add(connection)


def _after_fork() -> None:
    global _process  # noqa: PLW0603  # the child is another process
    _process = object()
    for connection in tuple(_connections):
        connection.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
