"""The memcached storage, sync and asyncio, on real servers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from limits import parse
from limits.storage import MemcachedStorage as StockStorage, storage_from_string
from limits.strategies import STRATEGIES

from memcached_storages import (
    DAY,
    PATIENT,
    SECOND,
    Clock,
    fixed,
    hang,
    item_of,
    key,
    moving,
    opened as opened,
    sliding,
    someone,
    statistics,
    storage as storage,
)
from proxy import HOST, Proxy
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.storage.memcached import decide, record
from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage
from ratelimited_notify.storage.memcached.hosts import LANES, choose, hosts_of
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.keys import split
from ratelimited_notify.windows.strategies import FITS, NEVER, RECORDS, Mode, Request, Verdict, Window, look, take
from servers import memcached_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Memcached

# What it decides: nothing but `windows.py`, whatever is asked in whatever order.


class Reference:
    """Windows in a dictionary, decided all at once by `windows.py`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.records: dict[str, Any] = {}
        self.marks = itertools.count()

    def found(self, windows: list[Window], keys: list[str]) -> list[Any]:
        return [
            self.records.setdefault(key, RECORDS[window.strategy]()) for window, key in zip(windows, keys, strict=True)
        ]

    def acquire(self, windows: list[Window], keys: list[str], cost: int) -> Verdict:
        return take(windows, self.found(windows, keys), self.clock.microseconds, cost, next(self.marks))

    def acquire_many(self, requests: list[Request]) -> list[Verdict]:
        return [self.acquire(*request) for request in requests]

    def peek(self, windows: list[Window], keys: list[str], cost: int) -> Verdict:
        return look(windows, self.found(windows, keys), self.clock.microseconds, cost)

    def release(self, windows: list[Window], keys: list[str], cost: int, tokens: list[Any]) -> bool:
        now = self.clock.microseconds
        given = [
            token is not None and record.give(now, window.period, cost, token)
            for window, record, token in zip(windows, self.found(windows, keys), tokens, strict=True)
        ]
        return any(given)

    def forget(self, windows: list[Window], keys: list[str]) -> int:
        now = self.clock.microseconds
        return sum(
            now < self.records.pop(key, RECORDS[window.strategy]()).ends(now, window.period)
            for window, key in zip(windows, keys, strict=True)
        )


def without_marks(verdict: Verdict) -> Any:
    readings = [reading._replace(token=reading.token and reading.token[0]) for reading in verdict.readings]
    return verdict.granted, verdict.now, readings


a_window = st.builds(
    Window,
    st.sampled_from(list(RECORDS)),
    st.integers(0, 5),
    st.integers(1, 6).map(lambda seconds: seconds * SECOND) | st.integers(1, 3 * SECOND),
    st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.FORCE, Mode.SHADOW]),
    shared=st.booleans(),
)
a_step = st.one_of(
    st.tuples(st.just("acquire"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("acquire"), st.integers(0, 2), st.just(1)),
    st.tuples(st.just("acquire_many"), st.lists(st.integers(0, 2), max_size=4), st.integers(1, 2)),
    st.tuples(st.just("peek"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("release"), st.integers(0, 5), st.none()),
    st.tuples(st.just("forget"), st.integers(0, 2), st.none()),
    st.tuples(st.just("pass"), st.integers(0, 4 * SECOND), st.none()),
)


@given(windows=st.lists(a_window, min_size=1, max_size=5), steps=st.lists(a_step, max_size=25))
def test_decides_as_the_windows_do(
    opened: Callable[..., Any], memcached: Memcached, windows: list[Window], steps: list[Any]
) -> None:
    """Every answer is that of windows.py deciding over all windows at once, shared ones under heads of their own included."""
    clock, run = Clock(), someone()
    storage, reference = opened(memcached.url, clock=clock, timeout=PATIENT), Reference(clock)
    earlier: list[tuple[list[str], int, Verdict, Verdict]] = []

    def keys(number: int) -> list[str]:
        return [
            key(f"{run}-all-{i % 2}" if window.shared else f"{run}-{number}", window, i)
            for i, window in enumerate(windows)
        ]

    for verb, argument, cost in steps:
        if verb == "pass":
            clock.microseconds += argument
        elif verb == "acquire_many":
            requests = [Request(windows, keys(number), cost) for number in argument]
            pairs = list(zip(reference.acquire_many(requests), storage.acquire_many(requests), strict=True))
            earlier += [(request.keys, cost, *pair) for request, pair in zip(requests, pairs, strict=True)]

            assert [without_marks(ours) for _, ours in pairs] == [without_marks(theirs) for theirs, _ in pairs]
        elif verb == "release" and earlier:
            given_keys, given_cost, theirs, ours = earlier[argument % len(earlier)]
            expected = reference.release(windows, given_keys, given_cost, [r.token for r in theirs.readings])

            assert storage.release(windows, given_keys, given_cost, [r.token for r in ours.readings]) == expected
        elif verb == "forget":
            assert storage.forget(windows, keys(argument)) == reference.forget(windows, keys(argument))
        elif verb in {"acquire", "peek"}:
            theirs = getattr(reference, verb)(windows, keys(argument), cost)
            ours = getattr(storage, verb)(windows, keys(argument), cost)
            earlier.append((keys(argument), cost, theirs, ours))

            assert without_marks(ours) == without_marks(theirs)


def test_is_a_storage_of_both_kinds(memcached: Memcached) -> None:
    """The storages answer to the protocols, and are storages of limits under schemes of their own."""
    opened = storage_from_string(f"notify+{memcached.url}")

    assert isinstance(opened, MemcachedStorage)
    assert isinstance(opened, Storage)
    assert isinstance(opened, StockStorage)
    assert isinstance(storage_from_string(f"async+notify+{memcached.url}"), AsyncStorage)
    assert type(storage_from_string(memcached.url)) is StockStorage


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_strategies_of_limits_run_on_it(memcached: Memcached, strategy: str) -> None:
    """A strategy of limits, with an item of limits, hits, tests and clears."""
    storage = MemcachedStorage(memcached.url, timeout=PATIENT)
    limiter, item, recipient = STRATEGIES[strategy](storage), parse("2/minute"), f"{someone()} any text\n/{{}}"
    hits = [limiter.hit(item, recipient) for _ in range(3)]
    tested = limiter.test(item, recipient)
    limiter.clear(item, recipient)

    assert (hits, tested, limiter.test(item, recipient)) == ([True, True, False], False, True)
    storage.close()


def test_two_round_trips(storage: Any, memcached: Memcached) -> None:
    """A decision over windows of all three strategies is one read and one write; a refusal is one read."""
    windows, recipient = [moving(1), fixed(2), sliding(3)], someone()
    keys = [key(recipient, window) for window in windows]
    counted = []
    for _ in range(2):
        before = statistics(memcached)
        storage.acquire(windows, keys, 1)
        after = statistics(memcached)
        counted.append([after[name] - before[name] for name in ("cmd_get", "cmd_set", "cmd_touch", "cmd_meta")])

    assert counted == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_no_windows_at_all(storage: Any) -> None:
    """A hit that no window counts is granted."""
    for verdict in (storage.acquire([], [], 1), storage.peek([], [], 1), *storage.acquire_many([Request([], [], 1)])):
        assert (verdict.granted, list(verdict.readings)) == (True, [])


def test_tells_hits_of_one_instant_apart(opened: Callable[..., Any], memcached: Memcached) -> None:
    """A hit is given back once, and never in place of one made after everything was forgotten in the same microsecond."""
    storage = opened(memcached.url, clock=Clock(), timeout=PATIENT)
    windows, recipient = [moving(5), fixed(5), sliding(5)], someone()
    keys = [key(recipient, window) for window in windows]
    first, second = (storage.acquire(windows, keys, 1) for _ in range(2))
    tokens = [reading.token for reading in first.readings]
    released = [storage.release(windows[:1], keys[:1], 1, tokens[:1]) for _ in range(2)]
    storage.forget(windows, keys)
    storage.acquire(windows, keys, 1)

    assert released == [True, False]
    assert storage.release(windows, keys, 1, tokens) is False
    assert [reading.count for reading in storage.peek(windows, keys, 1).readings] == [1, 1, 1]
    assert second.readings[0].token != first.readings[0].token


def test_stamps_never_run_backwards(opened: Callable[..., Any], memcached: Memcached) -> None:
    """A host whose clock is behind stamps its hits no earlier than what is there."""
    ahead, behind = Clock(), Clock()
    ahead.microseconds += 5 * SECOND
    windows, keys = [moving(3, 60)], [key(someone(), moving(3))]
    one = opened(memcached.url, clock=ahead, timeout=PATIENT).acquire(windows, keys, 1)
    other = opened(memcached.url, clock=behind, timeout=PATIENT).acquire(windows, keys, 1)

    assert [verdict.readings[0].token[0] for verdict in (one, other)] == [ahead.microseconds] * 2


def test_the_wall_clock_by_default(storage: Any) -> None:
    """Without clock= the instant is this host's wall clock's."""
    before = time.time_ns() // 1000
    window = moving(1)
    verdict = storage.acquire([window], [key(someone(), window)], 1)

    assert before - 1 <= verdict.now <= time.time_ns() // 1000 + 1


# How long items live.


def test_windows_of_a_second_live_for_all_of_it(storage: Any) -> None:
    """A hit is refused all through its second, at whatever phase of memcached's clock it was made, and allowed after."""
    windows = [moving(1, 1), fixed(1, 1)]
    began, ends, too_early, at_last = time.monotonic(), {}, [], []
    recipients = [someone() for _ in range(4)]
    while len(at_last) < 4:
        # One after the other, a quarter of a second apart.
        for recipient in recipients[: 1 + int((time.monotonic() - began) / 0.27)]:
            keys = [key(recipient, window) for window in windows]
            verdict = storage.acquire(windows, keys, 1)
            if recipient not in ends:
                ends[recipient] = verdict.now + SECOND
            elif verdict.now < ends[recipient]:
                too_early += [verdict] * verdict.granted
            else:
                at_last.append(verdict.granted)
                recipients.remove(recipient)
        time.sleep(0.01)

    assert too_early == []
    assert at_last == [True] * 4


def test_long_windows_limit(storage: Any, memcached: Memcached) -> None:
    """Limits per month, per year and per 10,000 days limit, though memcached reads long lives as instants until 2038."""
    asked, remaining = {}, {}
    for days in (29.99, 30, 31, 365, 10_000):
        windows, recipient = [moving(1, days * 86400), fixed(1, days * 86400), sliding(1, days * 86400)], someone()
        asked[days] = windows, [key(recipient, window) for window in windows]
        storage.acquire(*asked[days], 1)
        told = memcached.ask(f"mg {item_of(recipient)} t\r\n".encode(), b"\r\n")
        remaining[days] = int(told.removeprefix(b"HD t"))
    time.sleep(1.1)
    again = [storage.acquire(*request, 1) for request in asked.values()]

    assert [verdict.granted for verdict in again] == [False] * 5
    assert [[reading.count for reading in verdict.readings] for verdict in again] == [[1, 1, 1]] * 5
    assert remaining.pop(10_000) == -1
    assert all(seconds > 2 * days * 86400 for days, seconds in remaining.items())


def test_what_is_over_takes_no_room(opened: Callable[..., Any], memcached: Memcached) -> None:
    """A write drops the recipient's other windows that are over; what is all given back or forgotten is deleted."""
    clock, recipient = Clock(), someone()
    storage = opened(memcached.url, clock=clock, timeout=PATIENT)
    short, long = moving(5, 1), moving(5, 100)
    storage.acquire([short], [key(recipient, short, 1)], 1)
    clock.microseconds += 2 * SECOND
    verdict = storage.acquire([long], [key(recipient, long, 2)], 1)
    stored = memcached.ask(f"get {item_of(recipient)}\r\n".encode(), b"END\r\n")
    storage.release([long], [key(recipient, long, 2)], 1, [verdict.readings[0].token])

    assert (b"rule1" in stored, b"rule2" in stored) == (False, True)
    assert memcached.ask(f"get {item_of(recipient)}\r\n".encode(), b"END\r\n") == b"END\r\n"
    assert storage.acquire([long], [key(recipient, long, 2)], 1).readings[0].count == 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 10), (0.000001, 11), (1, 11), (2_592_000 - 10, 2_592_000), (2_592_000, 1_700_000_000 + 2_592_010), (10**9, 0)],
)
def test_time_to_live(seconds: float, expected: int) -> None:
    """A life up to 30 days is a number of seconds, a longer one an instant, and beyond 2038 it has no end."""
    now = 5 * DAY

    assert record.time_to_live(now + round(seconds * SECOND), now, 1_700_000_000.5) == expected


# What fits into an item.


@given(
    entries=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)), max_size=30),
    alike=st.booleans(),
)
def test_records_survive_their_bytes(entries: list[tuple[int, int, int]], *, alike: bool) -> None:
    """A moving window comes out of its item as it went in, hit for hit."""
    item, window = record.Item(None), moving(100)
    kept: Any = item.record("a:m", window)
    now, mark = 10**15, item.mark
    for later, further, cost in entries:
        now, mark = now + later, mark + further
        kept.take(now, window.period, 1 if alike else cost, mark)
    encoded = item.encode(now)
    if encoded is not None:
        again: Any = record.Item(encoded[0]).record("a:m", window)

        assert (again.hits.total, list(again.hits)) == (kept.hits.total, list(kept.hits))
        assert encoded[1] == now + window.period
    else:
        assert not entries


def test_thousands_of_hits_fit() -> None:
    """50,000 hits of a day in a moving window stay below half of what an item may hold."""
    item, window, rng = record.Item(None), moving(10**6, 86400), random.Random(1)
    for stamp in sorted(rng.randrange(DAY) for _ in range(50_000)):
        item.record("a:m", window).take(1_700_000_000 * SECOND + stamp, window.period, 1, item.mark)
        item.mark += 1
    encoded = item.encode(1_700_000_000 * SECOND)

    assert encoded is not None
    assert len(encoded[0]) < 500_000


@pytest.fixture(scope="module")
def nearly_full() -> bytes:
    """An item with one big moving window in it, a little below what memcached takes."""
    item, now = record.Item(None), time.time_ns() // 1000
    ballast = moving(10**6, 86400)
    kept = item.record("ballast:m", ballast)
    for number in range(174_600):
        kept.take(now - 10 * 3600 * SECOND + number * 100_000, ballast.period, 1, number)
    encoded = item.encode(now)
    assert encoded is not None
    assert 1_047_000 < len(encoded[0]) < 1_048_000
    return encoded[0]


def test_what_outgrows_an_item_names_the_rule(storage: Any, memcached: Memcached, nearly_full: bytes) -> None:
    """Too many hits for one item are an error that names the rule and the way out, and nothing counted is forgotten."""
    window, counter, recipient = moving(10_000, rule="newsletter"), fixed(10_000, rule="cap"), someone()
    windows, keys = [counter, window], [key(recipient, counter), key(recipient, window)]
    item = item_of(recipient).encode()
    memcached.ask(b"set %b 0 0 %d\r\n%b\r\n" % (item, len(nearly_full), nearly_full), b"STORED\r\n")
    hits: list[Verdict] = []

    def hit_on() -> None:
        while len(hits) < 10_000:
            hits.append(storage.acquire(windows, keys, 1))

    with pytest.raises(
        StorageError, match=r"'newsletter' .*'sliding-window-counter' or 'fixed-window'.*Redis"
    ) as raised:
        hit_on()
    seen = storage.peek(windows, keys, 1)
    with pytest.raises(StorageError, match="'newsletter'"):
        storage.acquire(windows, keys, 1)

    assert [reading.count for reading in seen.readings] == [len(hits)] * 2
    assert len(hits) > 10
    assert recipient not in str(raised.value)


# Many at once.


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads change turns as often as Python can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_switching")
def test_sixteen_threads(memcached: Memcached) -> None:
    """16 threads on a fresh recipient: admitted is exactly the least limit, in each of 100 trials, over all strategies."""
    storages = [MemcachedStorage(memcached.url, timeout=PATIENT) for _ in range(2)]
    windows = [moving(5), fixed(6), sliding(7)]
    admitted = []
    with ThreadPoolExecutor(16) as threads:
        for _ in range(100):
            recipient = someone()
            keys = [key(recipient, window) for window in windows]
            verdicts = list(threads.map(lambda n, keys=keys: storages[n % 2].acquire(windows, keys, 1), range(16)))
            admitted.append(sum(verdict.granted for verdict in verdicts))

    assert admitted == [5] * 100
    for each in storages:
        each.close()


PROCESS = """
import json, sys
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.strategies import Window
storage = MemcachedStorage(sys.argv[1], timeout=30)
strategies = {"moving-window": 3, "fixed-window": 4, "sliding-window-counter": 3}
windows = [Window(strategy, amount, 3_600_000_000, rule="news") for strategy, amount in strategies.items()]
print("ready", flush=True)
print(json.dumps([storage.acquire(windows, keys, 1).granted for keys in json.loads(input())]))
"""


def test_eight_processes(memcached: Memcached) -> None:
    """8 processes on the same 200 fresh recipients: admitted is exactly the limit for each of them."""
    windows = [moving(3), fixed(4), sliding(3)]
    asked = [[key(name, window) for window in windows] for name in (someone() for _ in range(200))]
    command = [sys.executable, "-c", PROCESS, memcached.url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
    admitted = [json.loads(process.communicate()[0]) for process in processes]

    assert [sum(of_recipient) for of_recipient in zip(*admitted, strict=True)] == [3] * 200


def test_a_thousand_tasks(memcached: Memcached) -> None:
    """1,000 tasks on one recipient and on as many recipients: exactly the limit, over a bounded number of connections."""

    async def main() -> tuple[int, int]:
        storage = AsyncMemcachedStorage(memcached.url, timeout=PATIENT)
        window, recipient = moving(300), someone()
        on_one = await asyncio.gather(*(storage.acquire([window], [key(recipient, window)], 1) for _ in range(1000)))
        on_many = await asyncio.gather(*(storage.acquire([window], [key(someone(), window)], 1) for _ in range(1000)))
        await storage.close()
        return sum(verdict.granted for verdict in on_one), sum(verdict.granted for verdict in on_many)

    before = statistics(memcached)["total_connections"]
    admitted = asyncio.run(main())

    assert admitted == (300, 1000)
    assert statistics(memcached)["total_connections"] - before <= LANES + 1


@pytest.mark.usefixtures("eager_switching")
def test_a_shared_window_is_never_over(memcached: Memcached) -> None:
    """Recipients that race for a shared window never get more than it has; who was refused has lost nothing."""
    storage = MemcachedStorage(memcached.url, timeout=PATIENT)
    own, shared = moving(1), fixed(5, shared=True)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(20):
            everybody, names = someone(), [someone() for _ in range(16)]

            def hit(name: str, everybody: str = everybody) -> bool:
                return storage.acquire([own, shared], [key(name, own), key(everybody, shared)], 1).granted

            admitted = list(threads.map(hit, names))
            refused = [name for name, verdict in zip(names, admitted, strict=True) if not verdict]
            untouched = [storage.peek([own], [key(name, own)], 1).readings[0].count for name in refused]
            later = [hit(name) for name in refused]

            assert sum(admitted) <= 5
            assert untouched == [0] * len(refused)
            assert sum(admitted) + sum(later) == 5
    storage.close()


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_fork_shares_no_connection(memcached: Memcached, kind: str) -> None:
    """Parent and child of a fork use the storage at once, and neither reads the other's replies."""
    program = """
import asyncio, os, sys
from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage
from ratelimited_notify.windows.keys import split
from ratelimited_notify.storage.memcached.hosts import lane_of
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.strategies import Window
url, recipient, kind = sys.argv[1:]
storage = (MemcachedStorage if kind == "sync" else AsyncMemcachedStorage)(url, timeout=30)
window = Window("fixed-window", 1000, 3600_000_000)
def key(name):
    return "test:{%s-%s}:a:f" % (recipient, name)
async def counted(name, times):
    return [(await storage.acquire([window], [key(name)], 1)).readings[0].count for _ in range(times)]
def count(name, times):
    if kind == "asyncio":
        return asyncio.run(counted(name, times))
    return [storage.acquire([window], [key(name)], 1).readings[0].count for _ in range(times)]
def lane(name):
    return lane_of(split(key(name))[0])
assert count("before", 1) == [1]
# Names that are served by the same connection.
ours, theirs = [name for name in map(str, range(1000)) if lane(name) == lane("before")][:2]
child = os.fork()
seen = count(theirs if child == 0 else ours, 300)
assert seen == list(range(1, 301)), seen
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert count("before", 1) == [2]
"""
    arguments = [sys.executable, "-W", "error", "-c", program, memcached.url, someone(), kind]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_threads_of_a_fork_share_no_connection(memcached: Memcached) -> None:
    """Threads of a child that ask at the same moment get connections of their own, and leave the parent's alone."""
    program = """
import os, sys, threading
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.strategies import Window
url, recipient = sys.argv[1:]
storage = MemcachedStorage(url, timeout=30)
window = Window("fixed-window", 1000, 3600_000_000)
def count(name):
    return storage.acquire([window], ["test:{%s-%s}:a:f" % (recipient, name)], 1).readings[0].count
def ask(barrier, name, counts):
    barrier.wait()
    counts.append(count(name))
for name in range(64):
    count("warm%d" % name)
for trial in range(60):
    child = os.fork()
    if not child:
        barrier, counts = threading.Barrier(4), []
        threads = [threading.Thread(target=ask, args=(barrier, "%d-%d" % (trial, n), counts)) for n in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os._exit(counts != [1] * 4)
    assert os.waitpid(child, 0)[1] == 0, trial
    assert [count("warm%d" % name) for name in range(64)] == [trial + 2] * 64
"""
    arguments = [sys.executable, "-W", "error::SyntaxWarning", "-c", program, memcached.url, someone()]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


# Several heads, and what happens when one of them fails.


class Items:
    """Runs steps over items in a dictionary; `failing` says at which step something breaks."""

    def __init__(self, failing: set[int]) -> None:
        self.failing = failing
        self.values: dict[str, bytes | None] = {}
        self.heads: list[str] = []

    @property
    def done(self) -> int:
        return len(self.heads)

    def run(self, steps: Any) -> Any:
        try:
            step = next(steps)
            while True:
                self.heads.append(step.head)
                if self.done in self.failing:
                    step = steps.throw(StorageError(f"step {self.done}"))
                    continue
                answer, write = decide.perform(step, self.values.get(step.head), 10**15, 10**9)
                if write is not None:
                    self.values[step.head] = write.value or None
                step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def count(self, window: Window, at: str) -> int:
        self.failing = set()
        verdict: Verdict = self.run(decide.peek([window], [at], 1))
        return verdict.readings[0].count


def test_what_a_shared_window_refuses_is_given_back() -> None:
    """A refusal by a later item leaves the earlier ones as they were, and tells of all windows in the order asked."""
    own, everybody, most, never = (
        moving(5),
        fixed(1, 60, shared=True),
        sliding(1, 90, shared=True),
        fixed(0, shared=True),
    )
    windows = [everybody, own, most, never]
    keys = [key(name, window) for name, window in zip("bacd", windows, strict=True)]
    items = Items(set())
    items.run(decide.acquire(windows[:3], keys[:3], 1))
    first = "".join(split(head)[0][6] for head in items.heads)
    verdict = items.run(decide.acquire(windows, keys, 1))
    readings = [(reading.count, reading.retry_at, reading.token) for reading in verdict.readings]

    assert first == "abc"  # The recipient's own before those shared.
    assert verdict.granted is False
    assert readings == [
        (1, 10**15 + 60 * SECOND, None),
        (1, FITS, None),
        (1, 10**15 + 90 * SECOND + 1, None),
        (0, NEVER, None),
    ]


@pytest.mark.parametrize(
    ("failing", "counts"),
    [
        ({2}, [0, 0]),  # The shared window failed; the recipient's own hit is given back.
        ({2, 3}, [1, 0]),  # That failed too: the hit stays counted, never the other way round.
    ],
)
def test_a_failure_half_way(failing: set[int], counts: list[int]) -> None:
    """Where a later item fails, the error is raised, and what is certainly counted is given back if that can be done."""
    windows = [moving(5), fixed(5, shared=True)]
    keys = [key("ana", windows[0]), key("all", windows[1])]
    items = Items(failing)
    with pytest.raises(StorageError, match="step 2"):
        items.run(decide.acquire(windows, keys, 1))

    assert [items.count(window, at) for window, at in zip(windows, keys, strict=True)] == counts


def test_giving_back_may_fail() -> None:
    """Where a refused hit cannot be given back in one item, it is in the others, and the error is raised."""
    windows = [moving(5), fixed(5, shared=True), sliding(0, shared=True)]
    keys = [key(name, window) for name, window in zip(["ana", "all", "none"], windows, strict=True)]
    items = Items({4})
    with pytest.raises(StorageError, match="step 4"):
        items.run(decide.acquire(windows, keys, 1))

    assert [items.count(window, at) for window, at in zip(windows, keys, strict=True)] == [1, 0, 0]


def test_release_goes_on_after_a_failure() -> None:
    """A release that fails in one item gives back in the others all the same, and says that it failed."""
    windows = [moving(5), fixed(5, shared=True)]
    keys = [key("ana", windows[0]), key("all", windows[1])]
    items = Items({3})
    verdict = items.run(decide.acquire(windows, keys, 1))
    with pytest.raises(StorageError, match="step 3"):
        items.run(decide.release(windows, keys, 1, [reading.token for reading in verdict.readings]))

    assert [items.count(window, at) for window, at in zip(windows, keys, strict=True)] == [1, 0]


# Several hosts.


@given(
    names=st.lists(st.integers(1, 9), min_size=2, max_size=5, unique=True),
    head=st.text("abcdef", min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
)
def test_the_choice_of_a_host(names: list[int], head: str, order: random.Random) -> None:
    """The order of the hosts plays no part, and taking away another host moves nobody."""
    hosts = list(hosts_of("memcached://" + ",".join(f"cache{name}:11211" for name in names)))
    chosen = choose(hosts, head)
    order.shuffle(hosts)
    hosts_left = [host for host in hosts if host == chosen or order.random() < 0.5]

    assert choose(hosts, head) == choose(hosts_left, head) == chosen


def test_two_hosts(start_memcached: Callable[..., Memcached]) -> None:
    """Sync and async find the same items on two hosts; a dead host is an error for its recipients, never an empty one."""
    servers = [start_memcached(), start_memcached()]
    addresses = [server.address for server in servers]
    sync = MemcachedStorage("memcached://" + ",".join(addresses), timeout=PATIENT)
    window, names = fixed(1, 86400), [someone() for _ in range(40)]
    batch = [Request([window], [key(name, window)], 1) for name in names]
    admitted = [verdict.granted for verdict in sync.acquire_many(batch)]
    held = [statistics(server)["curr_items"] for server in servers]

    async def asked(reports: list[str]) -> None:
        storage = AsyncMemcachedStorage("memcached://" + ",".join(reversed(addresses)), timeout=PATIENT)
        for name in names:
            try:
                verdict = await storage.acquire([window], [key(name, window)], 1)
            except StorageError as error:
                reports.append(str(error))
            else:
                reports.append("admitted" if verdict.granted else "refused")
        await storage.close()

    both_up: list[str] = []
    asyncio.run(asked(both_up))
    servers[0].stop()
    one_down: list[str] = []
    asyncio.run(asked(one_down))
    dead = [name for name, report in zip(names, one_down, strict=True) if addresses[0] in report]

    assert admitted == [True] * 40
    assert min(held) > 0
    assert both_up == ["refused"] * 40
    assert one_down.count("refused") == held[1]
    assert len(dead) == held[0]
    for name in dead:
        with pytest.raises(StorageError, match=addresses[0]):
            sync.acquire([window], [key(name, window)], 1)
    assert sync.check() is False
    sync.close()


def test_a_batch_that_fails_is_given_back(
    opened: Callable[..., Any], start_memcached: Callable[..., Memcached]
) -> None:
    """When a host fails in a batch, those who were admitted before lose nothing."""
    servers = [start_memcached(), start_memcached()]
    url = "memcached://" + ",".join(server.address for server in servers)
    window, names = fixed(1, 86400), [someone() for _ in range(20)]
    home = {name: choose(hosts_of(url), item_of(name)).name for name in names}
    names.sort(key=lambda name: home[name] == servers[0].address)
    alive = [name for name in names if home[name] == servers[1].address]
    servers[0].stop()
    storage = opened(url, timeout=PATIENT)
    with pytest.raises(StorageError, match=servers[0].address):
        storage.acquire_many([Request([window], [key(name, window)], 1) for name in names])

    assert len(alive) in range(1, 20)
    assert [storage.peek([window], [key(name, window)], 1).readings[0].count for name in alive] == [0] * len(alive)


# When things break.


def test_a_server_that_hangs(opened: Callable[..., Any], start_memcached: Callable[..., Memcached]) -> None:
    """A stopped server is an error within the deadline, and once it goes on nobody reads an old reply."""
    server = start_memcached()
    storage = opened(server.url, timeout=0.3)
    window, names = fixed(100), [someone() for _ in range(5)]
    for number, name in enumerate(names):
        for _ in range(number):
            storage.acquire([window], [key(name, window)], 1)
    hang(server)
    began = time.monotonic()
    with pytest.raises(StorageError, match=rf"{server.address} gave no answer within 0\.3 seconds"):
        storage.acquire([window], [key(names[0], window)], 1)
    elapsed = time.monotonic() - began
    hanging = storage.check()
    server.resume()
    time.sleep(0.1)
    counts = [storage.peek([window], [key(name, window)], 1).readings[0].count for name in names]

    assert 0.25 < elapsed < 5
    assert (hanging, storage.check()) == (False, True)
    assert counts[1:] == [1, 2, 3, 4]
    assert counts[0] in {0, 1}


@pytest.fixture
def slow(memcached: Memcached) -> Iterator[str]:
    """The URL of a memcached that answers after a while."""
    with Proxy(memcached.port) as proxy:
        proxy.delay = lambda: 0.2
        yield f"memcached://{HOST}:{proxy.port}"


def test_an_interrupt_leaves_no_reply_behind(slow: str) -> None:
    """What a signal handler raises in the middle of a call costs the connection, so that nobody reads an old reply."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    storage, window, name = MemcachedStorage(slow, timeout=PATIENT), fixed(100), someone()
    storage.acquire([window], [key(name, window)], 7)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Interrupted):
            storage.peek([window], [key(name, window)], 1)
    finally:
        signal.signal(signal.SIGALRM, before)
    time.sleep(0.3)  # Until the old reply is there to be read.
    counts = [storage.acquire([window], [key(name, window)], 1).readings[0].count for _ in range(2)]

    assert counts == [8, 9]
    storage.close()


def test_a_server_started_anew(opened: Callable[..., Any], start_memcached: Callable[..., Memcached]) -> None:
    """A restarted server is asked over a new connection; that the old one is gone costs no decision."""
    server = start_memcached()
    storage = opened(server.url, timeout=PATIENT)
    window, name = fixed(5), someone()
    storage.acquire([window], [key(name, window)], 1)
    server.stop()
    with pytest.raises(StorageError, match=f"{server.address} could not be reached"):
        storage.acquire([window], [key(name, window)], 1)
    server.start()
    before = storage.acquire([window], [key(name, window)], 1)
    server.stop()
    server.start()
    after = storage.acquire([window], [key(name, window)], 1)

    assert [verdict.readings[0].count for verdict in (before, after)] == [1, 1]


class Cutter:
    """A TCP proxy that hands one write on to memcached and hangs up instead of handing back the reply."""

    def __init__(self, server: Memcached) -> None:
        self._server = server
        self._listener = socket.create_server((HOST, 0))
        self.url = f"memcached://{HOST}:{self._listener.getsockname()[1]}"
        self.writes = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener:
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection((HOST, self._server.port)) as server:
                    while data := client.recv(65536):
                        if data == b"stop":
                            return
                        server.sendall(data)
                        reply = server.recv(65536)
                        if not data.startswith(b"get"):
                            self.writes += 1
                            break
                        client.sendall(reply)

    def stop(self) -> None:
        with socket.create_connection(self._listener.getsockname()) as connection:
            connection.sendall(b"stop")
        self._thread.join()


def test_a_lost_reply_is_not_sent_again(opened: Callable[..., Any], memcached: Memcached) -> None:
    """Where the reply to a write is lost, the caller gets an error, and the hit or release was sent exactly once."""
    cutter = Cutter(memcached)
    cut, straight = opened(cutter.url, timeout=PATIENT), opened(memcached.url, timeout=PATIENT)
    window, name = moving(5), someone()
    counts = []
    try:
        for _ in range(2):
            with pytest.raises(StorageError, match="the connection was lost"):
                cut.acquire([window], [key(name, window)], 1)
            counts.append(straight.peek([window], [key(name, window)], 1).readings[0].count)
        granted = straight.acquire([window], [key(name, window)], 1)
        with pytest.raises(StorageError, match="the connection was lost"):
            cut.release([window], [key(name, window)], 1, [granted.readings[0].token])
        counts.append(straight.peek([window], [key(name, window)], 1).readings[0].count)
    finally:
        cutter.stop()

    assert counts == [1, 2, 2]
    assert cutter.writes == 3


def test_somebody_is_always_quicker(opened: Callable[..., Any], memcached: Memcached) -> None:
    """A decision that loses the race again and again ends at the deadline, with nothing counted."""
    window, name, clock = moving(1000), someone(), Clock()
    rival = MemcachedStorage(memcached.url, timeout=PATIENT)
    lost = 0

    def overtaken() -> float:
        nonlocal lost
        lost += 1
        rival.acquire([window], [key(name, window)], 1)
        return clock()

    storage = opened(memcached.url, clock=overtaken, timeout=0.2)
    with pytest.raises(
        StorageError, match=r"(changed by others \d+ times|no answer) within 0\.2 seconds|0\.2 seconds of"
    ):
        storage.acquire([window], [key(name, window)], 1)

    assert rival.peek([window], [key(name, window)], 1).readings[0].count == lost > 1
    rival.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"-ERR unknown command\r\n",
        b"ERROR\r\n",
        b"SERVER_ERROR out of memory\r\n",
        b"VALUE x y\r\n",
        b"\r\n",
        b"END\r\nx",
        b"a b c 4 e\r\n",
        b"VALUE x 0 1 1\r\ny\r\nSTORED\r\n",
        b"",
    ],
)
def test_an_address_where_something_else_answers(opened: Callable[..., Any], answer: bytes) -> None:
    """What is not memcached, or refuses, is an error of ours that names the address and shows no recipient."""
    with socket.create_server((HOST, 0)) as listener:
        address = f"{HOST}:{listener.getsockname()[1]}"

        def serve() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client, suppress(OSError):
                    while client.recv(65536) and answer:
                        client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        storage, window, name = opened(f"memcached://{address}", timeout=1), moving(1), someone()
        for _ in range(2):
            with pytest.raises(StorageError, match=address) as raised:
                storage.acquire([window], [key(name, window)], 1)
            storage.close()
        thread.join()

    assert name not in str(raised.value)


def test_an_item_of_somebody_else(storage: Any, memcached: Memcached) -> None:
    """Bytes that this library did not write are an error, never an empty window."""
    window = moving(1)
    for value in (
        b"5",
        b"\x93\x01\x02\x80!",
        b"\x93\x02\x02\x80",
        b"\x93\x01\x02\x81\xa1a\x92\xcf\xff\0\0\0\0\0\0\0\x90",
    ):
        name = someone()
        at = key(name, window).replace(":rule0:m", ":a")
        memcached.ask(b"set %b 0 0 %d\r\n%b\r\n" % (item_of(name).encode(), len(value), value), b"STORED\r\n")
        with pytest.raises(StorageError, match="cannot read") as raised:
            storage.acquire([window], [at], 1)

        assert name not in str(raised.value)


def test_reset_is_refused(storage: Any) -> None:
    """reset says why it cannot be done, instead of wiping what other programs keep."""
    with pytest.raises(NotifyError, match="flush_all would wipe what other programs keep"):
        storage.reset()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memcached://", "a host has no name"),
        ("memcached://a:1,,b:2", "a host has no name"),
        ("memcached://a:99999", "a port is a number from 1 to 65535"),
        ("memcached://ana:sesame@a:1", "does not log in"),
        ("memcached://ana:se/same@a:1", "does not log in"),
        ("memcached://a:1?timeout=3", "options are arguments"),
        ("memcached://a:1/tmp/socket", "both a host and the path"),
    ],
)
def test_addresses_that_cannot_be_used(opened: Callable[..., Any], url: str, said: str) -> None:
    """An address that cannot be used is refused at once, with how to write one, and without a password in it."""
    with pytest.raises(NotifyError, match=said) as raised:
        opened(url)

    assert "Write memcached://host:port" in str(raised.value)
    assert "same" not in str(raised.value)


def test_addresses() -> None:
    """The port may be left out, an IPv6 address stands in brackets, a host named twice is one."""
    named = [host.name for host in hosts_of("memcached://a,[::1]:7, b:3,a:11211")]

    assert named == ["a:11211", "[::1]:7", "b:3"]
    assert hosts_of("memcached:///run/memcached.sock")[0].address == "/run/memcached.sock"


def test_a_name_with_several_addresses(
    opened: Callable[..., Any], memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose first address refuses is reached at its second: localhost is ::1 first on many machines."""
    resolve = socket.getaddrinfo
    closed = ("127.0.0.2", memcached.port)

    def both(host: str, port: int, *rest: Any, flags: int = 0, **named: Any) -> Any:
        if host != "cache.example":
            return resolve(host, port, *rest, flags=flags, **named)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        found = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*found, closed), (*found, (HOST, port))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    storage, window = opened(f"memcached://cache.example:{memcached.port}", timeout=PATIENT), moving(1)

    assert storage.acquire([window], [key(someone(), window)], 1).granted is True


def test_a_unix_socket(opened: Callable[..., Any], tmp_path: Path) -> None:
    """A server behind a Unix socket is reached by its path."""
    memcached_server().remove()  # Skips where there is no memcached.
    path = tmp_path / "socket"
    command = ["memcached", "-u", "root" if os.getuid() == 0 else str(os.getuid()), "-s", str(path)]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENT
        storage, window, name = opened(f"memcached://{path}", timeout=PATIENT), moving(1), someone()
        while not storage.check() and time.monotonic() < deadline:
            time.sleep(0.02)
        verdicts = [storage.acquire([window], [key(name, window)], 1).granted for _ in range(2)]
    finally:
        server.kill()
        server.wait()
    with pytest.raises(StorageError, match=str(path)):
        storage.acquire([window], [key(name, window)], 1)

    assert verdicts == [True, False]


def test_without_pymemcache() -> None:
    """Neither storage needs a client library."""
    program = (
        "import sys; sys.modules['pymemcache'] = None\n"
        "from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage\n"
        "from ratelimited_notify.storage.memcached.sync import MemcachedStorage\n"
        "print(MemcachedStorage.__name__, AsyncMemcachedStorage.__name__)"
    )
    # In a process of its own: here it would replace the classes that limits has registered.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["MemcachedStorage", "AsyncMemcachedStorage"]


# Event loops.


def test_a_cancelled_call_leaves_no_reply_behind(memcached: Memcached) -> None:
    """Whatever moment a call is cancelled at, the next ones get answers of their own."""

    async def main() -> list[list[int]]:
        storage = AsyncMemcachedStorage(memcached.url, timeout=PATIENT)
        window, rng = fixed(10**6), random.Random(7)
        names = [someone() for _ in range(20)]
        seen = []
        for number, name in enumerate(names):
            await storage.acquire([window], [key(name, window)], 1000 * (number + 1))
        for _ in range(30):
            tasks = [asyncio.create_task(storage.acquire([window], [key(name, window)], 1)) for name in names]
            for _ in range(rng.randrange(40)):
                await asyncio.sleep(0)
            for task in tasks:
                if rng.random() < 0.7:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            verdicts = [await storage.acquire([window], [key(name, window)], 1) for name in names]
            seen.append([verdict.readings[0].count // 1000 for verdict in verdicts])
        await storage.close()
        return seen

    assert asyncio.run(main()) == [list(range(1, 21))] * 30


def test_a_cancelled_call_on_a_slow_server(slow: str) -> None:
    """A call cancelled while its reply is awaited stays cancelled, and its connection is not used again."""

    async def main() -> tuple[bool, list[int]]:
        storage = AsyncMemcachedStorage(slow, timeout=PATIENT)
        window, name = fixed(1000), someone()
        await storage.acquire([window], [key(name, window)], 7)
        task = asyncio.create_task(storage.peek([window], [key(name, window)], 1))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.3)  # Until the old reply is there to be read.
        verdicts = [await storage.acquire([window], [key(name, window)], 1) for name in (name, someone())]
        await storage.close()
        return task.cancelled(), [verdict.readings[0].count for verdict in verdicts]

    assert asyncio.run(main()) == (True, [8, 1])


def test_several_event_loops(memcached: Memcached) -> None:
    """One storage serves event loops one after another and at once, keeps none of them alive, and leaves nothing open."""
    window, name = moving(100), someone()
    loops: list[weakref.ref[Any]] = []

    async def hits(storage: AsyncMemcachedStorage) -> int:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        verdicts = await asyncio.gather(*(storage.acquire([window], [key(name, window)], 1) for _ in range(50)))
        return sum(verdict.granted for verdict in verdicts)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        storage: Any = AsyncMemcachedStorage(memcached.url, timeout=PATIENT)
        in_turn = [asyncio.run(hits(storage)) for _ in range(2)]
        with ThreadPoolExecutor(4) as threads:
            at_once = list(threads.map(lambda _: asyncio.run(hits(storage)), range(4)))
        gc.collect()
        alive = [loop for loop in loops if loop() is not None]
        storage = None
        gc.collect()

    assert in_turn == [50, 50]
    assert sum(at_once) == 0
    assert alive == []
    assert [str(warning.message) for warning in caught] == []


def test_connections_left_idle_are_few(start_memcached: Callable[..., Memcached]) -> None:
    """However many event loops were at work at once, no more connections stay open than one of them needs."""
    server, window = start_memcached(), moving(1)
    storage = AsyncMemcachedStorage(server.url, timeout=PATIENT)
    started = threading.Barrier(4)

    async def hits() -> None:
        started.wait()
        await asyncio.gather(*(storage.acquire([window], [key(someone(), window)], 1) for _ in range(200)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: asyncio.run(hits()), range(4)))
    deadline = time.monotonic() + PATIENT
    while (left := statistics(server)["curr_connections"]) > LANES + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    used = statistics(server)["total_connections"]
    asyncio.run(storage.close())

    assert left <= LANES + 2  # The server counts one of its own, and the one that asks.
    assert used > LANES + 2


def test_a_storage_that_nobody_closed(memcached: Memcached) -> None:
    """A sync storage that is dropped closes its connections."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        storage = MemcachedStorage(memcached.url, timeout=PATIENT)
        storage.acquire([moving(1)], [key(someone(), moving(1))], 1)
        gone = weakref.ref(storage)
        del storage
        gc.collect()

    assert gone() is None
    assert [str(warning.message) for warning in caught] == []
