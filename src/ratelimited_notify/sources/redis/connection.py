"""A connection to the server that has the rules: one exchange, or one subscription, and then it is closed."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.sources.redis.failures import failure

# After `failures`, which says what to install where redis is missing.
import redis.connection as redis_connection  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratelimited_notify.sources.redis.address import Address


class Connection:
    """A connection of redis-py, without its retries. The constructor connects.

    Arguments:
        address: the server.
        timeout: seconds to connect, and for each part of a reply.

    Raises:
        NotifyError: there is no connection. A `RuleError` means that the server refused it.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._where = address.where
        self._timeout = timeout
        # Not what redis-py opens by itself when a command finds the connection closed.
        self._inner: Any = None  # Any: redis-py has several classes, without a common type
        with self._failing():
            self._inner = _made(address, timeout)
            self._inner.connect()

    def ask(self, *command: str | bytes) -> Any:  # Any: what the server answers
        """Send one command and return its reply.

        Raises:
            NotifyError: there was no reply. A `RuleError` means that the server refused the command.
        """
        self.send(*command)
        return self.reply()

    def send(self, *command: str | bytes) -> None:
        """Send one command. Call `reply` once for it."""
        with self._failing():
            if self._inner._sock is None:
                raise ConnectionError
            self._inner.send_command(*command)

    def reply(self) -> Any:  # Any: as above
        """The next reply. An error in a list of replies is raised, too."""
        with self._failing():
            reply: Any = self._inner.read_response(disable_decoding=True)  # Any: as above
            replies = cast("list[object]", reply) if isinstance(reply, list) else []
            for each in replies:
                if isinstance(each, Exception):
                    raise each
            return reply  # pyright: ignore[reportUnknownVariableType]  # it is Any

    def is_readable(self, seconds: float) -> bool:
        """Whether something comes within these seconds."""
        with self._failing():
            if self._inner._sock is None:
                raise ConnectionError
            return bool(self._inner.can_read(timeout=seconds))

    def interrupt(self) -> None:
        """End what another thread waits for on this connection. That thread closes it.

        To close it here would free its number for another file, while the other thread still reads from it.
        """
        wire: socket.socket | None = self._inner and self._inner._sock
        if wire is not None:
            with suppress(OSError):
                socket.socket.shutdown(wire, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. In a forked child, the parent's connection stays open."""
        if self._inner is not None:
            self._inner.disconnect()

    @contextmanager
    def _failing(self) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # redis-py raises anything for bytes that are not a reply
            said = failure(error, self._where, self._timeout)
            self.close()
        else:
            return
        # Outside of the block, so that nothing is chained to it.
        raise said


@contextmanager
def connected(address: Address, timeout: float) -> Generator[Connection, None, None]:
    """A connection for one exchange, closed at the end of the block."""
    connection = Connection(address, timeout)
    try:
        yield connection
    finally:
        connection.close()


def _made(address: Address, timeout: float) -> Any:  # Any: as above
    options: dict[str, Any] = {  # Any: whatever redis-py takes
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,
        **address.options,
    }
    if address.path is not None:
        kind: Any = redis_connection.UnixDomainSocketConnection  # Any: one of three classes
        options["path"] = address.path
    else:
        kind = redis_connection.SSLConnection if address.tls else redis_connection.Connection
        options |= {"host": address.host, "port": address.port}
    made = kind(**options)
    # It would tell the server its name and version, in two more exchanges that an ACL may not allow.
    made.driver_info = made.lib_name = made.lib_version = None
    return made


def check_options(address: Address, timeout: float) -> None:
    """Check the options of a connection without connecting.

    Raises:
        NotifyError: redis-py refuses an option.
    """
    try:
        _made(address, timeout)
    except Exception as error:  # noqa: BLE001  # whatever its classes raise
        # Not its words, which may quote a password.
        name = type(error).__name__
    else:
        return
    raise NotifyError(f"redis-py refuses the options of the URI of rules in Redis ({name}).")
