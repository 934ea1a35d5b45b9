"""What can happen to a server and to the way there, and what callers under load are told meanwhile and afterwards.

A run is: a world (real servers, and a proxy where the way there is struck), a load on it, and a fault that strikes and
heals. What is measured counts from the return of the server: when it has answered a PING of another client.
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
"""Seconds for which servers hang: two time-outs, and a part."""

CAP = 50
"""How many a limit that many callers share allows, in an hour."""

_BACK_WITHIN = 30.0
_BEFORE = 0.2
_SETTLING = (0.2, 0.8)
"""Seconds in which every caller is to be counted again, at least and at most."""
_QUIET = 0.4


class World(ABC):
    """Servers of one kind, and a way to them that can be struck."""

    uri: str

    def recipients(self, number: int) -> list[str]:
        """So many, whom the server that is struck has to do with."""
        return [f"recipient-{each}" for each in range(number)]

    @property
    @abstractmethod
    def struck(self) -> Server:
        """The server that faults strike."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client that has just come gets an answer to a PING."""


class OneServer(World):
    """One server of its own, directly or behind a proxy."""

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
    """Three masters with a replica each; all recipients are those of one master."""

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
    """Something that happens to a world, and is over again."""

    name: ClassVar[str]

    on: ClassVar[tuple[str, ...]] = ("redis", "memcached")
    """The backends that it can happen to."""

    options: ClassVar[tuple[str, ...]] = ()
    """Of the server's command line."""

    proxied: ClassVar[bool] = False
    """Whether it is the way to the server that is struck."""

    keeps: ClassVar[bool] = True
    """Whether what was counted before is known afterwards."""

    lasting: ClassVar[float] = 0.0
    """Seconds between strike and heal."""

    @abstractmethod
    def strike(self, world: Any) -> None:
        """Let it begin."""

    def heal(self, world: Any) -> None:  # noqa: B027  # some faults end by themselves
        """Let it be over, where it does not end by itself."""


class Hanging(Fault):
    """SIGSTOP, and later SIGCONT."""

    name, lasting = "hangs", AWAY

    def strike(self, world: World) -> None:
        world.struck.pause()

    def heal(self, world: World) -> None:
        world.struck.resume()


class Killed(Fault):
    """`kill -9`, and started again on the same port, with nothing in it."""

    name, keeps, lasting = "killed", False, 0.3

    def strike(self, world: World) -> None:
        world.struck.stop()

    def heal(self, world: World) -> None:
        world.struck.start()


class KilledWithFile(Killed):
    """The same for a server that writes every command to a file, which it reads when it is started."""

    name, keeps, on = "killed-aof", True, ("redis",)
    # What a killed process has written, the system keeps: only the machine's own death would need more.
    options = ("--appendonly", "yes", "--appendfsync", "no")


class ClientsKilled(Fault):
    """CLIENT KILL of all connections, several times."""

    name, on = "client-kill", ("redis",)

    def strike(self, world: World) -> None:
        server = world.struck
        assert isinstance(server, Valkey)
        with server.client() as client:
            for _ in range(5):
                client.execute_command("CLIENT", "KILL", "TYPE", "normal")
                time.sleep(0.02)


class Cut(Fault):
    """All connections end, several times, as when a proxy or a firewall is restarted."""

    name, proxied = "cut", True

    def strike(self, world: OneServer) -> None:
        assert world.proxy is not None
        for _ in range(5):
            world.proxy.cut()
            time.sleep(0.02)


class Swallowed(Fault):
    """Nothing passes while every connection stays open, as in a network that loses all packets."""

    name, proxied, lasting = "black-hole", True, AWAY

    def strike(self, world: OneServer) -> None:
        assert world.proxy is not None
        world.proxy.be_silent()

    def heal(self, world: OneServer) -> None:
        assert world.proxy is not None
        world.proxy.pass_on()


class Failover(Fault):
    """The master is killed for good, and a replica takes over; hits that it had not heard of are forgotten."""

    name, on, keeps = "failover", ("cluster", "sentinel"), False

    def strike(self, world: World) -> None:
        world.struck.stop()


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault for fault in (Hanging, Killed, KilledWithFile, ClientsKilled, Cut, Swallowed, Failover)
}
"""By name."""


@contextmanager
def world_for(backend: str, fault: Fault) -> Iterator[World]:
    """A world of its own that the fault can strike."""
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
    """What one fault did to one load; times are in seconds."""

    away: float
    """From the strike to the return."""
    first: float | None
    """From the return to the first decision that was counted; None where there was none for long."""
    last: float
    """From the return to the last decision that was not counted; 0 where there was none."""
    slow: int
    """The most calls of one caller that took about as long as the time-out while the server was away."""
    longest: float
    """The longest call of all."""
    stuck: int
    """Callers who were in one call for many time-outs."""
    late: int
    """Decisions that were not counted although the server had been back for long."""
    quiet: int
    """Decisions that were counted then."""
    overloaded: bool
    """Whether some were not counted before anything happened: there were more callers than the server can serve in time."""
    raised: tuple[str, ...]
    """Errors that are no decision, although `on_storage_error` is `"allow"`."""
    wrong: tuple[str, ...]
    """Where what callers were told is not what the storage holds, or more than the limit."""


def run(world: World, fault: Fault, load: Load, patience: float = 3.5) -> Run:
    """Strike a world under load, heal it, and see what becomes of the callers.

    Arguments:
        patience: seconds after the return for which a first counted decision is waited for.
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
    """Whether the limit was kept, and whether the server holds what callers were told, and nothing that nobody asked for."""
    # A server that lost its data begins anew; the limit had been used up before.
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
                # A new server may know any part of what the old one counted.
                least[own] += one.counted and (fault.keeps or one.start >= returned)
                # Whether one that was not counted reached the server, nobody knows.
                most[own] += 1
    with Limiter(load.rules, world.uri, timeout=10) as limiter:
        # Sentinels on a machine that was busy until now may have lost sight of the master.
        wait_for("the storage answers", limiter.storage.check, _BACK_WITHIN)  # type: ignore[attr-defined]  # a server has it
        for recipient in most:
            (window,) = limiter.windows(COUNTED, recipient)
            held = window.item.amount - window.remaining
            if not least[recipient] <= held <= most[recipient]:
                yield f"{held} held of {least[recipient]} to {most[recipient]}"


def load_on(world: World, kind: str, number: int) -> Load:
    """Threads or tasks that decide about recipients of this world."""
    return LOADS[kind](number, world.uri, world.recipients(number), CAP)
