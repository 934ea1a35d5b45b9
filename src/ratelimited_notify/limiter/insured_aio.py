"""The insurance of an `AsyncLimiter`: how it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.limiter.batch import requests
from ratelimited_notify.limiter.failure_budget import ENDLESS
from ratelimited_notify.limiter.insurance import Answer, Insurance, both_failed
from ratelimited_notify.storage.base import AsyncStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.limiter.failure_budget import FailureBudget
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.receipt import Receipt
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.windows.strategies import Request, VerdictLike


class AsyncInsured(Insurance[AsyncStorage]):
    """The insurance of an `AsyncLimiter`."""

    async def hit(self, storage: AsyncStorage, query: Query) -> Answer:
        """Ask the storage about one hit; if that fails, ask the insurance."""
        try:
            if self.debts:
                verdict = (await self._acquire_owed(storage, [query.request()]))[0]
            else:
                verdict = await storage.acquire(query.windows, query.keys, query.cost)
        except StorageError as error:
            return await self._decide([query], error)
        if not verdict.granted:
            return Answer([verdict])
        # Most hits take this way.
        outcome = self.copied_at_once(query)
        notes = await self._copy([query], [verdict]) if outcome is None else [(0, outcome)]
        return Answer([verdict], notes=notes)

    async def hit_each(
        self, storage: AsyncStorage, queries: Sequence[Query], patience: FailureBudget = ENDLESS
    ) -> Answer:
        """`hit` for each query."""
        try:
            patience.check()
            asked = requests(queries)
            verdicts: Sequence[VerdictLike] = ()
            if asked:
                verdicts = await self._acquire_owed(storage, asked) if self.debts else await storage.acquire_many(asked)
            patience.answered()
        except StorageError as error:
            patience.failed(error)
            return await self._decide(queries, error)
        return Answer(verdicts, notes=await self._copy(queries, verdicts))

    async def _acquire_owed(self, storage: AsyncStorage, asked: Sequence[Request]) -> Sequence[VerdictLike]:
        """Ask the storage, and add to it first what the windows owe."""
        together, places, due = self.due(asked)
        try:
            verdicts = await storage.acquire_many(together)
        except StorageError as error:
            self.undone(due, error)
            raise
        return verdicts if len(together) == len(places) else [verdicts[place] for place in places]

    async def _copy(self, queries: Sequence[Query], verdicts: Sequence[VerdictLike]) -> Sequence[tuple[int, object]]:
        """Count what the storage granted. Returns what is noted about that."""
        if not self.copies:
            return ()
        number = 1
        try:
            copies = self.copies_of(queries, verdicts)
            copied = copies.requests
            if not copied:
                return copies.notes
            number = len(copied)
            counted = (
                [await self.storage.acquire(*copied[0])] if number == 1 else await self.storage.acquire_many(copied)
            )
        except StorageError as error:
            self.failed(error, number)
            return ()
        self.works()
        return copies.counted(counted)

    async def test(self, query: Query, error: StorageError) -> Answer:
        """What `hit` would answer if the storage fails with this error, without counting anything."""
        try:
            return Answer([await self.storage.peek(*self.question(query))], error)
        except StorageError as failed:
            return both_failed(error, failed)

    async def _decide(self, queries: Sequence[Query], error: StorageError) -> Answer:
        questions = [self.question(query) for query in queries if query.windows]
        verdicts: Sequence[VerdictLike] = ()
        try:
            if len(questions) == 1:
                verdicts = [await self.storage.acquire(*questions[0])]
            elif questions:
                verdicts = await self.storage.acquire_many(questions)
        except StorageError as failed:
            return both_failed(error, failed)
        return Answer(verdicts, error)

    async def release(self, receipt: Receipt) -> None:
        """Give back the copy of a hit, or the debt."""
        copy = self.copy_in(receipt)
        if copy is not None:
            try:
                await self.storage.release(*copy)
            except StorageError as error:
                self.failed(error)

    async def forget(self, windows: Sequence[Counter], keys: Sequence[str]) -> None:
        """Empty these windows, and forget what they owe."""
        if keys:
            self.debts.forget(keys)
            try:
                await self.storage.forget(windows, keys)
            except StorageError as error:
                self.failed(error)

    async def pause(self, window: Counter, key: str, duration: int) -> None:
        """Pause a rule, unless a storage of `limits` keeps the windows."""
        try:
            await self.storage.pause(window, key, duration)
        except StorageError as error:
            self.failed(error)
        except NotifyError:
            # It keeps no pauses.
            pass
