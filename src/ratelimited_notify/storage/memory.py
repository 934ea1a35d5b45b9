"""Windows in this process: exact under threads, no thread of its own, one set for sync and async callers.

`limits`' own memory storage lets too many through when threads race and sweeps all keys on a timer. Here one lock covers
a whole decision, and each decision looks at a few windows on the way and drops those that are over.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from limits.aio.storage import Storage as AsyncLimitsStorage
from limits.storage import Storage as LimitsStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.engine import AsyncLimitsVerbs, LimitsVerbs, bounded_clock
from ratelimited_notify.windows import RECORDS, look, take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows import Grant, Record, Request, Token, Window

# More than one, so that the sweep catches up with windows that come and go: with three, at most half as many again are
# held as are in use.
_SWEPT_PER_WINDOW = 3


class MemoryStorage(LimitsVerbs, LimitsStorage):
    """Windows in this process's memory, for its life.

    Arguments:
        clock: a callable that gives seconds; by default the wall time at the start plus the time since.
        timeout: the longest wait for another thread's decision, in seconds.
    """

    STORAGE_SCHEME = ["notify+memory"]

    exact = True

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        clock: Callable[[], float] | None = None,
        timeout: float = 0.5,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.clock = clock
        self.now = bounded_clock(clock)
        self.timeout = timeout
        self._lock = threading.Lock()
        self._records: dict[str, tuple[Record, int]] = {}
        self._marks = count()
        # Every stored key, once, in the order in which the sweep comes by.
        self._round: deque[str] = deque()
        _locks[id(self._lock)] = self._lock

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        with self._free():
            return self._acquire(windows, keys, cost)

    def acquire_many(self, requests: Sequence[Request]) -> list[Grant]:
        grants: list[Grant] = []
        for windows, keys, cost in requests:
            with self._free():
                grants.append(self._acquire(windows, keys, cost))
        return grants

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        with self._free():
            return look(windows, self._find(windows, keys), self.now(), cost)

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        given = False
        with self._free():
            now = self.now()
            for window, key, token in zip(windows, keys, tokens, strict=True):
                kept = self._records.get(key)
                if token is not None and kept is not None:
                    given = kept[0].give(now, window.period, cost, token) or given
        return given

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        with self._free():
            now = self.now()
            forgotten = 0
            for window, key in zip(windows, keys, strict=True):
                kept = self._records.get(key)
                if kept is not None:
                    forgotten += now < kept[0].ends(now, kept[1])
                    # The key stays until the sweep comes by: taken out here and stored again, it would be in the round twice.
                    self._records[key] = RECORDS[window.strategy](), window.period
        return forgotten

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        with self._free():
            held = len(self._records)
            self._records.clear()
            self._round.clear()
        return held

    def close(self) -> None:
        self.reset()

    def __len__(self) -> int:
        """How many windows are held, those not yet swept included."""
        return len(self._records)

    def _free(self) -> threading.Lock:
        """The lock, to be entered at once: nobody held it just now.

        Not a plain wait: threads that queue for a lock pass it round one switch interval at a time, which costs nine tenths
        of the throughput; giving way and looking again does not. And not taken here: only `with` on the lock itself is sure
        to open it again when a signal handler raises.
        """
        lock = self._lock
        if lock.locked():
            deadline = time.monotonic() + self.timeout
            while lock.locked():
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"The windows in memory stayed locked for {self.timeout} seconds. "
                        "Is the limiter called from a signal handler, or by its own clock?"
                    )
                time.sleep(0)
        return lock

    def _find(self, windows: Sequence[Window], keys: Sequence[str]) -> list[Record]:
        records = self._records
        return [
            kept[0] if (kept := records.get(key)) is not None else RECORDS[window.strategy]()
            for window, key in zip(windows, keys, strict=True)
        ]

    def _acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        now = self.now()
        found = self._find(windows, keys)
        grant = take(windows, found, now, cost, next(self._marks))
        if grant.granted:
            records = self._records
            for window, key, record, reading in zip(windows, keys, found, grant.readings, strict=True):
                if reading.token is not None and key not in records:
                    records[key] = record, window.period
                    self._round.append(key)
        self._sweep(now, _SWEPT_PER_WINDOW * len(keys))
        return grant

    def _sweep(self, now: int, swept: int) -> None:
        upcoming, records = self._round, self._records
        for _ in range(min(swept, len(upcoming))):
            key = upcoming.popleft()
            record, period = records[key]
            if now < record.ends(now, period):
                upcoming.append(key)
            else:
                del records[key]


class AsyncMemoryStorage(AsyncLimitsVerbs, AsyncLimitsStorage):
    """A `MemoryStorage` as coroutines see it: the same windows, and nothing to wait for."""

    STORAGE_SCHEME = ["async+notify+memory"]

    exact = True

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        windows: MemoryStorage | None = None,
        clock: Callable[[], float] | None = None,
        timeout: float = 0.5,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.windows = MemoryStorage(clock=clock, timeout=timeout) if windows is None else windows
        self.clock = self.windows.clock

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return self.windows.acquire(windows, keys, cost)

    async def acquire_many(self, requests: Sequence[Request]) -> list[Grant]:
        return self.windows.acquire_many(requests)

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return self.windows.peek(windows, keys, cost)

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self.windows.release(windows, keys, cost, tokens)

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self.windows.forget(windows, keys)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return self.windows.reset()

    async def close(self) -> None:
        self.windows.close()


_locks: WeakValueDictionary[int, threading.Lock] = WeakValueDictionary()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    # A child has only the thread that forked: a decision that another was in the middle of would be copied half done, with
    # a lock that nobody opens.
    for reference in _locks.valuerefs():
        lock = reference()
        if lock is not None and lock.acquire(timeout=0.5):
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
