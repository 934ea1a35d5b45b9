"""Windows in memory: they take no more room than what is in use, start no thread, and never wait for ever."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from backends import HOUR, MINUTE, SECOND, STRATEGIES, window
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.storage.engine import bounded_clock
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage
from ratelimited_notify.storage.memory.packed import unpacked
from ratelimited_notify.windows.strategies import MICROSECONDS, Request, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.windows.strategies import StrategyName


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is moved."""
    return Clock()


def size(storage: MemoryStorage) -> int:
    """Everything that the storage holds, the sweep's list included: what would grow if it leaked."""
    return len(storage) + len(storage.shards._keys)


@given(
    amount=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.floats(0, 40), st.one_of(st.just(0.0), st.floats(0, 200)), st.sampled_from("abc")), max_size=60
    ),
)
def test_a_clock_that_steps_back_lets_nothing_through(amount: int, steps: list[tuple[float, float, str]]) -> None:
    """However often the clock is set back: in no true minute more than the amount, with windows dropped in between.

    What a clock that jumps forward lets through is that clock's affair; by default none is used that does.
    """
    clock = Clock()
    storage = MemoryStorage(clock=clock)
    one = window("moving-window", amount)
    true = 0.0
    admitted: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for passed, back, recipient in steps:
        true += passed
        clock.seconds += passed - back
        if storage.acquire([one], [recipient], 1).granted:
            admitted[recipient].append(true)

    for instants in admitted.values():
        for begin in instants:
            # A float's width short of a minute: the clock counts in floats here.
            assert sum(begin <= instant < begin + 60 - 1e-5 for instant in instants) <= amount


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("windows_each", [1, 3, 8])
def test_recipients_who_have_gone_are_dropped(clock: Clock, strategy: StrategyName, windows_each: int) -> None:
    """With a hundred recipients a minute, each seen once, never more than a few minutes' worth of them is held."""
    storage = MemoryStorage(clock=clock)
    windows = [window(strategy, 5, MINUTE) for _ in range(windows_each)]
    most = 0
    for number in range(5_000):
        clock.seconds += 0.6
        assert storage.acquire(windows, [f"{number}:{part}" for part in range(windows_each)], 1).granted
        most = max(most, len(storage))

    # A sliding window counts for two periods. A sweep that fell behind would end at thousands.
    lasts = 200 if strategy == "sliding-window-counter" else 100
    assert most <= 2 * lasts * windows_each


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_dropped_too_soon(clock: Clock, strategy: StrategyName) -> None:
    """A microsecond before a window is over the sweep leaves it, and from then on it does not."""
    storage = MemoryStorage(clock=clock)
    one, other = window(strategy, 1), window("fixed-window", 9, HOUR)
    reset_at = storage.acquire([one], ["ana"], 1).readings[0].reset_at
    held = []
    for instant in (reset_at - 1, reset_at):
        clock.seconds = instant / MICROSECONDS
        storage.acquire([other], ["other"], 1)
        held.append(len(storage))

    assert held == [2, 1]


@pytest.mark.parametrize("strategies", [STRATEGIES, STRATEGIES[::-1]])
def test_a_hit_is_given_back_in_every_window(clock: Clock, strategies: tuple[StrategyName, ...]) -> None:
    """All windows that took a hit get it back, not just the first that has it."""
    storage = MemoryStorage(clock=clock)
    windows = [window(strategy, 5) for strategy in strategies]
    verdict = storage.acquire(windows, strategies, 2)

    assert storage.release(windows, strategies, 2, [reading.token for reading in verdict.readings])
    assert [reading.count for reading in storage.peek(windows, strategies, 1).readings] == [0, 0, 0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_window_that_is_empty_again_is_dropped(clock: Clock, strategy: StrategyName) -> None:
    """When its last hit is given back, nothing of it stays; before that, it stays."""
    storage = MemoryStorage(clock=clock)
    one = window(strategy, 5)
    tokens = [storage.acquire([one], ["ana"], 2).readings[0].token for _ in range(2)]
    held = []
    for token in tokens:
        assert storage.release([one], ["ana"], 2, [token])
        held.append(len(storage))

    assert held == [1, 0]


def test_clearing_says_how_many_held_anything(clock: Clock) -> None:
    """A window that is over or was cleared before held nothing."""
    storage = MemoryStorage(clock=clock)
    one = window("moving-window", 5)
    storage.acquire([one], ["ana"], 1)
    storage.acquire([one], ["bo"], 1)

    assert storage.forget([one, one], ["ana", "nobody"]) == 1
    assert storage.forget([one], ["ana"]) == 0
    clock.seconds += 60
    assert storage.forget([one], ["bo"]) == 0


def test_others_who_still_come_drop_them_too(clock: Clock) -> None:
    """A burst of recipients is dropped by hits that make no new window, refused ones included."""
    storage = MemoryStorage(clock=clock)
    brief, lasting = window("fixed-window", 5, MINUTE), window("fixed-window", 1, 24 * HOUR)
    for number in range(1000):
        storage.acquire([brief], [f"{number}"], 1)
    clock.seconds += 61
    for _ in range(1000):
        storage.acquire([lasting], ["ana"], 1)

    assert len(storage) == 1


def test_long_windows_do_not_keep_short_ones(clock: Clock) -> None:
    """Windows that last are passed over; those behind them are dropped all the same."""
    storage = MemoryStorage(clock=clock)
    day, minute = window("moving-window", 5, 24 * HOUR), window("moving-window", 5, MINUTE)
    for number in range(500):
        storage.acquire([day], [f"day {number}"], 1)
    for number in range(5_000):
        clock.seconds += 1
        storage.acquire([minute], [f"minute {number}"], 1)

    assert len(storage) < 1000


def test_clearing_again_and_again_takes_no_room(clock: Clock) -> None:
    """Hit and cleared ten thousand times, one window is one window, also in what the sweep remembers."""
    storage = MemoryStorage(clock=clock)
    one = window("moving-window", 5, HOUR)
    for _ in range(10_000):
        storage.acquire([one], ["ana"], 1)
        assert storage.forget([one], ["ana"]) == 1

    assert size(storage) <= 2


def test_a_moving_window_keeps_no_more_hits_than_are_in_it(clock: Clock) -> None:
    """The hits of one busy window are dropped as they age."""
    storage = MemoryStorage(clock=clock)
    one = window("moving-window", 10, MINUTE)
    for _ in range(10_000):
        clock.seconds += 1
        storage.acquire([one], ["ana"], 1)

    assert len(unpacked(storage.shards.get("ana"), "moving-window").stored()) == 10


def test_tests_and_refusals_take_no_room(clock: Clock) -> None:
    """BaseLimiter about recipients, or refusing them, stores nothing."""
    storage = MemoryStorage(clock=clock)
    never, one = window("moving-window", 0), window("fixed-window", 5)
    for number in range(1000):
        assert not storage.acquire([never, one], [f"{number}:never", f"{number}:one"], 1).granted
        storage.peek([one], [f"{number}"], 1)
        storage.forget([one], [f"{number}"])
        storage.release([one], [f"{number}"], 1, [(1, 1)])

    assert size(storage) == 0


def test_a_batch_sweeps_as_well(clock: Clock) -> None:
    """What batches leave behind is dropped by later batches."""
    storage = MemoryStorage(clock=clock)
    one = window("fixed-window", 5, SECOND)
    for batch in range(20):
        clock.seconds += 2
        storage.acquire_many([Request([one], [f"{batch}:{number}"], 1) for number in range(500)])

    assert len(storage) <= 1000


def test_close_and_reset_drop_everything(clock: Clock) -> None:
    """`reset` says how many windows there were; afterwards, and after `close`, there is none."""
    storage = MemoryStorage(clock=clock)
    one = window("fixed-window", 1)
    assert all(storage.acquire([one], [f"{number}"], 1).granted for number in range(10))

    assert storage.reset() == 10
    assert size(storage) == 0
    assert storage.acquire([one], ["1"], 1).granted
    storage.close()
    assert size(storage) == 0


def test_no_thread_is_started() -> None:
    """Neither the storage nor its use leaves a thread behind, as the engine's timer does."""
    before = threading.enumerate()
    storage = MemoryStorage()
    for strategy in STRATEGIES:
        storage.acquire([window(strategy, 5)], [strategy], 1)

    assert threading.enumerate() == before


def test_somebody_who_never_comes_back_is_an_error_in_time() -> None:
    """While one thread is stuck in its decision, others get a StorageError about the timeout later; then all is well."""
    stuck, go_on = threading.Event(), threading.Event()

    def clock() -> float:
        if threading.current_thread() is thread:
            stuck.set()
            go_on.wait()
        return 1000.0

    storage = MemoryStorage(clock=clock, timeout=0.2)
    one = window("moving-window", 5)
    thread = threading.Thread(target=storage.acquire, args=([one], ["ana"], 1))
    thread.start()
    assert stuck.wait(20)
    calls: list[Callable[[], object]] = [
        lambda: storage.acquire([one], ["bo"], 1),
        lambda: storage.acquire_many([Request([one], ["bo"], 1)]),
        lambda: storage.peek([one], ["bo"], 1),
        lambda: storage.release([one], ["bo"], 1, [(1, 1)]),
        lambda: storage.forget([one], ["bo"]),
        storage.reset,
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"stayed locked for 0\.2 seconds"):
            call()
        # Generous above, since the machine may be busy; it is the waiting for ever that must not be.
        assert 0.2 <= time.monotonic() - began < 10
    go_on.set()
    thread.join()

    assert storage.acquire([one], ["ana"], 1).readings[0].count == 2


def test_threads_that_keep_each_other_waiting_all_get_their_turn() -> None:
    """Where deciding takes long, a thread mostly looks while another, stopped in mid-decision, holds the lock.

    Without those others giving way, it gave up after the timeout although the lock was opened thousands of times.
    """

    def clock() -> float:
        for _ in range(3000):
            pass
        return time.time()

    # No decision takes that long, unless the machine stops the process; together they take longer.
    storage = MemoryStorage(clock=clock, timeout=1)
    one = window("moving-window", 10**6, HOUR)
    failures: list[StorageError] = []

    def hit(key: str) -> None:
        try:
            for _ in range(700):
                storage.acquire([one], [key], 1)
        except StorageError as error:
            failures.append(error)

    for _ in range(3):
        threads = [threading.Thread(target=hit, args=(f"{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []


def test_a_wait_that_has_ended_slows_nobody_down() -> None:
    """After a thread gave up waiting, was interrupted, or stayed behind in the parent of a fork, one decision gives way at
    most: there is nobody left to give way to.
    """
    storage = MemoryStorage(timeout=0.01)
    one = window("moving-window", 5)
    with storage.guard.lock, pytest.raises(StorageError):
        storage.acquire([one], ["ana"], 1)
    storage.acquire([one], ["ana"], 1)

    assert not storage.guard.contended


def test_a_decision_inside_a_decision_is_an_error() -> None:
    """What a signal handler in mid-decision would do: it fails in time and does not hang."""
    inside: list[StorageError] = []

    def clock() -> float:
        if not inside:
            with pytest.raises(StorageError, match="signal handler") as raised:
                storage.acquire([one], ["ana"], 1)
            inside.append(raised.value)
        return 1000.0

    storage = MemoryStorage(clock=clock, timeout=0.05)
    one = window("moving-window", 5)

    assert storage.acquire([one], ["ana"], 1).granted
    assert storage.acquire([one], ["ana"], 1).readings[0].count == 2


def test_a_clock_that_fails_leaves_nothing_locked() -> None:
    """An error of the caller's own clock reaches the caller, and the next call works."""
    broken = [True]

    def clock() -> float:
        if broken[0]:
            raise ZeroDivisionError
        return 1000.0

    storage = MemoryStorage(clock=clock)
    one = window("moving-window", 5)
    with pytest.raises(ZeroDivisionError):
        storage.acquire([one], ["ana"], 1)
    broken.clear()
    broken.append(False)

    assert storage.acquire([one], ["ana"], 1).readings[0].count == 1


_INTERRUPTED = """
import random, signal
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.windows.strategies import Window

class SoftTimeLimit(Exception):
    pass

def interrupt(*_):
    raise SoftTimeLimit

signal.signal(signal.SIGALRM, interrupt)
storage, windows, keys = MemoryStorage(), [], []
for strategy in ("moving-window", "fixed-window", "sliding-window-counter"):
    windows.append(Window(strategy, 10**9, 3_600_000_000))
    keys.append(strategy)
granted, interrupts = 0, 0
while interrupts < 2000:
    try:
        # Again later: the first alarm may strike in a finalizer, which swallows what it raises.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4), 0.5)
        while True:
            storage.acquire(windows, keys, 1)
            granted += 1
    except SoftTimeLimit:
        interrupts += 1
counts = [reading.count for reading in storage.peek(windows, keys, 1).readings]
print(all(granted <= count <= granted + interrupts for count in counts))
"""


def test_an_exception_out_of_a_signal_handler_locks_nobody_out() -> None:
    """A soft time limit, an interrupt: wherever it strikes, the next call works, and no hit that was granted is lost."""
    ran = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=120, check=False)

    assert ran.stdout == "True\n", ran.stderr


_FORK = """
import os, sys, threading, time
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.windows.strategies import Window

one = Window("moving-window", 3, 60_000_000)
storage, other = MemoryStorage(), MemoryStorage()
storage.acquire([one], ["ana"], 1)

def busy():
    while True:
        storage.acquire([one], ["busy"], 1)

if sys.argv[1] == "busy":
    sys.setswitchinterval(1e-6)
    for _ in range(4):
        threading.Thread(target=busy, daemon=True).start()
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        try:
            counts = [storage.acquire([one], ["ana"], 1).readings[0].count for _ in range(2)]
            counts.append(other.acquire([one], ["ana"], 1).readings[0].count)
            os._exit(0 if counts == [2, 3, 1] else 1)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(2)
    _, status = os.waitpid(child, 0)
    if status:
        sys.stdout.write("no")
        break
else:
    sys.stdout.write("yes %d" % storage.acquire([one], ["ana"], 1).readings[0].count)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize(("threads", "forks"), [("idle", 3), ("busy", 40)])
def test_a_fork_can_decide(threads: str, forks: int) -> None:
    """A child of `os.fork` has the parent's counts, its own memory, and no lock of a thread that is not there."""
    ran = subprocess.run(
        [sys.executable, "-c", _FORK, threads, str(forks)], capture_output=True, text=True, timeout=120, check=False
    )

    assert ran.stdout == "yes 2", ran.stderr


def test_sync_and_async_share(clock: Clock) -> None:
    """An asyncio view takes from the same windows, counts what the other side took, and gives back what it took."""
    storage = MemoryStorage(clock=clock)
    view = AsyncMemoryStorage(windows=storage)
    one = window("moving-window", 3)
    first = storage.acquire([one], ["ana"], 1)

    async def main() -> None:
        second = await view.acquire([one], ["ana"], 1)
        assert second.readings[0].count == 2
        assert [verdict.granted for verdict in await view.acquire_many([Request([one], ["ana"], 1)] * 2)] == [
            True,
            False,
        ]
        assert await view.release([one], ["ana"], 1, [first.readings[0].token])
        assert (await view.peek([one], ["ana"], 1)).readings[0].count == 2

    asyncio.run(main())

    assert storage.peek([one], ["ana"], 1).readings[0].count == 2
    assert asyncio.run(view.forget([one], ["ana"])) == 1
    assert storage.peek([one], ["ana"], 1).readings[0].count == 0


def test_an_async_memory_survives_event_loops() -> None:
    """One object, one loop after another: the windows stay."""
    view = AsyncMemoryStorage()
    one = window("moving-window", 2)

    assert [asyncio.run(view.acquire([one], ["ana"], 1)).granted for _ in range(3)] == [True, True, False]
    assert asyncio.run(view.reset()) == 1
    asyncio.run(view.close())


def test_protocols() -> None:
    """Both answer to the protocols that the limiters ask for, and say that they are exact."""
    assert isinstance(MemoryStorage(), Storage)
    assert isinstance(AsyncMemoryStorage(), AsyncStorage)
    assert MemoryStorage.exact
    assert AsyncMemoryStorage.exact


def test_two_storages_share_nothing() -> None:
    """Each object is a memory of its own."""
    one = window("moving-window", 1)

    assert MemoryStorage().acquire([one], ["ana"], 1).granted
    assert MemoryStorage().acquire([one], ["ana"], 1).granted


def test_the_machines_clock() -> None:
    """By default instants are microseconds since 1970, and a real second makes room in a window of a second."""
    storage = MemoryStorage()
    one = Window("moving-window", 1, MICROSECONDS)
    first = storage.acquire([one], ["ana"], 1)
    refused = storage.acquire([one], ["ana"], 1)
    assert abs(first.now / MICROSECONDS - time.time()) < 60
    assert (first.granted, refused.granted) == (True, False)
    assert refused.readings[0].retry_at == first.now + MICROSECONDS
    while storage.now() < refused.readings[0].retry_at:
        time.sleep(0.01)

    assert storage.acquire([one], ["ana"], 1).granted


def test_a_step_of_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is read once, at the start; what is done to it afterwards opens and closes no window."""
    now = bounded_clock(None)
    before = now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)

    assert 0 <= now() - before < 60 * MICROSECONDS


def test_a_clock_in_seconds_is_kept_to_the_microsecond() -> None:
    """A clock that counts seconds in floats is rounded, so that no microsecond is lost on the way."""
    for microseconds in (0, 1, 999_999, 1_763_000_000_123_457):
        assert bounded_clock(lambda microseconds=microseconds: microseconds / MICROSECONDS)() == microseconds


def test_without_a_clock_that_counts_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no CLOCK_BOOTTIME, the monotonic clock does."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    now = bounded_clock(None)
    before = now()
    time.sleep(0.001)

    assert now() > before


def test_a_view_has_the_clock_of_its_windows() -> None:
    """A limiter may be given a shared view together with the clock that moves it."""
    clock = lambda: 5.0  # noqa: E731  # one line, one clock

    assert AsyncMemoryStorage(windows=MemoryStorage(clock=clock)).clock is clock
