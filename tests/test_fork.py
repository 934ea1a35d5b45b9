"""A forked child: every lock is free in it, and what another thread was changing is whole."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ratelimited_notify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")

PACKAGE = Path(ratelimited_notify.__file__).parent

LOCKS = {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore", "allocate_lock"}

ELSEWHERE = {
    # Its class is asked for, and it is dropped.
    "instrumentation/prometheus/locks.py": {"Lock"},
    # A waiting thread's own signal; a child has a pool without waiting threads.
    "storage/redis/connection.py": {"Lock"},
    # Likewise: nobody waits in a child but the thread that forked.
    "notifier/signals.py": {"Lock"},
    # A child makes a pool of its own at its first mail: the places of the parent's threads would never become free.
    "gateways/smtp/sync.py": {"Semaphore"},
    # A fork takes it itself, closes what it protects, and frees it in parent and child: `storage/sqlite/forking.py`.
    "storage/sqlite/connection.py": {"RLock"},
    # The signal that ends a thread; a child has no such thread, and starts another one with a signal of its own.
    "sources/stop_signal.py": {"Lock"},
}
"""Locks that need no registration, and why."""


def _run(program: str, *arguments: object) -> None:
    """Run a program that prints what is wrong, in an interpreter without threads of other tests."""
    start = "import faulthandler; faulthandler.dump_traceback_later(50, exit=True)\n"
    done = subprocess.run(
        [sys.executable, "-c", start + program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr[-3000:]


def test_every_lock_is_registered() -> None:
    """A lock of threads is made with `forkable` or `copied_whole`, so that a forked child can take it."""
    unregistered: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        registered = {
            id(argument)
            for call in calls
            if isinstance(call.func, ast.Name) and call.func.id in ("forkable", "copied_whole")
            for argument in call.args
        }
        for call in calls:
            made = call.func
            if not isinstance(made, ast.Attribute) or made.attr not in LOCKS or id(call) in registered:
                continue
            if isinstance(made.value, ast.Name) and made.value.id in ("threading", "_thread"):
                unregistered.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(made.attr)

    assert unregistered == ELSEWHERE


EVERYTHING = """
import gc, os, sys, tempfile, threading, types, weakref
import ratelimited_notify
from ratelimited_notify import AsyncLimiter, AsyncNotifier, Limiter, Notifier, configure, rate_limited
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.gateways.smtp import AsyncSMTPGateway, SMTPGateway
from ratelimited_notify.pytest_plugin import Clock

@rate_limited("news", "1/day")
def send(recipient):
    pass

rules = {"news": "3/day", "status": "5/minute"}
nowhere, folder = "127.0.0.1:1", tempfile.TemporaryDirectory()
uris = ["memory://", f"redis://{nowhere}", f"memcached://{nowhere}", f"sqlite:///{folder.name}/windows.db"]
limiters = [kind(rules, uri, remember_refusals=True) for kind in (Limiter, AsyncLimiter) for uri in uris]
smtp, async_smtp = SMTPGateway("127.0.0.1", 1, sender="a@b.example"), AsyncSMTPGateway("127.0.0.1", 1, sender="a@b.example")
configure(rules)
send("ana")
configuration.async_limiter()
decisions = [limiters[0].hit("news", "ana") for _ in range(4)]
# This opens the file.
decisions.append(limiters[uris.index(uris[-1])].hit("news", "ana"))
roots = {
    "limiters": limiters, "gateways": [smtp, async_smtp], "clock": Clock(), "decisions": decisions,
    "notifiers": [Notifier(smtp, rules, on_limit="wait", max_wait=5), AsyncNotifier(async_smtp, rules)],
}
smtp._pool()
KINDS = (type(threading.Lock()), type(threading.RLock()))
PLAIN = (dict, list, tuple, set, frozenset, types.MethodType, types.FunctionType, types.CellType)
OURS = ("ratelimited_notify", "threading")

def locks():
    # Every lock that can be reached from the modules of the package, and from these objects.
    found, seen, queue = {}, set(), []
    for name, module in sys.modules.items():
        if name.startswith("ratelimited_notify"):
            queue += [(f"{name}.{key}", value) for key, value in vars(module).items() if not key.startswith("__")]
    queue += roots.items()
    while queue:
        path, thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (type, types.ModuleType, weakref.ref)):
            continue
        seen.add(id(thing))
        module = type(thing).__module__
        if isinstance(thing, KINDS):
            found[id(thing)] = (path, thing)
        elif isinstance(thing, types.FunctionType) and not thing.__module__.startswith("ratelimited_notify"):
            continue
        elif isinstance(thing, PLAIN) or module.startswith(OURS):
            if isinstance(thing, types.FunctionType):
                # Its globals are those of a module, or of code that was made for one limiter.
                more = [*(thing.__closure__ or ()), {k: v for k, v in thing.__globals__.items() if not k.startswith("__")}]
            else:
                more = gc.get_referents(thing)
            queue += [(f"{path} > {type(thing).__name__}", each) for each in more]
    return found

before = locks()
names = sorted({path for path, _ in before.values()})
"""

HELD = (
    EVERYTHING
    + """
holding, done = threading.Event(), threading.Event()

def hold():
    for _, lock in before.values():
        lock.acquire()
    holding.set()
    done.wait()
    for _, lock in before.values():
        lock.release()

if len(before) < 20:
    print("too few locks were found:", names)
thread = threading.Thread(target=hold)
thread.start()
holding.wait()
child = os.fork()
if not child:
    smtp._pool()
    for path, lock in locks().values():
        if not lock.acquire(timeout=0.2):
            print("locked:", path, flush=True)
    os._exit(0)
os.waitpid(child, 0)
for path, lock in before.values():
    if lock.acquire(timeout=0.01):
        print("the parent lost", path)
done.set()
thread.join()
if os.fork() == 0:
    os._exit(0)
os.wait()
for path, lock in before.values():
    if not lock.acquire(timeout=0.2):
        print("locked in the parent:", path)
"""
)


def test_every_lock_is_free_in_a_child() -> None:
    """Whatever lock a thread of the parent holds at the fork, a child can take it; in the parent it stays as it was."""
    _run(HELD)


AT_EACH_LINE = """
import os, signal, sys

def at_each_line(function, is_whole, *arguments):
    # Fork before each line of a function, as another thread may.
    code, lines = function.__code__, 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code is code and event == "line":
            sys.settrace(None)
            lines += 1
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                try:
                    whole = is_whole()
                except BaseException as error:
                    print(repr(error), flush=True)
                    whole = False
                os._exit(0 if whole else 1)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                print("half done at line", frame.f_lineno, "of", code.co_qualname, flush=True)
            sys.settrace(trace)
        return trace
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(None)
    if not lines:
        print("nothing was tried in", code.co_qualname)

"""

RULES = """
from ratelimited_notify import Limiter, Rule

limiter = Limiter({"news": "1/day"})
before, after = limiter.rules, Limiter({"news": "2/day"}).rules

def is_whole():
    # What is enforced is what is shown, and an edit keeps the rest.
    allowed = sum(bool(limiter.hit("news", "ana")) for _ in range(3))
    shown = limiter.rules
    limiter.declare(Rule("other", "1/day"))
    return (allowed, shown) in [(1, before), (2, after)] and limiter.rules == shown

at_each_line(type(limiter).rules.fset, is_whole, limiter, after)
limiter.rules = before
at_each_line(type(limiter)._put_in_force, is_whole, limiter, limiter._planned(after, {}, limiter.plans))

def has_both_or_none():
    limiter.rules = {"unrelated": "1/day"}
    return sum(bool(limiter.hit("more", "bob")) for _ in range(2)) in (1, 2)

at_each_line(type(limiter).declare, has_both_or_none, limiter, Rule("more", "1/day"))
"""

CONFIGURATION = """
from ratelimited_notify import Limiter, configure
from ratelimited_notify.decorator.configuration import Configuration, configuration

configure({"news": "1/day"})
configuration.async_limiter()
made = Configuration()
made._rules, made.configured = Limiter({"news": "2/day"}).rules, True
made.limiter()
made.async_limiter()

def is_whole():
    limits = {str(rules.matching("news")[0].limits) for rules in (
        configuration.limiter().rules, configuration.async_limiter().rules, configuration._rules)}
    configure({"news": "3/day"})
    return len(limits) == 1 and sum(bool(configuration.limiter().hit("news", "ana")) for _ in range(4)) == 3

at_each_line(Configuration._become, is_whole, configuration, made)
"""

REFUSALS = """
from ratelimited_notify.limiter.refusals import RefusalCache
from ratelimited_notify.windows.keys import tag_of
from ratelimited_notify.windows.strategies import Reading, Verdict, Window

window = Window("moving-window", 1, 60_000_000)
verdict = Verdict(False, 0, [Reading(1, 60_000_000, 60_000_000, None)])
cache = RefusalCache()

def key(name):
    return f"notify:{{{tag_of(name)}}}:rest"

def remember(name):
    cache.remember([window], [key(name)], 1, verdict, cache.asked_at())

def is_whole():
    # It may have forgotten one, and goes on working.
    remember("eve")
    if cache.find([window], [key("eve")], 1) is None:
        return False
    cache.drop([window], [key("eve")])
    return cache.find([window], [key("eve")], 1) is None

for name in ("ana", "bob"):
    remember(name)
at_each_line(RefusalCache.remember, is_whole, cache, [window], [key("ana")], 1, verdict, cache.asked_at())
at_each_line(RefusalCache._evict, is_whole, cache)
at_each_line(RefusalCache.drop, is_whole, cache, [window], [key("ana"), key("bob")])
"""


@pytest.mark.parametrize("what", [RULES, CONFIGURATION, REFUSALS], ids=["rules", "configuration", "refusals"])
def test_a_change_is_whole_in_a_child(what: str) -> None:
    """Wherever a change is when another thread forks, the child has the state before it or after it, and goes on from there."""
    _run(AT_EACH_LINE + what)


IN_THE_MIDDLE = """
import os
from ratelimited_notify import Limiter

def clock():
    global forked
    if forking and not forked:
        forked = True
        children.append(os.fork())
    return 1000.0

forking, forked, children = False, False, []
limiter = Limiter({"news": "5/day"}, clock=clock)
limiter.hit("news", "ana")
forking = True
limiter.hit("news", "ana")
(window,) = limiter.windows("news", "ana")
if children[0] == 0:
    os._exit(window.remaining)
if window.remaining != 3 or os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) != 3:
    print("both must have finished the decision")
"""


def test_code_that_forks_in_the_middle_of_a_decision_goes_on_in_both() -> None:
    """A thread that forks while it decides (in its clock, in a signal handler) finishes the decision in parent and child."""
    _run(IN_THE_MIDDLE)


BUSY = """
import os, random, signal, sys, threading, time
from ratelimited_notify import Limiter, Notifier, configure, rate_limited

remembering = Limiter({"news": "2/day"}, "redis://127.0.0.1:1", remember_refusals=True)
memory = Limiter({"news": "2/minute", "edit": "1/second"})
pacing = Notifier(lambda recipient: None, limiter=memory, on_limit="wait", max_wait=0.05)
rules = [memory.rules, {"news": "3/minute", "edit": "1/second"}]

@rate_limited("deco", "5/day")
def send(recipient):
    pass

def edit(number):
    draw = random.Random(number)
    while True:
        memory.rules = draw.choice(rules)
        configure({"news": "1/day"})
        decision = memory.hit("news", str(draw.random()))
        memory.release(decision)
        pacing.send_many("edit", ["ana", "bob"])
        remembering._refusals.drop((), ())

sys.setswitchinterval(1e-5)
for number in range(6):
    threading.Thread(target=edit, args=(number,), daemon=True).start()
until, forks = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < until:
    forks += 1
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            memory.rules = {"news": "1/minute"}
            decided = [bool(memory.hit("news", "fork")) for _ in range(2)]
            memory.clear("news", "fork")
            memory.release(memory.hit("news", "fork"))
            configure({"deco": "1/day"})
            send("ana")
            remembering._refusals.drop((), ())
            pacing.send_many("news", ["fork"])
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0 if decided == [True, False] else 1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended:
        print("the child of fork", forks, "ended with", ended, flush=True)
        break
if forks < 10:
    print("only", forks, "forks")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_forks_while_threads_edit_wait_and_decide() -> None:
    """However busy the parent's threads are, each child edits rules, decides, releases and configures at once."""
    _run(BUSY, 3)


IMPORTS = """
import importlib, os, signal, sys, threading
from pathlib import Path
from ratelimited_notify import forking

begun, may_end = threading.Event(), threading.Event()
sys.path.insert(0, sys.argv[1])
package = Path(sys.argv[1], "shop")
package.mkdir()
(package / "__init__.py").write_text("")
(package / "whole.py").write_text("loaded = []")
(package / "mail.py").write_text(
    "import __main__; from . import whole; whole.loaded.append(1); __main__.begun.set(); __main__.may_end.wait(); sent = 1"
)
(package / "site.py").write_text("from .mail import sent")
(package / "own.py").write_text("import __main__; child = __main__.fork('shop.mail')")

def fork(name):
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        may_end.set()
        from shop import whole
        if importlib.import_module(name).sent != 1 or len(whole.loaded) != 2:
            os._exit(1)
    return child

thread = threading.Thread(target=importlib.import_module, args=["shop.site"], daemon=True)
thread.start()
begun.wait()
if sys.argv[2] == "own":
    from shop.own import child  # the import in which this thread forks goes on in both
else:
    child = fork(sys.argv[2])
if child == 0:
    os._exit(0)
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if ended:
    print("the child ended with", ended)
may_end.set()
thread.join()
from shop import mail, site, whole
if (mail.sent, site.sent, whole.loaded) != (1, 1, [1]):
    print("the import of the parent must not be begun anew")
"""


@pytest.mark.parametrize("name", ["shop.mail", "shop.site", "own"])
def test_an_import_of_another_thread_is_begun_anew_in_a_child(name: str, tmp_path: Path) -> None:
    """A child can import what another thread of its parent was importing. Otherwise it would wait for ever."""
    _run(IMPORTS, tmp_path, name)


TWO_THREADS = """
import threading
from ratelimited_notify import forking

class Lock:
    # As soon as the first thread releases it, another thread that forks takes it.
    def __init__(self):
        self.lock = threading.Lock()
        self.after_release = []

    def acquire(self, timeout):
        return self.lock.acquire(timeout=timeout)

    def release(self):
        self.lock.release()
        if self.after_release:
            thread = self.after_release.pop()
            thread.start()
            thread.join()

def ends_later():
    forking._before_fork()
    began.set()
    may_end.wait()
    forking._in_parent()

lock, began, may_end = Lock(), threading.Event(), threading.Event()
forking.copied_whole(lock, "nobody")
second = threading.Thread(target=ends_later)

def begin():
    second.start()
    began.wait()

lock.after_release.append(threading.Thread(target=begin))
forking._before_fork()
forking._in_parent()
if not lock.lock.locked():
    print("the end of one fork released what another fork has taken")
may_end.set()
second.join()
if lock.lock.locked():
    print("it stays locked")
"""


def test_two_threads_that_fork_at_once() -> None:
    """Each fork has its own locks: the end of the first one does not release what the second one has taken."""
    _run(TWO_THREADS)


STRUCK = """
import os, sys
from ratelimited_notify import Limiter, forking

class Alarm(BaseException):
    pass

limiters = [Limiter({"news": "1000000/day"}, timeout=0.05) for _ in range(3)]
sys.unraisablehook = lambda what: what.exc_type is Alarm or sys.__unraisablehook__(what)

def decide_all():
    for limiter in limiters:
        if not limiter.hit("news", "ana"):
            raise AssertionError("refused")

def fork_and_decide(where):
    # `where` is called in parent and child, as soon as they are alone.
    try:
        child = os.fork()
    except Alarm:
        child = None
    where()
    if os.getpid() != PARENT:
        try:
            decide_all()
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(-1, 0)
    decide_all()
    if forking._taken:
        raise AssertionError("something is left")

PARENT = os.getpid()
decide_all()
"""

AT_EACH_STEP = (
    STRUCK
    + """
def fork_struck_at(at, in_child):
    seen = 0
    def trace(frame, event, argument):
        nonlocal seen
        if frame.f_code.co_filename != forking.__file__:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode" and (os.getpid() != PARENT) == in_child:
            seen += 1
            if seen == at:
                raise Alarm
        return trace
    sys.settrace(trace)
    try:
        fork_and_decide(lambda: sys.settrace(None))
    except BaseException as error:
        sys.settrace(None)
        print("parent, struck at", at, repr(error))
        raise SystemExit(1)
    return seen

steps = fork_struck_at(0, False)
if steps < 50:
    print("too few steps:", steps)
for at in range(1, steps + 1):
    fork_struck_at(at, False)
for at in range(1, 1000, 7):
    fork_struck_at(at, True)
"""
)

ALARMED = (
    STRUCK
    + """
import random, signal

def ring(*_):
    raise Alarm

signal.signal(signal.SIGALRM, ring)
for number in range(600):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 1.5e-3))
        fork_and_decide(lambda: signal.setitimer(signal.ITIMER_REAL, 0))
    except Alarm:
        # Before or after the fork.
        signal.setitimer(signal.ITIMER_REAL, 0)
        if os.getpid() != PARENT:
            os._exit(0)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            pass
        decide_all()
"""
)


@pytest.mark.parametrize("program", [AT_EACH_STEP, ALARMED], ids=["at each step", "alarms"])
@pytest.mark.slow
def test_a_signal_that_raises_during_a_fork_leaves_no_lock_behind(program: str) -> None:
    """Python goes on with the fork, and decisions go on in parent and child."""
    _run(program)
