"""The memcached hosts that a URI names, and which of them has the windows of a recipient."""

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
"""Where memcached listens if nothing else is said."""

LANES = 16
"""The most connections that one process (one event loop) has to one host."""


class Host(NamedTuple):
    """One memcached server."""

    name: str
    """How a person writes the address; also what the choice of a host goes by."""
    address: Address


def hosts_of(uri: str) -> tuple[Host, ...]:
    """The hosts in a URI: `memcached://host:port,host:port`, or `memcached:///path/to.sock`. A port may be left out."""
    try:
        # Not by urlsplit as a whole: it takes several hosts for one, and refuses a bracketed one among them.
        locations, slash, path = uri.partition("://")[2].partition("/")
        if locations and "@" in uri:
            raise ValueError("this storage logs in nowhere, so leave user name and password out")
        if "?" in uri or "#" in uri:
            raise ValueError("options are arguments of the storage, not part of its address")
        if path.strip("/"):
            if locations:
                raise ValueError("it names both a host and the path of a socket")
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
    """The host that has the windows under this head, the same for every process whose URI names the same hosts.

    Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): a host added
    or removed moves only the recipients that it gains or loses, and the order of the hosts does not matter.
    """
    if len(hosts) == 1:
        return hosts[0]
    return max(hosts, key=lambda host: blake2b(f"{host.name} {head}".encode(), digest_size=8).digest())


def lane_of(head: str) -> int:
    """Which of a host's connections serves this head.

    Always the same within a process, so that its own threads and tasks wait for each other instead of racing.
    """
    return hash(head) % LANES
