"""`Notifier` for asyncio."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Concatenate, TypeAlias, cast, overload

from ratelimited_notify.callables import is_async, outcome_of
from ratelimited_notify.cancellation import is_cancelled
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.aio import AsyncLimiter
from ratelimited_notify.limiter.failure_budget import ENDLESS, FailureBudget
from ratelimited_notify.limiter.options import LimiterOptions, check_option_names
from ratelimited_notify.limiter.refund import give_back_async
from ratelimited_notify.notification.recipient import several
from ratelimited_notify.notifier.admission import admit_async
from ratelimited_notify.notifier.base import (
    BaseNotifier,
    P,
    R,
    batches,
    raise_misplaced,
    was_released,
)
from ratelimited_notify.notifier.delivery import Delivery, Status

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
    from typing import Self, Unpack

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.refund import Refund
    from ratelimited_notify.limiter.surrounding import Surrounding
    from ratelimited_notify.limiter.watching import Watching
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notifier.policy import Policy
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.storage.base import AsyncStorage, Storage

    _Gateway: TypeAlias = Callable[Concatenate[Any, P], R]  # Any: the gateway decides what it takes as recipient


class AsyncNotifier(BaseNotifier[P, R, AsyncLimiter]):
    """A `Notifier` for asyncio. Gateways are coroutine functions, or plain functions, which run in a thread."""

    limiter: AsyncLimiter
    """What decides."""

    @overload
    def __init__(
        self,
        gateway: _Gateway[P, Awaitable[R]],
        rules: Rules | None = None,
        storage: str | AsyncStorage | Storage = "memory://",
        *,
        limiter: AsyncLimiter | None = None,
        on_limit: OnLimit = "drop",
        max_wait: float | None = None,
        refund: Refund = None,
        failed: Callable[[R], object] | None = None,
        concurrency: int = 1,
        **options: Unpack[LimiterOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        gateway: _Gateway[P, R],
        rules: Rules | None = None,
        storage: str | AsyncStorage | Storage = "memory://",
        *,
        limiter: AsyncLimiter | None = None,
        on_limit: OnLimit = "drop",
        max_wait: float | None = None,
        refund: Refund = None,
        failed: Callable[[R], object] | None = None,
        concurrency: int = 1,
        **options: Unpack[LimiterOptions],
    ) -> None: ...

    def __init__(
        self,
        gateway: _Gateway[P, Any],  # Any: the overloads say what it is
        rules: Rules | None = None,
        storage: str | AsyncStorage | Storage = "memory://",
        *,
        limiter: AsyncLimiter | None = None,
        on_limit: OnLimit = "drop",
        max_wait: float | None = None,
        refund: Refund = None,
        failed: Callable[[Any], object] | None = None,  # Any: the overloads say what it is
        concurrency: int = 1,
        **options: Unpack[LimiterOptions],
    ) -> None:
        """Make a notifier, with a limiter of its own or with a shared one. It takes the arguments of `Notifier`, and
        one more.

        Arguments:
            concurrency: how many notifications of a batch are sent at the same time, 1 by default.
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise NotifyError("concurrency= must be a whole number, 1 or more.")
        options = check_option_names(options, AsyncNotifier)
        super().__init__(AsyncLimiter, gateway, rules, storage, limiter, on_limit, max_wait, refund, failed, options)
        self._awaits = is_async(gateway)
        self._concurrency = concurrency

    async def send(self, type: str, recipient: Recipient, /, *args: P.args, **kwargs: P.kwargs) -> Delivery[R]:
        """Like `Notifier.send`."""
        return await self.deliver(self._notification(type, recipient, args, kwargs))

    async def deliver(self, notification: Notification) -> Delivery[R]:
        """Like `Notifier.deliver`."""
        watching = self.limiter.watching
        if watching is not None and watching.surrounds:
            from ratelimited_notify.limiter.surrounding import Surrounding

            with Surrounding(watching, notification.type) as surrounding:
                decision = surrounding.decided(await self._admit(notification, self._policy))
                if not decision.allowed:
                    return self._suppressed(notification, decision)
                return await self._pass(notification, decision, watching, surrounding)
        decision = await self._admit(notification, self._policy)
        if not decision.allowed:
            return self._suppressed(notification, decision)
        return await self._pass(notification, decision, watching)

    async def send_many(
        self, type: str, recipients: Iterable[Recipient], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[Delivery[R]]:
        """Like `Notifier.send_many`, with up to `concurrency` notifications sent at the same time."""
        each = several(recipients)
        notifications = (self._notification(type, recipient, args, kwargs) for recipient in each)
        return [delivery async for delivery in self._deliver_each(notifications, FailureBudget())]

    def iter_many(self, notifications: Iterable[Notification]) -> AsyncGenerator[Delivery[R], None]:
        """Like `Notifier.iter_many`. Deliveries come in the order of the notifications."""
        return self._deliver_each(notifications, ENDLESS)

    async def _deliver_each(
        self, notifications: Iterable[Notification], patience: FailureBudget
    ) -> AsyncGenerator[Delivery[R]]:
        for batch, failure in batches(notifications):
            decisions = await self.limiter.decide(self._counted(batch), patience)
            async with aclosing(self._deliver_batch(batch, decisions)) as deliveries:
                async for delivery in deliveries:
                    yield delivery
            if failure is not None:
                raise failure

    async def _deliver_batch(
        self, batch: Sequence[Notification], decisions: Sequence[Decision | Exception]
    ) -> AsyncGenerator[Delivery[R], None]:
        import asyncio

        waiting = deque(zip(batch, decisions, strict=True))
        sending: deque[tuple[asyncio.Task[Delivery[R]], Decision | Exception]] = deque()
        begun: set[int] = set()
        deliver = self._deliver_one if self.limiter.watching is None else self._deliver_surrounded
        freed = False

        async def begin(notification: Notification, decision: Decision | Exception) -> Delivery[R]:
            nonlocal freed
            begun.add(id(decision))
            delivery = await deliver(notification, decision, freed)
            freed = freed or was_released(delivery)
            return delivery

        try:
            while waiting or sending:
                while waiting and len(sending) < self._concurrency:
                    notification, decision = waiting.popleft()
                    sending.append((asyncio.create_task(begin(notification, decision)), decision))
                delivery = await sending[0][0]
                sending.popleft()
                yield delivery
        finally:
            for task, _ in sending:
                task.cancel()
            try:
                await asyncio.gather(*(task for task, _ in sending), return_exceptions=True)
            finally:
                # A task that was cancelled before its first step has sent nothing, and has not given its hit back.
                unsent = [decision for _, decision in sending if id(decision) not in begun]
                await give_back_async(self.limiter, [*unsent, *(decision for _, decision in waiting)])

    async def _deliver_surrounded(
        self, notification: Notification, decision: Decision | Exception, freed: bool
    ) -> Delivery[R]:
        """`_deliver_one`, if somebody may surround it."""
        watching = self.limiter.watching
        if watching is None or not watching.surrounds:
            return await self._deliver_one(notification, decision, freed)
        from ratelimited_notify.limiter.surrounding import Surrounding

        with Surrounding(watching, notification.type) as surrounding:
            return await self._deliver_one(notification, decision, freed, surrounding)

    async def _deliver_one(
        self,
        notification: Notification,
        decision: Decision | Exception,
        freed: bool,
        surrounding: Surrounding | None = None,
    ) -> Delivery[R]:
        import asyncio

        if isinstance(decision, Exception):
            if surrounding is not None:
                surrounding.failed(decision)
            return self._undecided(notification, decision)
        try:
            if not decision.allowed:
                # If an earlier send of the batch failed and gave its hit back, there may be room now: ask again.
                decision = await self._admit(notification, self._batch_policy, None if freed else decision)
            if surrounding is not None:
                surrounding.decided(decision)
            if not decision.allowed:
                return self._suppressed(notification, decision)
            return await self._pass(notification, decision, self.limiter.watching, surrounding)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled(asyncio.current_task()):
                raise
            if surrounding is not None:
                surrounding.failed(error)
            return Delivery(Status.FAILED, decision, notification, error=error)

    async def _admit(self, notification: Notification, policy: Policy, decision: Decision | None = None) -> Decision:
        count = self._counted_as
        recipient = notification.recipient if count is None else count(notification.recipient)
        return await admit_async(
            self.limiter, policy,
            notification.type, recipient, notification.cost, notification.priority, notification.fields,
            decision,
        )  # fmt: skip

    async def _pass(
        self,
        notification: Notification,
        decision: Decision,
        watching: Watching | None,
        surrounding: Surrounding | None = None,
    ) -> Delivery[R]:
        attempt = None
        if watching is not None:
            begun = watching if surrounding is None else surrounding
            attempt = begun.attempt(notification.type, decision.recipient)
        try:
            result = await self._send(notification)
        except BaseException as error:
            if attempt is not None:
                attempt.failed(error)
            if self._refunded(error):
                await give_back_async(self.limiter, [decision])
            raise_misplaced(error, self._gateway, notification.kwargs, self.limiter.rules)
            raise
        failure = None if self._failure is None else self._failure(result)
        if failure is None:
            if attempt is not None:
                attempt.sent()
            return Delivery(Status.SENT, decision, notification, result)
        if attempt is not None:
            attempt.failed(failure)
        if self._refunded(failure):
            await give_back_async(self.limiter, [decision])
        return Delivery(Status.FAILED, decision, notification, error=failure)

    async def _send(self, notification: Notification) -> R:
        recipient, args, kwargs = notification.recipient, notification.args, notification.kwargs
        if self._awaits:
            sent = self._gateway(recipient, *args, **kwargs)
        else:
            import asyncio

            sent, error = await asyncio.to_thread(outcome_of, self._gateway, recipient, *args, **kwargs)
            if error is not None:
                context = error.__context__
                try:
                    raise error
                finally:
                    # In an `except` block of the caller, `raise` replaces the failure that the gateway itself had handled.
                    error.__context__ = context
                    # Otherwise the exception and this frame, which is in its traceback, keep each other alive.
                    del error, context
        return cast("R", await sent if isawaitable(sent) else sent)

    async def close(self) -> None:
        """Like `Notifier.close`."""
        if self._owned:
            await self.limiter.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
