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


@pytest.mark.parametrize("way", ["acquire", "acquire_many", "shortcut"])
def test_a_decision_gives_way_to_those_who_ask(way: str, slept: list[float]) -> None:
    """It pauses after it, with the lock open, and long enough for another thread to run; if nobody asks, it never does."""
    limiter = Limiter({"news": "9/day"})
    limiter.hit("news", "ana")
    storage: Any = limiter.storage
    assert isinstance(storage, MemoryStorage)
    limiter.hit("news", "ana")
    assert list(limiter.plans.shortcuts) == ["news"]
    one = window("moving-window", 9)
    decide: dict[str, Callable[[], object]] = {
        "acquire": lambda: storage.acquire([one], ["ana"], 1),
        "acquire_many": lambda: storage.acquire_many([([one], ["ana"], 1)]),
        "shortcut": lambda: limiter.hit("news", "ana"),
    }
    decide[way]()
    assert slept == []

    storage.guard.contended = True
    decide[way]()

    assert len(slept) == 1
    assert slept[0] > 0
    assert not storage.guard.lock.locked()
