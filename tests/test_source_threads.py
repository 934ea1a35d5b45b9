"""The thread that keeps rules up to date: in forked and spawned processes, where none can run, and whatever is raised in it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from offering import WITHIN, Offered, amount, limits, threads, until
from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notifier,
    NotifyError,
    RuleError,
    configure,
    rate_limited,
)
from ratelimited_notify.sources import FileRules, refreshing
from ratelimited_notify.testing import disabled_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow


def toml(amount: int) -> str:
    return f'[[rules]]\ntype = "news"\nlimit = "{amount}/day"\n'


def put(path: Path, text: str) -> None:
    """Replace a file."""
    other = path.with_name("other")
    other.write_text(text)
    other.replace(path)


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    monkeypatch.setattr(refreshing, "_has_warned", False)
    with unconfigured(monkeypatch):
        yield
    gc.collect()
    until(lambda: threads() == 0)


def run(program: str, *arguments: object, within: float = 60) -> str:
    """What a program prints, which must exit, and have nothing to complain about."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=within,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


# --- Processes of others ---------------------------------------------------------------------------------------------

APPLICATION = """
import json, os, threading
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FileRules

limiter = Limiter(FileRules(os.environ["RULES"], interval=0.1))
if os.environ["DECIDED"] == "before":
    limiter.hit("news", "parent")

def state():
    running = [thread.name for thread in threading.enumerate()].count("ratelimited-notify rules")
    limiter.hit("news", "ana")
    (window,) = limiter.windows("news", "ana")
    return [os.getpid(), window.item.amount, running]

def application(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps(state()).encode()]
"""


def asked(path: Path) -> Any:
    """What a server on a Unix socket answers; None if it does not yet."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while more := connection.recv(4096):
            answer += more
        return json.loads(answer.partition(b"\r\n\r\n")[2])
    return None


def obeyed_by_two(state: Callable[[], Any], amount: int) -> bool:
    """Whether two processes say that they obey this amount."""
    seen: set[int] = set()
    deadline = time.monotonic() + WITHIN
    while len(seen) < 2:
        assert time.monotonic() < deadline, seen
        said = state()
        if said is None or said[1] != amount:
            time.sleep(0.02)
            continue
        seen.add(said[0])
        # The first decision has started the thread.
        assert said[2] <= 1
    return True


@pytest.mark.parametrize("decided", ["before", "after"])
def test_workers_of_gunicorn_obey_changes(decided: str, tmp_path: Path) -> None:
    """With --preload: the limiter is made before the fork, and has decided or not."""
    rules, address = tmp_path / "rules.toml", tmp_path / "socket"
    rules.write_text(toml(1))
    (tmp_path / "application.py").write_text(APPLICATION)
    command = [
        sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--threads", "1", "--chdir", str(tmp_path),
        "--bind", f"unix:{address}", "--worker-tmp-dir", str(tmp_path), "application:application",
    ]  # fmt: skip
    log = tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, env={**os.environ, "RULES": str(rules), "DECIDED": decided}, stdout=output, stderr=output
        ) as server,
    ):
        try:
            for amount in (1, 2, 3):
                put(rules, toml(amount))
                assert obeyed_by_two(lambda: asked(address), amount), log.read_text()
        finally:
            server.terminate()
            ended = server.wait(30)

    assert (ended, "Traceback" in log.read_text()) == (0, False)


TASKS = """
import json, os
from pathlib import Path
from celery import Celery
from application import state

queue = Path(os.environ["QUEUE"])
app = Celery("tasks", broker="filesystem://", broker_connection_retry_on_startup=True)
app.conf.broker_transport_options = {"data_folder_in": str(queue), "data_folder_out": str(queue), "control_folder": str(queue / "control"), "polling_interval": 0.05}
app.conf.worker_prefetch_multiplier = 1

@app.task
def tell(number):
    made = Path(os.environ["ANSWERS"]) / f"{number}.new"
    made.write_text(json.dumps(state()))
    made.replace(made.with_suffix(".json"))
    # So that the other one takes the next task.
    import time
    time.sleep(0.05)
"""


@pytest.mark.parametrize("decided", ["before", "after"])
def test_workers_of_celery_obey_changes(decided: str, tmp_path: Path) -> None:
    """Prefork: the limiter is made when the worker imports the tasks, before it forks."""
    rules, queue, answers = tmp_path / "rules.toml", tmp_path / "queue", tmp_path / "answers"
    rules.write_text(toml(1))
    for folder in (queue, queue / "control", answers):
        folder.mkdir()
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "tasks.py").write_text(TASKS)
    environment = {
        **os.environ, "RULES": str(rules), "DECIDED": decided, "QUEUE": str(queue), "ANSWERS": str(answers),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "celery", "--app", "tasks", "worker", "--pool", "prefork", "--concurrency", "2",
        "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    send = "import sys; from tasks import tell\nfor number in sys.stdin: tell.delay(number.strip()); print(flush=True)"
    log = tmp_path / "log"
    number = 0
    with log.open("w") as output, subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=output, stderr=output
    ) as worker, subprocess.Popen(
        [sys.executable, "-c", send], cwd=tmp_path, env={**environment, "DECIDED": "after"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as sender:  # fmt: skip
        assert sender.stdin is not None
        assert sender.stdout is not None

        def told() -> Any:
            nonlocal number
            number += 1
            sender.stdin.write(f"{number}\n")  # type: ignore[union-attr]  # checked above
            sender.stdin.flush()  # type: ignore[union-attr]  # checked above
            sender.stdout.readline()  # type: ignore[union-attr]  # checked above
            answer = answers / f"{number}.json"
            deadline = time.monotonic() + 2 * WITHIN
            while not answer.exists():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            return json.loads(answer.read_text())

        try:
            for amount in (1, 2, 3):
                put(rules, toml(amount))
                assert obeyed_by_two(told, amount), log.read_text()
        finally:
            sender.stdin.close()
            worker.terminate()
            worker.wait(60)

    assert "Traceback" not in log.read_text()


PROCESSES = """
import multiprocessing, os, sys, time
from application import limiter, state

def obeyed(amount):
    until = time.monotonic() + 20
    while state()[1] != amount:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return state()[2] == 1

def child(connection):
    state()
    connection.send("ready")
    connection.recv()
    connection.send(obeyed(2))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    pairs = [context.Pipe() for _ in range(2)]
    children = [context.Process(target=child, args=(theirs,)) for _, theirs in pairs]
    for each in children:
        each.start()
    for ours, _ in pairs:
        ours.recv()
    state()
    with open("new", "w") as file:
        file.write(open(os.environ["RULES"]).read().replace("1/", "2/"))
    os.replace("new", os.environ["RULES"])
    for ours, _ in pairs:
        ours.send("changed")
    print([ours.recv() for ours, _ in pairs], obeyed(2))
    for each in children:
        each.join()
    print([each.exitcode for each in children])
"""


@pytest.mark.parametrize("decided", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_obey_changes(method: str, decided: str, tmp_path: Path) -> None:
    """Children and parent, however they are started, each with one thread."""
    rules = tmp_path / "rules.toml"
    rules.write_text(toml(1))
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "main.py").write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, "main.py", method], cwd=tmp_path, env={**os.environ, "RULES": str(rules), "DECIDED": decided},
        capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("[True, True] True\n[0, 0]\n", "")


BUSY = """
import os, signal, sys, threading, time
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FunctionRules

parent, asking, version = os.getpid(), threading.Event(), 1

def fetch(known):
    if os.getpid() == parent and version == 2:
        asking.set()
        threading.Event().wait()
    return str(version), {"rules": [{"type": "news", "limit": f"{version}/day"}]}

limiter = Limiter(FunctionRules(fetch, interval=0.01))
limiter.hit("news", "ana")
version = 2
asking.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    limiter.hit("news", "ana")
    while limiter.rules.rules[0].limits[0].amount != 2:
        time.sleep(0.01)
    version = 3
    print(limiter.source.refresh(), threading.active_count(), Limiter(limiter.source.source).rules == limiter.rules, flush=True)
    limiter.close()
    os._exit(0)
print(os.waitpid(child, 0)[1], limiter.rules.rules[0].limits[0].amount, bool(limiter.hit("news", "bob")))
"""


def test_a_fork_while_the_source_is_asked() -> None:
    """The thread of the parent holds the lock, and the source hangs: the child asks anew, and the parent decides on."""
    assert run(BUSY) == "True 2 True\n0 1 True\n"


LOCKED = """
import atexit, os, sys
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FunctionRules

limiter = Limiter(FunctionRules(lambda known: ("1", {"rules": [{"type": "news", "limit": "1/day"}]})))
limiter.hit("news", "ana")
# What the thread waits for is a lock that is taken, in the child too.
assert limiter.source._refresher.stopped._lock.locked()
child = os.fork()
if not child:
    import signal
    signal.alarm(20)
    sys.exit(limiter.hit("news", "bob").allowed + 6)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_exits_whatever_the_thread_of_the_parent_was_doing() -> None:
    """Its signal may be locked in the child, for ever."""
    assert run(LOCKED) == "7\n"


# --- Where no thread can run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["never runs", "cannot start"])
def test_where_no_thread_runs(how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Decisions go on, one line says what to do, the status says how old the rules are, and a refresh by hand is obeyed."""

    def start(self: threading.Thread) -> None:
        if how == "cannot start":
            raise RuntimeError("can't start new thread")

    source, other = Offered(limits(news="2/day")), Offered(limits(news="1/day"))
    limiter, second = Limiter(source), Limiter(other)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for number in range(5):
            assert limiter.hit("news", str(number))
            assert second.hit("news", str(number))
        (record,) = caplog.records
        said = record.getMessage()
        assert ("(can't start new thread)" if how == "cannot start" else "Threads do not run in this process") in said
        assert "Start uWSGI with enable-threads, or call limiter.source.refresh() regularly" in said
        before = limiter.source.status.age
        time.sleep(0.1)
        assert limiter.source.status.age >= before + 0.1
        source.say(limits(news="9/day"))
        limiter.hit("news", "ana")
        assert amount(limiter) == 2
        assert limiter.source.refresh()
        assert limiter.source.status.age < 0.1
        assert amount(limiter) == 9
        assert not limiter.source.running

        with pytest.raises(NotifyError, match=r"No thread can be started|was never"):
            asyncio.run(asyncio.wait_for(_refreshed(source), 1)) if how == "cannot start" else _never()
    # Where a thread can be started again, it is.
    limiter.source._start_after = 0.0
    limiter.hit("news", "ana")
    source.say(limits(news="5/day"))
    until(lambda: amount(limiter) == 5)
    limiter.close()
    second.close()


async def _refreshed(source: Offered) -> bool:
    limiter = AsyncLimiter(source)
    try:
        return await limiter.refresh_rules()
    finally:
        await limiter.close()


def _never() -> None:
    raise NotifyError("It was never started.")


@pytest.mark.parametrize(
    ("options", "said"),
    [({b"http": b":80"}, 1), ({"enable-threads": True}, 0), ({b"threads": b"4"}, 0), ({b"enable-threads": b"true"}, 0)],
)
def test_uwsgi_without_threads_is_told(
    options: dict[Any, Any], said: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There, threads start, and hardly ever run."""
    uwsgi: Any = ModuleType("uwsgi")
    uwsgi.opt = options
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    for _ in range(3):
        with Limiter(Offered(limits(news="2/day"))) as limiter:
            assert limiter.hit("news", "ana")

    assert [record.getMessage()[:49] for record in caplog.records] == [
        "uWSGI runs no threads without enable-threads, so "
    ] * said


# --- What is raised in the thread ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [SystemExit, asyncio.CancelledError, MemoryError],
)
@pytest.mark.parametrize("where", ["load", "wait", "callback", "log", "close", "repr"])
def test_nothing_that_is_raised_ends_the_thread(where: str, error: type[BaseException]) -> None:
    """By a source, by who is told about changes, or by a handler of the log."""

    class Raising(Offered):
        armed = False

        def wait(self, timeout: float) -> bool:
            if where == "wait":
                raise error
            time.sleep(0.005)
            return True

        def close(self) -> None:
            if where == "close" and issubclass(error, Exception):
                raise error

        def __repr__(self) -> str:
            if where == "repr" and self.armed:
                raise error
            return "<Raising>"

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error

    def told(*_: object) -> None:
        raise error

    source = Raising(limits(news="2/day"))
    before = set(threading.enumerate())
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    logger, handler = logging.getLogger("ratelimited_notify"), Handler()
    (thread,) = [
        each for each in threading.enumerate() if each.name == "ratelimited-notify rules" and each not in before
    ]
    seen: list[Any] = []
    if where == "callback":
        limiter.source.on_change(told)
    limiter.source.on_change(lambda *_: seen.append(1))
    if where == "log":
        logger.addHandler(handler)
    try:
        for number, wrong in enumerate((error(), limits(news="x"), ValueError())):
            source.armed = True
            source.say(wrong if where != "callback" else limits(news=f"{20 + number}/day"))
            loads = len(source.loads)
            until(lambda loads=loads: len(source.loads) > loads + 1)  # type: ignore[misc]  # mypy cannot infer it
            source.armed = False
            source.say(limits(news=f"{10 + number}/day"))
            until(lambda number=number: amount(limiter) == 10 + number)  # type: ignore[misc]  # mypy cannot infer it
    finally:
        logger.removeHandler(handler)

    # Told after the rules are in force.
    until(lambda: len(seen) >= 3)
    assert (thread.is_alive(), threads()) == (True, 1)
    until(lambda: limiter.source.status.error is None)
    limiter.close()
    until(lambda: not thread.is_alive())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_in_a_thread_of_the_user_an_interrupt_is_passed_on(error: type[BaseException]) -> None:
    """Control-C while somebody refreshes by hand is not taken for a failure of the source."""
    source = Offered(limits(news="2/day"))
    limiter = Limiter(source)
    source.say(error())
    with pytest.raises(error):
        limiter.source.refresh()
    assert limiter.source.status.error is None
    source.say(limits(news="3/day"))

    assert limiter.source.refresh()


# --- The end ---------------------------------------------------------------------------------------------------------

ENDS = """
import sys, threading, time
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FileRules, FunctionRules

how, path, asked = sys.argv[1], sys.argv[2], threading.Event()

def hanging(known):
    if known is not None:
        asked.set()
        threading.Event().wait()
    return "1", {"rules": [{"type": "news", "limit": "1/day"}]}

count = 0
def changing(known):
    global count
    count += 1
    if count > 3:
        asked.set()
    return str(count), {"rules": [{"type": "news", "limit": f"{count}/day"}]}

def failing(known):
    if known is None:
        return "1", {}
    asked.set()
    # As much as can be gone at the end of a process.
    threading.Thread(target=print).start()
    return None

sources = {
    "hanging": lambda: FunctionRules(hanging, interval=0.001),
    "changing": lambda: FunctionRules(changing, interval=0.0001),
    "at once": lambda: FunctionRules(changing, interval=3600),
    "file": lambda: FileRules(path, interval=0.001),
    "watched": lambda: FileRules(path, interval=0.001, watch=True),
}
limiter = Limiter(sources[how]())
limiter.hit("news", "ana")
if how in ("hanging", "changing"):
    asked.wait()
elif how == "watched":
    time.sleep(0.3)
"""


@pytest.mark.parametrize("how", ["hanging", "changing", "at once", "file", "watched"])
def test_it_keeps_no_process_from_exiting(how: str, tmp_path: Path) -> None:
    """Whatever the thread is doing when the program ends, and without a word."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1))
    for _ in range(2):
        assert run(ENDS, how, path, within=30) == ""


AT_EXIT = """
import atexit
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FunctionRules

limiter = Limiter(FunctionRules(lambda known: ("1", {"rules": [{"type": "news", "limit": "1/day"}]})))
def last():
    print([limiter.hit("news", "ana").allowed for _ in range(2)])
atexit.register(last)
"""


def test_the_first_decision_when_the_process_is_about_to_end() -> None:
    """No thread can be started any more where Python refuses it; the decision is made."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout, done.returncode, "Traceback" in done.stderr) == ("[True, False]\n", 0, False)


def test_close_does_not_wait_for_a_source_that_hangs() -> None:
    """It returns, and so do limiters of the same source that are made or used meanwhile; no threads pile up."""
    source = Offered(limits(news="2/day"))
    hanging, release = threading.Event(), threading.Event()
    limiter = Limiter(source)
    limiter.hit("news", "ana")

    def hang() -> Any:
        hanging.set()
        release.wait()
        return "late", limits(news="7/day")

    source.say(hang)
    assert hanging.wait(WITHIN)
    for _ in range(5):
        began = time.monotonic()
        limiter.close()
        other = Limiter(source)
        assert other.hit("news", "ana")
        other.close()
        assert limiter.hit("news", str(time.monotonic()))
        assert time.monotonic() - began < WITHIN
    until(lambda: threads() == 2)
    limiter.close()
    release.set()

    until(lambda: threads() == 0)


@pytest.mark.parametrize("ending", ["closed", "forgotten"])
def test_a_hundred_limiters_come_and_go(ending: str, tmp_path: Path) -> None:
    """As many threads and descriptors as before, also of those that nobody closed, and their sources are closed."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1000))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    sources = [Offered(limits(news="1000/day")) for _ in range(50)]
    given: list[Any] = [*sources, *(FileRules(path, interval=0.05) for _ in range(50))]
    limiters = [Limiter(source) for source in given]
    for limiter in limiters:
        limiter.hit("news", "ana")
    assert threads() == 100
    if ending == "closed":
        for limiter in limiters:
            limiter.close()
    del limiter
    limiters.clear()
    gc.collect()
    until(lambda: threads() == 0)

    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    until(lambda: all(source.closed for source in sources))


def test_the_thread_ends_with_the_last_limiter_even_if_its_status_is_kept() -> None:
    """And starts again with the next one of the same source."""
    source = Offered(limits(news="2/day"))
    limiter = Limiter(source)
    live = limiter.source
    limiter.hit("news", "ana")
    assert live.running
    del limiter
    gc.collect()
    until(lambda: threads() == 0)
    assert not live.running
    source.say(limits(news="3/day"))
    following = Limiter(source)
    following.hit("news", "ana")

    until(lambda: amount(following) == 3)
    following.close()


def test_a_closed_limiter_is_used_again_beside_another_one() -> None:
    """The thread went on for the other one: the closed one catches up with its next decision, and follows from then on."""
    source = Offered(limits(news="5/day"), interval=3600)
    closed, other = Limiter(source), Limiter(source)
    for limiter in (closed, other):
        limiter.hit("news", "ana")
    closed.close()
    source.say(limits(news="6/day"))
    assert other.source.refresh()
    assert closed.rules != other.rules
    closed.hit("news", "ana")
    assert closed.rules is other.rules
    source.say(limits(news="7/day"))
    other.source.refresh()

    assert (amount(closed), amount(other), threads()) == (7, 7, 1)
    closed.close()
    other.close()


def test_a_closed_limiter_that_cannot_go_by_the_rules_of_today(caplog: pytest.LogCaptureFixture) -> None:
    """Its decisions go on by those that it had, which is logged; the next ones that it can use reach it."""
    source = Offered(limits(news="5/day"), interval=3600)
    closed, other = Limiter(source), Limiter(source, tier_of=lambda _recipient: "gold")
    closed.hit("news", "ana")
    closed.close()
    tiers = {"rules": [{"type": "news", "limit": "1/day", "tiers": {"gold": "2/day"}}]}
    source.say(tiers)
    assert other.source.refresh()
    for _ in range(3):
        assert closed.hit("news", "ana")
    (record,) = caplog.records
    assert "goes on by earlier rules, because it cannot use those of today" in record.getMessage()
    source.say(limits(news="8/day"))
    assert other.source.refresh()

    assert (amount(closed), amount(other)) == (8, 8)
    closed.close()
    other.close()


def test_rules_that_change_while_a_limiter_is_made_reach_it() -> None:
    """Between its first look at them and the moment from which it follows."""
    source = Offered(limits(news="5/day"), interval=3600)
    first = Limiter(source)
    first.hit("news", "ana")

    def changes(_recipient: object) -> None:
        """Nobody is in a tier."""

    class Late(Limiter):
        def _put_in_force(self, plans: Any) -> None:
            super()._put_in_force(plans)
            if source.version == 0:
                source.say(limits(news="6/day"))
                first.source.refresh()

    late = Late(source, tier_of=changes)

    assert (amount(first), amount(late)) == (6, 6)
    first.close()
    late.close()


# --- asyncio, and limiting that is off -------------------------------------------------------------------------------


def test_a_refresh_that_is_cancelled_is_harmless() -> None:
    """The loop ends although the source hangs, nobody waits for its thread, and what it yields comes into force."""
    source = Offered(limits(news="2/day"))
    release = threading.Event()

    async def main() -> AsyncLimiter:
        notifier = AsyncNotifier(_send, source)
        limiter = notifier.limiter

        def hang() -> Any:
            release.wait()
            return "late", limits(news="7/day")

        source.say(hang)
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(limiter.refresh_rules(), 0.05)
        return limiter

    began = time.monotonic()
    limiter = asyncio.run(main())
    assert time.monotonic() - began < WITHIN
    release.set()
    until(lambda: limiter.rules.rules[0].limits[0].amount == 7)
    source.say(RuntimeError())
    with pytest.raises(RuleError, match="failed with RuntimeError"):
        asyncio.run(limiter.refresh_rules())
    source.say(SystemExit())
    with pytest.raises(RuleError, match="failed with SystemExit"):
        asyncio.run(limiter.refresh_rules())
    until(lambda: all(each.name != "ratelimited-notify refresh" for each in threading.enumerate()))
    asyncio.run(limiter.close())


async def _send(recipient: str) -> None: ...


@pytest.mark.parametrize("off", ["enabled", "variable", "unlimited"])
@pytest.mark.parametrize("given", ["source", "text", "wrong text"])
def test_switched_off_nothing_is_opened(
    given: str, off: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever limits: no source is loaded, no thread started, and a source that cannot be used is no error."""
    source = Offered(OSError())
    rules: Any = {"source": source, "text": "file:/nowhere/rules.toml", "wrong text": "file:x?nonsense=1"}[given]
    if off == "unlimited" and given == "wrong text":
        pytest.skip("A test that switches limiting off for a while is told about what is wrong.")
    options: Any = {"enabled": False} if off == "enabled" else {}
    if off == "variable":
        monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")

    @rate_limited("news")
    def send(recipient: str) -> str:
        return "sent"

    def use() -> None:
        limiter = Limiter(rules, **options)
        assert limiter.hit("news", "ana")
        assert Notifier(lambda recipient: "sent", rules, **options).send("news", "ana")
        configure(rules, **options)
        assert send("ana") == "sent"
        async_limiter = AsyncLimiter(rules, **options)
        assert not asyncio.run(async_limiter.refresh_rules())
        asyncio.run(async_limiter.close())
        limiter.close()

    if off == "unlimited":
        with disabled_limits():
            use()
    else:
        use()

    assert (source.loads, threads()) == ([], 0)
    assert any("cannot be used" in record.getMessage() for record in caplog.records) is (given == "wrong text")


def test_what_was_made_while_limiting_was_off_limits_when_it_is_on() -> None:
    """The rules are loaded with the first decision, or as soon as they can be."""
    source, broken = Offered(limits(news="1/day")), Offered(OSError())
    with disabled_limits():
        limiter, second = Limiter(source), Limiter(broken)
        assert [bool(limiter.hit("news", "ana")) for _ in range(3)] == [True] * 3
    assert [bool(limiter.hit("news", "ana")) for _ in range(3)] == [True, False, False]
    assert second.hit("news", "ana")
    broken.say(limits(news="2/day"))
    until(lambda: second.rules.rules)

    assert amount(second) == 2
    limiter.close()
    second.close()
