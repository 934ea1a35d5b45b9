"""Where the rules are: a URI of a Redis server, read strictly. Pure.

A message never quotes the URI: any part of it may be part of a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_EXAMPLE = "redis://user:password@host:6379/0, rediss://… for TLS, or redis+unix:///path/to.sock"
_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix")
_ENCODED = "write %23 for #, %2F for /, %3F for ? and %40 for @ in user name and password"

_unprintable = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]").search
_server = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?\]|[\w.~-]+)(?::([0-9]{1,5}))?").fullmatch
_number = re.compile(r"[0-9]{1,9}").fullmatch
_decimal = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch

_MOST_SECONDS = 3600.0

_TRUE = ("true", "yes", "1", "t", "y")
_FALSE = ("false", "no", "0", "f", "n")


@dataclass(frozen=True, repr=False)
class Address:
    """A Redis server, and how to connect to it."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    """The path of a Unix socket."""
    tls: bool = False
    database: int = 0
    username: str | None = None
    password: str | None = None
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Further arguments of the connections of redis-py."""

    def __repr__(self) -> str:
        return f"<Address of {self.where}>"

    def with_options(self, options: Mapping[str, object]) -> Address:
        """The same server with other options."""
        return replace(self, options=options)

    @property
    def where(self) -> str:
        """The server, for messages."""
        return self.path or f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def place(self, key: str) -> str:
        """The URI of a key, without user and password."""
        if self.path is not None:
            return f"redis+unix://{self.path}?db={self.database}&key={quote(key, safe=':')}"
        return f"redis{'s' * self.tls}://{self.where}/{self.database}?key={quote(key, safe=':')}"


def address_of(uri: object) -> Address:
    """Read a URI.

    Raises:
        NotifyError: the URI is not understood as it is written.
    """
    if not isinstance(uri, str):
        raise NotifyError(f"The URI of rules in Redis must be a string, not a {type(uri).__name__}. Write {_EXAMPLE}.")
    scheme, separator, rest = uri.partition("://")
    name = scheme.lower()
    if not separator or name not in _SCHEMES:
        if name.endswith(("+cluster", "+sentinel")):
            raise _refused("rules are read from one server, so neither from a cluster nor by Sentinels")
        raise _refused(f"its scheme is none of {', '.join(_SCHEMES)}")
    if _unprintable(rest):
        raise _refused("it contains a space, a line break or another character that cannot be printed")
    if "#" in rest:
        raise _refused(f"it contains a #; {_ENCODED}")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    if "@" in path or "@" in query:
        raise _refused(f"an @ follows a / or a ?; {_ENCODED}")
    credentials, _, server = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(query)
    found: dict[str, Any] = {  # Any: each value has the type of the field that it is for
        "tls": name in ("rediss", "valkeys"),
        "username": unquote(username) or options.pop("username", None),
        "password": unquote(password) or options.pop("password", None),
        "database": options.pop("db", 0),
        "options": options,
    }
    if name.endswith("+unix"):
        if server or not path:
            raise _refused("it must name the path of a socket after three slashes")
        return Address(path=unquote(slash + path), **found)
    if server:
        found |= _host_and_port(server)
    if path.rstrip("/"):
        if not _number(path.rstrip("/")):
            raise _refused("what follows the host is the database, and it must be a number, such as /0")
        found["database"] = int(path.rstrip("/"))
    return Address(**found)


def _host_and_port(text: str) -> dict[str, object]:
    if "," in text:
        raise _refused("it names several servers; rules are read from one")
    read = _server(text)
    if read is None:
        raise _refused(f"after the credentials stand a host and a port; {_ENCODED}")
    host, port = read.groups()
    if port is not None and not 0 < int(port) < 2**16:
        raise _refused("a port is a number from 1 to 65535")
    found: dict[str, object] = {"host": host.strip("[]").replace("%25", "%").lower()}
    return found if port is None else {**found, "port": int(port)}


def _options(query: str) -> dict[str, object]:
    options: dict[str, object] = {}
    for part in query.split("&") if query else ():
        name, _, text = part.partition("=")
        if name in _IGNORED:
            continue
        read = _READ.get(name)
        if read is None:
            # The unknown name is not shown: it may be part of a password.
            raise _refused(f"an option in it is unknown; it may have {', '.join(sorted(_READ))}")
        value = read(unquote(text))
        if value is None:
            raise _refused(f"its option {name} has a value that is not allowed")
        if name in options:
            raise _refused(f"it has the option {name} twice")
        options[name] = value
    return options


def seconds(text: str) -> float | None:
    """A time-out, or None if it is none."""
    value = float(text) if _decimal(text) else 0.0
    return value if 0 < value <= _MOST_SECONDS else None


def _whole(text: str) -> int | None:
    return int(text) if _number(text) else None


def _switch(text: str) -> bool | None:
    return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None


def _text(text: str) -> str | None:
    return text or None


_READ: dict[str, Callable[[str], object]] = {
    "timeout": seconds,
    "db": _whole,
    "ssl_check_hostname": _switch,
    **dict.fromkeys(
        ("username", "password", "client_name", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs"), _text
    ),
    **dict.fromkeys(("ssl_ca_path", "ssl_password"), _text),
}

# A program may use one URI for its counts and for its rules.
_IGNORED = frozenset(
    (
        *("max_connections", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
        *("health_check_interval", "retry_on_timeout", "decode_responses", "encoding", "encoding_errors", "protocol"),
    )
)


def _refused(reason: str) -> NotifyError:
    return NotifyError(f"The URI of rules in Redis cannot be read: {reason}. Write {_EXAMPLE}.")
