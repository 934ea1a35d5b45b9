"""The options of connections to a server, from a URI. No I/O."""

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
"""The upper bound, also for a given pool without a limit of its own (in redis-py before 8 the default is 2^31)."""

CLUSTER_EXAMPLE = "redis+cluster://host:7000,host:7001"

SENTINEL_EXAMPLE = "redis+sentinel://host:26379,host:26380/service"

T = TypeVar("T")

# redis-py's options for retries. The code that sends our commands ignores them, but connecting would take many time-outs.
_RETRYING = ("retry", "retry_on_timeout", "retry_on_error")
# Options that a pool adds for its own use.
_BY_ITSELF = ("health_check_interval", "maint_notifications_config", "maint_notifications_pool_handler")


def plain(uri: str) -> str:
    """The URI in redis-py's notation."""
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.removeprefix("async+").removeprefix("notify+").replace("valkey", "redis", 1)
    return ("unix" if scheme == "redis+unix" else scheme) + separator + rest


class Several(NamedTuple):
    """A URI that names several servers."""

    hosts: tuple[tuple[str, int], ...]
    first: str
    """The same URI with only one server, in redis-py's notation."""
    path: str
    """The path after the servers, without slashes."""


def several(uri: str, example: str) -> Several:
    """The parts of a URI with several servers, separated by commas, as in `limits`. `example` is shown in the error."""
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
        # The URI may contain a password, so it is not shown.
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
    """The keyword arguments of a connection pool. The URI takes precedence over options, and options over the defaults."""
    try:
        said = dict(parse(plain(uri)))
        _check_database(plain(uri))
    except ValueError as error:
        # The message is left out if it may contain the URI, and so a password.
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
        # RESP 3 would cost one or two round trips per connection, for features that are not used here.
        "protocol": 2,
        **options,
        **said,
        "decode_responses": False,
    }
    if wanted["socket_timeout"] is None:
        # With None redis-py would wait without a limit.
        wanted["socket_timeout"] = timeout
    for name in _RETRYING:
        wanted.pop(name, None)
    return wanted


def _check_database(uri: str) -> None:
    """Raise a ValueError for a database that is not a number: redis-py would ignore it and use database 0."""
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
    """The `settings` for each of several servers, without host and port. `ssl=True` also enables TLS."""
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
    """The name under which the Sentinels monitor the master."""
    found = parts.path or named
    if not found:
        raise NotifyError(
            f"The URI does not name the master. Write its name after the Sentinels, {SENTINEL_EXAMPLE}, or pass service_name=."
        )
    return found


def watched(parts: Several, name: str) -> str:
    """The master's service name and its Sentinels, in place of an address."""
    return f"{name!r} of the Sentinels {', '.join(f'{host}:{port}' for host, port in parts.hosts)}"


def no_master(name: str) -> str:
    """The reason when no Sentinel names a master."""
    return f"no Sentinel that replies knows a running master named {name!r}"


def to_sentinels(
    wanted: Mapping[str, Any],  # Any: as in `settings`.
    others: Mapping[str, Any],  # Any: as in `settings`.
    parse: Callable[[str], Mapping[str, Any]],  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of connections to the Sentinels, derived from those of the connections to the master.

    Arguments:
        wanted: the options of the connections to the master.
        others: the options that differ; `ssl=` switches TLS on or off.
        parse: redis-py's function that parses URIs.
    """
    found = {name: value for name, value in {**wanted, **others}.items() if name not in ("db", "client_name", "ssl")}
    if others.get("ssl"):
        found["connection_class"] = parse("rediss://")["connection_class"]
    elif "ssl" in others:
        found.pop("connection_class", None)
        found = {name: value for name, value in found.items() if not name.startswith("ssl_")}
    return found


def checked(pool: Any) -> Any:  # Any: the pools of redis-py's two worlds have no common type.
    """A connection with the pool's class and options, not connected yet. Raises if redis-py refuses an option."""
    return connection(pool.connection_class, pool.connection_kwargs)


def check_pool(pool: object) -> None:
    """Check that the pool's class and options can be used for our connections.

    Raises:
        NotifyError: the pool finds the master by Sentinels, in its own way and without a deadline.
    """
    if hasattr(pool, "get_master_address"):
        raise NotifyError(
            f"A pool of connections to a Sentinel's master cannot be used here; pass the URI {SENTINEL_EXAMPLE} instead."
        )


def once(wanted: Mapping[str, Any]) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of a pool, without those for retries and for commands that redis-py sends by itself."""
    return {name: value for name, value in wanted.items() if name not in (*_RETRYING, *_BY_ITSELF)}


def bounded(connected: Any) -> float:  # Any: as above.
    """The longest wait for a reply on such a connection, in seconds.

    Raises:
        NotifyError: it would wait without a limit.
    """
    seconds: float | None = connected.socket_timeout
    if seconds is None:
        raise NotifyError(
            "The connections of this pool wait without a limit. Make it with a time-out: socket_timeout=0.5, in seconds."
        )
    return seconds


def made(kind_of: Callable[..., T], *arguments: Any, **options: Any) -> T:  # Any: as in `settings`.
    """Make an object of redis-py, or raise an error that says which option it refuses."""
    try:
        return kind_of(*arguments, **options)
    except (TypeError, ValueError, exceptions.RedisError) as error:
        raise NotifyError(f"redis-py refuses an option of the Redis storage: {error}") from None


def connection(kind: type, wanted: Mapping[str, Any]) -> Any:  # Any: as in `settings`.
    """A connection of this redis-py class, not connected yet."""
    extra = unnamed(kind)
    try:
        return made(kind, **{**wanted, **extra})
    except NotifyError:
        # A class of the user's that passes the option itself, or checks the names of its options.
        return made(kind, **wanted)


@cache
def unnamed(kind: type) -> Mapping[str, None]:
    """The option that keeps a connection of this class from sending its library's name and version to the server.

    redis-py 7 and newer read the version from disk for each connection, which takes longer than connecting.
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
    """How many callers may use the pool at the same time."""
    most: int = pool.max_connections
    return min(most, MOST_CONNECTIONS)


def address(options: Mapping[str, Any]) -> str:  # Any: as in `settings`.
    """The address of the server, without credentials."""
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
