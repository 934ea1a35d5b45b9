"""How a server is to be reached: the options of its connections, from a URI. No I/O."""

from __future__ import annotations

from functools import cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from ratelimited_notify.errors import MissingExtra, NotifyError

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

CLUSTER_EXAMPLE = "redis+cluster://host:7000,host:7001"

SENTINEL_EXAMPLE = "redis+sentinel://host:26379,host:26380/service"

T = TypeVar("T")

# Ways to make redis-py try again. Commands are not sent by what heeds these; connecting would take many time-outs.
_RETRYING = ("retry", "retry_on_timeout", "retry_on_error")
# What a pool adds for its own sake.
_BY_ITSELF = ("health_check_interval", "maint_notifications_config", "maint_notifications_pool_handler")


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
    others: Mapping[str, Any],  # Any: as in `settings`.
    parse: Callable[[str], Mapping[str, Any]],  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of connections to the Sentinels, from those of the connections to the master.

    Arguments:
        wanted: those of the connections to the master.
        others: what is to be otherwise; `ssl=` says whether it is TLS.
    """
    found = {name: value for name, value in {**wanted, **others}.items() if name not in ("db", "client_name", "ssl")}
    if others.get("ssl"):
        found["connection_class"] = parse("rediss://")["connection_class"]
    elif "ssl" in others:
        found.pop("connection_class", None)
        found = {name: value for name, value in found.items() if not name.startswith("ssl_")}
    return found


def checked(pool: Any) -> Any:  # Any: the pools of redis-py's two worlds have no common type.
    """A connection as the pool makes them, not opened; an error for options that redis-py would refuse."""
    return connection(pool.connection_class, pool.connection_kwargs)


def check_pool(pool: object) -> None:
    """Make sure that connections can be made as the pool makes them.

    Raises:
        NotifyError: it asks Sentinels for the master, in a way of its own that knows no deadline.
    """
    if hasattr(pool, "get_master_address"):
        raise NotifyError(
            f"A pool of connections to a Sentinel's master cannot be used here; write {SENTINEL_EXAMPLE}."
        )


def once(wanted: Mapping[str, Any]) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of a pool without those that make redis-py ask again, or by itself."""
    return {name: value for name, value in wanted.items() if name not in (*_RETRYING, *_BY_ITSELF)}


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


def connection(kind: type, wanted: Mapping[str, Any]) -> Any:  # Any: as in `settings`.
    """A connection of this class of redis-py's, which is not connected yet."""
    return made(kind, **{**wanted, **unnamed(kind)})


@cache
def unnamed(kind: type) -> Mapping[str, None]:
    """The option with which a connection of this class does not tell the server its library's name and version.

    redis-py 7 and newer look the version up on disk for each connection, which takes longer than to connect.
    """
    for base in kind.__mro__:
        begun_by = vars(base).get("__init__")
        if begun_by is not None:
            taken = signature(begun_by).parameters
            if "driver_info" in taken:
                return {"driver_info": None}
            if all(one.kind is not Parameter.VAR_KEYWORD for one in taken.values()):
                break
    return {}


def places(pool: Any) -> int:  # Any: as above.
    """How many callers may use the pool at once."""
    most: int = pool.max_connections
    return min(most, MOST_CONNECTIONS)


def address(options: Mapping[str, Any]) -> str:  # Any: as in `settings`.
    """Where the server is, without credentials."""
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
