"""Windows in an SQLite file under many: threads, processes, forks, kills, stops and interrupts."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from backends import DAY, STRATEGIES, window
from ratelimited_notify import StorageError
from ratelimited_notify.storage import SQLiteStorage
from ratelimited_notify.storage.sqlite import connection as connections
from ratelimited_notify.storage.sqlite.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ratelimited_notify.windows.strategies import StrategyName

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")]

LIMIT = 200
ONE = window("moving-window", LIMIT, DAY)
KEY = ["test:{ana}:news:m"]

_START = """
import os, random, signal, sys, threading, time
from ratelimited_notify import StorageError
from ratelimited_notify.storage import SQLiteStorage
from ratelimited_notify.windows import Request, Window
import warnings
# About forks of processes with threads, which is what some tests are about.
warnings.simplefilter("ignore", DeprecationWarning)
one = Window("moving-window", 200, 86400 * 10**6, rule="news")
key = ["test:{ana}:news:m"]
storage = SQLiteStorage(sys.argv[1], timeout=float(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "windows.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteStorage]:
    """Patient, since a turn may come late on a busy machine."""
    made = SQLiteStorage(f"sqlite:///{path}", timeout=30)
    yield made
    made.close()


def start(path: Path, program: str, *, timeout: float = 30) -> subprocess.Popen[str]:
    """Start a program that has `storage`, and prints what it found."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _START + program, f"sqlite:///{path}", str(timeout)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process: subprocess.Popen[str], said: str = "") -> str:
    """What it prints until it ends."""
    out, error = process.communicate(said, timeout=120)
    assert process.returncode == 0, error[-3000:]
    return out


def count(storage: SQLiteStorage) -> int:
    return storage.peek([ONE], KEY, 1).readings[0].count


def whole(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_threads_on_one_storage(storage: SQLiteStorage, strategy: StrategyName) -> None:
    """16 threads hit fresh windows at once: exactly the limit gets in, each time."""
    gate = threading.Barrier(16)
    admitted = []
    with ThreadPoolExecutor(16) as threads:
        for trial in range(20):
            one = window(strategy, 1 + trial % 5, DAY)

            def hit(number: int, trial: int = trial, one: Any = one) -> bool:
                gate.wait()
                return storage.acquire([one], [f"{trial}"], 1).granted

            admitted.append(sum(threads.map(hit, range(16))))

    assert admitted == [1 + trial % 5 for trial in range(20)]


def test_eighty_threads_get_their_turns(path: Path) -> None:
    """Nobody waits for its turn until the time-out while the others go on and on."""
    storage, many = SQLiteStorage(f"sqlite:///{path}", timeout=5), window("moving-window", 10**6, DAY)
    until = time.monotonic() + 3
    decided = [0] * 80

    def work(number: int) -> None:
        while time.monotonic() < until:
            storage.acquire([many], [f"test:{{{number}}}:news:m"], 1)
            decided[number] += 1

    with ThreadPoolExecutor(80) as threads:
        list(threads.map(work, range(80)))
    storage.close()

    assert min(decided) > 0


def test_a_thread_waits_no_longer_than_the_time_out(path: Path) -> None:
    """If another thread of its process has the connection and does not go on."""
    inside, over = threading.Event(), threading.Event()

    def clock() -> float:
        if threading.current_thread() is slow:
            inside.set()
            over.wait(60)
        return time.time()

    storage = SQLiteStorage(f"sqlite:///{path}", timeout=0.1, clock=clock)
    slow = threading.Thread(target=storage.acquire, args=([ONE], KEY, 1))
    slow.start()
    assert inside.wait(20)
    with pytest.raises(StorageError, match="Other threads of this process used the file"):
        storage.acquire([ONE], KEY, 1)
    assert slow.is_alive()
    over.set()
    slow.join(20)

    assert count(storage) == 1
    storage.close()


def test_processes_share_one_limit(path: Path, storage: SQLiteStorage) -> None:
    """Four processes, single hits and batches: exactly the limit is granted, nobody fails, the log stays small."""
    program = """
sys.stdin.read()
shared = sum(storage.acquire([one], key, 1).granted for _ in range(60))
shared += sum(verdict.granted for verdict in storage.acquire_many([Request([one], key, 1)] * 30))
largest, number, until = 0, 0, time.monotonic() + 2
while time.monotonic() < until:
    number += 1
    storage.acquire([one], [f"test:{{{os.getpid()} {number}}}:news:m"], 1)
    if number % 100 == 0:
        largest = max(largest, os.path.getsize(sys.argv[1].removeprefix("sqlite:///") + "-wal"))
print(shared, number, largest)
"""
    running = [start(path, program) for _ in range(4)]
    for each in running:
        assert each.stdin is not None
        each.stdin.close()
        each.stdin = None
    found = [tuple(map(int, output(each).split())) for each in running]

    assert sum(shared for shared, _, _ in found) == LIMIT == count(storage)
    assert min(number for _, number, _ in found) > 0
    assert max(largest for _, _, largest in found) < 16 * 2**20
    assert whole(path)


def test_killed_in_the_middle(path: Path, storage: SQLiteStorage) -> None:
    """Processes killed at any moment of 200 decisions: what they said was granted is counted, and never more than the limit."""
    program = """
print("began", flush=True)
while True:
    if storage.acquire([one], key, 1).granted:
        os.write(1, b"granted\\n")
"""
    granted = 0
    for _ in range(12):
        process = start(path, program)
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        time.sleep(random.uniform(0, 0.004))
        process.kill()
        granted += process.stdout.read().count("granted")
        process.communicate()
        # One decision may have been counted when its process was killed before it could say so.
        assert granted <= count(storage) <= LIMIT
        assert count(storage) <= granted + 12
    while storage.acquire([ONE], KEY, 1).granted:
        granted += 1

    assert count(storage) == LIMIT
    assert LIMIT - 12 <= granted <= LIMIT
    assert whole(path)


def test_a_stopped_process_that_has_the_lock(path: Path, storage: SQLiteStorage) -> None:
    """The others get an error after their time-out, as `on_storage_error` sees it, and go on when it is continued or killed."""
    program = """
def stop(cursor):
    print("has the lock", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
storage._database.write(time.monotonic() + 9, stop)
"""
    storage.acquire([ONE], KEY, 1)
    hasty = SQLiteStorage(f"sqlite:///{path}", timeout=0.2)
    for then in (signal.SIGCONT, signal.SIGKILL):
        process = start(path, program)
        assert process.stdout is not None
        assert process.stdout.readline() == "has the lock\n"
        with pytest.raises(StorageError, match=r"stayed locked by another process for the 0\.2 seconds.*Nothing was"):
            hasty.acquire([ONE], KEY, 1)
        # Who only reads waits for nobody.
        before = hasty.peek([ONE], KEY, 1).readings[0].count
        process.send_signal(then)
        assert storage.acquire([ONE], KEY, 1).granted
        assert count(storage) == before + 1
        process.communicate()
    hasty.close()


def test_another_program_that_has_the_file_locked(path: Path, storage: SQLiteStorage) -> None:
    """A transaction of a program that knows nothing of the lock is waited for, too."""
    storage.acquire([ONE], KEY, 1)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        hasty = SQLiteStorage(f"sqlite:///{path}", timeout=0.1)
        with pytest.raises(StorageError, match="stayed locked"):
            hasty.acquire([ONE], KEY, 1)
        hasty.close()
        ending = threading.Timer(0.1, other.execute, ["COMMIT"])
        ending.start()
        assert storage.acquire([ONE], KEY, 1).granted
        ending.join()


def test_the_lock_may_be_deleted(path: Path, storage: SQLiteStorage) -> None:
    """Without the lock's file, turns are less fair, and every hit is counted once."""
    program = """
storage.probe()
print("ready", flush=True)
sys.stdin.readline()
print(sum(storage.acquire([one], key, 1).granted for _ in range(150)))
"""
    running = []
    for _ in range(2):
        running.append(start(path, program))
        assert running[-1].stdout is not None
        assert running[-1].stdout.readline() == "ready\n"
        path.with_name("windows.db-lock").unlink()
    with ThreadPoolExecutor(2) as threads:
        granted = list(threads.map(lambda each: int(output(each, "\n")), running))

    assert sum(granted) == LIMIT == count(storage)


# --- Forks -----------------------------------------------------------------------------------------------------------


def test_parent_and_children_share_the_file(path: Path, storage: SQLiteStorage) -> None:
    """Children of a process that has decided each open the file anew, while its threads go on: exactly the limit."""
    program = """
granted = []
def work():
    granted.append(sum(storage.acquire([one], key, 1).granted for _ in range(40)))
storage.acquire([one], ["other"], 1)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for _ in range(4):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            number = sum(storage.acquire([one], key, 1).granted for _ in range(40))
            os.write(write, str(number).encode())
        except BaseException as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    children.append((child, read))
for thread in threads:
    thread.join()
for child, read in children:
    os.waitpid(child, 0)
    granted.append(int(os.read(read, 1000)))
print(sum(granted))
"""
    assert int(output(start(path, program))) == LIMIT == count(storage)
    assert whole(path)


def test_a_child_does_not_keep_its_killed_parents_lock(path: Path, storage: SQLiteStorage) -> None:
    """A process is killed while it has the lock, and a child of it lives on: nobody waits for the child."""
    program = """
storage.acquire([one], key, 1)
def fork(cursor):
    if not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
storage._database.write(time.monotonic() + 9, fork)
"""
    process = start(path, program)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        hasty = SQLiteStorage(f"sqlite:///{path}", timeout=5)
        assert hasty.acquire([ONE], KEY, 1).granted
        hasty.close()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()

    assert count(storage) == 2


def test_a_child_forked_in_the_middle_of_a_decision_is_refused(path: Path, storage: SQLiteStorage) -> None:
    """A fork from a signal handler in the middle of a transaction: an error in the child, and nothing lost in the parent."""
    program = """
storage.acquire([one], key, 1)
def fork(cursor):
    cursor.execute("UPDATE items SET expires = expires + 1")
    global child
    child = os.fork()
child = None
try:
    storage._database.write(time.monotonic() + 9, fork)
    said = ""
except StorageError as error:
    said = str(error)
for _ in range(2):
    try:
        storage.acquire([one], key, 1)
    except StorageError as error:
        said += "|" + str(error)
if not child:
    sys.exit("middle of a decision" not in said or said.count("|") != 2)
_, status = os.waitpid(child, 0)
print(status, said)
"""
    assert output(start(path, program)) == "0 \n"
    assert count(storage) == 3
    assert whole(path)


def test_no_limiter_of_such_a_child_uses_the_file(path: Path, storage: SQLiteStorage) -> None:
    """SQLite would take the locks of the parent's connection for its own, and the parent could delete the log under it."""
    program = """
storage.acquire([one], key, 1)
def fork(cursor):
    global child
    child = os.fork()
child = None
try:
    storage._database.read(time.monotonic() + 9, fork)
except StorageError:
    pass
if not child:
    other = SQLiteStorage(sys.argv[1], timeout=9)
    try:
        other.acquire([one], key, 1)
    except StorageError as error:
        sys.exit("middle of a decision" not in str(error))
    sys.exit(2)
_, status = os.waitpid(child, 0)
print(status)
"""
    assert output(start(path, program)) == "0\n"


def test_closing_takes_turns(path: Path, storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes that close at once, one is the last, and SQLite deletes the log. None waits for long."""
    log, lock = path.with_name("windows.db-wal"), FileLock(path.with_name("windows.db-lock"))
    assert storage.acquire([ONE], KEY, 1).granted
    assert lock.take()
    with monkeypatch.context() as patched:
        patched.setattr(connections, "_CLOSING", 30)
        closing = threading.Thread(target=storage.close)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        assert log.exists()
        lock.free()
        closing.join(20)
    assert not log.exists()

    assert count(storage) == 1
    assert lock.take()
    storage.close()
    assert not log.exists()
    lock.close()


def test_an_interrupted_fork_leaves_nothing_locked(path: Path) -> None:
    """A signal handler raises while a process is about to fork, or has just forked: parent and child go on."""
    program = """
import faulthandler
faulthandler.dump_traceback_later(60, exit=True)
class Interrupt(Exception):
    pass
sys.unraisablehook = lambda _: None
parent = os.getpid()
others = [SQLiteStorage(sys.argv[1], timeout=9) for _ in range(4)]
# At each of the calls that a fork makes, one after another.
moment = -1
def trace(frame, event, argument):
    global moment
    if "sqlite" not in frame.f_code.co_filename:
        return None
    moment -= 1
    if not moment:
        raise Interrupt
    return trace
done = 0
for moment_of_turn in range(1, 400):
    for each in others:
        each.acquire([one], ["many"], 1)
    child = None
    moment = moment_of_turn
    try:
        sys.settrace(trace)
        child = os.fork()
    except Interrupt:
        pass
    finally:
        sys.settrace(None)
    if os.getpid() != parent:
        os._exit(0)
    if child:
        os.waitpid(child, 0)
    if moment > 0:
        break
    done += 1
threads = [threading.Thread(target=each.acquire, args=([one], key, 1)) for each in others]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(done)
"""
    assert int(output(start(path, program))) > 50


# --- Interrupts -------------------------------------------------------------------------------------------------------


INTERRUPTED = """
class Interrupt(Exception):
    pass

def interrupt(*_):
    raise Interrupt

other = SQLiteStorage(sys.argv[1], timeout=10)
large = Window("moving-window", 10**6, 86400 * 10**6, rule="many")
granted = interrupted = 0
signal.signal(signal.SIGALRM, interrupt)
for turn in range(1500):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0008))
            for _ in range(20):
                granted += storage.acquire([large], ["many"], 1).granted
                storage.acquire_many([Request([one], key, 1)] * 2)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:
        interrupted += 1
    if turn % 20 == 0:
        try:
            other.acquire([one], ["other"], 1)
        except Interrupt:
            # The last alarm came when it was about to be turned off.
            pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
counted = storage.peek([large], ["many"], 1).readings[0].count
print("over" if counted < granted else "few" if interrupted < 300 else "good")
storage.close()
other.close()
"""


def test_an_interrupt_leaves_nothing_locked(path: Path, storage: SQLiteStorage) -> None:
    """Signal handlers that raise at any moment: the lock is free, the limit holds, and other processes go on."""
    # In a process of its own: an alarm that comes late would interrupt pytest, or what measures the coverage.
    assert output(start(path, INTERRUPTED)) == "good\n"
    assert count(storage) <= LIMIT
    assert whole(path)
