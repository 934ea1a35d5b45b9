"""What the tests of memcached share: keys, windows, a clock, and storages of both kinds that look alike."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.keys import split
from ratelimited_notify.windows.strategies import MICROSECONDS, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Memcached

SECOND, DAY = MICROSECONDS, 24 * 3600 * MICROSECONDS
PATIENT = 30.0
"""Seconds for tests in which much happens at once, on machines with little to run it on."""

_numbers = itertools.count()


def someone() -> str:
    """A recipient that no other test has."""
    return f"recipient-{os.getpid()}-{next(_numbers)}"


def key(recipient: str, window: Window, number: int = 0) -> str:
    return f"test:{{{recipient}}}:rule{number}:{window.strategy[0]}"


def item_of(recipient: str) -> str:
    """Under which key memcached holds this recipient's windows."""
    return split(key(recipient, moving(1)))[0]


def moving(amount: int, seconds: float = 3600, **options: Any) -> Window:
    return Window("moving-window", amount, round(seconds * SECOND), **{"rule": "news", **options})


def fixed(amount: int, seconds: float = 3600, **options: Any) -> Window:
    return Window("fixed-window", amount, round(seconds * SECOND), **{"rule": "news", **options})


def sliding(amount: int, seconds: float = 3600, **options: Any) -> Window:
    return Window("sliding-window-counter", amount, round(seconds * SECOND), **{"rule": "news", **options})


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.microseconds = 1_700_000_000 * SECOND

    def __call__(self) -> float:
        return self.microseconds / MICROSECONDS


class Waiting:
    """An asyncio storage as a sync one: each call runs to its end in one event loop."""

    def __init__(self, storage: AsyncMemcachedStorage, runner: asyncio.Runner) -> None:
        self.storage = storage
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.storage, name)
        return lambda *arguments: self._runner.run(call(*arguments))


@pytest.fixture(params=["sync", "asyncio"])
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Open a storage: `opened(url, **options)`; each test runs on the sync and on the asyncio one."""
    storages: list[Any] = []
    with asyncio.Runner() as runner:

        def open_one(url: str, **options: Any) -> Any:
            if request.param == "sync":
                storages.append(MemcachedStorage(url, **options))
            else:
                storages.append(Waiting(AsyncMemcachedStorage(url, **options), runner))
            return storages[-1]

        yield open_one
        for storage in storages:
            storage.close()


@pytest.fixture
def storage(opened: Callable[..., Any], memcached: Memcached) -> Any:
    """A storage on the server of this test run."""
    return opened(memcached.url, timeout=PATIENT)


def statistics(server: Memcached) -> dict[str, int]:
    lines = (line.split() for line in server.ask(b"stats\r\n", b"END\r\n").decode().splitlines())
    return {words[1]: int(words[2]) for words in lines if len(words) == 3 and words[2].isdecimal()}


def hang(server: Memcached) -> None:
    """Stop the server, and wait until all of its threads have."""
    server.pause()
    time.sleep(0.1)
