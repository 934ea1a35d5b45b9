"""Connecting for threads: redis-py's `Connection` on our own socket, so that everything keeps to one deadline."""

from __future__ import annotations

import socket
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from ratelimited_notify.storage.interrupts import raised_by_caller
from ratelimited_notify.storage.redis import failures, options
from ratelimited_notify.storage.wire import Wire, connect, resolve

# After `options`, which says what to install where redis is missing.
import redis.connection as redis_connection  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Dialed(redis_connection.Connection):
    """Connects to all addresses of a host before one deadline."""

    deadline: float

    def _connect(self) -> socket.socket:
        return connect(resolve(self.host, self.port, self.socket_type), self.deadline, self._prepare)

    def _prepare(self, connecting: socket.socket) -> None:
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.socket_keepalive:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            chosen: Any = self.socket_keepalive_options  # Any: redis-py does not annotate it
            for option, value in chosen.items():
                connecting.setsockopt(socket.IPPROTO_TCP, option, value)


class _Wired:
    """Makes redis-py's parser read from our socket."""

    deadline: float

    def _connect(self) -> Wire:
        # For connection classes with their own `_connect`.
        self.socket_connect_timeout = max(0.001, self.deadline - time.monotonic())
        try:
            wire = Wire(super()._connect(), self.deadline)  # type: ignore[misc]  # the next class has it
        except TimeoutError as error:
            if "handshake" in str(error):
                raise failures.NoHandshake from None
            raise
        wire.begin(self.deadline)
        return wire


@cache
def _wired(kind: type) -> type:
    """A connection class of redis-py, or a subclass, changed so that it keeps to the deadline."""
    bases: tuple[type, ...] = (_Wired, kind)
    if kind is redis_connection.Connection:
        bases = (_Wired, _Dialed)
    elif issubclass(kind, redis_connection.Connection):
        bases = (_Wired, kind, _Dialed)
    return type(kind.__name__, bases, {})


def connected(kind: type, wanted: Mapping[str, Any], deadline: float) -> Any:  # Any: whatever redis-py takes and makes
    """Make a connection of this class and connect it before the deadline."""
    made = options.connection(_wired(kind), wanted)
    made.deadline = deadline
    # CLIENT SETINFO would cost two round trips per connection. The attributes are those of redis-py before 7 and since 7.
    made.driver_info = made.lib_name = made.lib_version = None
    try:
        made.connect()
    except failures.GARBLED as error:
        made.disconnect()
        if raised_by_caller(error) is not None:
            raise
        raise failures.UnexpectedReply from None
    except BaseException:
        made.disconnect()
        raise
    return made
