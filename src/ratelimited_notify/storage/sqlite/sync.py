"""The SQLite storage for threads."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING
from weakref import finalize

from limits.storage import Storage as LimitsStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.engine import WALL_CLOCK, LimitsVerbs, bounded_clock
from ratelimited_notify.storage.sqlite import decide, failures, rows
from ratelimited_notify.storage.sqlite.connection import Database
from ratelimited_notify.storage.timeout import ALLOWED, checked_timeout, is_timeout
from ratelimited_notify.storage.uri import parse, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sqlite3 import Cursor

    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

_SWEEP_EVERY = 16
"""One transaction in this many looks for windows that are over."""

_SWEPT = 64
"""The most recipients whose windows are deleted then."""


class SQLiteStorage(LimitsVerbs, LimitsStorage):
    """Windows in an SQLite file, exact across the threads and processes of one machine.

    The file is opened at the first call, and made if it is not there. It holds windows and nothing else.

    Arguments:
        uri: `sqlite:///windows.db` for a file in the current folder, `sqlite:////var/lib/app/windows.db` for an absolute
            path. With `?synchronous=full` each decision waits until the disk has it.
        timeout: the longest time that one call waits for its turn, in seconds; 0.5 by default. `?timeout=` in the URI takes
            precedence. In `acquire_many` it applies to each group of 250 requests. How long the disk takes has no limit.
        clock: a callable that returns seconds; by default this machine's wall clock, which its other processes agree with.
    """

    STORAGE_SCHEME = ["notify+sqlite"]

    exact = True

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.path, full, seconds = options_of(uri)
        """The file."""
        checked_timeout(timeout)
        self.timeout = timeout if seconds is None else seconds
        # `MemcachedStorage` says why this is the wall clock: here, too, several processes write stamps into the same windows.
        self.now = bounded_clock(clock or WALL_CLOCK)
        self._database = Database(self.path, self.timeout, full=full)
        # A random start, so that no hit of another process has the same mark.
        self._marks = count(randbits(60))
        # The first transaction sweeps, because it may be the only one of this process.
        self._until_sweep = 0
        finalize(self, self._database.close)

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._database.write(self.deadline(), self._acquire, windows, keys, cost)

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        try:
            for start in range(0, len(requests), decide.GROUP):
                group = requests[start : start + decide.GROUP]
                verdicts += self._database.write(self.deadline(), self._acquire_many, group)
        except StorageError as error:
            try:
                self.abandon(requests, verdicts)
            except StorageError:
                raise failures.batch_counted(error, len(verdicts)) from error
            raise
        return verdicts

    def acquire_together(self, requests: Sequence[Request]) -> list[Verdict | Exception]:
        """`acquire` for each of at most 250 requests that have nothing to do with each other: an error is one request's own, unless
        it is about the file.
        """
        deadline = self.deadline()
        if len(requests) > 1:
            try:
                return list(self._database.write(deadline, self._acquire_many, requests))
            except StorageError as error:
                if time.monotonic() >= deadline:
                    return [StorageError(str(error), nothing_counted=error.nothing_counted) for _ in requests]
        found: list[Verdict | Exception] = []
        for request in requests:
            try:
                found.append(self.acquire(*request))
            except Exception as error:  # noqa: BLE001  # it is raised where the verdict is awaited
                found.append(error)
        return found

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._database.read(self.deadline(), self._peek, windows, keys, cost)

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self._database.write(self.deadline(), self._release, windows, keys, cost, tokens)

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self._database.write(self.deadline(), self._forget, keys)

    def pause(self, window: Window, key: str, duration: int) -> int:
        return self._database.write(self.deadline(), self._pause, window, key, duration)

    def check(self) -> bool:
        """Whether the file can be used."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Check that the file can be written. Raises a `StorageError` that says why not."""
        self._database.write(self.deadline(), _nothing)

    def reset(self) -> int | None:
        """Delete all windows. Returns how many recipients had some."""
        return self._database.write(self.deadline(), rows.delete_all)

    def close(self) -> None:
        self._database.close()

    def deadline(self) -> float:
        """The instant until which a call that begins now may wait, by `time.monotonic`."""
        return time.monotonic() + self.timeout

    def _acquire(self, cursor: Cursor, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        now = self.now()
        verdict, changed = decide.acquire(cursor, windows, keys, cost, now, next(self._marks))
        if changed:
            self._sweep(cursor, now, 1)
        return verdict

    def _acquire_many(self, cursor: Cursor, requests: Sequence[Request]) -> list[Verdict]:
        now = self.now()
        verdicts, changed = decide.acquire_many(cursor, requests, now, self._marks)
        if changed:
            self._sweep(cursor, now, len(requests))
        return verdicts

    def _peek(self, cursor: Cursor, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return decide.peek(cursor, windows, keys, cost, self.now())

    def _release(
        self,
        cursor: Cursor,
        windows: Sequence[Window],
        keys: Sequence[str],
        cost: int,
        tokens: Sequence[Token | None],
    ) -> bool:
        return decide.release(cursor, windows, keys, cost, tokens, self.now())

    def _pause(self, cursor: Cursor, window: Window, key: str, duration: int) -> int:
        now = self.now()
        return decide.pause(cursor, window, key, now + duration, now)

    def _forget(self, cursor: Cursor, keys: Sequence[str]) -> int:
        return decide.forget(cursor, keys, self.now())

    def _sweep(self, cursor: Cursor, now: int, decisions: int) -> None:
        self._until_sweep -= decisions
        if self._until_sweep <= 0:
            self._until_sweep = _SWEEP_EVERY
            rows.sweep(cursor, now, max(_SWEPT, 4 * decisions))

    def abandon(
        self, requests: Sequence[tuple[Sequence[Window], Sequence[str], int]], verdicts: Sequence[Verdict]
    ) -> None:
        """Give back the hits of the first requests of a batch."""
        if verdicts:
            self._database.write(self.deadline(), self._release_many, requests, verdicts)

    def _release_many(
        self,
        cursor: Cursor,
        requests: Sequence[tuple[Sequence[Window], Sequence[str], int]],
        verdicts: Sequence[Verdict],
    ) -> None:
        for (windows, keys, cost), verdict in zip(requests, verdicts, strict=False):
            self._release(cursor, windows, keys, cost, [reading.token for reading in verdict.readings])


def options_of(uri: str) -> tuple[Path, bool, float | None]:
    """The absolute path that a URI names, whether each decision is to wait for the disk, and the time-out if it says one.

    Raises:
        NotifyError: the URI is not understood as it is written.
    """
    parsed = parse(uri, "sqlite")
    options = dict(parsed.options)
    synchronous = options.pop("synchronous", "normal")
    seconds = options.pop("timeout", None)
    if options or synchronous not in ("normal", "full"):
        raise refused(
            "sqlite", "the only options after the ? are synchronous=full or synchronous=normal, and timeout=SECONDS"
        )
    return Path(parsed.path or "").absolute(), synchronous == "full", None if seconds is None else _seconds(seconds)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not is_timeout(seconds):
        raise refused("sqlite", f"timeout= must be {ALLOWED}")
    return seconds


def _nothing(_: Cursor) -> None:
    """Change nothing."""
