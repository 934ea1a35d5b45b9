"""The options of connections to a server, from a URI. No I/O."""

from __future__ import annotations

from functools import cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, TypeVar

from ratelimited_notify.errors import MissingExtra, NotifyError
from ratelimited_notify.storage.redis.connection_options import MOST_CONNECTIONS, check_numbers, from_uri
from ratelimited_notify.storage.timeout import checked_timeout
from ratelimited_notify.storage.uri import SENTINEL_EXAMPLE, refused

try:
    from redis import exceptions
except ImportError as missing:
    raise MissingExtra("redis", "The Redis storage") from missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimited_notify.storage.uri import StorageURI

CONNECTIONS = 50
"""The most connections that one storage opens (in one event loop), unless `max_connections` says otherwise."""

T = TypeVar("T")

# redis-py's options for retries. The code that sends our commands ignores them, but connecting would take many time-outs.
_RETRYING = ("retry", "retry_on_timeout", "retry_on_error")
# Options that a pool adds for its own use.
_BY_ITSELF = ("health_check_interval", "maint_notifications_config", "maint_notifications_pool_handler")


def settings(
    uri: StorageURI,
    timeout: float,
    options: Mapping[str, Any],  # Any: whatever redis-py takes.
    client: Any,  # Any: redis-py's module of connection classes, for threads or for asyncio.
) -> dict[str, Any]:  # Any: as above.
    """The keyword arguments of a connection pool. The URI takes precedence over options, and options over the defaults.

    Raises:
        NotifyError: an option is unknown, or its value is not allowed.
    """
    checked_timeout(timeout)
    check_numbers(options)
    said = from_uri(uri.options, uri.kind)
    timeout = said.pop("timeout", timeout)
    wanted = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_connections": CONNECTIONS,
        # RESP 3 would cost one or two round trips per connection, for features that are not used here.
        "protocol": 2,
        **options,
        **_place(uri, said, client),
        "decode_responses": False,
    }
    if wanted["socket_timeout"] is None:
        # With None redis-py would wait without a limit.
        wanted["socket_timeout"] = timeout
    for name in _RETRYING:
        wanted.pop(name, None)
    if uri.kind == "cluster" and wanted.get("db"):
        raise NotifyError("A Redis cluster has no databases, so leave out db=.")
    if uri.kind == "redis" and "ssl" in said:
        raise refused("redis", "TLS is not an option of it but its scheme, rediss://")
    return wanted


def _place(
    uri: StorageURI,
    said: dict[str, Any],  # Any: as in `settings`.
    client: Any,  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """What a URI says: its options, and where and as whom to connect."""
    for name, value in (("username", uri.username), ("password", uri.password), ("db", uri.database)):
        if value is None:
            continue
        if said.get(name, value) != value:
            raise refused(uri.kind, f"it says {name} twice, and not the same")
        said[name] = value
    if uri.tls:
        said["connection_class"] = client.SSLConnection
    if uri.path is not None:
        return {**said, "connection_class": client.UnixDomainSocketConnection, "path": uri.path}
    if uri.kind == "redis" and uri.servers:
        (server,) = uri.servers
        said["host"] = server.host
        if server.port is not None:
            said["port"] = server.port
    return said


def settings_of_each(
    uri: StorageURI,
    timeout: float,
    options: Mapping[str, Any],  # Any: as in `settings`.
    client: Any,  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """The `settings` for each of several servers, without host and port. `ssl=True` also enables TLS."""
    wanted = settings(uri, timeout, options, client)
    if str(wanted.pop("ssl", False)).lower() in ("true", "yes", "1"):
        wanted["connection_class"] = client.SSLConnection
    wanted.pop("host", None)
    wanted.pop("port", None)
    return wanted


def addresses(uri: StorageURI) -> tuple[tuple[str, int], ...]:
    """The servers of a URI that names several, each with its port."""
    return tuple((server.host, server.port) for server in uri.servers if server.port is not None)


def to_server(wanted: Mapping[str, Any], address: tuple[str, int]) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of connections to one of several servers."""
    return {**wanted, "host": address[0], "port": address[1]}


def service(uri: StorageURI, named: str | None) -> str:
    """The name under which the Sentinels monitor the master."""
    found = uri.service or named
    if not found:
        raise NotifyError(
            f"The URI does not name the master. Write its name after the Sentinels, {SENTINEL_EXAMPLE}, or pass service_name=."
        )
    if named not in (None, found):
        raise NotifyError("The URI and service_name= name two masters. Leave out one of them.")
    return found


def watched(uri: StorageURI, name: str) -> str:
    """The master's service name and its Sentinels, in place of an address."""
    return f"{name!r} of the Sentinels {', '.join(f'{host}:{port}' for host, port in addresses(uri))}"


def to_sentinels(
    wanted: Mapping[str, Any],  # Any: as in `settings`.
    others: Mapping[str, Any],  # Any: as in `settings`.
    client: Any,  # Any: as in `settings`.
) -> dict[str, Any]:  # Any: as in `settings`.
    """The options of connections to the Sentinels, derived from those of the connections to the master.

    Arguments:
        wanted: the options of the connections to the master.
        others: the options that differ; `ssl=` switches TLS on or off.
        client: redis-py's module of connection classes.
    """
    check_numbers(others)
    found = {name: value for name, value in {**wanted, **others}.items() if name not in ("db", "client_name", "ssl")}
    if others.get("ssl"):
        found["connection_class"] = client.SSLConnection
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
        NotifyError: it would wait without a limit, or the limit is not allowed.
    """
    seconds: float | None = connected.socket_timeout
    if seconds is None:
        raise NotifyError(
            "The connections of this pool wait without a limit. Make it with a time-out: socket_timeout=0.5, in seconds."
        )
    return checked_timeout(seconds, "socket_timeout")


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


def circuit_of(where: str, pool: Any, client: Any) -> str:  # Any: as in `checked` and in `settings`.
    """The name of a server's circuit. With TLS and without it, an address is not the same server: one may be a mistake."""
    return f"{where} with TLS" if issubclass(pool.connection_class, client.SSLConnection) else where


def address(options: Mapping[str, Any]) -> str:  # Any: as in `settings`.
    """The address of the server, without credentials."""
    return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
