"""A Redis server that hangs: what a decision costs in the meantime, and how soon hits are counted again afterwards."""

from __future__ import annotations

import asyncio
import logging
import statistics
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from measured import Figure

from ratelimited_notify import AsyncLimiter, Limiter
from servers import valkey_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measured import Effort

    from servers import Valkey

_RULES = {"news": "1000000000/day"}
_THREADS = 80
_TASKS = 1000
_STOPPED = 1.2
"""How long the server hangs, in seconds."""


def one_caller(effort: Effort) -> list[Figure]:
    """A caller in a loop: the calls after the first three, which time out."""
    server = valkey_server()
    try:
        with Limiter(_RULES, server.url, on_storage_error="deny") as limiter, _quiet():
            limiter.hit("news", "ana@example.com")
            server.pause()
            waited = [_seconds(limiter) for _ in range(3)]
            later = [_seconds(limiter) for _ in range(50 * effort.rounds)]
            server.resume()
    finally:
        server.remove()
    note = f"the first three calls took {sum(waited):.2f} s together, the longest later call {max(later):.2f} s"
    return [Figure("stopped-call", statistics.median(later) * 1000, note=note)]


def _seconds(limiter: Limiter) -> float:
    started = time.perf_counter()
    limiter.hit("news", "ana@example.com")
    return time.perf_counter() - started


def crowds(effort: Effort) -> list[Figure]:
    """Many callers that never pause: the time from the return of the server to the first counted decision."""
    times = max(3, effort.rounds // 20)
    return [
        Figure("stopped-threads", 1000 * max(_threads() for _ in range(times)), note=f"the longest of {times} times"),
        Figure(
            "stopped-tasks",
            1000 * max(asyncio.run(_tasks()) for _ in range(times)),
            note=f"the longest of {times} times",
        ),
    ]


def _threads() -> float:
    server = valkey_server()
    counted: list[float] = []
    over = threading.Event()
    try:
        with Limiter(_RULES, server.url, on_storage_error="allow") as limiter, _quiet():

            def ask(number: int) -> None:
                while not over.is_set():
                    if limiter.hit("news", f"person.{number}@example.com").error is None:
                        counted.append(time.monotonic())

            callers = [threading.Thread(target=ask, args=(number,)) for number in range(_THREADS)]
            for caller in callers:
                caller.start()
            back = _stopped_for_a_while(server)
            _wait(counted, back)
            over.set()
            for caller in callers:
                caller.join()
    finally:
        over.set()
        server.remove()
    return min(when for when in counted if when > back) - back


async def _tasks() -> float:
    server = valkey_server()
    counted: list[float] = []
    over = False
    try:
        async with AsyncLimiter(_RULES, server.url, on_storage_error="allow") as limiter:
            with _quiet():

                async def ask(number: int) -> None:
                    while not over:
                        if (await limiter.hit("news", f"person.{number}@example.com")).error is None:
                            counted.append(time.monotonic())

                callers = [asyncio.create_task(ask(number)) for number in range(_TASKS)]
                back = await asyncio.to_thread(_stopped_for_a_while, server)
                await asyncio.to_thread(_wait, counted, back)
                over = True
                await asyncio.gather(*callers)
    finally:
        server.remove()
    return min(when for when in counted if when > back) - back


def _stopped_for_a_while(server: Valkey) -> float:
    """Pause the server for some time, and return the instant at which it answers again."""
    time.sleep(0.5)
    server.pause()
    time.sleep(_STOPPED)
    server.resume()
    return time.monotonic()


def _wait(counted: list[float], back: float) -> None:
    """Wait until a decision is counted after this instant, for at most ten seconds."""
    while time.monotonic() < back + 10 and not any(when > back for when in counted[-100:]):
        time.sleep(0.005)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log lines about hits that were not counted."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


MEASUREMENTS = (one_caller, crowds)
