"""The event loop that a storage runs on, and connecting on it before a deadline."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop of asyncio.

    Raises:
        NotifyError: no event loop of asyncio is running: this is trio, or no event loop at all.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NotifyError(
            "AsyncLimiter and AsyncNotifier run on asyncio, and no event loop of asyncio is running here. Under trio, use "
            "Limiter in a thread (trio.to_thread.run_sync), or run under anyio with its asyncio backend."
        ) from None


async def resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:  # Any: as `socket.getaddrinfo` has them
    """The addresses of a host. The system's resolver has no deadline; a numeric address needs no resolver, and so no thread."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        pass
    try:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("This is not a valid host name") from None


async def connect(
    addresses: Sequence[tuple[Any, ...]],  # Any: as above
    deadline: float,
    prepare: Callable[[socket.socket], object],
) -> socket.socket:
    """Connect to the first address that accepts, as `wire.connect` does.

    Arguments:
        addresses: as `resolve` returns them.
        deadline: by the clock of the event loop.
        prepare: sets the options of a socket before it connects.

    Raises:
        OSError: no address accepts; `TimeoutError` if there was no time left.
    """
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connecting = socket.socket(family, kind, protocol)
        try:
            connecting.setblocking(False)
            prepare(connecting)
            # An address that does not respond must leave time for the next ones.
            async with asyncio.timeout((deadline - loop.time()) / (len(addresses) - number)):
                await loop.sock_connect(connecting, address)
        except OSError as error:
            connecting.close()
            failure = error
        except BaseException:
            connecting.close()
            raise
        else:
            return connecting
    raise failure or OSError("The host name has no address")
