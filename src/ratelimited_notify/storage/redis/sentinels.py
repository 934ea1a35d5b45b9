"""The Sentinels to ask for the master, and parsing of their replies. Pure: the two storages do the I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from ratelimited_notify.storage.redis import access, options, scripts
from ratelimited_notify.storage.redis.failures import NoHandshake, NoMaster, UnexpectedReply, has_timed_out

# After `options`, which says what to install where redis is missing.
from redis.exceptions import ResponseError  # isort: skip

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

    def prefer(self, host: tuple[str, int]) -> None:
        """Remember the Sentinel that knew the master."""
        if self._hosts[0] != host:
            self._hosts = (host, *(other for other in self._hosts if other != host))


class Heard(NamedTuple):
    """What a Sentinel did that did not name a running master."""

    kind: Literal["login", "permission", "refused", "down", "silent"]
    text: str
    """Its address and a few words."""


def heard(host: str, port: int, error: Exception | None) -> Heard:
    """What a Sentinel did. Its error, or None if it considers the master to be down."""
    kind, words = _heard(error)
    return Heard(kind, f"{host}:{port} {words}")


def _heard(error: Exception | None) -> tuple[Literal["login", "permission", "refused", "down", "silent"], str]:
    if error is None:
        return "down", "says that it is down"
    text = str(error)
    if access.is_login(error):
        if "without any password configured" in text:
            return "login", "has no password for this user, and is given one"
        return "login", "requires a password" if text.startswith("Auth") else "refuses the user or password"
    if access.is_permission(error):
        return "permission", "does not permit the command"
    if isinstance(error, NoHandshake):
        return "silent", "does not begin TLS"
    if access.tls(text) is not None:
        return "refused", "cannot be reached with TLS"
    if isinstance(error, (ResponseError, UnexpectedReply)):
        return "refused", "does not know the name" if "No such master" in text else "is no Sentinel"
    return "silent", "does not answer" if has_timed_out(error) else "cannot be reached"


def no_master(service: str, heard: Sequence[Heard]) -> NoMaster:
    """The error when no Sentinel names a running master: what each of them did, and what to do."""
    kinds, each = {one.kind for one in heard}, ", ".join(one.text for one in heard)
    if "login" in kinds:
        return NoMaster(
            f"A Sentinel refused the user or password, so it is not known which server is the master {service!r}, and nothing was "
            f"sent ({each}). The user and password of the URI are for the master and for the Sentinels. If the Sentinels have "
            'others, pass them to the storage: RedisSentinelStorage(uri, sentinel_kwargs={"password": ...}), with None for none.',
            is_silent=False,
        )
    if "permission" in kinds:
        return NoMaster(
            f"A Sentinel does not let its user ask which server is the master {service!r}, so nothing was sent ({each}). "
            "The ACL of the Sentinels has to allow SENTINEL MASTER.",
            is_silent=False,
        )
    return NoMaster(
        f"Redis cannot be reached: no Sentinel that replies knows a running master named {service!r} ({each}). Is it running, "
        "and are the name, the hosts, the ports and TLS right?",
        is_silent="refused" not in kinds or "down" in kinds,
    )


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
