"""The windows of one process, and one lock that covers a whole decision.

`limits`' own memory storage lets too many hits through when threads race, and sweeps all keys on a timer. Here each decision
also looks at a few windows and drops the expired ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from limits.storage import Storage as LimitsStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.engine import LimitsVerbs
from ratelimited_notify.storage.memory.clock import MemoryClock
from ratelimited_notify.storage.memory.packed import MARKS, is_over, packed, unpacked
from ratelimited_notify.storage.memory.shards import Shards
from ratelimited_notify.storage.memory.shortcut import MemoryShortcut, Shared, can_have_shortcut
from ratelimited_notify.storage.memory.yielding_lock import YieldingLock
from ratelimited_notify.storage.timeout import checked_timeout
from ratelimited_notify.storage.uri import parse
from ratelimited_notify.windows.strategies import Pause, look, take

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Record, Request, Shortcut, Token, Verdict, Window


class MemoryStorage(LimitsVerbs, LimitsStorage):
    """Windows in this process's memory, as long as the process lives.

    Arguments:
        clock: a callable that returns seconds; by default the wall time at the start plus the time since.
        timeout: the longest wait for one decision of another thread, in seconds. A call may wait for several.
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
        if uri is not None:
            parse(uri, "memory")
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.clock = clock
        self.timeout = checked_timeout(timeout)
        self.ticking = MemoryClock(clock)
        self.guard = YieldingLock(timeout)
        self.shards = Shards()
        self._shared = Shared(self.shards, self.guard, self.ticking)

    def now(self) -> int:
        """The current instant, in microseconds."""
        return self.ticking.tick() // MARKS

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._decide(windows, keys, cost)

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        # One by one, so that other threads can decide in between.
        return [self._decide(windows, keys, cost) for windows, keys, cost in requests]

    def shortcut(self, windows: Sequence[Window], key_parts: Sequence[tuple[str, str]]) -> Shortcut | None:
        # A subclass may decide in another way.
        if type(self) is not MemoryStorage or not windows or not all(map(can_have_shortcut, windows)):
            return None
        return MemoryShortcut(self._shared, self._decided, windows, key_parts)

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        with self._free():
            now = self.now()
            verdict = look(windows, self._find(windows, keys), now, cost)
            # A caller's clock may go back to before the windows were over, so that dropping them would change what it sees.
            if self.clock is None:
                self.shards.sweep(now, len(keys))
        self.guard.yield_if_asked()
        return verdict

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        given = False
        with self._free():
            now = self.now()
            for window, key, token in zip(windows, keys, tokens, strict=True):
                shard = self.shards.of(key)
                kept = shard.get(key)
                if token is None or kept is None:
                    continue
                record = unpacked(kept, window.strategy)
                if record.give(now, window.period, cost, token):
                    given = True
                    if record.ends(now, window.period) > now:
                        shard[key] = packed(record, window.period)
                    else:
                        del shard[key]
        self.guard.yield_if_asked()
        return given

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        forgotten = 0
        with self._free():
            now = self.now()
            for key in keys:
                kept = self.shards.of(key).pop(key, None)
                forgotten += kept is not None and not is_over(kept, now)
        self.guard.yield_if_asked()
        return forgotten

    def pause(self, window: Window, key: str, duration: int) -> int:
        with self._free():
            shard = self.shards.of(key)
            kept = shard.get(key)
            pause = Pause() if kept is None else cast("Pause", unpacked(kept, "pause"))
            until = pause.extend(self.now() + duration)
            self.shards.added += kept is None
            shard[key] = packed(pause, window.period)
        self.guard.yield_if_asked()
        return until

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        with self._free():
            held = len(self.shards)
            self.shards.clear()
        self.guard.yield_if_asked()
        return held

    def close(self) -> None:
        self.reset()

    def __len__(self) -> int:
        """How many windows are held, including expired ones that have not been swept yet."""
        return len(self.shards)

    def _free(self) -> threading.Lock:
        """The lock, after waiting until it was free. Enter it at once.

        It is not acquired here: only `with` on the lock itself is sure to release it when a signal handler raises.
        """
        lock = self.guard.lock
        if lock.locked() and not self.guard.wait_until_open():
            raise StorageError(
                f"The windows in memory stayed locked for {self.timeout} seconds. "
                "Is the limiter called from a signal handler, or from its own clock?",
                nothing_counted=True,
            )
        return lock

    def _find(self, windows: Sequence[Window], keys: Sequence[str]) -> list[Record]:
        get = self.shards.get
        return [unpacked(get(key), window.strategy) for window, key in zip(windows, keys, strict=True)]

    def _decide(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        with self._free():
            verdict = self._decided(windows, keys, cost, self.ticking.tick())
        self.guard.yield_if_asked()
        return verdict

    def _decided(self, windows: Sequence[Window], keys: Sequence[str], cost: int, tick: int) -> Verdict:
        """The decision at this tick. The caller must hold the lock."""
        now, mark = divmod(tick, MARKS)
        records = self._find(windows, keys)
        verdict = take(windows, records, now, cost, mark)
        if verdict.granted:
            for window, key, record, reading in zip(windows, keys, records, verdict.readings, strict=True):
                if reading.token is not None:
                    shard = self.shards.of(key)
                    self.shards.added += key not in shard
                    shard[key] = packed(record, window.period)
        self.shards.sweep(now, len(keys))
        return verdict
