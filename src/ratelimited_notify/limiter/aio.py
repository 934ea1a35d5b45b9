"""`Limiter` for asyncio."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ratelimited_notify.errors import StorageError
from ratelimited_notify.limiter.base import Asking, stays_counted
from ratelimited_notify.limiter.batch import ENDLESS, filled_in, questions_among, requests
from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.refund import outcome_unknown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from typing import Self

    from ratelimited_notify.limiter.batch import Patience, Question
    from ratelimited_notify.limiter.decision import WindowState
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Answer


class AsyncLimiter(Asking["AsyncStorage"]):
    """A `Limiter` to await. One object serves several event loops, one after another and at once."""

    def _open(self, storage: str | AsyncStorage | Storage) -> AsyncStorage:
        from ratelimited_notify.storage.open import adopt_async, open_async_storage

        if isinstance(storage, str):
            return open_async_storage(storage, timeout=self._timeout, clock=self._clock, circuit=self._circuit)
        self._check_clock_of(storage)
        return adopt_async(storage)

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
        """As `Limiter.hit`. Where it is cancelled, whether the hit was counted is unknown, and it is not given back."""
        decision = self._at_once(type, recipient, cost, priority, fields)
        if decision is not None:
            return decision
        question = self._ask(type, recipient, cost, priority, fields)
        if not question.windows:
            return self._unlimited(question)
        remembered, asked = self._recall(question)
        if remembered is not None:
            return remembered
        try:
            grant = await self.storage.acquire(question.windows, question.keys, question.cost)
        except StorageError as error:
            return self._failed([question], error)[0]
        self._note(question, grant, asked)
        return self._granted(question, grant)

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
        """As `Limiter.test`."""
        if self._is_off():
            return Decision(type, recipient, cost, True)
        question = self._ask(type, recipient, cost, priority, fields)
        if not question.windows:
            return self._unlimited(question)
        try:
            grant = await self.storage.peek(question.windows, question.keys, question.cost)
        except StorageError as error:
            return self._failed([question], error, tested=True)[0]
        return self._seen(question, grant)

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
        """As `Limiter.hit_many`."""
        if self._is_off():
            return [Decision(type, recipient, cost, True) for recipient in recipients]
        questions = self._ask_each(type, recipients, cost, priority, fields)
        try:
            grants = await self._acquire_many(questions)
        except StorageError as error:
            return self._failed(questions, error)
        return self._answers(questions, grants)

    async def decide(self, batch: Iterable[Notification], patience: Patience = ENDLESS) -> list[Decision | Exception]:
        """As `Limiter.decide`."""
        known = self._questions(batch)
        questions = questions_among(known)
        try:
            patience.check()
            answers: Sequence[Decision | Exception] = self._answers(questions, await self._acquire_many(questions))
            patience.answered()
        except StorageError as error:
            patience.failed(error)
            answers = self._unanswered(questions, error)
        return filled_in(known, answers)

    async def _acquire_many(self, questions: Iterable[Question]) -> Sequence[Answer]:
        asked = requests(questions)
        return await self.storage.acquire_many(asked) if asked else []

    async def release(self, decision: Decision) -> bool:
        """As `Limiter.release`."""
        receipt = self._receipt(decision)
        if receipt is None:
            return False
        try:
            return await self.storage.release(*receipt)
        finally:
            self._given_back(receipt.windows, receipt.keys)

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
        """As `Limiter.reserve`."""
        decision = await self.hit(type, recipient, cost=cost, priority=priority, **fields)
        try:
            yield decision
        except BaseException as error:
            if not outcome_unknown(error):
                try:
                    await self.release(decision)
                except StorageError as failure:
                    stays_counted(failure)
            raise

    async def windows(self, type: str, recipient: Recipient, /, **fields: Recipient | None) -> tuple[WindowState, ...]:
        """As `Limiter.windows`."""
        if self._is_off() or not (question := self._ask(type, recipient, 1, None, fields)).windows:
            return ()
        return self._seen(question, await self.storage.peek(question.windows, question.keys, 1)).windows

    async def clear(self, type: str, recipient: Recipient, /, **fields: Recipient | None) -> int:
        """As `Limiter.clear`."""
        if self._is_off():
            return 0
        windows, keys = self._own_windows(self._ask(type, recipient, 1, None, fields))
        try:
            return await self.storage.forget(windows, keys) if windows else 0
        finally:
            self._given_back(windows, keys)

    async def wait(self, seconds: float) -> None:
        """As `Limiter.wait`."""
        import asyncio

        sleep = getattr(self._clock, "sleep", None)
        if sleep is not None:
            sleep(seconds)
        await asyncio.sleep(0 if sleep else seconds)

    async def close(self) -> None:
        """As `Limiter.close`."""
        if self._owned and self._storage is not None:
            await self._storage.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
