"""The windows of one process, and one lock that covers a whole decision.

`limits`' own memory storage lets too many through when threads race and sweeps all keys on a timer. Here each decision
looks at a few windows on the way and drops those that are over.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from limits.storage import Storage as LimitsStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.engine import LimitsVerbs
from ratelimited_notify.storage.memory.clock import MemoryClock
from ratelimited_notify.storage.memory.packed import MARKS, is_over, packed, unpacked
from ratelimited_notify.storage.memory.shelves import Shelves
from ratelimited_notify.storage.memory.shortcut import MemoryShortcut, is_ordinary
from ratelimited_notify.windows import look, take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows import Grant, Record, Request, Shortcut, Token, Window


_GIVING_WAY = 1e-4
"""Seconds: long enough that another thread runs, which a pause of 0 does not see to."""


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
        self.timeout = timeout
        self.ticking = MemoryClock(clock)
        self.lock = threading.Lock()
        self.crowded = False
        """Whether somebody has waited so long that the others are to give way after each decision."""
        self.shelves = Shelves()
        _locks[id(self.lock)] = self.lock

    def now(self) -> int:
        """The instant, in microseconds."""
        return self.ticking.tick() // MARKS

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return self._decide(windows, keys, cost)

    def acquire_many(self, requests: Sequence[Request]) -> list[Grant]:
        # One after the other, so that others are not kept waiting.
        return [self._decide(windows, keys, cost) for windows, keys, cost in requests]

    def shortcut(self, windows: Sequence[Window], around: Sequence[tuple[str, str]]) -> Shortcut | None:
        # A class that is made of this one may decide in another way.
        if type(self) is not MemoryStorage or not windows or not all(map(is_ordinary, windows)):
            return None
        return MemoryShortcut(self, windows, around)

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        with self._free():
            now = self.now()
            grant = look(windows, self._find(windows, keys), now, cost)
            self.shelves.sweep(now, len(keys))
        return grant

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        given = False
        with self._free():
            now = self.now()
            for window, key, token in zip(windows, keys, tokens, strict=True):
                shelf = self.shelves.of(key)
                kept = shelf.get(key)
                if token is None or kept is None:
                    continue
                record = unpacked(kept, window.strategy)
                if record.give(now, window.period, cost, token):
                    given = True
                    if record.ends(now, window.period) > now:
                        shelf[key] = packed(record, window.period)
                    else:
                        del shelf[key]
        return given

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        forgotten = 0
        with self._free():
            now = self.now()
            for key in keys:
                kept = self.shelves.of(key).pop(key, None)
                forgotten += kept is not None and not is_over(kept, now)
        return forgotten

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        with self._free():
            held = len(self.shelves)
            self.shelves.clear()
        return held

    def close(self) -> None:
        self.reset()

    def __len__(self) -> int:
        """How many windows are held, those not yet swept included."""
        return len(self.shelves)

    def opens(self) -> bool:
        """Whether the lock, which somebody holds, is open within the timeout.

        Not by waiting for it: threads that queue for a lock pass it round one switch interval at a time, which costs nine
        tenths of the throughput; giving way and looking again does not. Who has looked in vain for long asks the others to
        give way, too, when the lock is open: otherwise they are most likely stopped while they hold it.
        """
        began = time.monotonic()
        long = False
        while self.lock.locked():
            waited = time.monotonic() - began
            if waited > self.timeout:
                return False
            if waited > self.timeout / 8:
                long = self.crowded = True
            time.sleep(0)
        if long:
            self.crowded = False
        return True

    def give_way(self) -> None:
        """Let somebody else come to the lock, which must be open."""
        time.sleep(_GIVING_WAY)

    def _free(self) -> threading.Lock:
        """The lock, to be entered at once: nobody held it just now.

        It is not taken here: only `with` on the lock itself is sure to open it again when a signal handler raises.
        """
        if self.lock.locked() and not self.opens():
            raise StorageError(
                f"The windows in memory stayed locked for {self.timeout} seconds. "
                "Is the limiter called from a signal handler, or by its own clock?"
            )
        return self.lock

    def _find(self, windows: Sequence[Window], keys: Sequence[str]) -> list[Record]:
        get = self.shelves.get
        return [unpacked(get(key), window.strategy) for window, key in zip(windows, keys, strict=True)]

    def _decide(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        with self._free():
            grant = self.decided(windows, keys, cost, self.ticking.tick())
        if self.crowded:
            self.give_way()
        return grant

    def decided(self, windows: Sequence[Window], keys: Sequence[str], cost: int, tick: int) -> Grant:
        """The decision at this tick, for those who hold the lock."""
        now, mark = divmod(tick, MARKS)
        records = self._find(windows, keys)
        grant = take(windows, records, now, cost, mark)
        if grant.granted:
            for window, key, record, reading in zip(windows, keys, records, grant.readings, strict=True):
                if reading.token is not None:
                    shelf = self.shelves.of(key)
                    self.shelves.came += key not in shelf
                    shelf[key] = packed(record, window.period)
        self.shelves.sweep(now, len(keys))
        return grant


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
