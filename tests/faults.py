"""Faults of a server or of the network, and the decisions of callers under load during the fault and after it.

A run consists of a world (real servers, and a proxy for faults of the network), a load on it, and a fault that begins and
ends. Times are measured from the return of the server: the moment when it answers a PING from another client.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from redis.crc import key_slot

from cluster_servers import SLOTS, Cluster, View, Watched, cluster_servers, sentinel_servers, wait_for
from loads import CAPPED, COUNTED, LOADS, Load
from proxy_process import ProxyProcess
from ratelimited_notify import Limiter
from servers import HOST, Memcached, Server, Valkey, memcached_server, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AWAY = 1.2
"""How long servers hang, in seconds: a little more than two timeouts."""

CAP = 50
"""The amount per hour of a limit that many callers share."""

_BACK_WITHIN = 30.0
_BEFORE = 0.2
_SETTLING = (0.2, 0.8)
"""How long to wait until every caller is counted again, in seconds: at least and at most."""
_QUIET = 0.4


class World(ABC):
    """Servers of one kind, and a connection to them, on which a fault can strike."""

    uri: str

    def recipients(self, number: int) -> list[str]:
        """Recipients that are stored on the server that the fault strikes."""
        return [f"recipient-{each}" for each in range(number)]

    def harms(self, recipient: str) -> bool:
        """Whether the fault strikes the server on which this recipient is stored."""
        return True

    @property
    @abstractmethod
    def struck(self) -> Server:
        """The server that the fault strikes."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a new client gets an answer to a PING."""


class OneServer(World):
    """One separate server, reached directly or through a proxy."""

    def __init__(self, server: Server, proxy: ProxyProcess | None) -> None:
        self._server = server
        self.proxy = proxy
        at = server.address if proxy is None else f"{HOST}:{proxy.port}"
        self._port = server.port if proxy is None else proxy.port
        self._ping = b"PING\r\n" if isinstance(server, Valkey) else b"version\r\n"
        self.uri = f"redis://{at}/0" if isinstance(server, Valkey) else f"memcached://{at}"

    @property
    def struck(self) -> Server:
        return self._server

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self._port), timeout=0.3) as connection:
            connection.sendall(self._ping)
            return connection.recv(100).endswith(b"\r\n")
        return False


class OnCluster(World):
    """Three masters with one replica each. All recipients are stored on the same master."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.uri = cluster.url
        self._slot = SLOTS // 6
        self._master = cluster.master_of(self._slot)

    @property
    def struck(self) -> Valkey:
        return self._master

    def recipients(self, number: int) -> list[str]:
        names, found = (f"recipient-{each}" for each in range(100 * number + 1000)), []
        with self._master.client() as client:
            ranges = [
                (first, last)
                for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS")
                if port == self._master.port
            ]
        for name in names:
            if any(first <= key_slot(name.encode()) <= last for first, last in ranges):
                found.append(name)
            if len(found) == number:
                return found
        raise LookupError(number)

    def answers(self) -> bool:
        new = self._cluster.master_of(self._slot)
        return new is not self._master and new.running and View(new).complete()


class OnSentinel(World):
    """A master with a replica, and three Sentinels."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self.uri = watched.url
        self._master = watched.master()

    @property
    def struck(self) -> Valkey:
        return self._master

    def answers(self) -> bool:
        new = self._watched.master()
        if new is self._master:
            return False
        with new.client() as client:
            return bool(client.info("replication")["role"] == "master")


class Fault(ABC):
    """Something that goes wrong in a world for some time."""

    name: ClassVar[str]

    on: ClassVar[tuple[str, ...]] = ("redis", "memcached")
    """The backends on which the fault can occur."""

    options: ClassVar[tuple[str, ...]] = ()
    """Options for the server's command line."""

    proxied: ClassVar[bool] = False
    """Whether the fault strikes the connection to the server, and needs a proxy."""

    keeps: ClassVar[bool] = True
    """Whether the server still has its counts after the fault."""

    lasting: ClassVar[float] = 0.0
    """The seconds between `strike` and `heal`."""

    @abstractmethod
    def strike(self, world: Any) -> None:
        """Begin the fault."""

    def heal(self, world: Any) -> None:  # noqa: B027  # some faults end by themselves
        """End the fault, if it does not end by itself."""


class Hanging(Fault):
    """The server hangs: SIGSTOP, and later SIGCONT."""

    name, lasting = "hangs", AWAY

    def strike(self, world: World) -> None:
        world.struck.pause()

    def heal(self, world: World) -> None:
        world.struck.resume()


class Killed(Fault):
    """The server is killed with `kill -9`, and started again on the same port without its data."""

    name, keeps, lasting = "killed", False, 0.3

    def strike(self, world: World) -> None:
        world.struck.stop()

    def heal(self, world: World) -> None:
        world.struck.start()


class KilledWithFile(Killed):
    """The same, with a server that writes every command to a file and reads this file when it starts."""

    name, keeps, on = "killed-aof", True, ("redis",)
    # The system keeps what a killed process has written. Only a crash of the machine would need an fsync.
    options = ("--appendonly", "yes", "--appendfsync", "no")


class ClientsKilled(Fault):
    """CLIENT KILL closes all connections, several times."""

    name, on = "client-kill", ("redis",)

    def strike(self, world: World) -> None:
        server = world.struck
        assert isinstance(server, Valkey)
        with server.client() as client:
            for _ in range(5):
                client.execute_command("CLIENT", "KILL", "TYPE", "normal")
                time.sleep(0.02)


class Cut(Fault):
    """All connections are closed, several times, like when a proxy or a firewall restarts."""

    name, proxied = "cut", True

    def strike(self, world: OneServer) -> None:
        assert world.proxy is not None
        for _ in range(5):
            world.proxy.cut()
            time.sleep(0.02)


class Swallowed(Fault):
    """Nothing arrives while every connection stays open, like in a network that loses all packets."""

    name, proxied, lasting = "black-hole", True, AWAY

    def strike(self, world: OneServer) -> None:
        assert world.proxy is not None
        world.proxy.be_silent()

    def heal(self, world: OneServer) -> None:
        assert world.proxy is not None
        world.proxy.pass_on()


class Failover(Fault):
    """The master is killed for good and a replica takes over. Hits that were not replicated are lost."""

    name, on, keeps = "failover", ("cluster", "sentinel"), False

    def strike(self, world: World) -> None:
        world.struck.stop()


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault for fault in (Hanging, Killed, KilledWithFile, ClientsKilled, Cut, Swallowed, Failover)
}
"""The faults by name."""


@contextmanager
def world_for(backend: str, fault: Fault) -> Iterator[World]:
    """A separate world for this fault."""
    with ExitStack() as ending:
        if backend == "cluster":
            cluster = cluster_servers(node_timeout=500)
            ending.callback(cluster.remove)
            yield OnCluster(cluster)
        elif backend == "sentinel":
            watched = sentinel_servers(down_after=500)
            ending.callback(watched.remove)
            yield OnSentinel(watched)
        else:
            starting: Callable[..., Valkey | Memcached] = valkey_server if backend == "redis" else memcached_server
            server = starting(*fault.options)
            ending.callback(server.remove)
            yield OneServer(server, ending.enter_context(ProxyProcess(server.port)) if fault.proxied else None)


@dataclass(frozen=True)
class Run:
    """The effect of one fault on one load. Times are in seconds."""

    away: float
    """The time from the strike to the return of the server."""
    first: float | None
    """The time from the return to the first counted decision, or None if there was none for a long time."""
    last: float
    """The time from the return to the last decision that was not counted, or 0 if there was none."""
    slow: int
    """The largest number of calls of one caller that took about one timeout while the server was away."""
    longest: float
    """The duration of the longest call."""
    stuck: int
    """How many callers were in the same call for many timeouts."""
    late: int
    """How many decisions were not counted although the server had been back for some time."""
    quiet: int
    """How many decisions were counted in that period."""
    overloaded: bool
    """Whether some decisions were not counted before the fault: there were more callers than the server can serve."""
    raised: tuple[str, ...]
    """Errors that callers got instead of decisions, although `on_storage_error` is `"allow"`."""
    wrong: tuple[str, ...]
    """Differences between the decisions and the counts in the storage, and limits that were exceeded."""


def run(world: World, fault: Fault, load: Load, patience: float = 3.5) -> Run:
    """Strike a world under load, heal it, and measure the effect on the callers.

    Arguments:
        world: the servers.
        fault: the fault.
        load: the callers.
        patience: how long to wait for the first counted decision after the return, in seconds.
    """
    with load:
        warm = load.warm()
        warmed = time.monotonic()
        time.sleep(_BEFORE)
        struck = time.monotonic()
        fault.strike(world)
        time.sleep(fault.lasting)
        fault.heal(world)
        wait_for("the server is back", world.answers, _BACK_WITHIN)
        returned = time.monotonic()
        while load.counted_since(returned) is None and time.monotonic() - returned < patience:
            time.sleep(0.02)
        shortest, longest = _SETTLING
        time.sleep(shortest)
        while not load.all_counted_since(returned) and time.monotonic() - returned < patience + longest:
            time.sleep(0.02)
        quiet = time.monotonic()
        time.sleep(_QUIET)
        stuck = [caller.number for caller in load.stuck()]
        load.stop()
    told = list(load.told())
    counted = [one for one in told if one.counted]
    uncounted = [one for one in told if not one.counted]
    return Run(
        away=returned - struck,
        first=min((one.end - returned for one in counted if one.end >= returned), default=None),
        last=max((one.end - returned for one in uncounted if one.end >= returned), default=0.0),
        slow=max(
            sum(
                one.end - one.start > 0.9 * load.timeout and one.end > struck and one.start < returned
                for one in caller.told
            )
            for caller in load.callers
        ),
        longest=max(one.end - one.start for one in told),
        stuck=len({caller.number for caller in load.callers if caller.number in stuck or not caller.ended}),
        late=sum(one.start >= quiet for one in uncounted),
        quiet=sum(one.start >= quiet for one in counted),
        overloaded=not warm or any(warmed <= one.start and one.end < struck for one in uncounted),
        raised=tuple(sorted({repr(error) for caller in load.callers for error in caller.raised})),
        wrong=tuple(_wrong(world, fault, load, struck, returned)),
    )


def _wrong(world: World, fault: Fault, load: Load, struck: float, returned: float) -> Iterator[str]:
    """Check that the limit was kept, and that the counts on the server are possible given the decisions."""
    # A server that lost its data starts again at 0. The limit had been used up before.
    allowed: Counter[tuple[str, bool]] = Counter(
        (load.shared(caller), fault.keeps or one.end >= struck)
        for caller in load.callers
        for one in caller.told
        if one.counted and one.allowed and one.type == CAPPED
    )
    if max(allowed.values(), default=0) > load.cap:
        yield f"{max(allowed.values())} allowed of {load.cap}"
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for caller in load.callers:
        own = load.own(caller)
        for one in caller.told:
            if one.type == COUNTED:
                # A new server may have any part of the counts of the old one.
                least[own] += one.counted and (fault.keeps or one.start >= returned)
                # A hit that the limiter did not count may still have reached the server.
                most[own] += 1
    with Limiter(load.rules, world.uri, timeout=10) as limiter:
        # The machine was busy until now, so the Sentinels may have lost contact with the master.
        wait_for("the storage answers", limiter.storage.check, _BACK_WITHIN)  # type: ignore[attr-defined]  # storages on servers have it
        for recipient in most:
            (window,) = limiter.windows(COUNTED, recipient)
            held = window.item.amount - window.remaining
            if not least[recipient] <= held <= most[recipient]:
                yield f"{held} held of {least[recipient]} to {most[recipient]}"


def load_on(world: World, kind: str, number: int) -> Load:
    """A load of threads or tasks on this world."""
    return LOADS[kind](number, world.uri, world.recipients(number), CAP)
