"""Which server of a cluster has which slot, as far as is known. Pure: what is known comes from outside."""

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
"""So many a cluster has (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)."""

_PORTS = 65536

SUFFICES = 0.1
"""Seconds for which what a server said is not asked again, however many callers doubt it."""


def slot_of(key: str) -> int:
    """The slot in which a key lies: by its tag, the text between the first braces, or the whole key where there is none."""
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
    """The map from slots to masters, and whom to ask for a new one.

    It is replaced as a whole, so threads and tasks may read it while others bring it up to date.

    Arguments:
        seeds: servers of the cluster, at least one of which answers at the start.
        remap: another address for one that a server gave, where this process is not on the cluster's network.
    """

    def __init__(self, seeds: Sequence[Address], remap: Callable[[Address], Address] | None = None) -> None:
        self.seeds = tuple(seeds)
        self._remap = remap
        self._owners: list[Address | None] = [None] * SLOTS
        self._servers: tuple[Address, ...] = ()
        self._masters: tuple[Address, ...] = ()
        self._learned = float("-inf")
        self._turn = 0
        self.troubles: dict[Address, StorageError] = {}
        """What was wrong with those who gave no answer when they were last asked."""
        self.doubtful = True
        """Whether something has happened that the map does not explain."""
        self.learner: Callable[[], Claim | None] = _nobody
        """The claim of the caller that asks for a new map. No lock: an interrupt could leave it locked, and two that ask do no harm."""
        self.pausing: set[int] = set()
        """The callers that wait before they try again, by id."""

    @property
    def masters(self) -> tuple[Address, ...]:
        """The servers that have slots."""
        return self._masters

    def owner(self, slot: int) -> Address | None:
        """The master that has the slot, or None where nobody is known to have it."""
        return self._owners[slot]

    def known(self, address: Address) -> bool:
        """Whether the server belongs to the cluster, as far as is known."""
        return address in self._servers or address in self.seeds

    def fresh(self, now: float) -> bool:
        """Whether the map is so new, at this time in seconds, that there is no point in asking again."""
        return now < self._learned + SUFFICES

    def is_being_learned(self, now: float) -> bool:
        """Whether a caller is asking for a new map."""
        claim = self.learner()
        return claim is not None and now < claim.until

    def informants(self) -> list[Address]:
        """Whom to ask for the map, one after another: each time somebody else first, and those last who gave no answer."""
        everyone = list(dict.fromkeys((*self._masters, *self._servers, *self.seeds)))
        self._turn = (self._turn + 1) % len(everyone)
        everyone = everyone[self._turn :] + everyone[: self._turn]
        return sorted(everyone, key=self.troubles.__contains__)

    def learn(self, reply: Sequence[Any], source: Address, now: float) -> None:  # Any: nested lists of many types
        """Take over what the server `source` answered to CLUSTER SLOTS."""
        owners: list[Address | None] = [None] * SLOTS
        masters: dict[Address, None] = {}
        replicas: dict[Address, None] = {}
        for first, last, *servers in reply:
            master, *others = self._addresses(servers, source)
            masters[master] = None
            replicas.update(dict.fromkeys(others))
            owners[first : last + 1] = [master] * (last + 1 - first)
        self._owners, self._masters, self._servers = owners, tuple(masters), (*masters, *replicas)
        # Others may write to it meanwhile.
        for gone in [address for address in self.troubles.copy() if not self.known(address)]:
            self.troubles.pop(gone, None)
        # Those that an interrupt left there go.
        self._learned, self.doubtful, self.pausing = now, False, set()

    def moved(self, slot: int, address: Address, source: Address) -> None:
        """A server said that this slot is elsewhere; others may be, too."""
        self._owners[slot] = self.place(address, source)
        self.doubtful = True

    def place(self, address: Address, source: Address) -> Address:
        """Where to find a server that `source` gave this address; without a host it is the same host."""
        host, port = address
        found = host or source[0], port
        return self._remap(found) if self._remap is not None else found

    def _addresses(self, servers: Iterable[Sequence[Any]], source: Address) -> list[Address]:  # Any: as in `learn`
        return [self.place((_text(host), int(port)), source) for host, port, *_ in servers]


def slot_ranges(reply: Any) -> Sequence[Any]:  # Any: as the server answers
    """The answer to CLUSTER SLOTS, if it is one.

    Raises:
        UnexpectedReply: it is something else.
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
    # A server that does not know its own name says so in one of these ways.
    text = host.decode(errors="replace") if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text
