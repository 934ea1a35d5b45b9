"""The slot map: which server of a cluster has which slot, as far as is known. Pure: the callers pass in what servers reply."""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, TypeAlias

from ratelimited_notify.storage.redis.failures import UnexpectedReply
from ratelimited_notify.storage.redis.replies import shaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratelimited_notify.errors import StorageError

Address: TypeAlias = tuple[str, int]

SLOTS = 16384
"""The number of slots of a cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)."""

_PORTS = 65536

SUFFICES = 0.1
"""Seconds for which a new map is not requested again, however many callers doubt it."""


def slot_of(key: str) -> int:
    """The slot of a key: the hash of its tag, the text between the first braces, or of the whole key if it has no tag."""
    _, brace, behind = key.partition("{")
    tag, closing, _ = behind.partition("}")
    return crc_hqx((tag if brace and closing and tag else key).encode(), 0) % SLOTS


class Claim:
    """One caller asks for a new map. It is alive as long as the call is, and holds until a deadline at most."""

    __slots__ = ("__weakref__", "until")

    def __init__(self, until: float) -> None:
        self.until = until


def _nobody() -> None:
    return


class Slots:
    """The map from slots to masters, and the servers to ask for a new map.

    The map is replaced as a whole, so threads and tasks can read it while another one updates it.

    Arguments:
        seeds: servers of the cluster; at least one of them has to answer at the start.
        remap: maps an address that a server announced to another one, if this process is not on the cluster's network.
    """

    def __init__(self, seeds: Sequence[Address], remap: Callable[[Address], Address] | None = None) -> None:
        self.seeds = tuple(seeds)
        self._remap = remap
        self._owners: list[Address | None] = [None] * SLOTS
        self._servers: tuple[Address, ...] = ()
        self._masters: tuple[Address, ...] = ()
        self._learned = self._in_vain = float("-inf")
        self._first = 0
        self.troubles: dict[Address, StorageError] = {}
        """The last error of each server that did not answer its last request."""
        self.doubtful = True
        """Whether the map may be out of date, for example after a redirection or a lost server."""
        self.learner: Callable[[], Claim | None] = _nobody
        """The claim of the caller that requests a new map. Not a lock, which an interrupt could leave locked; two requests do no harm."""
        self.pausing: set[int] = set()
        """The callers that wait before they try again, by id."""

    @property
    def masters(self) -> tuple[Address, ...]:
        """The servers that have slots."""
        return self._masters

    def owner(self, slot: int) -> Address | None:
        """The master that has the slot; None if it is unknown."""
        return self._owners[slot]

    def known(self, address: Address) -> bool:
        """Whether the server belongs to the cluster, as far as is known."""
        return address in self._servers or address in self.seeds

    def fresh(self, now: float) -> bool:
        """Whether the map is so new at this time, in seconds, that there is no point in requesting another one."""
        return now < max(self._learned, self._in_vain) + SUFFICES

    def asked_in_vain(self, now: float) -> None:
        """Record that no server answered: for a moment it makes no sense to ask them again."""
        self._in_vain = now

    def is_being_learned(self, now: float) -> bool:
        """Whether a caller is requesting a new map."""
        claim = self.learner()
        return claim is not None and now < claim.until

    def informants(self) -> list[Address]:
        """The servers to ask for the map, in order. Each call starts with another one. Servers that did not answer come last."""
        everyone = list(dict.fromkeys((*self._masters, *self._servers, *self.seeds)))
        self._first = (self._first + 1) % len(everyone)
        everyone = everyone[self._first :] + everyone[: self._first]
        return sorted(everyone, key=self.troubles.__contains__)

    def learn(self, reply: Sequence[Any], source: Address, now: float) -> None:  # Any: nested lists of many types
        """Use the reply of the server `source` to CLUSTER SLOTS as the new map."""
        owners: list[Address | None] = [None] * SLOTS
        masters: dict[Address, None] = {}
        replicas: dict[Address, None] = {}
        for first, last, *servers in reply:
            master, *others = self._addresses(servers, source)
            masters[master] = None
            replicas.update(dict.fromkeys(others))
            owners[first : last + 1] = [master] * (last + 1 - first)
        self._owners, self._masters, self._servers = owners, tuple(masters), (*masters, *replicas)
        # A copy, because other callers may change the dict meanwhile.
        for gone in [address for address in self.troubles.copy() if not self.known(address)]:
            self.troubles.pop(gone, None)
        # Those that an interrupt left there go.
        self._learned, self.doubtful, self.pausing = now, False, set()

    def moved(self, slot: int, address: Address, source: Address) -> None:
        """The server `source` redirected this slot to `address`. Other slots may have moved too."""
        self._owners[slot] = self.place(address, source)
        self.doubtful = True

    def place(self, address: Address, source: Address) -> Address:
        """The address at which this process reaches a server announced by `source`. An empty host means the host of `source`."""
        host, port = address
        found = host or source[0], port
        return self._remap(found) if self._remap is not None else found

    def _addresses(self, servers: Iterable[Sequence[Any]], source: Address) -> list[Address]:  # Any: as in `learn`
        return [self.place((_text(host), int(port)), source) for host, port, *_ in servers]


def slot_ranges(reply: Any) -> Sequence[Any]:  # Any: as the server answers
    """Check the reply to CLUSTER SLOTS.

    Raises:
        UnexpectedReply: this is not such a reply.
    """
    found = shaped(reply, list[list[Any]])  # Any: two numbers, and then lists
    for part in found:
        first, last = shaped(part[:2], tuple[int, int])
        servers = shaped(part[2:], list[list[Any]])  # Any: a host, a port, and what servers add to it
        if not (0 <= first <= last < SLOTS and servers):
            raise UnexpectedReply
        for server in servers:
            _, port = shaped(server[:2], tuple[bytes | None, int])
            if not 0 <= port < _PORTS:
                raise UnexpectedReply
    return found


def _text(host: bytes | str | None) -> str:
    # A server that does not know its own host name sends null, an empty string or "?".
    text = host.decode(errors="replace") if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text
