"""Windows in an SQLite file: one process, four processes, batches, and a program that runs once."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contenders import three_rules
from measured import Figure

from ratelimited_notify import Limiter
from ratelimited_notify.storage import SQLiteStorage
from ratelimited_notify.windows import Request, Window

if TYPE_CHECKING:
    from measured import Effort

_PROCESSES = 4
_PEOPLE = 10_000
_PERIODS = (("100/minute", 60), ("1000/hour", 3600), ("10000/day", 86400))
_RECIPIENTS = [f"person.{number}@example.com" for number in range(_PEOPLE)]

_WORKER = """
import os, sys, time
from ratelimited_notify.storage import SQLiteStorage
uri, log, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
sys.path[:0] = sys.argv[5:]
from in_a_file import asked
storage, windows_and_keys = SQLiteStorage(uri), asked()
print("ready", flush=True)
sys.stdin.readline()
times, number, largest, until = [], seed, 0, time.perf_counter() + seconds
before = time.perf_counter()
while before < until:
    # So that all of them come, in no order: with another factor, only a few may.
    number = (number * 7921 + 1) % len(windows_and_keys)
    windows, keys, cost = windows_and_keys[number]
    storage.acquire(windows, keys, cost)
    after = time.perf_counter()
    times.append(after - before)
    if len(times) % 256 == 0:
        largest = max(largest, os.path.getsize(log))
        after = time.perf_counter()
    before = after
storage.close()
times.sort()
print(len(times), times[-len(times) // 1000] if len(times) > 1000 else times[-1], times[-1], largest)
"""


def asked() -> list[Request]:
    """For each recipient, a hit in three moving windows."""
    windows = [
        Window("moving-window", int(limit.partition("/")[0]), seconds * 10**6, rule=limit)
        for limit, seconds in _PERIODS
    ]
    return [
        Request(windows, [f"bench:{{{recipient}}}:news:{seconds}:m" for _, seconds in _PERIODS], 1)
        for recipient in _RECIPIENTS
    ]


def one(effort: Effort) -> list[Figure]:
    """A limiter in a loop."""
    decisions = 100 * effort.rounds
    with _folder() as folder, Limiter(three_rules(10**6), f"sqlite:///{folder}/windows.db") as limiter:
        for recipient in _RECIPIENTS[:1000]:
            limiter.hit("news", recipient)
        began = time.perf_counter()
        for number in range(decisions):
            limiter.hit("news", _RECIPIENTS[number % _PEOPLE])
        took = time.perf_counter() - began
    return [Figure("sqlite-one", decisions / took)]


def four(effort: Effort) -> list[Figure]:
    """Four processes that never pause, on one file."""
    seconds = max(3, effort.rounds // 20)
    with _folder() as folder:
        uri, log = f"sqlite:///{folder}/windows.db", f"{folder}/windows.db-wal"
        paths = [str(Path(__file__).parent), *filter(None, sys.path)]
        storage = SQLiteStorage(uri)
        storage.probe()
        running = [
            subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-c", _WORKER, uri, log, str(seconds), str(seed), *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
            for seed in range(_PROCESSES)
        ]
        for each in running:
            assert each.stdout is not None
            each.stdout.readline()
        found = [each.communicate("\n") for each in _begun(running)]
        storage.close()
    numbers = [tuple(map(float, out.split())) for out, _ in found]
    decided = [each[0] for each in numbers]
    longest = f"the longest {1000 * max(each[2] for each in numbers):.0f} ms"
    return [
        Figure("sqlite-four", sum(decided) / seconds),
        Figure("sqlite-four-fair", min(decided) / max(decided)),
        Figure("sqlite-four-wait", 1000 * max(each[1] for each in numbers), note=longest),
        Figure("sqlite-four-log", max(each[3] for each in numbers) / 2**20),
    ]


def _begun(running: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for each in running:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return running


def batches(effort: Effort) -> list[Figure]:
    """Batches of 250 recipients, each in one transaction."""
    requests = asked()
    with _folder() as folder:
        storage = SQLiteStorage(f"sqlite:///{folder}/windows.db")
        groups = [requests[start : start + 250] for start in range(0, len(requests), 250)]
        storage.acquire_many(groups[0])
        times = []
        for number in range(2 * effort.rounds):
            began = time.perf_counter()
            storage.acquire_many(groups[number % len(groups)])
            times.append(time.perf_counter() - began)
        storage.close()
    return [Figure("sqlite-batch", 250 / statistics.median(times))]


def once(effort: Effort) -> list[Figure]:
    """What a program pays that decides once; without the start of Python."""
    times = []
    with _folder() as folder:
        for _ in range(effort.rounds):
            began = time.perf_counter()
            with Limiter({"report": "1/day"}, f"sqlite:///{folder}/windows.db") as limiter:
                limiter.hit("report", "ana@example.com")
            times.append(time.perf_counter() - began)
    return [Figure("sqlite-once", 1000 * statistics.median(times))]


def _folder() -> tempfile.TemporaryDirectory[str]:
    # On a disk, not in memory.
    return tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARKS_FOLDER") or Path.home())


MEASUREMENTS = (one, four, batches, once)
