"""Live rules: no thread waits for another one that waits for it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from offering import WITHIN, Offered, limits, until
from ratelimited_notify import Limiter, Rule, RuleSet


@pytest.mark.parametrize("refreshed", [True, False], ids=["refresh", "first decision"])
def test_a_handler_refreshes_while_another_thread_waits_for_its_thread(
    refreshed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one holds the lock to ask, and waits to put the rules in force; this one changes rules and wants to ask."""
    if not refreshed:
        monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")
    source = Offered(limits(news="2/day"), interval=3600)
    limiter = Limiter(source)
    monkeypatch.delenv("RATELIMITED_NOTIFY_DISABLED", raising=False)
    live = limiter.source
    source.say(limits(news="3/day"))
    other = threading.Thread(target=live.refresh, daemon=True)

    def handle() -> None:
        other.start()
        until(lambda: not _is_free(live._refreshing) and len(source.loads) > refreshed)
        live.refresh() if refreshed else live.first()

    planned = limiter._planned
    struck: list[None] = []

    def planned_under_fire(*arguments: Any) -> Any:  # Any: as of the method
        if not struck and threading.current_thread() is changing:
            struck.append(None)
            handle()
        return planned(*arguments)

    monkeypatch.setattr(Limiter, "_planned", lambda _limiter, *arguments: planned_under_fire(*arguments))
    changing = threading.Thread(target=lambda: limiter.declare(Rule("extra", "1/day")), daemon=True)
    changing.start()
    changing.join(WITHIN)
    assert not changing.is_alive(), "it waits for ever"
    other.join(WITHIN)

    assert struck
    assert not other.is_alive()
    assert live.rules.rules[0].limits[0].amount == 3
    limiter.close()


def test_a_callback_may_wait_for_a_thread_that_refreshes() -> None:
    """A lock of the program, taken in the callback and around `refresh`."""
    source = Offered(limits(news="2/day"), interval=3600)
    limiter = Limiter(source)
    lock, called, told = threading.Lock(), threading.Event(), list[int]()

    def callback(_before: object, rules: RuleSet, _changes: object) -> None:
        called.set()
        if threading.current_thread() is other:
            with lock:
                told.append(len(rules))

    limiter.source.on_change(callback)
    other = threading.Thread(target=limiter.source.refresh, daemon=True)

    def refresh() -> None:
        with lock:
            source.say(limits(news="3/day"))
            other.start()
            called.wait(WITHIN)
            limiter.source.refresh()

    refreshing = threading.Thread(target=refresh, daemon=True)
    refreshing.start()
    refreshing.join(WITHIN)
    assert not refreshing.is_alive(), "it waits for ever"
    other.join(WITHIN)

    assert told == [1]


def _is_free(lock: Any) -> bool:  # Any: an RLock
    if lock.acquire(blocking=False):
        lock.release()
        return True
    return False
