"""Whom to ask which server is the master, and what the answers mean. Pure: asking is up to the two storages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ratelimited_notify.storage.redis import options, scripts
from ratelimited_notify.storage.redis.failures import UnexpectedReply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ratelimited_notify.storage.redis.options import Several

# What Sentinel calls a master that it cannot reach, by its own judgement or by that of most of them.
_DOWN = frozenset((b"s_down", b"o_down"))


class Master(NamedTuple):
    """Where the master is."""

    host: str
    port: int


class Sentinels:
    """The Sentinels that watch one master.

    Arguments:
        parts: the URI.
        service: the name under which they watch the master.
        wanted: the options of connections to the master.
        others: what redis-py's connections to the Sentinels take, where it is something else.
        parse: redis-py's for URIs.
    """

    def __init__(
        self,
        parts: Several,
        service: str,
        wanted: Mapping[str, Any],  # Any: whatever redis-py takes
        others: Mapping[str, Any],  # Any: as above
        parse: Callable[[str], Mapping[str, Any]],  # Any: as above
    ) -> None:
        self._hosts: Sequence[tuple[str, int]] = parts.hosts
        self.service = service
        self.options = options.to_sentinels(wanted, others, parse)
        """Those of the connections to the Sentinels, without host and port."""
        self.command = scripts.command(b"SENTINEL", b"MASTER", service.encode())
        """Asks a Sentinel for the master."""

    def in_turn(self) -> Sequence[tuple[str, int]]:
        """Whom to ask, one after another: first who knew the last time."""
        return self._hosts

    def share(self, left: float, asked: int) -> float:
        """How many of the seconds that are `left` one Sentinel is given after so many were `asked`; the master needs some, too."""
        return left / (len(self._hosts) - asked + 1)

    def knew(self, host: tuple[str, int]) -> None:
        """Remember who answered."""
        if self._hosts[0] != host:
            self._hosts = (host, *(other for other in self._hosts if other != host))


def master(reply: Any) -> Master | None:  # Any: as the server answers
    """What a Sentinel says: the master, or None while it has none that runs.

    Raises:
        UnexpectedReply: it is no answer of a Sentinel.
    """
    # RESP 3 has a word for pairs.
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
