"""Threads that wait for the windows in memory: how those that decide give way to them, step by step, with no thread at all."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import ratelimited_notify.storage.memory.yielding_lock as module
from backends import window
from ratelimited_notify import Limiter
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.storage.memory.yielding_lock import YieldingLock

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 8.0


class Waiting:
    """The time of a thread that waits: each look at the lock takes half a second, and `at` says what happens by then."""

    def __init__(self, at: Callable[[float], object]) -> None:
        self.now = 0.0
        self.at = at

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds == 0, "a thread that polls must not pause: it would miss its turn"
        self.now += 0.5
        self.at(self.now)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the module sleeps, in order."""
    pauses: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.append, monotonic=lambda: 0.0))
    return pauses


def waited(monkeypatch: pytest.MonkeyPatch, guard: YieldingLock, *, opens_after: float) -> tuple[bool, list[bool]]:
    """What a thread that waits is told, and at each of its looks whether others are asked to give way."""
    asked: list[bool] = []

    def at(now: float) -> None:
        asked.append(guard.contended)
        if now >= opens_after:
            guard.lock.release()

    monkeypatch.setattr(module, "time", Waiting(at))
    guard.lock.acquire()
    return guard.wait_until_open(), asked


def test_a_thread_that_waits_for_long_asks_the_others_to_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an eighth of the timeout, until its turn has come; a short wait asks nothing of anybody."""
    guard = YieldingLock(TIMEOUT)

    assert waited(monkeypatch, guard, opens_after=1.0) == (True, [False, False])
    assert waited(monkeypatch, guard, opens_after=2.5) == (True, [False, False, False, True, True])
    assert not guard.contended


def test_a_thread_that_gives_up_asks_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every later decision would pause, for as long as the process lives."""
    guard = YieldingLock(TIMEOUT)
    opened, asked = waited(monkeypatch, guard, opens_after=99)

    assert (opened, asked[-1], len(asked)) == (False, True, 17)
    assert not guard.contended


def test_a_thread_waits_as_long_as_others_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is for one decision. On a busy machine a turn comes late, and an error would be no better than waiting."""
    guard = YieldingLock(TIMEOUT)
    asked: list[bool] = []

    def at(now: float) -> None:
        asked.append(guard.contended)
        if guard.contended and now < 10 * TIMEOUT:
            guard.lock.release()
            guard.contended = False
            guard.yields += 1
            guard.lock.acquire()

    monkeypatch.setattr(module, "time", Waiting(at))
    guard.lock.acquire()
    opened = guard.wait_until_open()

    assert not opened, "one decision held the lock for the whole timeout"
    assert 0.5 * len(asked) == 10 * TIMEOUT + TIMEOUT
    assert asked == [False] * 3 + [True] * (len(asked) - 3)
    assert not guard.contended


def test_a_thread_that_is_interrupted_asks_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soft time limit while it waits ends the wait, and what it asked for."""
    guard = YieldingLock(TIMEOUT)

    def interrupt(now: float) -> None:
        if now == 5:
            assert guard.contended
            raise InterruptedError(signal.SIGALRM)

    monkeypatch.setattr(module, "time", Waiting(interrupt))
    guard.lock.acquire()
    with pytest.raises(InterruptedError):
        guard.wait_until_open()

    assert not guard.contended


VERBS = ["acquire", "acquire_many", "refused", "peek", "release", "forget", "reset"]
SHORTCUTS = ["shortcut", "shortcut refused", "shortcut with a long window"]


@pytest.mark.parametrize("way", VERBS + SHORTCUTS)
def test_a_decision_gives_way_to_those_who_ask(way: str, slept: list[float]) -> None:
    """It pauses after it, with the lock open, and long enough for another thread to run; if nobody asks, it never does.

    That holds for whatever takes the lock and however it ends: a thread that waits cannot choose whom it waits for.
    """
    limiter = Limiter({"news": "99/day", "rare": "1/day", "many": "5000/day"})
    storage: Any = limiter.storage
    assert isinstance(storage, MemoryStorage)
    for kind in ("news", "rare", "many"):
        for _ in range(2):
            limiter.hit(kind, "ana")
    limiter.hit_many("many", ["ana"] * 200)
    assert sorted(limiter.plans.shortcuts) == ["many", "news", "rare"]
    one, full = window("moving-window", 99), window("moving-window", 1)
    storage.acquire([full], ["full"], 1)
    do: dict[str, Callable[[], object]] = {
        "acquire": lambda: storage.acquire([one], ["ana"], 1),
        "acquire_many": lambda: storage.acquire_many([([one], ["ana"], 1)]),
        "refused": lambda: storage.acquire([full], ["full"], 1),
        "peek": lambda: storage.peek([one], ["ana"], 1),
        "release": lambda: storage.release([one], ["ana"], 1, [(1, 1)]),
        "forget": lambda: storage.forget([one], ["nobody"]),
        "reset": storage.reset,
        "shortcut": lambda: limiter.hit("news", "ana"),
        "shortcut refused": lambda: limiter.hit("rare", "ana"),
        "shortcut with a long window": lambda: limiter.hit("many", "ana"),
    }
    do[way]()
    assert slept == []

    storage.guard.contended = True
    do[way]()

    assert len(slept) == 1
    assert slept[0] > 0
    assert not storage.guard.contended
    assert storage.guard.yields == 1
    assert not storage.guard.lock.locked()
