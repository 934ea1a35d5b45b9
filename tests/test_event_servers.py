"""Events about servers and sources: circuits that open and close, and rules that change while the program runs."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from limiting import LIMITERS
from offering import Offered, limits, until
from ratelimited_notify import AsyncLimiter, Circuit, Limiter, NotifyError, StorageError
from ratelimited_notify.instrumentation import (
    CircuitClosed,
    CircuitOpened,
    RulesChanged,
    RulesRejected,
    StorageFailed,
    watch,
)
from ratelimited_notify.sources import FileRules
from ratelimited_notify.storage.breaker import Breaker
from watching import Told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ratelimited_notify.instrumentation import Event
    from servers import Memcached, Valkey

ANA = "ana@example.com"
CIRCUIT = Circuit(failures=2, pause=0.05)


def circuits(told: Told) -> list[str]:
    """What opened and closed, in order."""
    return [type(event).__name__ for event in told if isinstance(event, (CircuitOpened, CircuitClosed))]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("server", ["valkey", "memcached"])
def test_a_server_that_stops_and_returns_is_told(
    kind: str, server: str, start_valkey: Callable[..., Valkey], start_memcached: Callable[..., Memcached]
) -> None:
    """Opened once and closed once, with the address, to those of the limiter and of the process; not to those of others."""
    running = start_valkey() if server == "valkey" else start_memcached()
    limiter = LIMITERS[kind]({"news": "1000/day"}, running.url, timeout=0.3, circuit=CIRCUIT)
    mine, others, everybody = Told(), Told(), Told()
    limiter.watch(mine)
    other = Limiter({"news": "1/day"})
    other.watch(others)
    with watch(everybody):
        limiter.hit("news", ANA)
        running.stop()
        for _ in range(6):
            with pytest.raises(StorageError):
                limiter.hit("news", ANA)
        assert circuits(mine) == ["CircuitOpened"]
        running.start()

        def answers() -> bool:
            try:
                return bool(limiter.hit("news", ANA))
            except StorageError:
                time.sleep(0.02)
                return False

        until(answers)
        (address,) = limiter.storage.circuits
    limiter.close()

    assert circuits(mine) == ["CircuitOpened", "CircuitClosed"]
    assert mine.of(CircuitOpened) == [CircuitOpened(address)]
    assert mine.of(CircuitClosed) == [CircuitClosed(address)]
    assert others == []
    assert everybody == mine
    assert all(event.backend == ("redis" if server == "valkey" else server) for event in mine.of(StorageFailed))


@pytest.mark.slow
def test_many_threads_and_tasks_open_a_circuit_once(start_valkey: Callable[..., Valkey]) -> None:
    """80 threads and 80 tasks on one server: one event for all of them, and one when it is back."""
    server = start_valkey()
    told, over = Told(), threading.Event()
    limiter = Limiter({"news": "1000000/day"}, server.url, timeout=0.3, circuit=CIRCUIT, on_storage_error="allow")
    asynchronous = AsyncLimiter(
        {"news": "1000000/day"}, server.url, timeout=0.3, circuit=CIRCUIT, on_storage_error="allow"
    )
    counted = threading.Event()

    def ask(number: int) -> None:
        while not over.is_set():
            if limiter.hit("news", f"{ANA}{number}").error is None:
                counted.set()

    async def ask_in_tasks() -> None:
        async def task(number: int) -> None:
            while not over.is_set():
                await asynchronous.hit("news", f"{number}{ANA}")
                await asyncio.sleep(0.01)

        await asyncio.gather(*map(task, range(80)))
        await asynchronous.close()

    with watch(told), ThreadPoolExecutor(81) as pool:
        asked = [pool.submit(ask, number) for number in range(80)]
        asked.append(pool.submit(asyncio.run, ask_in_tasks()))
        assert counted.wait(20)
        server.pause()
        try:
            until(lambda: circuits(told))
            time.sleep(0.3)
        finally:
            server.resume()
            counted.clear()
        until(lambda: len(circuits(told)) > 1)
        assert counted.wait(20)
        over.set()
        for each in asked:
            each.result()
    limiter.close()

    assert circuits(told) == ["CircuitOpened", "CircuitClosed"]


def test_a_change_while_it_is_told_is_told_after_it() -> None:
    """If the server answers while somebody is told that it does not, the last thing that is told is how it is."""
    breaker, told = Breaker(Circuit(failures=1), "there:1"), Told()
    began = time.monotonic()

    def answered(event: Event) -> None:
        told.append(event)
        if isinstance(event, CircuitOpened):
            thread = threading.Thread(target=breaker.answered)
            thread.start()
            thread.join()

    with watch(answered):
        breaker.failed(began, timed_out=True)
        assert told == [CircuitOpened("there:1"), CircuitClosed("there:1")]
        breaker.failed(time.monotonic(), timed_out=True)

    assert circuits(told) == ["CircuitOpened", "CircuitClosed"] * 2


def test_an_interrupt_while_it_is_told_is_forgotten() -> None:
    """The next change is told, whatever a signal handler raised during this one."""
    breaker, told = Breaker(Circuit(failures=1), "there:1"), Told()

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with watch(interrupted), pytest.raises(KeyboardInterrupt):
        breaker.failed(time.monotonic(), timed_out=True)
    with watch(told):
        breaker.answered()
        breaker.failed(time.monotonic(), timed_out=True)
        breaker.forked()
        breaker.answered()

    assert circuits(told) == ["CircuitClosed", "CircuitOpened", "CircuitClosed"]


@pytest.mark.parametrize("server", ["valkey", "memcached"])
def test_a_callback_may_ask_when_a_circuit_opens(
    server: str, start_valkey: Callable[..., Valkey], start_memcached: Callable[..., Memcached]
) -> None:
    """It asks the very limiter whose server does not answer. No lock is held that the question needs."""
    running = start_valkey() if server == "valkey" else start_memcached()
    limiter = Limiter({"news": "1000/day"}, running.url, timeout=0.3, circuit=CIRCUIT, on_storage_error="allow")
    errors: list[str] = []

    def asks(event: Event) -> None:
        if isinstance(event, CircuitOpened):
            errors.append(limiter.hit("news", ANA).error or "")

    limiter.hit("news", ANA)
    with limiter.watch(asks):
        running.stop()
        for _ in range(3):
            limiter.hit("news", ANA)
    limiter.close()

    assert len(errors) == 1
    assert errors[0]


def test_rules_of_a_file_are_told(tmp_path: Path) -> None:
    """Changed for each limiter that goes by them, rejected once for the file, with the number of problems."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    source = FileRules(path, interval=3600)
    first, second = Limiter(source), Limiter(source)
    one, everybody = Told(), Told()
    first.watch(one)
    with watch(everybody):
        first.hit("news", ANA)
        first.source.refresh()
        path.write_text('[[rules]]\ntype = "news"\nlimit = "2/day"\n[[rules]]\ntype = "sms"\nlimit = "1/hour"\n')
        first.source.refresh()
        path.write_text('[[rules]]\ntype = "news"\nlimit = "often"\n[[rules]]\ntype = 5\nlimit = "1/hour"\n')
        with pytest.raises(NotifyError):
            first.source.refresh()
        path.unlink()
        with pytest.raises(NotifyError):
            first.source.refresh()
        first.hit("news", ANA)
    first.close()
    second.close()

    changed = RulesChanged(("news", "sms"), repr(source))
    assert one.of(RulesChanged) == [changed]
    assert everybody.of(RulesChanged) == [changed, changed]
    rejected = everybody.of(RulesRejected)
    assert one.of(RulesRejected) == rejected
    assert [(event.source, event.problems) for event in rejected] == [(repr(source), 2), (repr(source), 1)]
    assert "often" in rejected[0].error
    assert one.verdicts == ["allowed", "allowed"]


def test_rules_that_a_limiter_cannot_use_are_told() -> None:
    """A source that fails at the start, or offers what a limiter cannot go by."""
    told = Told()
    with watch(told):
        with pytest.raises(NotifyError):
            Limiter(Offered(limits(news="often")))
        limiter = Limiter(Offered(ValueError(ANA), fallback={"news": "1/day"}, interval=3600))
        limiter.close()

    # The error of the first one reached the caller.
    assert [event.error for event in told.of(RulesRejected)] == ["<Offered> failed with ValueError."]
    assert ANA not in repr(told)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_follows_a_source_decides_and_tells(kind: str, tmp_path: Path) -> None:
    """The events of a limiter that goes by a file are complete, before and after its thread runs."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "2/day"\n')
    limiter: Any = LIMITERS[kind](FileRules(path, interval=3600))
    told = Told()
    limiter.watch(told)
    for _ in range(4):
        limiter.hit("news", ANA)
    limiter.close()
    limiter = None

    assert told.verdicts == ["allowed", "allowed", "refused", "refused"]
