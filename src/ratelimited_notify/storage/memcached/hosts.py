"""The memcached hosts in a URI, and which of them has the windows of a recipient."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Sequence

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

PORT = 11211
"""The default port of memcached."""

LANES = 16
"""The most connections from one process (one event loop) to one host."""


class Host(NamedTuple):
    """One memcached server."""

    name: str
    """The address as a person writes it. The choice of a host depends on it."""
    address: Address


def hosts_of(uri: str) -> tuple[Host, ...]:
    """The hosts in a URI: `memcached://host:port,host:port`, or `memcached:///path/to.sock`. Ports are optional."""
    try:
        # Not with urlsplit on the whole URI: it reads several hosts as one, and rejects a bracketed host among them.
        locations, slash, path = uri.partition("://")[2].partition("/")
        if locations and "@" in uri:
            raise ValueError("this storage does not log in, so leave out user name and password")
        if "?" in uri or "#" in uri:
            raise ValueError("options are arguments of the storage, not part of its address")
        if path.strip("/"):
            if locations:
                raise ValueError("it contains both a host and the path of a socket")
            return (Host(slash + path, slash + path),)
        hosts = tuple(dict.fromkeys(_host(location) for location in locations.split(",")))
    except ValueError as error:
        raise NotifyError(
            f"This address of a memcached storage cannot be used: {error}. "
            "Write memcached://host:port, memcached://host:port,host:port or memcached:///path/to.sock."
        ) from None
    return hosts


def _host(location: str) -> Host:
    parts = urlsplit(f"//{location.strip()}")
    if not parts.hostname or parts.path:
        raise ValueError("a host has no name")
    port = PORT if parts.port is None else parts.port
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Host(f"{shown}:{port}", (parts.hostname, port))


def choose(hosts: Sequence[Host], head: str) -> Host:
    """The host that has the windows under this key head. It is the same in every process whose URI has the same hosts.

    The method is rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998). Adding
    or removing a host moves only the recipients that this host gains or loses. The order of the hosts does not matter.
    """
    if len(hosts) == 1:
        return hosts[0]
    return max(hosts, key=lambda host: blake2b(f"{host.name} {head}".encode(), digest_size=8).digest())


def lane_of(head: str) -> int:
    """The number of the host's connection that serves this key head.

    It is always the same within a process, so its threads and tasks wait for each other instead of racing.
    """
    return hash(head) % LANES
