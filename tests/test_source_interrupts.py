"""Live rules under signals and many threads: an exception at any line, and eighty threads that decide while rules change."""

from __future__ import annotations

import dis
import gc
import linecache
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ratelimited_notify
from offering import WITHIN, Offered, amount, limits, threads, until
from ratelimited_notify import Limiter, NotifyError, Rule
from striking import Striking, Struck, StruckHard, only_traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

pytestmark = pytest.mark.slow

PACKAGE = Path(ratelimited_notify.__file__).parent
OURS = tuple(str(PACKAGE / each) for each in ("sources", "limiter/following", "limiter/lookup", "log.py"))


@cache
def _operations(code: CodeType) -> dict[int, str]:
    return {each.offset: each.opname for each in dis.get_instructions(code)}


def _is_spared(frame: FrameType) -> bool:
    """Whether Python handles no signal here: where nothing is done, and between the end of a `with` block and the release
    of its lock.
    """
    operation = _operations(frame.f_code)[frame.f_lasti]
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    entering = operation.startswith(("LOAD_FAST", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME"))
    return operation == "NOP" or (line.startswith("with ") and not entering)


class Strike(Striking):
    """Strikes at one line of those that are executed in live rules."""

    def __init__(self, at: int, error: type[BaseException] | Callable[[], object]) -> None:
        super().__init__(at, error, OURS)

    def spares(self, frame: FrameType) -> bool:
        return only_traced(frame) or _is_spared(frame)


class Scene:
    """Two limiters of one source, and what happens to them."""

    def __init__(self, what: str) -> None:
        self.source = Offered(limits(news="5/day", status="5/day"), interval=3600)
        self.limiters = [Limiter(self.source), Limiter(self.source)]
        self.live = self.limiters[0].source
        if what != "the first decision":
            self.limiters[1].hit("news", "ana")
        if what == "a decision after close":
            self.limiters[1].close()
            self.source.say(limits(news="6/day", status="6/day"))
            self.live.refresh()
        if what == "a refresh":
            self.source.say(limits(news="6/day", status="6/day"))
        elif what == "a failure":
            self.source.say(limits(news="6/day", status="wrong"))
        self.expected = 6 if what in ("a refresh", "a decision after close") else 5
        self.act = {
            "a refresh": self.live.refresh,
            "a failure": self.live.refresh,
            "the first decision": lambda: self.limiters[0].hit("news", "ana"),
            "a decision after close": lambda: self.limiters[1].hit("news", "ana"),
            "close": self.limiters[1].close,
            "the last close": self.live.close,
            "a limiter more": lambda: self.limiters.append(Limiter(self.source)),
        }[what]

    def handle(self) -> None:
        """What a signal handler does."""
        with suppress(NotifyError):
            self.live.refresh()
        self.limiters[0].hit("status", "carl")
        self.limiters[1].declare(Rule("other", "1/day"))

    def look(self, faults: list[str], place: str) -> None:
        """Replace the faults by those that there are."""
        try:
            faults[:] = [f"{place}: {fault}" for fault in self._faults()]
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is a fault
            faults[:] = [f"{place}: {failure!r}"]

    def _faults(self) -> list[str]:
        found: list[str] = []
        amounts = [{rule.limits[0].amount for rule in limiter.rules} for limiter in self.limiters]
        if any(len(each) != 1 for each in amounts):
            found.append(f"rules in parts: {amounts}")
        for limiter in self.limiters:
            limiter.hit("news", "bob")
            limiter.hit("status", "bob")
        with suppress(NotifyError):
            self.live.refresh()
        if [amount(limiter) for limiter in self.limiters] != [self.expected] * len(self.limiters):
            found.append(f"forgotten: {[limiter.rules for limiter in self.limiters]}")
        self.source.say(limits(news="7/day", status="7/day"))
        self.live.refresh()
        if [amount(limiter) for limiter in self.limiters] != [7] * len(self.limiters):
            found.append(f"not obeyed: {[limiter.rules for limiter in self.limiters]}")
        self.limiters[0].declare(Rule("more", "1/day"))
        if not self.live.running:
            found.append("no thread")
        for limiter in self.limiters:
            limiter.close()
        return found


SCENES = [
    "a refresh",
    "a failure",
    "the first decision",
    "a decision after close",
    "close",
    "the last close",
    "a limiter more",
]


def _struck(what: str, error: type[BaseException], found: list[str]) -> None:
    """Collect what goes wrong after strikes at each line."""
    at = 0
    while len(found) < 3:
        at += 1
        scene, strike = Scene(what), Strike(at, error)
        # Kept, and with it whatever its traceback holds.
        raised = strike.during(scene.act)
        place = f"after line {at} ({strike.where})"
        if strike.where and error is StruckHard and not isinstance(raised, StruckHard):
            found.append(f"{place}: swallowed, {raised!r}")
        faults = [f"{place}: locked"]
        # In another thread, to which no lock is lent.
        thread = threading.Thread(target=scene.look, args=(faults, place), daemon=True)
        thread.start()
        thread.join(WITHIN)
        found += faults
        if not strike.where or thread.is_alive():
            break
    if at < 6:
        found.append("hardly anything was struck")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [Struck, StruckHard])
@pytest.mark.parametrize("what", SCENES)
def test_an_exception_at_every_line(what: str, error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Old or new rules are in force as a whole, nothing stays locked, and the next change is obeyed with one thread."""
    caplog.set_level("CRITICAL", "ratelimited_notify")
    found: list[str] = []
    # What is raised in the middle of an `except` can stay the exception that its thread handles, for ever.
    thread = threading.Thread(target=_struck, args=(what, error, found), daemon=True)
    thread.start()
    thread.join()

    assert found == []
    gc.collect()
    until(lambda: threads() == 0)


def _interrupted(what: str, found: list[str]) -> None:
    """Collect what goes wrong when a signal handler refreshes and decides at each line."""
    at = 0
    while len(found) < 3:
        at += 1
        scene = Scene(what)
        strike = Strike(at, scene.handle)
        found.append(f"locked at line {at}")
        raised = strike.during(scene.act)
        found.pop()
        if raised is not None and not isinstance(raised, NotifyError):
            found.append(f"after line {at}: {raised!r}")
        faults: list[str] = []
        scene.look(faults, f"after line {at} ({strike.where})")
        found += faults
        if not strike.where:
            break


@pytest.mark.parametrize("what", SCENES)
def test_a_signal_handler_refreshes_and_decides(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever its thread is: nothing waits for itself, and all go by the same rules afterwards."""
    caplog.set_level("CRITICAL", "ratelimited_notify")
    found: list[str] = []
    thread = threading.Thread(target=_interrupted, args=(what, found), daemon=True)
    thread.start()
    thread.join(3 * WITHIN)

    assert (found, thread.is_alive()) == ([], False)
    gc.collect()
    until(lambda: threads() == 0)


ALARMED = """
import random, signal, sys, threading
from ratelimited_notify import Limiter, RuleError
from ratelimited_notify.sources import FunctionRules

class Alarm(Exception):
    pass

version, armed, struck, kept = 1, False, 0, []

def fetch(known):
    return str(version), {"rules": [{"type": type, "limit": f"{version}/day"} for type in ("news", "status")]}

def ring(*_):
    global armed, struck
    if armed:
        armed = False
        struck += 1
        raise Alarm

limiters = [Limiter(FunctionRules(fetch, interval=0.002))]
limiters += [Limiter(limiters[0].source.source) for _ in range(3)]
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
draw = random.Random(1)
for number in range(2500):
    version += 1
    limiter = draw.choice(limiters)
    try:
        try:
            armed = True
            draw.choice([limiter.source.refresh, limiter.close, lambda: limiter.hit("news", "ana")])()
        finally:
            armed = False
    except (Alarm, RuleError) as alarm:
        kept.append(alarm)
    for each in limiters:
        amounts = {rule.limits[0].amount for rule in each.rules}
        if len(amounts) != 1:
            print("in parts", amounts)
signal.setitimer(signal.ITIMER_REAL, 0)
version += 1
for limiter in limiters:
    limiter.hit("news", "bob")
limiters[0].source.refresh()
if {limiter.rules.rules[0].limits[0].amount for limiter in limiters} != {version} or struck < 20:
    print("struck", struck, [limiter.rules for limiter in limiters], version)
for limiter in limiters:
    limiter.close()
kept.clear()
"""


def test_alarms_while_rules_change() -> None:
    """Signals that strike wherever Python lets them, every 300 microseconds: no set is mixed, and all go on."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", ALARMED], capture_output=True, text=True, check=False, timeout=100
    )

    assert (done.stdout, done.returncode) == ("", 0), done.stderr[-2000:]


def test_eighty_threads_decide_while_rules_change() -> None:
    """Each decision obeys one version or the other, as a whole, and none raises."""
    version, stopped = 1, threading.Event()
    wrong: list[object] = []
    decided = [0] * 80

    def document() -> Any:
        amount = 1_000_000 + version
        return limits(news=f"{amount}/day", **{"n*": f"{amount}/day"})

    source = Offered(document(), interval=3600)
    limiter = Limiter(source)

    def decide(number: int) -> None:
        try:
            while not stopped.is_set():
                for each in range(20):
                    decision = limiter.hit("news", f"{number}.{each % 3}")
                    amounts = {window.item.amount for window in decision.windows}
                    if len(amounts) != 1 or len(decision.windows) != 2 or not decision:
                        wrong.append(amounts)
                decided[number] += 1
                stopped.wait(0.001)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is a fault
            wrong.append(error)

    crowd = [threading.Thread(target=decide, args=(number,)) for number in range(80)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        for thread in crowd:
            thread.start()
        for _ in range(200):
            version += 1
            source.say(document())
            assert limiter.source.refresh()
    finally:
        stopped.set()
        for thread in crowd:
            thread.join()
        sys.setswitchinterval(interval)
        limiter.close()

    assert wrong == []
    assert min(decided) > 0
