"""How the server is reached, the same for both worlds: options from a URI, and errors in words. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

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

CLUSTER_EXAMPLE = "redis+cluster://host:7000,host:7001"

SENTINEL_EXAMPLE = "redis+sentinel://host:26379,host:26380/service"

T = TypeVar("T")

FAILURES = (exceptions.RedisError, exceptions.ChildDeadlockedError, OSError)
"""What redis-py raises."""

# Ways to make redis-py try again. Commands are not sent by what heeds these; connecting would take many time-outs.
_RETRYING = ("retry", "retry_on_timeout", "retry_on_error")


class NothingSent(StorageError):
    """The question did not leave this process, so it took no effect and may be put to another server."""


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

    async def disconnect(self, nowait: bool = False) -> None: ...


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


class Several(NamedTuple):
    """A URI that names several servers."""

    hosts: tuple[tuple[str, int], ...]
    first: str
    """The same URI with one server only, as redis-py knows it."""
    path: str
    """What follows the servers, without slashes."""


def several(uri: str, example: str) -> Several:
    """The parts of a URI with several servers divided by commas, in the notation of `limits`; `example` is for the error."""
    scheme, separator, rest = uri.partition("://")
    place, slash, tail = rest.partition("/")
    if not slash:
        place, mark, query = rest.partition("?")
        path, tail = "", mark + query
    else:
        path, mark, query = tail.partition("?")
        tail = mark + query
    credentials, at, named = place.rpartition("@")
    try:
        hosts = tuple(_host(one) for one in named.split(","))
    except ValueError:
        # It may hold a password, so it is not shown.
        raise NotifyError(
            f"The URI of the Redis storage cannot be read: each server needs a host and a port. Write {example}, "
            "with user:password@ before the first of them if needed."
        ) from None
    kind = (
        "rediss" if scheme.removeprefix("async+").removeprefix("notify+").startswith(("rediss", "valkeys")) else "redis"
    )
    first = f"{kind}{separator}{credentials}{at}{named.split(',')[0]}{tail}"
    return Several(hosts, first, path.strip("/"))


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"redis://{text.strip()}")
    if not parts.hostname or not parts.port:
        raise ValueError
    return parts.hostname, parts.port


def settings(
    uri: str,
    timeout: float,
    options: Mapping[str, Any],  # Any: whatever redis-py takes.
    parse: Callable[[str], Mapping[str, Any]],  # Any: as above.
) -> dict[str, Any]:  # Any: as above.
    """The keyword arguments of a connection pool; what the URI says wins over options, and these over the defaults."""
    try:
        said = dict(parse(plain(uri)))
        _check_database(plain(uri))
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
    if wanted["socket_timeout"] is None:
        # redis-py would wait without end.
        wanted["socket_timeout"] = timeout
    for name in _RETRYING:
        wanted.pop(name, None)
    return wanted


def _check_database(uri: str) -> None:
    """Raise a ValueError for a database that is no number, which redis-py takes for none, and counts in database 0."""
    parts = urlsplit(uri)
    database = unquote(parts.path).strip("/")
    if parts.scheme != "unix" and database and not (database.isascii() and database.isdigit()):
        raise ValueError("Invalid value for the database: it must be a number")


def settings_of_each(
    parts: Several,
    timeout: float,
    options: Mapping[str, Any],  # Any: as in `settings`.
    parse: Callable[[str], Mapping[str, Any]],  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """The same for each of several servers, without host and port; `ssl=True`, too, makes it TLS."""
    wanted = settings(parts.first, timeout, options, parse)
    if str(wanted.pop("ssl", False)).lower() in ("true", "yes", "1"):
        wanted["connection_class"] = parse("rediss://")["connection_class"]
    wanted.pop("host", None)
    wanted.pop("port", None)
    return wanted


def to_server(wanted: Mapping[str, Any], address: tuple[str, int]) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of connections to one of several servers."""
    return {**wanted, "host": address[0], "port": address[1]}


def service(parts: Several, named: str | None) -> str:
    """The name under which the Sentinels watch the master."""
    found = parts.path or named
    if not found:
        raise NotifyError(
            f"Which master is meant? Name it behind the Sentinels: {SENTINEL_EXAMPLE}, or as service_name=."
        )
    return found


def watched(parts: Several, name: str) -> str:
    """Where the server is, as far as can be said."""
    return f"{name!r} of the Sentinels {', '.join(f'{host}:{port}' for host, port in parts.hosts)}"


def no_master(name: str) -> str:
    """None of the Sentinels names a master."""
    return f"no Sentinel answers that knows a running master of the name {name!r}"


def to_sentinels(
    wanted: Mapping[str, Any],  # Any: as in `settings`.
    timeout: float,
    sentinels: int,
    options: Mapping[str, Any],  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of redis-py's clients of the Sentinels, from those of the connections to the master."""
    found = {name: value for name, value in wanted.items() if name not in ("connection_class", "db", "client_name")}
    # One after another is asked, and all of them together must not take much longer than one server.
    for name in ("socket_timeout", "socket_connect_timeout"):
        found[name] = (wanted[name] or timeout) / sentinels
    return {"ssl": _is_tls(wanted), **found, **options}


def _is_tls(wanted: Mapping[str, Any]) -> bool:  # Any: as in `settings`.
    return "SSL" in getattr(wanted.get("connection_class"), "__name__", "")


def kind(wanted: Mapping[str, Any], plain_one: type[T], encrypted: type[T]) -> type[T]:  # Any: as in `settings`.
    """Which class of connections these options ask for."""
    return encrypted if _is_tls(wanted) else plain_one


def checked(pool: Any) -> Any:  # Any: the pools of redis-py's two worlds have no common type.
    """A connection as the pool makes them, not opened; an error for options that redis-py would refuse."""
    return made(pool.connection_class, **pool.connection_kwargs)


def bounded(connected: Any) -> float:  # Any: as above.
    """The longest wait for an answer on such a connection, in seconds.

    Raises:
        NotifyError: it would wait without end.
    """
    seconds: float | None = connected.socket_timeout
    if seconds is None:
        raise NotifyError(
            "The connections of this pool wait without end. Make it with a time-out: socket_timeout=0.5, in seconds."
        )
    return seconds


def made(kind_of: Callable[..., T], *arguments: Any, **options: Any) -> T:  # Any: as in `settings`.
    """An object of redis-py's, or an error that says which option it refuses."""
    try:
        return kind_of(*arguments, **options)
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
    kind = StorageError if sent else NothingSent
    return kind(f"{_said(error, timeout, sent)} [Redis at {where}]")


def crowded(where: str, connections: int) -> StorageError:
    """Nothing was sent: every connection was busy for too long."""
    return NothingSent(
        f"All {connections} connections to Redis were busy for too long, so nothing was sent. Raise max_connections, "
        f"or let fewer callers ask at once. [Redis at {where}]"
    )


def hopeless(where: str, timeout: float) -> StorageError:
    """Nothing was sent: those who went before got no answer."""
    return NothingSent(
        f"Redis gave others no answer within {timeout} seconds while this call waited for a free connection, "
        f"so nothing was sent. Is the server overloaded or stopped? [Redis at {where}]"
    )


def circles(where: str) -> StorageError:
    """A question was sent on from server to server, and each knew another one to ask."""
    return StorageError(
        "The servers of the Redis cluster send each other's callers round in circles, so nothing was counted. "
        f"[Redis at {where}]"
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
            "Redis refused the user or password, or does not let this user run scripts (EVALSHA, EVAL; on a cluster "
            "CLUSTER SLOTS, too). "
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
        return _refused(error, text)
    reason = text.rstrip(".") or type(error).__name__
    if sent:
        return (
            f"The connection to Redis broke before the answer came ({reason}), "
            "so it is not known whether this took effect."
        )
    return f"Redis cannot be reached: {reason}. Is it running, and are host, port and TLS right?"


def _refused(error: exceptions.ResponseError, text: str) -> str:
    """What the server says instead of running a script."""
    if isinstance(error, exceptions.ClusterDownError):
        return f"The Redis cluster is not ready, so nothing was counted: {text}. Is it complete, or failing over?"
    if isinstance(error, exceptions.TryAgainError):
        return "The slot of this recipient is on its way to another server of the cluster, so nothing was counted."
    # MOVED is an ASK to redis-py.
    if isinstance(error, exceptions.AskError | exceptions.ClusterCrossSlotError):
        return (
            "This server is part of a cluster, where windows lie on several servers, so nothing was counted. "
            "Use redis+cluster:// for it."
        )
    if "NOREPLICAS" in text:
        return "Redis has fewer replicas in step than its min-replicas-to-write asks for, so nothing was counted."
    # Behind these words Redis quotes the command, keys and all.
    return f"Redis answered with an error: {text.partition(', with args')[0]}."
