"""The Sentinels to ask for the master, and parsing of their replies. Pure: the two storages do the I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ratelimited_notify.storage.redis import options, scripts
from ratelimited_notify.storage.redis.failures import UnexpectedReply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratelimited_notify.storage.uri import StorageURI

# Sentinel's flags for a master that is down, in its own view or in that of the quorum.
_DOWN = frozenset((b"s_down", b"o_down"))


class Master(NamedTuple):
    """The address of the master."""

    host: str
    port: int


class Sentinels:
    """The Sentinels that monitor one master.

    Arguments:
        uri: the URI.
        service: the name under which they monitor the master.
        wanted: the options of connections to the master.
        others: the options of connections to the Sentinels that differ from these.
        client: redis-py's module of connection classes.
    """

    def __init__(
        self,
        uri: StorageURI,
        service: str,
        wanted: Mapping[str, Any],  # Any: whatever redis-py takes
        others: Mapping[str, Any],  # Any: as above
        client: Any,  # Any: as above
    ) -> None:
        self._hosts: Sequence[tuple[str, int]] = options.addresses(uri)
        self.service = service
        self.options = options.to_sentinels(wanted, others, client)
        """The options of connections to the Sentinels, without host and port."""
        self.command = scripts.command(b"SENTINEL", b"MASTER", service.encode())
        """The command that asks a Sentinel for the master."""

    def in_turn(self) -> Sequence[tuple[str, int]]:
        """The Sentinels in the order in which to ask them. The one that knew the master last time comes first."""
        return self._hosts

    def share(self, left: float, asked: int) -> float:
        """The share of the seconds `left` for the next Sentinel, after `asked` Sentinels. The master needs a share too."""
        return left / (len(self._hosts) - asked + 1)

    def knew(self, host: tuple[str, int]) -> None:
        """Remember the Sentinel that knew the master."""
        if self._hosts[0] != host:
            self._hosts = (host, *(other for other in self._hosts if other != host))


def master(reply: Any) -> Master | None:  # Any: as the server answers
    """Parse the reply of a Sentinel: the master, or None if the Sentinel knows no running one.

    Raises:
        UnexpectedReply: this is not a reply of a Sentinel.
    """
    # RESP 3 has a map type; RESP 2 sends a flat list.
    pairs = cast("dict[object, object]", reply) if isinstance(reply, dict) else _pairs(reply)
    found = {name: value for name, value in pairs.items() if isinstance(name, bytes) and isinstance(value, bytes)}
    try:
        host, port, flags = found[b"ip"].decode(), int(found[b"port"]), frozenset(found[b"flags"].split(b","))
    except (KeyError, ValueError):
        raise UnexpectedReply from None
    return Master(host, port) if b"master" in flags and flags.isdisjoint(_DOWN) else None


def _pairs(reply: object) -> dict[object, object]:
    if not isinstance(reply, list):
        raise UnexpectedReply
    parts = cast("list[object]", reply)
    try:
        return dict(zip(parts[::2], parts[1::2], strict=True))
    except (TypeError, ValueError):
        raise UnexpectedReply from None
