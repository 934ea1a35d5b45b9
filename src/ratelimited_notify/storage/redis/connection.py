"""How the server is reached, the same for both worlds: options from a URI, and errors in words. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ratelimited_notify.errors import MissingExtra, NotifyError, StorageError

try:
    from redis import exceptions
except ImportError as missing:
    raise MissingExtra("redis", "The Redis storage") from missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECTIONS = 50
"""The most connections that one storage opens (in one event loop), unless `max_connections` says otherwise."""

MOST_CONNECTIONS = 4096
"""Also where a given pool knows no limit (that of redis-py before 8 is 2^31)."""

PATIENCE = 10
"""So many time-outs a caller waits for a free connection while the server answers others; if it does not, no longer."""

FAILURES = (exceptions.RedisError, exceptions.ChildDeadlockedError, OSError)
"""What redis-py raises."""

# Ways to make redis-py try again. Commands are not sent by what heeds these; connecting would take many time-outs.
_RETRYING = ("retry", "retry_on_timeout", "retry_on_error")


class Connection(Protocol):
    """What is used of redis-py's connections."""

    def send_packed_command(self, command: list[bytes]) -> None: ...

    def read_response(self, disable_decoding: bool) -> Any: ...  # Any: what the server answers.

    def disconnect(self) -> None: ...


class Pool(Protocol):
    """What is used of redis-py's connection pools."""

    max_connections: int

    def get_connection(self) -> Connection: ...

    def release(self, connection: Any) -> None: ...  # Any: one of the pool's own, whose class is its secret.

    def disconnect(self) -> None: ...


class AsyncConnection(Protocol):
    """The same for asyncio."""

    async def send_packed_command(self, command: list[bytes]) -> None: ...

    async def read_response(self, disable_decoding: bool) -> Any: ...  # Any: what the server answers.


class AsyncPool(Protocol):
    """The same for asyncio."""

    max_connections: int

    async def get_connection(self) -> AsyncConnection: ...

    async def release(self, connection: Any) -> None: ...  # Any: as above.

    async def disconnect(self) -> None: ...


def plain(uri: str) -> str:
    """The URI as redis-py knows it."""
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.removeprefix("async+").removeprefix("notify+").replace("valkey", "redis", 1)
    return ("unix" if scheme == "redis+unix" else scheme) + separator + rest


def settings(
    uri: str,
    timeout: float,
    options: Mapping[str, Any],  # Any: whatever redis-py takes.
    parse: Callable[[str], Mapping[str, Any]],  # Any: as above.
) -> dict[str, Any]:  # Any: as above.
    """The keyword arguments of a connection pool; what the URI says wins over options, and these over the defaults."""
    try:
        said = dict(parse(plain(uri)))
    except ValueError as error:
        # The message is left out where it may show the URI, which may show a password.
        reason = f" ({error})" if str(error).startswith("Invalid value for ") else ""
        raise NotifyError(
            f"The URI of the Redis storage cannot be read{reason}. Write redis://user:password@host:6379/0, "
            "rediss://… for TLS or redis+unix:///path/to.sock, with special characters percent-encoded."
        ) from None
    timeout = said.pop("timeout", timeout)
    wanted = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_connections": CONNECTIONS,
        # RESP 3 would cost a round trip or two per connection, for nothing that is used here.
        "protocol": 2,
        **options,
        **said,
        "decode_responses": False,
    }
    for name in _RETRYING:
        wanted.pop(name, None)
    return wanted


def checked(pool: Any) -> None:  # Any: the pools of redis-py's two worlds have no common type.
    """Raise for options that redis-py's connections would refuse, before the first of them is opened."""
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, exceptions.RedisError) as error:
        raise NotifyError(f"redis-py refuses an option of the Redis storage: {error}") from None


def places(pool: Pool | AsyncPool) -> int:
    """How many callers may use the pool at once."""
    return min(pool.max_connections, MOST_CONNECTIONS)


def address(options: Mapping[str, Any]) -> str:  # Any: as in `settings`.
    """Where the server is, without credentials."""
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")


def failure(error: Exception, where: str, timeout: float, *, sent: bool) -> StorageError:
    """What happened and what to do, from an error of redis-py; its own words stay out where they may show a key.

    Arguments:
        error: what redis-py raised.
        where: the server, see `address`.
        timeout: how long an answer was waited for, in seconds.
        sent: whether the question may have reached the server.
    """
    return StorageError(f"{_said(error, timeout, sent)} [Redis at {where}]")


def crowded(where: str, connections: int) -> StorageError:
    """Nothing was sent: every connection was busy for too long."""
    return StorageError(
        f"All {connections} connections to Redis were busy for too long, so nothing was sent. Raise max_connections, "
        f"or let fewer callers ask at once. [Redis at {where}]"
    )


def hopeless(where: str, timeout: float) -> StorageError:
    """Nothing was sent: those who went before got no answer."""
    return StorageError(
        f"Redis gave others no answer within {timeout} seconds while this call waited for a free connection, "
        f"so nothing was sent. Is the server overloaded or stopped? [Redis at {where}]"
    )


def _said(error: Exception, timeout: float, sent: bool) -> str:
    text = str(error)
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        what = (
            f"Redis gave no answer within {timeout} seconds, so it is not known whether this took effect."
            if sent
            else f"Redis let nobody connect in time, so nothing was sent (the time-out is {timeout} seconds)."
        )
        return f"{what} Is the server overloaded or stopped? The option timeout= sets the time."
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return (
            "Redis refused the user or password, or does not let this user run scripts (EVALSHA, EVAL). "
            "Check the credentials in the storage's URI and the user's ACL."
        )
    if isinstance(error, exceptions.BusyLoadingError):
        return "Redis is still loading its data; it will answer when that is done."
    if isinstance(error, exceptions.MaxConnectionsError):
        return "All connections to Redis are in use. Raise max_connections."
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return "Redis has no memory left and evicts nothing (maxmemory), so no hit can be counted. Give it more."
    if isinstance(error, exceptions.ReadOnlyError) or "READONLY" in text:
        return "This Redis server is a read-only replica. Connect to the primary."
    if text.startswith("NOTIFYVERSION"):
        return (
            "The Redis server is older than version 7; only since then does time stand still inside a script. "
            "Update it, or use Valkey."
        )
    if "WRONGTYPE" in text:
        return (
            "A key of the rate limits holds something else. Give them a database or a namespace of their own, "
            "which nothing else writes to."
        )
    if isinstance(error, exceptions.ResponseError):
        # Behind these words Redis quotes the command, keys and all.
        return f"Redis answered with an error: {text.partition(', with args')[0]}."
    reason = text.rstrip(".") or type(error).__name__
    if sent:
        return (
            f"The connection to Redis broke before the answer came ({reason}), "
            "so it is not known whether this took effect."
        )
    return f"Redis cannot be reached: {reason}. Is it running, and are host, port and TLS right?"
