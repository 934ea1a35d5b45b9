"""The SQLite storage for asyncio."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import finalize

from limits.aio.storage import Storage as AsyncLimitsStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.engine import AsyncLimitsVerbs
from ratelimited_notify.storage.sqlite import failures
from ratelimited_notify.storage.sqlite.decide import GROUP
from ratelimited_notify.storage.sqlite.sync import SQLiteStorage
from ratelimited_notify.storage.sqlite.worker import Late, Worker
from ratelimited_notify.windows.strategies import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Token, Verdict, Window

T = TypeVar("T")

_SPARE = 0.05
"""Seconds that a call may take longer than its time-out."""

_CLOSING = 5.0
"""Seconds that `close` waits for the calls before it, and for the disk."""


class AsyncSQLiteStorage(AsyncLimitsVerbs, AsyncLimitsStorage):
    """`SQLiteStorage` with async methods. They wait for locks and disks in one thread, which ends with `close`.
    Decisions of tasks that wait at the same time are made in one transaction.

    If a call is cancelled, its hit is not counted, or given back as soon as the thread comes to it.
    """

    STORAGE_SCHEME = ["async+notify+sqlite"]

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
        self._storage = SQLiteStorage(uri, timeout=timeout, clock=clock)
        self.path = self._storage.path
        """The file."""
        self.timeout = self._storage.timeout
        self.now = self._storage.now
        self._worker = Worker(self._storage.acquire_together)
        finalize(self, self._worker.stop)

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        undo = partial(self._release, windows, keys, cost)
        try:
            return await self._worker.decide(Request(windows, keys, cost), self.timeout + _SPARE, undo)
        except Late:
            raise failures.late(self._storage.path, self.timeout) from None

    async def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        # The time-out applies to each group.
        groups = max(1, -(-len(requests) // GROUP))
        return await self._run(
            partial(self._storage.acquire_many, requests),
            partial(self._storage.abandon, requests),
            groups * self.timeout + _SPARE,
        )

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(partial(self._storage.peek, windows, keys, cost))

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return await self._run(partial(self._storage.release, windows, keys, cost, tokens))

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return await self._run(partial(self._storage.forget, windows, keys))

    async def pause(self, window: Window, key: str, duration: int) -> int:
        return await self._run(partial(self._storage.pause, window, key, duration))

    async def check(self) -> bool:
        """Whether the file can be used."""
        try:
            await self._run(self._storage.probe)
        except StorageError:
            return False
        return True

    async def reset(self) -> int | None:
        """Delete all windows. Returns how many recipients had some."""
        return await self._run(self._storage.reset)

    async def close(self) -> None:
        try:
            await self._run(self._storage.close, seconds=max(self.timeout, _CLOSING))
        finally:
            self._worker.stop()

    def _release(self, windows: Sequence[Window], keys: Sequence[str], cost: int, verdict: Verdict) -> None:
        self._storage.abandon([(windows, keys, cost)], [verdict])

    async def _run(
        self, work: Callable[[], T], undo: Callable[[T], object] | None = None, seconds: float | None = None
    ) -> T:
        try:
            return await self._worker.run(work, self.timeout + _SPARE if seconds is None else seconds, undo)
        except Late:
            raise failures.late(self._storage.path, self.timeout) from None
