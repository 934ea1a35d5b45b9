"""Connections to memcached heal: whatever interrupts a decision, wherever, the next ones get replies of their own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from memcached_storages import PATIENT, fixed, key, someone
from proxy import HOST, Proxy
from ratelimited_notify import AsyncLimiter, NotifyError
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.memcached import connection
from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage
from ratelimited_notify.storage.memcached.hosts import lane_of
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.keys import split

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator
    from types import FrameType

    from servers import Memcached

WINDOW, SHARED = fixed(10**6), fixed(10**6, shared=True)

SHORT = 2.0
"""Seconds: enough for one decision on a busy machine, and not too many to wait for a place that is lost."""


class Interrupted(BaseException):
    """What a signal handler raises."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A socket that was being made when the exception came is closed by Python, with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def hit(storage: Any, name: str, cost: int = 1) -> int:
    """Count a hit; how many there are."""
    return storage.acquire([WINDOW], [key(name, WINDOW)], cost).readings[0].count


def neighbours(number: int) -> list[str]:
    """Recipients whose lane is one."""
    names, lane = [], None
    while len(names) < number:
        name = someone()
        at = lane_of(split(key(name, WINDOW))[0])
        lane = at if lane is None else lane
        names += [name] * (at == lane)
    return names


class Interrupter:
    """Raises at the n-th line, or byte code, of the storage's own code."""

    def __init__(self, nth: int, *, opcodes: bool) -> None:
        self.left = nth
        self._event = "opcode" if opcodes else "line"

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if "storage/memcached" not in name and not name.endswith("storage/wire.py"):
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        if event == self._event:
            self.left -= 1
            if self.left == 0:
                raise Interrupted
        return self

    def runs(self, call: Callable[[], object]) -> bool:
        """Whether the call came to its end."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        except Interrupted:
            return False
        finally:
            sys.settrace(before)
        return self.left > 0


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("opcodes", [False, True], ids=["line", "byte code"])
def test_an_exception_anywhere(memcached: Memcached, *, connected: bool, opcodes: bool) -> None:
    """After an exception at any line or byte code of a decision the next ones get their own replies, at once, with the
    place in use that was; nothing that was granted is missing, and no more than one hit is uncertain.
    """
    # What is raised between two byte codes of an `except` can stay the exception that its thread handles, for ever.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_interrupted_anywhere, memcached, connected=connected, opcodes=opcodes).result()


def _interrupted_anywhere(memcached: Memcached, *, connected: bool, opcodes: bool) -> None:
    storage = MemcachedStorage(memcached.url, timeout=SHORT)
    first, second = neighbours(2)
    counts = {first: hit(storage, first), second: hit(storage, second, 1000)}
    nth = 1
    while True:
        if not connected:
            storage.close()
        if Interrupter(nth, opcodes=opcodes).runs(lambda: hit(storage, first)):
            break
        now = hit(storage, first)

        assert now - counts[first] in {1, 2}, nth
        assert hit(storage, second) == counts[second] + 1, nth
        counts = {first: now, second: counts[second] + 1}
        nth += 1

    assert nth > 100
    storage.close()


@pytest.mark.parametrize("kept", [False, True], ids=["gone", "kept"])
def test_a_lane_that_is_lost_is_made_anew(memcached: Memcached, monkeypatch: pytest.MonkeyPatch, *, kept: bool) -> None:
    """Where a lock stays taken (a second signal handler raised while the first exception was on its way), those who wait notice
    that nobody holds it any more, and go on; so they do where somebody keeps the traceback, as soon as the deadline is over.
    """
    monkeypatch.setattr(connection, "_OVERDUE", 0.0)
    storage, name = MemcachedStorage(memcached.url, timeout=SHORT), someone()
    hit(storage, name)
    lane = storage._lanes.of(storage._hosts[0], split(key(name, WINDOW))[0])
    holders = []

    def lose() -> None:
        lane.lock.acquire()
        holders.append(connection.Holder())
        lane.is_held_by(holders[0], time.monotonic())

    losing = threading.Thread(target=lose)
    losing.start()
    losing.join()
    if not kept:
        holders.clear()
    counts = [hit(storage, name) for _ in range(3)]

    assert counts == [2, 3, 4]
    assert storage._lanes.of(storage._hosts[0], split(key(name, WINDOW))[0]) is not lane
    storage.close()


def test_a_thread_that_waits_for_a_lane_seldom_wakes(memcached: Memcached, monkeypatch: pytest.MonkeyPatch) -> None:
    """It checks whether the lane is lost, first soon and then ever less often. Hundreds of threads may wait."""
    storage, name = MemcachedStorage(memcached.url, timeout=SHORT), someone()
    hit(storage, name)
    lane = storage._lanes.of(storage._hosts[0], split(key(name, WINDOW))[0])
    looks: list[float] = []
    monkeypatch.setattr(connection.Lane, "is_lost", lambda _: looks.append(time.monotonic()))
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        holder = connection.Holder()
        with lane.lock:
            lane.is_held_by(holder, time.monotonic() + PATIENT)
            taken.set()
            done.wait(PATIENT)

    holding = threading.Thread(target=hold)
    holding.start()
    taken.wait(PATIENT)
    with pytest.raises(StorageError, match=r"busy|time"):
        hit(storage, name)
    done.set()
    holding.join()

    assert 2 <= len(looks) <= 3 + math.log2(SHORT / connection._LOOK)
    storage.close()


class Neighbour(threading.Thread):
    """Hits for one recipient again and again, until told to stop."""

    def __init__(self, storage: Any) -> None:
        super().__init__()
        self.stopped = False
        self.hits = 0
        self.wrong: list[object] = []
        self._storage, self._name = storage, someone()

    def run(self) -> None:
        while not self.stopped and not self.wrong:
            self.hits += 1
            try:
                count = hit(self._storage, self._name)
            except StorageError as error:
                self.wrong.append(error)
            else:
                self.wrong += [count] * (count != self.hits)


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    """A signal handler raises after so many seconds, unless the body has ended."""
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_storm_of_signals(request: pytest.FixtureRequest) -> None:
    """A thousand interrupts, each caught and gone on from, while other threads ask: no reply goes to somebody else, no lane
    stays locked, and nobody is stuck.
    """
    if sys.gettrace() is not None:
        # They would leave the locks of what measures the coverage locked. A process of its own is not measured.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", request.node.nodeid]
        ran = subprocess.run(
            command, cwd=request.config.rootpath, capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, ran.stdout[-3000:]
        return
    _storm(request.getfixturevalue("memcached"))


def _storm(memcached: Memcached) -> None:

    def interrupt(*_: object) -> None:
        raise Interrupted

    storage = MemcachedStorage(memcached.url, timeout=PATIENT)
    counts = {someone(): 1000 * number for number in range(1, 41)}
    for name, cost in counts.items():
        hit(storage, name, cost)
    uncertain, wrong, interrupts, names = dict.fromkeys(counts, 0), [], 0, itertools.cycle(counts)
    neighbours = [Neighbour(storage) for _ in range(4)]
    for neighbour in neighbours:
        neighbour.start()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interrupts < 1000:
            name = next(names)
            try:
                with interrupted(random.uniform(0.0001, 0.0017)):
                    count = hit(storage, name)
            except Interrupted:
                interrupts += 1
                uncertain[name] += 1
            else:
                if not counts[name] < count <= counts[name] + uncertain[name] + 1:
                    wrong.append((count, counts[name]))
                counts[name], uncertain[name] = count, 0
    finally:
        signal.signal(signal.SIGALRM, before)
        for neighbour in neighbours:
            neighbour.stopped = True
        for neighbour in neighbours:
            neighbour.join(PATIENT)

    assert not any(neighbour.is_alive() for neighbour in neighbours)
    assert (wrong, [neighbour.wrong for neighbour in neighbours]) == ([], [[]] * 4)
    assert min(neighbour.hits for neighbour in neighbours) > 1
    for name, count in counts.items():
        assert count < hit(storage, name) <= count + uncertain[name] + 1
    storage.close()


def test_a_decision_within_a_decision(memcached: Memcached) -> None:
    """A decision in the middle of another about the same recipient (by a signal handler, or by the clock) is made, and so is
    the other.
    """
    name, inner = someone(), []

    def clock() -> float:
        if not inner:
            inner.append(0)
            inner[0] = hit(storage, name)
        return time.time()

    storage = MemcachedStorage(memcached.url, timeout=PATIENT, clock=clock)
    outer = hit(storage, name)

    assert (inner, outer, hit(storage, name)) == ([1], 2, 3)
    storage.close()


class CancelledAt:
    """A call that is cancelled where it waits for the n-th time."""

    def __init__(self, call: Coroutine[Any, Any, Any], nth: int) -> None:
        self._call = call
        self.left = nth

    def __await__(self) -> Generator[Any, Any, Any]:
        waits = self._call.__await__()
        while True:
            try:
                waited_for = next(waits)
            except StopIteration as done:
                return done.value
            self.left -= 1
            if self.left == 0:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001  # handed on to where the call waits
                waits.throw(error)
                raise AssertionError("It went on after it was cancelled.") from None


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
def test_cancelled_at_any_await(memcached: Memcached, *, connected: bool) -> None:
    """A call that is cancelled wherever it waits ends by that; the next ones get replies of their own, and no turn is left
    taken.
    """

    async def main(url: str) -> int:
        storage = AsyncMemcachedStorage(url, timeout=SHORT)
        first, second = neighbours(2)
        keys = [key(first, WINDOW), key(f"{first}-all", SHARED)]
        await storage.acquire([WINDOW], [key(second, WINDOW)], 1000)
        counted, nth, other = 0, 0, 1000
        while True:
            nth, other = nth + 1, other + 1
            if not connected:
                await storage.close()
            cancelled_at = CancelledAt(storage.acquire([WINDOW, SHARED], keys, 1), nth)

            async def call(cancelled_at: CancelledAt = cancelled_at) -> None:
                await cancelled_at

            (outcome,) = await asyncio.gather(asyncio.create_task(call()), return_exceptions=True)
            verdicts = await asyncio.gather(
                storage.acquire([WINDOW, SHARED], keys, 1), storage.acquire([WINDOW], [key(second, WINDOW)], 1)
            )
            now = verdicts[0].readings[0].count

            assert now - counted in {1, 2}
            assert verdicts[1].readings[0].count == other
            counted = now
            if cancelled_at.left > 0:
                await storage.close()
                return nth
            assert isinstance(outcome, asyncio.CancelledError)

    with Proxy(memcached.port) as proxy:
        # So that each reply has to be waited for.
        proxy.delay = lambda: 0.005

        assert asyncio.run(main(f"memcached://{HOST}:{proxy.port}")) > 4


def test_a_fork_of_a_busy_process(memcached: Memcached) -> None:
    """Children that are forked at any moment while other threads ask begin with connections of their own, wait for nobody,
    and leave the parent's replies alone.
    """
    program = """
import os, random, sys, threading, time
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.strategies import Window
url, recipient = sys.argv[1:]
storage = MemcachedStorage(url, timeout=20)
window = Window("fixed-window", 10**6, 3600_000_000)
wrong = []
def count(name):
    return storage.acquire([window], ["test:{%s-%s}:a:f" % (recipient, name)], 1).readings[0].count
def ask(name):
    expected = 0
    while not stop:
        expected += 1
        if count(name) != expected:
            wrong.append((name, expected))
            return
stop = []
threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in range(8)]
for thread in threads: thread.start()
for trial in range(60):
    time.sleep(random.random() / 200)
    child = os.fork()
    if not child:
        wrong.clear()
        mine = threading.Thread(target=lambda: [count("c%d-a%d" % (trial, n)) == 1 or wrong.append(n) for n in range(8)])
        mine.start()
        wrong += [n for n in range(32) if count("c%d-b%d" % (trial, n)) != 1]
        mine.join()
        links = [os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)]
        sockets = [link for link in links if link.startswith("socket:")]
        # Those that the parent's threads were about to connect have no owner yet who could close them.
        os._exit(1 if wrong else 2 if len(sockets) > (16 if trial else 24) else 0)
    assert os.waitpid(child, 0)[1] == 0, trial
stop.append(1)
for thread in threads: thread.join()
assert not wrong, wrong
"""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, memcached.url, someone()]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_in_the_middle_of_a_decision(memcached: Memcached) -> None:
    """A child that is forked by the clock of a decision does not go on with the parent's exchange."""
    name, children = someone(), []

    def clock() -> float:
        if armed and not children:
            children.append(os.fork())
        return time.time()

    armed: list[bool] = []
    storage = MemcachedStorage(memcached.url, timeout=PATIENT, clock=clock)
    hit(storage, name)
    armed.append(True)
    status = 9
    try:
        counts = [hit(storage, name)]
        if children != [0]:
            os.waitpid(children[0], 0)
            counts.append(hit(storage, name))
    except StorageError as error:
        status = 0 if "connection was lost" in str(error) and hit(storage, name) in {2, 3} else 1
    finally:
        if children == [0]:
            os._exit(status)

    assert counts == [2, 4] or counts == [3, 4]
    storage.close()


@pytest.mark.parametrize("verb", ["hit", "test", "windows", "clear"])
def test_without_an_event_loop_of_asyncio(memcached: Memcached, verb: str) -> None:
    """Under another event loop, such as trio's, an AsyncLimiter says what works."""
    limiter = AsyncLimiter({"news": "1/day"}, memcached.url)
    call = getattr(limiter, verb)("news", someone())
    with pytest.raises(NotifyError, match=r"no event loop of asyncio is running.*trio\.to_thread\.run_sync"):
        call.send(None)
