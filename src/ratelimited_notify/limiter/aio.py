"""`Limiter` for asyncio."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import StorageError
from ratelimited_notify.limiter.base import BaseLimiter
from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.failure_budget import ENDLESS
from ratelimited_notify.limiter.options import check_slept
from ratelimited_notify.limiter.refund import give_back_async

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from datetime import datetime
    from typing import Self

    from ratelimited_notify.limiter.failure_budget import FailureBudget
    from ratelimited_notify.limiter.insured_aio import AsyncInsured
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.window_state import WindowState
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import VerdictLike


class AsyncLimiter(BaseLimiter["AsyncStorage"]):
    """A `Limiter` for asyncio. One object serves several event loops, one after another or at the same time."""

    def _open(self, storage: str | AsyncStorage | Storage) -> AsyncStorage:
        from ratelimited_notify.storage.open import adopt_async, open_async_storage

        if isinstance(storage, str):
            return open_async_storage(storage, timeout=self._timeout, clock=self._clock, circuit=self._circuit)
        self._check_clock_of(storage)
        return adopt_async(storage)

    def _insured_by(self) -> type[AsyncInsured]:
        from ratelimited_notify.limiter.insured_aio import AsyncInsured

        return AsyncInsured

    def _found_insurance(self) -> AsyncInsured:
        if self._insurance is None:
            self.storage  # noqa: B018  # opens it, and the insurance with it
        return cast("AsyncInsured", self._insurance)

    async def hit(
        self,
        type: str,
        recipient: Recipient,
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> Decision:
        """Like `Limiter.hit`. If it is cancelled, it is unknown whether the hit was counted, and it is not given back."""
        decision = self._decide_by_shortcut(type, recipient, cost, priority, fields)
        if decision is not None:
            return decision
        query = self._prepare(type, recipient, cost, priority, fields, hit=True)
        if isinstance(query, Decision):
            return query
        if self._is_insured:
            return self._insured([query], await self._found_insurance().hit(self.storage, query))[0]
        try:
            verdict = await self.storage.acquire(query.windows, query.keys, query.cost)
        except StorageError as error:
            return self._failed([query], error)[0]
        return self._hit_decision(query, verdict)

    async def test(
        self,
        type: str,
        recipient: Recipient,
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> Decision:
        """Like `Limiter.test`."""
        query = self._prepare(type, recipient, cost, priority, fields, hit=False)
        if isinstance(query, Decision):
            return query
        try:
            verdict = await self.storage.peek(query.windows, query.keys, query.cost)
        except StorageError as error:
            if self._is_insured:
                answer = await self._found_insurance().test(query, error)
                return self._insured([query], answer, tested=True)[0]
            return self._failed([query], error, tested=True)[0]
        return self._test_decision(query, verdict)

    async def hit_many(
        self,
        type: str,
        recipients: Iterable[Recipient],
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> list[Decision]:
        """Like `Limiter.hit_many`."""
        if self._is_off():
            return [self._off_decision(type, recipient, cost) for recipient in recipients]
        queries = self._query_each(type, recipients, cost, priority, fields)
        if self._is_insured:
            return self._insured(queries, await self._found_insurance().hit_each(self.storage, queries))
        try:
            verdicts = await self._acquire_many(queries)
        except StorageError as error:
            return self._failed(queries, error)
        return self._decisions(queries, verdicts)

    async def decide(
        self, batch: Iterable[Notification], patience: FailureBudget = ENDLESS
    ) -> list[Decision | Exception]:
        """Like `Limiter.decide`."""
        from ratelimited_notify.limiter.batch import merge_decisions, queries_among

        known = self._queries_for(batch)
        queries = queries_among(known)
        if self._is_insured:
            answer = await self._found_insurance().hit_each(self.storage, queries, patience)
            try:
                return merge_decisions(known, self._insured(queries, answer))
            except StorageError as error:
                return merge_decisions(known, self._undecided(queries, error))
        try:
            patience.check()
            answers: Sequence[Decision | Exception] = self._decisions(queries, await self._acquire_many(queries))
            patience.answered()
        except StorageError as error:
            patience.failed(error)
            answers = self._decisions_without_storage(queries, error)
        return merge_decisions(known, answers)

    async def _acquire_many(self, queries: Iterable[Query]) -> Sequence[VerdictLike]:
        from ratelimited_notify.limiter.batch import requests

        asked = requests(queries)
        return await self.storage.acquire_many(asked) if asked else []

    async def release(self, decision: Decision) -> bool:
        """Like `Limiter.release`."""
        receipt = self._receipt(decision)
        if receipt is None:
            return False
        insurance = self._found_insurance() if self._is_insured else None
        try:
            if insurance is not None:
                await insurance.release(receipt)
            storage = insurance.storage if insurance is not None and decision.degraded else self.storage
            decision.released = await storage.release(receipt.windows, receipt.keys, receipt.cost, receipt.tokens)
        except StorageError as error:
            self._tell_failure(error, policy="raise")
            raise
        finally:
            self._changed(receipt.windows, receipt.keys)
        return self._tell_release(decision)

    @asynccontextmanager
    async def reserve(
        self,
        type: str,
        recipient: Recipient,
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> AsyncGenerator[Decision]:
        """Like `Limiter.reserve`."""
        # Before the body: when that has failed, it may be because no more files can be opened.
        from ratelimited_notify.limiter.outcome import outcome_unknown

        handled = sys.exception()
        decision = await self.hit(type, recipient, cost=cost, priority=priority, **fields)
        try:
            yield decision
        except BaseException as error:
            if not outcome_unknown(error, handled=handled):
                await give_back_async(self, [decision])
            raise

    async def windows(self, type: str, recipient: Recipient, /, **fields: Recipient | None) -> tuple[WindowState, ...]:
        """Like `Limiter.windows`."""
        query = self._prepare(type, recipient, 1, None, fields, hit=False)
        if isinstance(query, Decision):
            return ()
        with self._telling_failure():
            verdict = await self.storage.peek(query.windows, query.keys, 1)
        return self._test_decision(query, verdict).windows

    async def clear(
        self, type: str, recipient: Recipient, /, *, shared: bool = False, **fields: Recipient | None
    ) -> int:
        """Like `Limiter.clear`."""
        query = self._prepare(type, recipient, 1, None, fields, hit=False)
        if isinstance(query, Decision):
            return 0
        windows, keys = self._windows_to_clear(query, shared)
        try:
            with self._telling_failure():
                forgotten = await self.storage.forget(windows, keys) if windows else 0
            if self._is_insured:
                await self._found_insurance().forget(windows, keys)
            return forgotten
        finally:
            self._changed(windows, keys)

    async def pause(self, rule: str, seconds: float, /, **fields: Recipient | None) -> datetime | None:
        """Like `Limiter.pause`."""
        if self._is_off():
            return None
        from ratelimited_notify.limiter.pauses import duration_of
        from ratelimited_notify.limiter.window_state import utc

        duration = duration_of(seconds)
        window, key = self._pause_window(rule, fields)
        if self._is_insured:
            await self._found_insurance().pause(window, key, duration)
        with self._telling_failure():
            return utc(await self.storage.pause(window, key, duration))

    async def resume(self, rule: str, /, **fields: Recipient | None) -> bool:
        """Like `Limiter.resume`."""
        if self._is_off():
            return False
        window, key = self._pause_window(rule, fields)
        try:
            with self._telling_failure():
                forgotten = await self.storage.forget([window], [key])
            if self._is_insured:
                await self._found_insurance().forget([window], [key])
            return forgotten > 0
        finally:
            self._changed([window], [key])

    async def wait(self, seconds: float) -> None:
        """Like `Limiter.wait`."""
        import asyncio

        sleep = getattr(self._clock, "sleep", None)
        if sleep is not None:
            check_slept(sleep(seconds))
        await asyncio.sleep(0 if sleep else seconds)

    async def close(self) -> None:
        """Like `Limiter.close`."""
        self._leave_source()
        if self._owned and self._storage is not None:
            await self._storage.close()
            self._rules_changed()
        if self._insurance is not None and self._insurance.owned:
            await self._insurance.storage.close()

    async def refresh_rules(self) -> bool:
        """Ask the source of the rules now, like `source.refresh()`, and let other tasks run meanwhile.

        If limiting is switched off, nothing is asked.
        """
        if self._is_off():
            return False
        from ratelimited_notify.sources.aside import refreshed

        return await refreshed(self.source)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
