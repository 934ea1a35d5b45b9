"""A socket with one deadline for all operations, and how to connect it before that deadline.

The time-out of a plain socket restarts with each read and each address, so a server that sends a byte now and then blocks
its caller for ever. Here each operation gets the time that is left until the deadline.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LATE_READS = 8
"""How often one exchange may still read after its deadline, for data that arrived while this thread was not running."""


class Wire:
    """A connected socket with the methods that redis-py calls.

    Arguments:
        connected: a socket, or an `ssl.SSLSocket`.
        deadline: by `time.monotonic`; `begin` sets a new one for each exchange.
    """

    __slots__ = ("_late", "_poll", "_socket", "_tls", "deadline")

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._tls = hasattr(connected, "pending")
        self._poll = _poll_of(connected)
        self._late = 0
        self.deadline = deadline

    @property
    def uses_tls(self) -> bool:
        """Whether the socket is one with TLS."""
        return self._tls

    def begin(self, deadline: float) -> None:
        """Start an exchange that must finish by this deadline."""
        self.deadline = deadline
        self._late = _LATE_READS

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._limit_read()
        try:
            return self._socket.recv(size, flags)
        except OSError as error:
            if _is_empty(error):
                raise TimeoutError from None
            raise

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:  # Any: what a socket takes
        self._limit_read()
        try:
            return self._socket.recv_into(buffer, size, flags)
        except OSError as error:
            if _is_empty(error):
                raise TimeoutError from None
            raise

    def send(self, data: Any) -> int:  # Any: what a socket takes
        self._socket.settimeout(_left(self.deadline))
        return self._socket.send(data)

    def sendall(self, data: bytes) -> None:
        sent = self.send(data)
        if sent < len(data):
            # `sendall` of a TLS socket would restart the time-out with each part.
            rest = memoryview(data)
            while sent < len(data):
                sent += self.send(rest[sent:])

    def is_stale(self) -> bool:
        """Whether the connection cannot be reused: it is closed, or the server sent data without a request."""
        try:
            if self.pending():
                return True
            if not self._poll():
                return False
            if not self._tls:
                return True
            # TLS sends messages of its own, such as session tickets.
            self._socket.settimeout(0)
            self._socket.recv(1)
        except OSError as error:
            return not _is_empty(error)
        return True

    def settimeout(self, seconds: float | None) -> None:
        """Does nothing: the deadline applies."""

    def gettimeout(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def fileno(self) -> int:
        return self._socket.fileno()

    def getpeername(self) -> Any:  # Any: what a socket has
        return self._socket.getpeername()

    def getsockname(self) -> Any:  # Any: what a socket has
        return self._socket.getsockname()

    def pending(self) -> int:
        # For a TLS socket: bytes that are decrypted and not read yet.
        return self._socket.pending() if self._tls else 0  # type: ignore[attr-defined]  # an SSLSocket has it

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _limit_read(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            # Data that has arrived is still read: a late reply is better than an unknown outcome.
            if not self._late:
                raise TimeoutError
            self._late -= 1
            left = 0
        self._socket.settimeout(left)


def connect(
    addresses: Sequence[tuple[Any, ...]],  # Any: as `socket.getaddrinfo` has them
    deadline: float,
    prepare: Callable[[socket.socket], None],
) -> socket.socket:
    """Connect to the first address that accepts. The deadline covers all addresses together.

    Arguments:
        addresses: as `socket.getaddrinfo` returns them.
        deadline: by `time.monotonic`.
        prepare: sets the options of a socket before it connects.

    Raises:
        OSError: no address accepts; `TimeoutError` if there was no time left.
    """
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connecting = socket.socket(family, kind, protocol)
        try:
            prepare(connecting)
            # An address that does not respond must leave time for the next ones.
            connecting.settimeout(_left(deadline) / (len(addresses) - number))
            connecting.connect(address)
            connecting.settimeout(_left(deadline))
        except OSError as error:
            connecting.close()
            failure = error
        except BaseException:
            connecting.close()
            raise
        else:
            return connecting
    raise failure or OSError("The host name has no address")


def resolve(host: str, port: int, family: int = 0) -> Sequence[tuple[Any, ...]]:  # Any: as in `connect`
    """The addresses of a host. The system's resolver has no deadline; a numeric address does not need the resolver."""
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("This is not a valid host name") from None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_empty(error: OSError) -> bool:
    """Whether the error of a non-blocking read says that there was nothing to read."""
    # The TLS error is compared by name: its class would import ssl for programs that do not use it.
    return isinstance(error, BlockingIOError) or type(error).__name__ == "SSLWantReadError"


if hasattr(select, "poll"):

    def _poll_of(connected: socket.socket) -> Callable[[], object]:
        poller = select.poll()
        poller.register(connected, select.POLLIN)
        poll = poller.poll
        return lambda: poll(0)

else:  # pragma: no cover  # Windows, where select takes any socket

    def _poll_of(connected: socket.socket) -> Callable[[], object]:
        return lambda: select.select([connected], [], [], 0)[0]
