"""Calls that are broken off: by signals, by forks, by cancellation, and by an exception at every single line.

Afterwards nobody reads somebody else's answer, nothing is counted in another database, no connection is lost for good,
and nobody hangs.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pymemcache
import pytest
import redis

import ratelimited_notify
from asked import RULES, People
from outcomes import ends_when_cancelled
from ratelimited_notify import AsyncLimiter, Limiter
from ratelimited_notify.errors import StorageError
from striking import Striking, Struck, StruckHard

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

pytestmark = pytest.mark.slow


TESTS = Path(__file__).parent
PATIENT = 5.0
"""Seconds for answers of servers that work, on a machine that is busy."""
DATABASE = 5

_numbers = itertools.count()

SERVERS = ("redis", "memcached", "cluster", "sentinel")


def crowd() -> str:
    """What the names of one test's recipients begin with."""
    return f"crowd-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> Callable[..., str]:
    """The storage of a server, with few connections where their number can be told."""

    def made(backend: str, connections: int = 5) -> str:
        if backend == "memory":
            return "memory://"
        if backend == "redis":
            server = request.getfixturevalue("start_valkey")()
            return f"redis://{server.address}/{DATABASE}?max_connections={connections}"
        server = request.getfixturevalue({"sentinel": "watched"}.get(backend, backend))
        return str(server.url) + ("" if backend == "memcached" else f"?max_connections={connections}")

    return made


def in_a_child(program: str, *arguments: object, within: float = 60.0) -> None:
    """Run a program to its end; it prints what is wrong, and where it is when it hangs."""
    start = f"import faulthandler; faulthandler.dump_traceback_later({within}, exit=True)\n"
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", start + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=within + 60,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )

    # What strikes in a finalizer is written to stderr, and goes nowhere; that is no fault.
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr[-3000:]


# --- Signals --------------------------------------------------------------------------------------------------------

ALARMED = """
import random, signal, sys
from collections import Counter
from asked import RULES, People
from ratelimited_notify import Limiter

uri, name, keeping = sys.argv[1], sys.argv[2], sys.argv[3] == "kept"

class Alarm(Exception):
    pass

armed = struck = done = 0
kept, failed = [], Counter()
people = People(name, 30)
people.begin(uri)

def ring(*_):
    # Twice in a call at the most: the second may strike while the first is being dealt with.
    global armed, struck
    if armed:
        armed -= 1
        struck += 1
        raise Alarm

def attempt(number):
    global armed, done
    try:
        armed = 2
        decision = limiter.hit("news", people.names[number])
        armed = 0
        people.check(number, decision)
        done += 1
    except Alarm:
        raise
    except Exception as error:
        armed = 0
        failed[repr(error)] += 1
    finally:
        armed = 0

limiter = Limiter(RULES, uri, timeout=2)
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.0013, 0.0013)
draw = random.Random(1)
for _ in range(4000):
    try:
        attempt(draw.randrange(30))
    except Alarm as alarm:
        if keeping:
            kept.append(alarm)
    if failed.total() > 9 or len(people.wrong) > 9:
        break
signal.setitimer(signal.ITIMER_REAL, 0)
for number in range(30):
    if failed.total() < 9:
        attempt(number)
# The calls at the end are not interrupted.
if people.wrong or failed or struck < 100 or done < 30:
    print(len(people.wrong), "wrong:", people.wrong[:3], "failed:", dict(failed), "struck:", struck, "done:", done)
"""


LOADING = """
import os, sys
from ratelimited_notify import Limiter

class Alarm(BaseException):
    pass

limiter = Limiter({"news": "5/day"})
decision = limiter.hit("news", "ana")

def struck_at(at):
    # The result in a child, which has not loaded anything more than this process.
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0
    def strike(frame, event, argument):
        nonlocal calls
        # A signal handler runs as soon as a function of Python begins.
        if "dataclasses" in frame.f_code.co_filename or "window_state" in frame.f_code.co_filename:
            calls += 1
            if calls == at:
                raise Alarm
    sys.settrace(strike)
    raised = None
    try:
        decision.windows
    except BaseException as error:
        raised = error
    sys.settrace(None)
    if (calls >= at) != isinstance(raised, Alarm):
        print(at, repr(raised), flush=True)
    if len(limiter.hit("news", "ana").windows) != 1:
        print("no window", flush=True)
    os._exit(calls < at)

at = 1
while struck_at(at) == 0:
    at += 1
if at < 50:
    print("too few calls", at)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_an_exception_while_the_states_of_windows_are_loaded() -> None:
    """It is raised as it is, and the next call loads them."""
    in_a_child(LOADING)


@pytest.mark.parametrize("keeping", ["kept", "dropped"])
@pytest.mark.parametrize("backend", SERVERS)
def test_an_alarm_every_1300_microseconds(uri: Callable[..., str], backend: str, keeping: str) -> None:
    """A thread that is interrupted all the time, and goes on: each answer is its own, no connection is lost, no hang."""
    storage = uri(backend)
    in_a_child(ALARMED, storage, crowd(), keeping)
    if backend == "redis":
        assert set(_databases(storage)) <= {f"db{DATABASE}"}


def _databases(storage: str) -> list[str]:
    """The databases that hold anything."""
    with redis.Redis.from_url(storage.partition("?")[0]) as client:
        return list(client.info("keyspace"))


# --- Forks ----------------------------------------------------------------------------------------------------------

FORKED = """
import faulthandler, os, random, signal, sys, threading, time
from asked import RULES, STEP, People, used
from ratelimited_notify import Limiter

uri, name, forks = sys.argv[1], sys.argv[2], int(sys.argv[3])
# So that threads are interrupted anywhere, and not only where they wait for an answer.
sys.setswitchinterval(1e-6)
ANSWERS_WITHIN = 5
# A child that hangs says where, and ends.
faulthandler.register(signal.SIGALRM, chain=True)
people = People(name, 16)
limiter = Limiter(RULES, uri, timeout=4)
for number, person in enumerate(people.names):
    limiter.hit("news", person, cost=STEP * (number + 1))
failed = []
stopped = False

def decide(turn):
    try:
        while not stopped:
            for number in range(turn, 16, 8):
                people.ask(limiter, number)
    except BaseException as error:
        failed.append(repr(error))

def as_child(number):
    signal.alarm(ANSWERS_WITHIN)
    begun = time.monotonic()
    try:
        own = [used(limiter.hit("news", "%s-child-%d" % (name, number))) for _ in range(3)]
        for each in range(16):
            people.ask(limiter, each)
        if own != [1, 2, 3] or people.wrong:
            print("child", number, own, people.wrong, flush=True)
    except BaseException as error:
        print("child", number, repr(error), "after", time.monotonic() - begun, flush=True)
    os._exit(0)

threads = [threading.Thread(target=decide, args=(turn,), daemon=True) for turn in range(8)]
for thread in threads:
    thread.start()
draw = random.Random(2)
hung = 0
for number in range(forks):
    time.sleep(draw.random() * 0.004)
    child = os.fork()
    if not child:
        as_child(number)
    if os.waitpid(child, 0)[1]:
        hung += 1
        print("child", number, "hung", flush=True)
    if hung == 2:
        break
stopped = True
for thread in threads:
    thread.join(10)
if failed or people.wrong or any(thread.is_alive() for thread in threads):
    print("parent:", failed, people.wrong[:3], sum(thread.is_alive() for thread in threads), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
@pytest.mark.parametrize("backend", ["memory", *SERVERS])
def test_forks_while_eight_threads_decide(uri: Callable[..., str], backend: str) -> None:
    """Whatever the parent's threads were doing, a child decides at once, and neither gets the other's answers."""
    in_a_child(FORKED, uri(backend, 4), crowd(), 60, within=150)


# --- Cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["connecting", "connected"])
@pytest.mark.parametrize("backend", SERVERS)
def test_cancelled_at_every_step_among_others(uri: Callable[..., str], backend: str, when: str) -> None:
    """A call cancelled at any step of the loop ends, and 20 other tasks on the same storage get their own answers."""
    storage, people = uri(backend, 3), People(crowd(), 24)
    people.begin(storage)
    failed: list[str] = []

    async def among_others(limiter: AsyncLimiter, steps: int) -> None:
        stopped = False

        async def other(number: int) -> None:
            try:
                while not stopped:
                    await people.await_answer(limiter, number)
            except StorageError as error:
                failed.append(f"after {steps} steps: {error}")

        others = [asyncio.create_task(other(number)) for number in range(20)]
        if when == "connected":
            await people.await_answer(limiter, 20)
        ended = [await ends_when_cancelled(people.await_answer(limiter, number), steps) for number in (20, 21, 22)]
        failed.extend(f"after {steps} steps the cancellation was swallowed" for one in ended if not one)
        stopped = True
        await asyncio.wait_for(asyncio.gather(*others), 4 * PATIENT)
        for number in range(24):
            await people.await_answer(limiter, number)

    async def main() -> None:
        kept = AsyncLimiter(RULES, storage, timeout=PATIENT)
        for steps in range(40):
            if when == "connected":
                await among_others(kept, steps)
            else:
                async with AsyncLimiter(RULES, storage, timeout=PATIENT) as limiter:
                    await among_others(limiter, steps)
        await kept.close()

    asyncio.run(main())

    assert (failed[:3], people.wrong[:3]) == ([], [])


@pytest.mark.parametrize("backend", SERVERS)
def test_storms_of_cancellations_leave_nothing_behind(
    uri: Callable[..., str], backend: str, request: pytest.FixtureRequest
) -> None:
    """40 tasks at a time, half of them cancelled at random moments: no answer is mixed up, and no connection is left."""
    storage, people, draw = uri(backend, 3), People(crowd(), 40), random.Random(3)
    people.begin(storage)

    async def main() -> None:
        async with AsyncLimiter(RULES, storage, timeout=PATIENT) as limiter:
            for _ in range(60):
                tasks = [asyncio.create_task(people.await_answer(limiter, number)) for number in range(40)]
                for _ in range(draw.randrange(30)):
                    await asyncio.sleep(0)
                await asyncio.sleep(draw.choice([0, 0, 0.0005, 0.002]))
                for task in draw.sample(tasks, 20):
                    task.cancel()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                told = [answer for answer in answers if not isinstance(answer, asyncio.CancelledError | None)]
                assert told == []
            for number in range(40):
                await people.await_answer(limiter, number)

    before = _open_files()
    asyncio.run(main())
    after = _open_files()

    assert people.wrong[:3] == []
    assert after <= before


def _open_files() -> int:
    """How many files and sockets this process has open, where that can be told."""
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


# --- An exception at every line -------------------------------------------------------------------------------------

OURS = str(Path(ratelimited_notify.__file__).parent / "storage")
THEIRS = tuple(str(Path(package.__file__ or "").parent) for package in (redis, pymemcache))


class Strike(Striking):
    """Raises at one line of those that are executed in the storages, or of those in their clients.

    Arguments:
        at: which of them, in the order in which they are executed; 0 only counts them.
        ours: whether the lines of the storages are meant.
        error: what is raised there.
    """

    def __init__(self, at: int, error: type[BaseException], *, ours: bool) -> None:
        super().__init__(at, error, (OURS,) if ours else THEIRS)

    def follows(self, frame: FrameType) -> bool:
        if not super().follows(frame):
            return False
        # What is raised in a finalizer goes nowhere.
        caller: FrameType | None = frame
        while caller is not None:
            if caller.f_code.co_name == "__del__":
                return False
            caller = caller.f_back
        return True


def _limiters(storage: str, when: str, people: People) -> Generator[Limiter]:
    """A limiter for each line: always the same one, or each time a new one, which has to connect first."""
    if when == "kept":
        with Limiter(RULES, storage, timeout=1.0) as limiter:
            people.ask(limiter, 0)
            while True:
                yield limiter
    while True:
        with Limiter(RULES, storage, timeout=1.0) as limiter:
            if when == "connected":
                people.ask(limiter, 0)
            yield limiter


def _struck(storage: str, when: str, error: type[BaseException], people: People, most: int) -> list[str]:
    """What went wrong after strikes at all lines of our own, and at so many of the clients' as are asked for."""
    found: list[str] = []
    with closing(_limiters(storage, when, people)) as limiters:
        for ours in (True, False):
            count = Strike(0, error, ours=ours)
            limiter = next(limiters)
            count.during(lambda limiter=limiter: people.ask(limiter, 1))
            at, step = 1, 1 if ours else max(1, count.seen // most)
            while len(found) < 2:
                limiter, strike = next(limiters), Strike(at, error, ours=ours)
                raised = strike.during(lambda limiter=limiter: people.ask(limiter, 1))
                place = f"after line {at} ({strike.where})"
                if strike.where and error is StruckHard and not isinstance(raised, StruckHard):
                    found.append(f"{place}: swallowed, {raised!r}")
                for number in (2, 1, 3):
                    try:
                        people.ask(limiter, number)
                    except Exception as failure:  # noqa: BLE001  # whatever it is, it is a fault
                        found.append(f"{place}: {failure!r}")
                        break
                found += [f"{place}: {wrong}" for wrong in people.wrong]
                people.wrong.clear()
                if not strike.where:
                    # The call was over before: all lines have been struck.
                    break
                at += step
    return found


# A socket that was just made when the exception struck is closed by the garbage collector, and that is no fault.
struck_at = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
each_error = pytest.mark.parametrize("error", [Struck, StruckHard], ids=lambda error: error.__name__)
each_state = pytest.mark.parametrize("when", ["connecting", "connected", "kept"])


@struck_at
@each_error
@each_state
@pytest.mark.parametrize("backend", SERVERS)
def test_an_exception_at_every_line(
    uri: Callable[..., str], backend: str, when: str, error: type[BaseException]
) -> None:
    """Wherever in an exchange an exception strikes: the next three answers are right, in the right database, and soon."""
    storage, people = uri(backend, 2), People(crowd(), 4)
    people.begin(storage)

    # What is raised in the middle of an `except` can stay the exception that its thread handles, for ever.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_struck, storage, when, error, people, most=100).result() == []
    if backend == "redis":
        assert set(_databases(storage)) <= {f"db{DATABASE}"}


@pytest.mark.thorough
@struck_at
@each_error
@each_state
@pytest.mark.parametrize("backend", SERVERS)
def test_an_exception_at_every_line_of_the_clients_too(
    uri: Callable[..., str], backend: str, when: str, error: type[BaseException]
) -> None:
    """The same, and no line of redis-py and pymemcache is left out."""
    storage, people = uri(backend, 2), People(crowd(), 4)
    people.begin(storage)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_struck, storage, when, error, people, most=1_000_000).result() == []
