"""Processes that race a pause: nothing is granted from the moment `pause` returns until the pause ends, on every storage."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest

from ratelimited_notify import Limiter, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow

CALLERS = 3
PAUSES = 30

RULES = [Rule("sms", "1000000/day", name="provider", by=()), Rule("*", "1000000/day", name="own", by="recipient")]

Call: TypeAlias = "tuple[float, float]"
"""When a call began and when it had returned, by the clock that all processes of a machine share."""

_CALLER = """
import json, sys, threading, time
from ratelimited_notify import Limiter, Rule
uri, namespace, number = sys.argv[1:]
rules = [Rule("sms", "1000000/day", name="provider", by=()), Rule("*", "1000000/day", name="own", by="recipient")]
limiter = Limiter(rules, uri, namespace=namespace, timeout=20)
print("ready", flush=True)
sys.stdin.readline()
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
granted, turn = [], 0
while not over.is_set():
    turn += 1
    recipients = [f"person {number} {(turn + each) % 50}" for each in range(turn % 4)]
    before = time.monotonic()
    # Alone, and in a batch that shares the paused rule.
    decisions = limiter.hit_many("sms", recipients) if recipients else [limiter.hit("sms", f"person {number}")]
    after = time.monotonic()
    if any(decisions):
        granted.append((before, after))
limiter.close()
print(json.dumps(granted))
"""


class Paused(NamedTuple):
    """A time in which nothing may have been granted."""

    began: float
    """When `pause` had returned."""
    ended: float
    """The earliest instant at which the pause may have ended."""


def pauses(limiter: Limiter) -> list[Paused]:
    """Pause again and again. Every second pause is ended early, the others end by themselves."""
    found: list[Paused] = []
    for number in range(PAUSES):
        time.sleep(random.uniform(0.005, 0.03))
        seconds = 60 if number % 2 else 0.05
        before = time.monotonic()
        limiter.pause("provider", seconds)
        began, ended = time.monotonic(), before + seconds
        time.sleep(random.uniform(0.005, 0.03))
        if number % 2:
            ended = time.monotonic()
            assert limiter.resume("provider")
        elif ended > time.monotonic():
            time.sleep(ended - time.monotonic())
        found.append(Paused(began, ended))
    time.sleep(0.2)
    return found


def check(paused: Sequence[Paused], granted: Sequence[Sequence[Call]]) -> None:
    """Nobody was granted anything in a call that began after `pause` had returned, and was over before the pause ended."""
    for began, ended in paused:
        # The clock of the storage is another one: it may be slewed.
        wrong = [call for calls in granted for call in calls if began < call[0] and call[1] < ended - 0.002]
        assert not wrong
    # Each went on after the last pause, and somebody between most of them.
    assert all(calls and calls[-1][1] > paused[-1].ended for calls in granted)
    between = [
        any(one.ended <= after and before <= other.began for calls in granted for before, after in calls)
        for one, other in pairwise(paused)
    ]
    assert sum(between) > len(between) // 2


WHERE: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "redis": lambda request: str(request.getfixturevalue("valkey").url),
    "cluster": lambda request: str(request.getfixturevalue("cluster").url),
    "sentinel": lambda request: str(request.getfixturevalue("watched").url),
    "memcached": lambda request: str(request.getfixturevalue("memcached").url),
    "sqlite": lambda request: f"sqlite:///{request.getfixturevalue('tmp_path')}/windows.db",
}
"""The URI of each storage that processes share."""


@pytest.mark.parametrize("where", list(WHERE))
def test_nothing_is_granted_while_a_rule_is_paused(request: pytest.FixtureRequest, where: str, tmp_path: Path) -> None:
    """Three processes decide without a break while a fourth pauses and resumes."""
    uri, namespace = WHERE[where](request), f"race{random.randrange(10**6)}"
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", _CALLER, uri, namespace, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(CALLERS)
    ]
    try:
        for caller in callers:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "ready\n"
        for caller in callers:
            assert caller.stdin is not None
            caller.stdin.write("\n")
            caller.stdin.flush()
        with Limiter(RULES, uri, namespace=namespace, timeout=20) as limiter:
            paused = pauses(limiter)
        granted = [json.loads(caller.communicate(timeout=60)[0]) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
            caller.communicate()

    assert [caller.returncode for caller in callers] == [0] * CALLERS
    check(paused, granted)


def test_threads_on_memory() -> None:
    """The same among the threads of a process."""
    over, granted = threading.Event(), [list[Call]() for _ in range(CALLERS)]
    with Limiter(RULES, timeout=20) as limiter:

        def decide(number: int) -> None:
            while not over.is_set():
                before = time.monotonic()
                if limiter.hit("sms", f"person {number}"):
                    granted[number].append((before, time.monotonic()))

        threads = [threading.Thread(target=decide, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            paused = pauses(limiter)
        finally:
            over.set()
            for thread in threads:
                thread.join(20)

    check(paused, granted)
