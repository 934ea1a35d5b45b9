"""Servers that hang, die, come back, lose their clients or hand over to a replica, under threads and tasks that go on.

`make faults` runs each fault under many loads, many times, and prints how soon decisions are counted again.
"""

from __future__ import annotations

import logging
import os
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults import FAULTS, Run, load_on, run, world_for
from ratelimited_notify import AsyncLimiter, Limiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Memcached, Valkey

LATEST = 6.0
"""Seconds after the return within which a decision is counted, on a machine with little to run it on; 1 is promised."""
PROMISED = 1.0
FEW = 0.1
"""The part of decisions that may be uncounted long after the return, where callers are almost too many: most would be, if
the process had not recovered."""
SLOW_CALLS = 4
"""So many of twenty calls of one caller may be slow while a server is away: the first that fails, and a PING now and then."""
SLACK = 1.0
"""Seconds that a call may take beyond the time-out, where hundreds of callers share a busy machine."""

LOADS_IN_THE_SUITE = (("threads", 80), ("tasks", 200))
LOADS_OF_THE_MATRIX = [(kind, number) for kind in ("threads", "tasks") for number in (10, 50, 80, 200, 1000)]
CASES = [(backend, name) for name, fault in FAULTS.items() for backend in fault.on]


@pytest.fixture(autouse=True)
def _unheard() -> Iterator[None]:
    """What the library logs about decisions that were not counted: a line a second, which would fill the report."""
    log = logging.getLogger("ratelimited_notify")
    before, log.disabled = log.disabled, True
    yield
    log.disabled = before


@pytest.mark.parametrize(("kind", "number"), LOADS_IN_THE_SUITE, ids=str)
@pytest.mark.parametrize(("backend", "name"), CASES, ids=lambda value: value)
def test_decisions_are_counted_again_soon(backend: str, name: str, kind: str, number: int) -> None:
    """Whatever happened to the server: once it is back everybody is counted again, nobody hangs, and the limit was kept."""
    fault = FAULTS[name]()
    with world_for(backend, fault) as world:
        seen = run(world, fault, load_on(world, kind, number))

    assert seen.first is not None, seen
    assert seen.first <= LATEST, seen
    assert (seen.stuck, seen.raised, seen.wrong) == (0, (), ()), seen
    assert seen.late <= FEW * (seen.late + seen.quiet) or seen.overloaded, seen
    assert seen.quiet > 0, seen


@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_a_stopped_server_is_not_waited_for_anew_by_each_call(
    backend: str, start_valkey: Callable[..., Valkey], start_memcached: Callable[..., Memcached]
) -> None:
    """One caller, one call after another: only the first three and a PING now and then wait for a server that hangs."""
    server = start_valkey() if backend == "redis" else start_memcached()
    with Limiter({"news": "1000/day"}, server.url, on_storage_error="allow", timeout=0.5) as limiter:
        assert limiter.hit("news", "ana").error is None
        server.pause()
        times: list[float] = []
        begun = time.monotonic()
        while len(times) < 200 and time.monotonic() - begun < 6:
            before = time.monotonic()
            assert limiter.hit("news", "ana").error is not None
            times.append(time.monotonic() - before)
        server.resume()

    assert len(times) == 200, f"{len(times)} calls took 6 seconds"
    assert sum(seconds > 0.45 for seconds in times) <= 8
    assert statistics.median(times[3:]) < 0.005


@pytest.mark.parametrize("backend", ["redis", "memcached"])
def test_a_hundred_threads_wait_once_for_a_stopped_server(
    backend: str, start_valkey: Callable[..., Valkey], start_memcached: Callable[..., Memcached]
) -> None:
    """100 threads, 20 calls each, while the server hangs: one slow call each, and no place in a queue that adds up."""
    server = start_valkey() if backend == "redis" else start_memcached()
    slow: dict[int, int] = dict.fromkeys(range(100), 0)
    calls: list[float] = []
    begun = time.monotonic()
    with Limiter({"news": "1000000/day"}, server.url, on_storage_error="allow", timeout=0.5) as limiter:
        assert limiter.hit("news", "ana").error is None
        server.pause()

        def call(number: int) -> None:
            for _ in range(20):
                before = time.monotonic()
                if before - begun > 8:
                    return
                limiter.hit("news", f"recipient-{number}")
                calls.append(time.monotonic() - before)
                slow[number] += calls[-1] > 0.45

        threads = [threading.Thread(target=call, args=(number,)) for number in slow]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.resume()

    assert len(calls) == 2000, f"{len(calls)} calls took 8 seconds"
    assert max(slow.values()) <= SLOW_CALLS
    assert sum(slow.values()) <= 250
    assert max(calls) <= 0.5 + SLACK


def test_a_stopped_server_stops_no_other_task(start_valkey: Callable[..., Valkey]) -> None:
    """1,000 tasks at once meet a server that hangs: all have their answers after about one time-out."""
    import asyncio

    server = start_valkey()

    async def main() -> tuple[float, int]:
        limiter = AsyncLimiter({"news": "1000000/day"}, server.url, on_storage_error="deny", timeout=0.5)
        assert (await limiter.hit("news", "ana")).error is None
        server.pause()
        begun = time.monotonic()
        decisions = await asyncio.gather(*(limiter.hit("news", f"recipient-{number}") for number in range(1000)))
        took = time.monotonic() - begun
        server.resume()
        await limiter.close()
        return took, sum(decision.error is not None for decision in decisions)

    took, uncounted = asyncio.run(main())

    assert uncounted == 1000
    assert took <= 0.5 + SLACK


# --- The whole matrix -----------------------------------------------------------------------------------------------


class Table:
    """What was measured, a line for each fault and load."""

    HEAD = ("server", "fault", "load", "runs", "first: median", "first: worst", "last uncounted", "longest call",
            "slow calls", "overloaded runs", "stuck runs", "runs that failed")  # fmt: skip

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.failures: list[str] = []

    def add(self, backend: str, name: str, load: str, runs: list[Run]) -> None:
        """A line; runs after which nothing was counted are the last of its failures."""
        firsts = [one.first for one in runs]
        known = [first for first in firsts if first is not None]
        never = len(firsts) - len(known)
        self.failures += [f"{backend}, {name}, {load}: {found}: {one}" for one in runs if (found := failures(one))]
        self.rows.append(
            (
                *(backend, name, load, str(len(runs))),
                f"{statistics.median(known):.3f}" if known else "never",
                f"never ({never})" if never else f"{max(known):.3f}",
                f"{max(one.last for one in runs):.3f}",
                f"{max(one.longest for one in runs):.3f}",
                str(max(one.slow for one in runs)),
                str(sum(one.overloaded for one in runs)),
                str(sum(one.stuck > 0 for one in runs)),
                str(sum(bool(failures(one)) for one in runs)),
            )
        )

    def __str__(self) -> str:
        lines = [self.HEAD, tuple("---" for _ in self.HEAD), *self.rows]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *self.failures, ""])


def failures(seen: Run) -> list[str]:
    """What a run shows that must not be."""
    found = [*seen.raised, *seen.wrong]
    if seen.first is None or seen.first > PROMISED:
        found.append(f"first counted after {seen.first}")
    if seen.stuck:
        found.append(f"{seen.stuck} stuck")
    if (seen.late > FEW * (seen.late + seen.quiet) and not seen.overloaded) or not seen.quiet:
        found.append(f"{seen.late} uncounted, {seen.quiet} counted in the end")
    return found


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """The table of this run: printed when all is done, and kept up to date in the file that `FAULTS_TABLE` names."""
    made = Table()
    yield made
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if made.rows and reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(str(made))


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "number"), LOADS_OF_THE_MATRIX, ids=str)
@pytest.mark.parametrize(("backend", "name"), CASES, ids=lambda value: value)
def test_every_fault_under_every_load(table: Table, backend: str, name: str, kind: str, number: int) -> None:
    """Every fault, under 10 to 1,000 threads or tasks, again and again: a decision is counted within a second, always."""
    runs: list[Run] = []
    fault = FAULTS[name]()
    # Each run has callers and connections of its own, and servers too where they do not come back as they were.
    for _ in range(int(os.environ.get("FAULTS_REPEATED", "20"))):
        with world_for(backend, fault) as world:
            runs.append(run(world, fault, load_on(world, kind, number)))
    table.add(backend, name, f"{number} {kind}", runs)
    if file := os.environ.get("FAULTS_TABLE"):
        Path(file).write_text(str(table), "utf-8")

    assert [found for found in map(failures, runs) if found] == []
