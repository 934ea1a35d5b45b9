"""Everything that is known to go wrong with a storage: one case each, with servers of its own.

The faults that `faults.py` knows are used here as well. Those that only make sense for a few callers are defined here.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

from cluster_servers import cluster_servers
from faults import AWAY, ClientsKilled, Fault, Hanging, Killed, KilledWithFile, OneServer, World
from proxy import HOST, Proxy
from ratelimited_notify.storage.memcached.hosts import choose, hosts_of
from ratelimited_notify.storage.redis.slots import slot_of
from ratelimited_notify.windows.keys import split, tag_of
from servers import memcached_server, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from cluster_servers import Cluster
    from servers import Memcached, Server, Valkey

_FILLING = 1_200_000
"""Bytes of values of one size. A memcached with two megabytes gives each size one at most."""

REFUSING = 0.5
"""How long servers refuse, in seconds: every caller meets them many times."""

LATE = 0.8
"""How late the answers of a slow server are, in seconds: more than a timeout."""

Failing: TypeAlias = Literal["all", "some", "none"]
"""Which callers meet the fault: all, perhaps some of them, or none."""

Opening: TypeAlias = "Callable[[ExitStack, Fault], World]"


@dataclass(frozen=True)
class Case:
    """A fault of one kind of server."""

    server: str
    """The kind of server, as users know it."""
    shown: str
    """What happens to it, as users say it."""
    fault: type[Fault]
    open: Opening
    """Starts the servers; they are removed with the stack."""
    failing: Failing = "all"

    def __str__(self) -> str:
        return f"{self.server}-{self.fault.name}"


# --- Redis ----------------------------------------------------------------------------------------------------------


def one_valkey(ending: ExitStack, fault: Fault) -> World:
    """A Valkey server, behind a proxy where the fault needs one."""
    server = valkey_server(*fault.options)
    ending.callback(server.remove)
    return OneServer(server, ending.enter_context(Proxy(server.port)) if fault.proxied else None)


class Slow(Fault):
    """Every answer comes after the timeout."""

    name, proxied, lasting = "slow", True, AWAY

    def strike(self, world: Any) -> None:
        world.proxy.delay = lambda: LATE

    def heal(self, world: Any) -> None:
        world.proxy.delay = None


class Unanswered(Fault):
    """The server runs each script, and then the connection breaks before the answer has arrived."""

    name, proxied, lasting = "connection-lost-in-script", True, REFUSING

    def strike(self, world: Any) -> None:
        world.proxy.losing = "all"

    def heal(self, world: Any) -> None:
        world.proxy.losing = "nothing"


class Dripping(Fault):
    """Answers come one byte at a time, so that each wait for the next byte is short."""

    name, proxied, lasting = "drips", True, AWAY

    def strike(self, world: Any) -> None:
        world.proxy.drip = 0.2

    def heal(self, world: Any) -> None:
        world.proxy.drip = None


class Garbled(Fault):
    """Something in between answers in the server's place, and does not speak its language."""

    name, proxied, lasting = "garbled", True, REFUSING

    def strike(self, world: Any) -> None:
        world.proxy.garbage = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"

    def heal(self, world: Any) -> None:
        world.proxy.garbage = None


class Refusing(Fault):
    """The server answers, and refuses. The same client of an administrator begins and ends that."""

    lasting = REFUSING
    client: redis.Redis

    def strike(self, world: Any) -> None:
        self.client = world.struck.client(password=getattr(world, "password", None))
        self.refuse(self.client)

    def heal(self, world: Any) -> None:
        self.accept(self.client)
        self.client.close()
        del self.client

    def refuse(self, client: redis.Redis) -> None:
        """Begin to refuse."""
        raise NotImplementedError

    def accept(self, client: redis.Redis) -> None:
        """Accept everything again."""
        raise NotImplementedError


class Full(Refusing):
    """The server has no memory left, and evicts nothing."""

    name = "full"

    def refuse(self, client: redis.Redis) -> None:
        client.config_set("maxmemory", "1")

    def accept(self, client: redis.Redis) -> None:
        client.config_set("maxmemory", "0")


class ReadOnly(Refusing):
    """The server becomes a replica, and refuses to write."""

    name = "read-only"

    def refuse(self, client: redis.Redis) -> None:
        client.replicaof(HOST, 1)

    def accept(self, client: redis.Redis) -> None:
        client.replicaof("NO", "ONE")


class OtherPassword(Refusing):
    """The password of the server is changed, and its clients have to log in again."""

    name = "wrong-password"

    def refuse(self, client: redis.Redis) -> None:
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def accept(self, client: redis.Redis) -> None:
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")


class Forbidden(Refusing):
    """The user may not run scripts any more."""

    name = "no-rights"

    def refuse(self, client: redis.Redis) -> None:
        client.execute_command("ACL", "SETUSER", "limits", "-eval", "-evalsha")

    def accept(self, client: redis.Redis) -> None:
        client.execute_command("ACL", "SETUSER", "limits", "+eval", "+evalsha")


class TooManyClients(Refusing):
    """The server loses its clients, and accepts no more: another one has the last connection."""

    name = "max-clients"

    def refuse(self, client: redis.Redis) -> None:
        client.config_set("maxclients", "1")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def accept(self, client: redis.Redis) -> None:
        client.config_set("maxclients", "1000")


class ScriptsForgotten(Fault):
    """SCRIPT FLUSH, again and again."""

    name = "script-flush"

    def strike(self, world: Any) -> None:
        with world.struck.client() as client:
            for _ in range(20):
                client.script_flush()
                time.sleep(0.02)


class ClientsKilledForLong(ClientsKilled):
    """CLIENT KILL again and again, for half a second."""

    def strike(self, world: Any) -> None:
        for _ in range(5):
            super().strike(world)


def valkey_with_users(ending: ExitStack, fault: Fault) -> World:
    """A Valkey server with a password, and a user with another name for the limits."""
    world = one_valkey(ending, fault)
    server: Valkey = world.struck  # type: ignore[assignment]  # what was just started
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limits", "on", ">secret", "+@all", "~*")
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
    user = "limits" if isinstance(fault, Forbidden) else ""
    world.uri = f"redis://{user}:secret@{server.address}/0"
    world.password = "secret"  # type: ignore[attr-defined]  # for `Refusing`
    return world


class MovingSlots(World):
    """A cluster of two servers. The slots of all recipients are moved from one to the other, and back."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.uri = cluster.url
        self._recipients: list[str] = []

    @property
    def struck(self) -> Server:
        return self._cluster.members[0]

    def recipients(self, number: int) -> list[str]:
        self._recipients = super().recipients(number)
        return self._recipients

    def answers(self) -> bool:
        return True

    def move(self) -> None:
        """Move each slot, with its keys, to the server that does not have it."""
        for recipient in self._recipients:
            slot = slot_of(f"{{{tag_of(recipient)}}}")
            source = self._cluster.master_of(slot)
            target = next(member for member in self._cluster.members if member is not source)
            name = target.command_line("CLUSTER", "MYID")
            target.command_line("CLUSTER", "SETSLOT", slot, "IMPORTING", source.command_line("CLUSTER", "MYID"))
            source.command_line("CLUSTER", "SETSLOT", slot, "MIGRATING", name)
            for key in source.command_line("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.command_line("MIGRATE", HOST, target.port, key, 0, 5000)
            for member in (target, source):
                member.command_line("CLUSTER", "SETSLOT", slot, "NODE", name)


class SlotsMoved(Fault):
    """The slots of a cluster move from server to server, with their keys."""

    name = "slots-moved"

    def strike(self, world: Any) -> None:
        world.move()
        world.move()


def cluster_of_two(ending: ExitStack, fault: Fault) -> World:
    """A cluster of two masters without replicas."""
    cluster = cluster_servers(2, 0, node_timeout=30_000)
    ending.callback(cluster.remove)
    return MovingSlots(cluster)


# --- memcached ------------------------------------------------------------------------------------------------------


def one_memcached(ending: ExitStack, fault: Fault) -> World:
    """A memcached server."""
    server = memcached_server(*fault.options)
    ending.callback(server.remove)
    return OneServer(server, None)


class TwoHosts(World):
    """Two memcached servers. The fault strikes the one that holds every other recipient."""

    def __init__(self, servers: list[Memcached]) -> None:
        self._servers = servers
        self.uri = "memcached://" + ",".join(server.address for server in servers)

    @property
    def struck(self) -> Server:
        return self._servers[0]

    def recipients(self, number: int) -> list[str]:
        found: list[str] = []
        for name in super().recipients(50 * number):
            if self.harms(name) is (len(found) % 2 == 0):
                found.append(name)
        return found[:number]

    def harms(self, recipient: str) -> bool:
        item = split(f"notify:{{{tag_of(recipient)}}}:rule:m")[0]
        return choose(hosts_of(self.uri), item).name == self.struck.address

    def answers(self) -> bool:
        with suppress(OSError):
            return all(server.ask(b"version\r\n", b"\r\n") for server in self._servers)
        return False


def two_memcacheds(ending: ExitStack, fault: Fault) -> World:
    """Two memcached servers."""
    servers = [memcached_server(), memcached_server()]
    for server in servers:
        ending.callback(server.remove)
    return TwoHosts(servers)


class OneOfTwo(Killed):
    """One of two hosts is killed, and started again without its data."""

    name = "one-host-of-two"


class MemcachedFull(Fault):
    """The server has no memory left, and is told to evict nothing."""

    name, lasting, options = "full", REFUSING, ("-m", "2", "-M")

    def strike(self, world: Any) -> None:
        self._send(world.struck, lambda name, size: b"set %s 0 0 %d noreply\r\n%s\r\n" % (name, size, b"x" * size))

    def heal(self, world: Any) -> None:
        self._send(world.struck, lambda name, _: b"delete %s noreply\r\n" % name)

    def _send(self, server: Memcached, command: Callable[[bytes, int], bytes]) -> None:
        # Values of many sizes, so that no part of the memory has room for the limits.
        for size in (16, 48, 80, 112, 160, 208, 272, 352, 448):
            names = [b"filling-%d-%d" % (size, number) for number in range(_FILLING // size)]
            server.ask(b"".join(command(name, size) for name in names) + b"version\r\n", b"\r\n")


# --- SQLite ---------------------------------------------------------------------------------------------------------

_LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("free", flush=True)
"""


class InFile(World):
    """Windows in an SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "windows.db"
        self.uri = f"sqlite:///{self.path}"

    @property
    def struck(self) -> Server:
        raise NotImplementedError

    def answers(self) -> bool:
        with closing(sqlite3.connect(self.path)) as connection:
            return bool(connection.execute("PRAGMA user_version").fetchone())


def a_file(ending: ExitStack, fault: Fault) -> World:
    """A file in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="ratelimited-notify-")
    ending.callback(shutil.rmtree, folder, ignore_errors=True)
    return InFile(Path(folder))


def a_small_disk(ending: ExitStack, fault: Fault) -> World:
    """A file on a disk of three megabytes, which takes the rights to mount one."""
    folder = tempfile.mkdtemp(prefix="ratelimited-notify-")
    ending.callback(shutil.rmtree, folder, ignore_errors=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        # `test_sqlite.py` has a test with a largest file size, which needs no rights.
        pytest.skip("A small disk cannot be mounted here.")
    ending.callback(subprocess.run, ["umount", "--lazy", folder], check=False)
    return InFile(Path(folder))


class Locked(Fault):
    """Another program has the file locked."""

    name, lasting = "locked", AWAY

    def strike(self, world: Any) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-c", _LOCKING, str(world.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._program.stdout is not None
        assert self._program.stdout.readline() == "locked\n"

    def heal(self, world: Any) -> None:
        assert self._program.communicate("\n", timeout=30)[0] == "free\n"


class DiskFull(Fault):
    """The disk is full."""

    name, lasting = "disk-full", REFUSING

    def strike(self, world: Any) -> None:
        with suppress(OSError), (world.folder / "filling").open("wb", buffering=0) as filling:
            while filling.write(b"x" * 4096):
                pass

    def heal(self, world: Any) -> None:
        (world.folder / "filling").unlink()


CASES = (
    Case("Redis", "killed, starts again without its data", Killed, one_valkey),
    Case("Redis", "killed, starts again with its data", KilledWithFile, one_valkey),
    Case("Redis", "hangs", Hanging, one_valkey),
    Case("Redis", "answers after the time-out", Slow, one_valkey),
    Case("Redis", "connection lost in the middle of a script", Unanswered, one_valkey),
    Case("Redis", "answers one byte at a time", Dripping, one_valkey),
    Case("Redis", "something else answers", Garbled, one_valkey),
    Case("Redis", "full (`noeviction`)", Full, one_valkey),
    Case("Redis", "becomes a read-only replica", ReadOnly, one_valkey),
    Case("Redis", "wrong password", OtherPassword, valkey_with_users),
    Case("Redis", "ACL without the rights", Forbidden, valkey_with_users),
    Case("Redis", "SCRIPT FLUSH", ScriptsForgotten, one_valkey, "none"),
    Case("Redis", "CLIENT KILL, again and again", ClientsKilledForLong, one_valkey, "some"),
    Case("Redis", "too many clients (`maxclients`)", TooManyClients, one_valkey),
    Case("Redis Cluster", "slots move to another server", SlotsMoved, cluster_of_two, "none"),
    Case("memcached", "killed, starts again", Killed, one_memcached),
    Case("memcached", "hangs", Hanging, one_memcached),
    Case("memcached", "one of two hosts killed", OneOfTwo, two_memcacheds),
    Case("memcached", "full (`-M`)", MemcachedFull, one_memcached),
    Case("SQLite", "locked by another program", Locked, a_file),
    Case("SQLite", "disk full", DiskFull, a_small_disk),
)
"""All cases, in the order of the table in the documentation."""
