"""Storage URIs of every scheme. This is the only place that understands them. Pure.

A client library ignores parts of a URI that it does not understand, and then connects to another server than the one that was
meant. So no client sees a URI. A URI that is not understood as it is written is an error that says what to write. The error
never quotes the URI: if a reserved character is not percent-encoded, any part of the URI may be part of a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind: TypeAlias = Literal["memory", "redis", "cluster", "sentinel", "memcached", "sqlite"]
"""The kinds of storage that this library has."""

CLUSTER_EXAMPLE: Final = "redis+cluster://host:7000,host:7001"

SENTINEL_EXAMPLE: Final = "redis+sentinel://host:26379,host:26380/service"

MOST_DATABASES: Final = 2**31

_PORTS = 65535

_STORAGES: Final[Mapping[Kind, str]] = {
    "memory": "memory storage",
    "redis": "Redis storage",
    "cluster": "Redis storage",
    "sentinel": "Redis storage",
    "memcached": "memcached storage",
    "sqlite": "SQLite storage",
}

_EXAMPLES: Final[Mapping[Kind, str]] = {
    "memory": "memory://",
    "redis": (
        "redis://user:password@host:6379/0, rediss://… for TLS or redis+unix:///path/to.sock, with special characters "
        "percent-encoded"
    ),
    "cluster": f"{CLUSTER_EXAMPLE}, with user:password@ before the first of them if needed",
    "sentinel": f"{SENTINEL_EXAMPLE}, with user:password@ before the first of them if needed",
    "memcached": "memcached://host:port, memcached://host:port,host:port or memcached:///path/to.sock",
    "sqlite": "sqlite:///windows.db for a file in the current folder, or sqlite:////var/lib/app/windows.db",
}

_ENCODED = "in user name, password, path and options, write %23 for #, %2F for /, %3F for ? and %40 for @"

_name_of_scheme = re.compile(r"[a-z][a-z0-9+.-]*").fullmatch
_unprintable = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search
_lone_percent = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_host_name = re.compile(r"[\w.~-]+").fullmatch
_number = re.compile(r"[0-9]{1,10}").fullmatch
_option = re.compile(r"([a-z_]+)=(.+)").fullmatch


class Scheme(NamedTuple):
    """What a scheme means."""

    kind: Kind
    tls: bool = False
    socket: bool = False
    """Whether the URI names the path of a Unix socket."""


def _schemes() -> dict[str, Scheme]:
    found = {"memory": Scheme("memory"), "memcached": Scheme("memcached"), "sqlite": Scheme("sqlite")}
    for name, tls in (("redis", False), ("rediss", True), ("valkey", False), ("valkeys", True)):
        found[name] = Scheme("redis", tls)
        found[f"{name}+cluster"] = Scheme("cluster", tls)
        found[f"{name}+sentinel"] = Scheme("sentinel", tls)
    found["redis+unix"] = found["valkey+unix"] = Scheme("redis", socket=True)
    return found


_SCHEMES: Final[Mapping[str, Scheme]] = _schemes()


class Server(NamedTuple):
    """One server of a URI."""

    host: str
    port: int | None
    """None if the URI does not say."""


@dataclass(frozen=True, slots=True, repr=False)
class StorageURI:
    """The parts of a URI of this library's own storages, percent-decoded."""

    kind: Kind
    tls: bool
    servers: tuple[Server, ...]
    """Empty for a Unix socket, and for the default server of `redis://`."""
    username: str | None
    password: str | None
    path: str | None
    """The path of a Unix socket, or of an SQLite file."""
    database: int | None
    service: str | None
    """The name under which Sentinels monitor the master."""
    options: Mapping[str, str]
    """The options after the question mark."""

    def __repr__(self) -> str:
        # A traceback may show it.
        return f"<StorageURI of {self.kind}>"


class _NotUnderstood(ValueError):
    """Says why, without quoting the URI."""


def scheme_of(uri: str) -> str:
    """The scheme in lower case, with the prefix `async+` if there is one, and without `notify+`.

    Raises:
        NotifyError: this is not a URI.
    """
    scheme, separator, _ = uri.partition("://")
    prefix, name = ("async+", scheme[6:]) if scheme.lower().startswith("async+") else ("", scheme)
    name = name.lower().removeprefix("notify+")
    if not separator or not _name_of_scheme(name):
        # What stands there instead of a scheme may be part of a password.
        raise NotifyError(
            "A string without '://' is not a storage URI; write 'memory://', 'sqlite:///windows.db', "
            "'redis://localhost:6379/0', 'memcached://localhost:11211', or pass a storage object."
        )
    return prefix + name


def kind_of(scheme: str) -> Kind | None:
    """The kind of this library's own storage for a scheme without prefix; None if it has none for it."""
    found = _SCHEMES.get(scheme)
    return None if found is None else found.kind


def refused(kind: Kind, reason: str) -> NotifyError:
    """The error for a URI. `reason` must not quote the URI."""
    return NotifyError(f"The URI of the {_STORAGES[kind]} cannot be read: {reason}. Write {_EXAMPLES[kind]}.")


def parse(uri: str, kind: Kind) -> StorageURI:
    """The parts of a URI.

    Arguments:
        uri: the URI, with or without the prefixes `async+` and `notify+`.
        kind: the kind of storage that is to use it.

    Raises:
        NotifyError: the URI is not understood as it is written, or is one of another kind of storage.
    """
    try:
        return _parsed(uri, kind)
    except _NotUnderstood as error:
        reason = str(error)
    # Outside of the block, so that nothing is chained to it.
    raise refused(kind, reason)


def _parsed(uri: str, kind: Kind) -> StorageURI:
    scheme = _SCHEMES.get(scheme_of(uri).removeprefix("async+"))
    if scheme is None or scheme.kind != kind:
        raise _NotUnderstood("its scheme is one of another storage")
    rest = uri.partition("://")[2]
    if kind == "memory":
        if rest:
            raise _NotUnderstood(
                "nothing may follow memory://, since these windows are in this process's memory and in no file"
            )
        return StorageURI(kind, scheme.tls, (), None, None, None, None, None, {})
    if _unprintable(rest):
        raise _NotUnderstood("it contains a line break or another character that cannot be printed")
    if "#" in rest:
        raise _NotUnderstood(f"it contains a #; {_ENCODED}")
    before, mark, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    if kind == "memcached" and authority and "@" in rest:
        raise _NotUnderstood("this storage does not log in, so leave out user name and password")
    if "@" in path or "@" in query:
        raise _NotUnderstood(f"an @ follows a / or a ?; {_ENCODED}")
    if kind == "memcached" and mark:
        raise _NotUnderstood("options are arguments of the storage, not part of its address")
    if kind == "sqlite":
        options = _options(query) if mark else {}
        return StorageURI(kind, scheme.tls, (), None, None, _file(authority, path), None, None, options)
    credentials, at, named = authority.rpartition("@")
    if "@" in credentials and "," in credentials:
        raise _NotUnderstood(
            "user and password stand in it once, before the first server; in them, write %2C for , and %40 for @"
        )
    username, colon, password = credentials.partition(":")
    options = _options(query) if mark else {}
    socket = scheme.socket or (kind == "memcached" and not named and bool(path.strip("/")))
    return StorageURI(
        kind,
        scheme.tls,
        () if socket else _servers(named, kind, anywhere=not at),
        _decoded(username) or None,
        _decoded(password) or None if colon else None,
        _socket(named, slash + path, kind) if socket else None,
        _database(path, kind) if not socket else None,
        _service(path) if kind == "sentinel" else None,
        options,
    )


def _servers(named: str, kind: Kind, *, anywhere: bool) -> tuple[Server, ...]:
    """The servers of a URI. `anywhere`: whether there may be none, which is the default server."""
    if kind == "redis":
        if not named and anywhere:
            return ()
        if "," in named:
            raise _NotUnderstood(
                "it names several servers, and a plain redis:// has one; several are redis+cluster:// or redis+sentinel://"
            )
    parts = named.split(",")
    if kind == "memcached":
        return tuple(_server(part) for part in parts)
    if kind == "redis":
        return (_server(named),)
    try:
        found = tuple(_server(part) for part in parts)
    except _NotUnderstood:
        raise _NotUnderstood("each server needs a host and a port") from None
    if any(server.port is None for server in found):
        raise _NotUnderstood("each server needs a host and a port")
    return found


def _server(text: str) -> Server:
    text = text.strip(" ")
    if text.startswith("["):
        host, closing, behind = text[1:].partition("]")
        port = behind[1:] if behind.startswith(":") else None
        if not closing or (behind and port is None) or not _is_ipv6(host):
            raise _NotUnderstood("an IPv6 address stands in brackets, such as [::1]:6379")
        host = host.replace("%25", "%")
    else:
        host, colon, behind = text.partition(":")
        port = behind if colon else None
        if ":" in behind:
            raise _NotUnderstood("it has a colon too many; an IPv6 address stands in brackets, such as [::1]:6379")
        if not host:
            raise _NotUnderstood("a host has no name")
        if not _host_name(host):
            raise _NotUnderstood("the name of a host contains a character that cannot be part of one")
    if port is None:
        return Server(host.lower(), None)
    if not _number(port) or not 0 < int(port) <= _PORTS:
        raise _NotUnderstood(f"a port is a number from 1 to {_PORTS}")
    return Server(host.lower(), int(port))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.replace("%25", "%"))
    except ValueError:
        return False
    return True


def _socket(named: str, path: str, kind: Kind) -> str:
    if named:
        raise _NotUnderstood("a socket has no host, so write three slashes before its path: redis+unix:///path")
    if path in ("", "/"):
        raise _NotUnderstood("it names no path of a socket")
    *_, file, last = ("", *path.rstrip("/").split("/"))
    if kind == "redis" and "." in file and last.isascii() and last.isdigit():
        raise _NotUnderstood("a number follows the path of the socket; the database is an option there: ?db=2")
    decoded = _decoded(path)
    if _unprintable(decoded):
        raise _NotUnderstood("the path of the socket contains a character that cannot be printed")
    return decoded


def _file(named: str, path: str) -> str:
    """The path of an SQLite file."""
    if named:
        raise _NotUnderstood("the path of a file comes after three slashes, an absolute path after four")
    decoded = _decoded(path)
    if not decoded or decoded.endswith("/"):
        raise _NotUnderstood("it names no file")
    if decoded == ":memory:":
        raise _NotUnderstood("it names no file; the URI of windows in memory is memory://")
    if _unprintable(decoded):
        raise _NotUnderstood("the path of the file contains a character that cannot be printed")
    return decoded


def _database(path: str, kind: Kind) -> int | None:
    """The database that the path of a URI names."""
    if kind == "sentinel":
        return None
    text = path.removesuffix("/")
    if kind == "memcached":
        if text:
            raise _NotUnderstood("it contains both a host and the path of a socket")
        return None
    if not text:
        return None
    if kind == "cluster":
        if text == "0":
            return 0
        raise _NotUnderstood("a cluster has no databases, so leave out what follows the hosts")
    if not _number(text) or int(text) >= MOST_DATABASES:
        raise _NotUnderstood("what follows the host is the database, and it must be a number, such as /0")
    return int(text)


def _service(path: str) -> str | None:
    text = path.removesuffix("/")
    if "/" in text:
        raise _NotUnderstood("after the Sentinels stands only the name of the master; the database is an option: ?db=2")
    name = _decoded(text)
    if _unprintable(name):
        raise _NotUnderstood("the name of the master contains a character that cannot be printed")
    return name or None


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        found = _option(part)
        if found is None:
            raise _NotUnderstood(f"after the ? stand options, such as ?timeout=2&max_connections=10; {_ENCODED}")
        name, value = found.groups()
        if name in options:
            raise _NotUnderstood("an option stands in it twice")
        if "+" in value:
            raise _NotUnderstood("in the value of an option, write %2B for + and %20 for a space")
        options[name] = _decoded(value)
    return options


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    if _lone_percent(text):
        raise _NotUnderstood("a % that two hexadecimal digits do not follow is written as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        pass
    # Outside of the block: the error of Python quotes the text.
    raise _NotUnderstood("what is percent-encoded is not UTF-8")
