"""Connecting for asyncio: redis-py's `Connection` on a socket that is connected before one deadline."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

from ratelimited_notify.storage.event_loop import connect, resolve
from ratelimited_notify.storage.interrupts import raised_by_caller
from ratelimited_notify.storage.redis import failures, options

# After `options`, which says what to install where redis is missing.
import redis.asyncio.connection as redis_connection  # isort: skip

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping


def abort(inner: Any) -> None:  # Any: a connection of redis-py's
    """Close the connection at once, without waiting."""
    writer = inner._writer
    if writer is not None:
        writer.transport.abort()
        # Without this it would warn that it was not closed.
        inner._reader = inner._writer = None


_MOMENT = 0.01
"""Seconds. Connecting ends this much before the deadline, so that its caller is told what took too long."""


class _Dialed:
    """Connects to all addresses of a host before one deadline."""

    deadline: float
    host: str
    port: int
    _dialed: socket.socket | None = None
    begins_tls = False
    """Whether it waits for the server to begin TLS."""

    async def _connect(self) -> None:
        # redis-py sets the socket options once the socket is connected.
        found = await resolve(self.host, self.port)
        self._dialed = await connect(found, self.deadline, lambda _: None)
        try:
            self.begins_tls = isinstance(self, redis_connection.SSLConnection)
            await super()._connect()  # type: ignore[misc]  # the next class has it
            self.begins_tls = False
        except BaseException:
            self._dialed.close()
            raise

    def _connection_arguments(self) -> Mapping[str, Any]:  # Any: what asyncio takes
        found: dict[str, Any] = {**super()._connection_arguments(), "sock": self._dialed}  # type: ignore[misc]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]  # as above
        del found["host"], found["port"]
        if "ssl" in found:
            found["server_hostname"] = self.host
        return found


@cache
def _dialed(kind: type[Any]) -> type[Any]:  # Any: redis-py does not say
    """A connection class of redis-py, or a subclass, changed so that it keeps to the deadline."""
    stock = vars(redis_connection.Connection)["_connect"]
    if not issubclass(kind, redis_connection.Connection) or getattr(kind, "_connect", None) is not stock:
        # The class has its own `_connect`.
        return kind
    return type(kind.__name__, (_Dialed, kind), {})


async def connected(
    kind: type,
    wanted: Mapping[str, Any],  # Any: whatever redis-py takes
    deadline: float,
) -> Any:  # Any: what redis-py makes
    """Make a connection of this class and connect it before the deadline, by the clock of the event loop.

    Raises:
        RedisError: it could not be connected.
        TimeoutError: there was not enough time.
        UnexpectedReply: the server does not reply like Redis.
    """
    made = options.connection(_dialed(kind), wanted)
    made.deadline = deadline
    # CLIENT SETINFO would cost two round trips per connection. The attributes are those of redis-py before 7 and since 7.
    made.driver_info = made.lib_name = made.lib_version = None
    # One deadline, at a lower cost than redis-py's time-outs.
    made.socket_timeout = made.socket_connect_timeout = None
    left = deadline - asyncio.get_running_loop().time()
    try:
        # The callers have no time-out of their own around this: if both ended at once, it would not be known what took too long.
        async with asyncio.timeout_at(deadline - min(_MOMENT, left / 10)):
            await made.connect()
    except failures.GARBLED as error:
        abort(made)
        if raised_by_caller(error) is not None:
            raise
        raise failures.UnexpectedReply from None
    except TimeoutError:
        abort(made)
        if getattr(made, "begins_tls", False):
            raise failures.NoHandshake from None
        raise
    except BaseException:
        abort(made)
        raise
    return made
