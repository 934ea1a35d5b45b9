"""The memcached hosts in a URI, and which of them has the windows of a recipient."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ratelimited_notify.storage.uri import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.storage.uri import Server

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
    """The hosts in a URI: `memcached://host:port,host:port`, or `memcached:///path/to.sock`. Ports are optional.

    Raises:
        NotifyError: the URI cannot be used.
    """
    parsed = parse(uri, "memcached")
    if parsed.path is not None:
        return (Host(parsed.path, parsed.path),)
    return tuple(dict.fromkeys(_host(server) for server in parsed.servers))


def _host(server: Server) -> Host:
    port = PORT if server.port is None else server.port
    shown = f"[{server.host}]" if ":" in server.host else server.host
    return Host(f"{shown}:{port}", (server.host, port))


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
