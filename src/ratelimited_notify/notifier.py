"""Limiter times gateway: notifications are sent as far as the rules allow."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Concatenate, TypeAlias, cast, overload

from ratelimited_notify.admission import admit, admit_async, give_back, give_back_async
from ratelimited_notify.calling import is_async, outcome_of, settled
from ratelimited_notify.cancellation import is_cancelled
from ratelimited_notify.delivery import Delivery, Status
from ratelimited_notify.errors import NotifyError, RateLimitExceeded
from ratelimited_notify.limiter import AsyncLimiter, Limiter
from ratelimited_notify.options import LimiterOptions, known
from ratelimited_notify.question import ENDLESS, Patience
from ratelimited_notify.recipient import several
from ratelimited_notify.sending import P, R, Sending, batches, check_gateway, check_limiter, gave_back, given

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
    from typing import Self, Unpack

    from ratelimited_notify.decision import Decision
    from ratelimited_notify.notification import Notification
    from ratelimited_notify.recipient import Recipient
    from ratelimited_notify.refund import Refund
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.sources import Rules
    from ratelimited_notify.storage.base import AsyncStorage, Storage

    _Gateway: TypeAlias = Callable[Concatenate[Any, P], R]  # Any: what it takes as recipient is its own affair


class Notifier(Sending[P, R]):
    """Stands between code that notifies and the gateway that sends; any thread may send."""

    def __init__(
        self,
        gateway: _Gateway[P, R],
        rules: Rules | None = None,
        storage: str | Storage = "memory://",
        *,
        limiter: Limiter | None = None,
        on_limit: OnLimit = "drop",
        max_wait: float | None = None,
        refund: Refund = None,
        **options: Unpack[LimiterOptions],
    ) -> None:
        """Make a notifier, with a limiter of its own or with one that is shared.

        Arguments:
            gateway: any callable that sends: `gateway(recipient, *args, **kwargs)`.
            rules: what may be sent, as `Limiter` takes it.
            storage: where windows are kept, as `Limiter` takes it.
            limiter: a limiter to share, instead of rules, storage and options.
            on_limit: what happens over the limit, where the rule does not say: `"drop"` (the default), `"raise"` or `"wait"`.
            max_wait: the longest wait for one notification, in seconds; `"wait"` requires it.
            refund: whether a send that raised gives its hit back: True, False, exception types, or a callable from the
                exception to a bool. By default it does, unless the message may have gone out: see
                `refund.outcome_unknown`.
            options: the further arguments of `Limiter`.

        Raises:
            RuleError: the rules cannot be used; all problems are named, each with its place.
            NotifyError: another argument cannot be used.
        """
        check_gateway(gateway)
        if is_async(gateway):
            raise NotifyError("The gateway is a coroutine function; use AsyncNotifier.")
        super().__init__(on_limit, max_wait, refund, owned=limiter is None)
        self._gateway = gateway
        if limiter is None:
            limiter = Limiter(rules, storage, **known(options, Notifier))
        else:
            check_limiter(limiter, Limiter, given(rules, storage, known(options, Notifier)))
        self.limiter = limiter
        """What decides."""
        self._policy.check(limiter.rules)

    def send(self, type: str, recipient: Recipient, /, *args: P.args, **kwargs: P.kwargs) -> Delivery[R]:
        """Send one notification through the gateway, if the rules allow.

        Arguments:
            type: the type of the notification, by which rules are found.
            recipient: who it is for; the gateway gets it as it is.
            args: what the gateway takes besides.
            kwargs: likewise. A priority, a cost and fields are not among them: see `bind`.

        Returns:
            What became of it, which is true when it was sent, with what the gateway returned as `result`.

        Raises:
            RateLimitExceeded: a rule refused it and `on_limit` is to raise, or waiting would take longer than `max_wait`.
            StorageError: the storage failed, and `on_storage_error` is `"raise"`.
            BaseException: what the gateway raised, unchanged; the hit is given back by the rule of `refund`.
        """
        return self.deliver(self._notification(type, recipient, args, kwargs))

    def deliver(self, notification: Notification) -> Delivery[R]:
        """`send`, spelled out: what is bound does not apply, the notification says everything itself."""
        decision = self._admit(notification)
        if not decision.allowed:
            return self._suppressed(notification, decision)
        return self._pass(notification, decision)

    def send_many(
        self, type: str, recipients: Iterable[Recipient], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[Delivery[R]]:
        """Send the same to many, in the order given; decided in batches, which a shared storage answers at once.

        Nothing that happens to one recipient keeps the others from theirs: what the gateway or the storage raises is a
        delivery with the status FAILED, and `on_limit="raise"` is one with the status SUPPRESSED. When the storage fails for
        two batches in a row, the rest is not asked about, and fails as they did.
        """
        each = several(recipients)
        notifications = (self._notification(type, recipient, args, kwargs) for recipient in each)
        return list(self._deliver_each(notifications, Patience()))

    def iter_many(self, notifications: Iterable[Notification]) -> Generator[Delivery[R], None, None]:
        """`send_many` for notifications that differ, lazily: each is sent when its delivery is asked for.

        When it is closed early, what was decided and not sent is given back.
        """
        return self._deliver_each(notifications, ENDLESS)

    def _deliver_each(self, notifications: Iterable[Notification], patience: Patience) -> Generator[Delivery[R]]:
        for batch, failure in batches(notifications):
            decisions = deque(self.limiter.decide(batch, patience))
            freed = False
            try:
                for notification in batch:
                    delivery = self._deliver_one(notification, decisions.popleft(), freed)
                    freed = freed or gave_back(delivery)
                    yield delivery
            finally:
                give_back(self.limiter, decisions)
            if failure is not None:
                raise failure

    def _deliver_one(self, notification: Notification, decision: Decision | Exception, freed: bool) -> Delivery[R]:
        if isinstance(decision, Exception):
            return self._undecided(notification, decision)
        try:
            if not decision.allowed:
                try:
                    # What failed before it in the batch may have made room: then it is asked about anew.
                    decision = self._admit(notification, None if freed else decision)
                except RateLimitExceeded as refusal:
                    decision = refusal.decision
                if not decision.allowed:
                    return self._suppressed(notification, decision)
            return self._pass(notification, decision)
        except Exception as error:  # noqa: BLE001  # whatever a gateway raises is told in the delivery
            return Delivery(Status.FAILED, decision, notification, error=error)

    def _admit(self, notification: Notification, decision: Decision | None = None) -> Decision:
        return admit(
            self.limiter,
            self._policy,
            notification.type,
            notification.recipient,
            notification.cost,
            notification.priority,
            notification.fields,
            decision,
        )

    def _pass(self, notification: Notification, decision: Decision) -> Delivery[R]:
        try:
            result = settled(
                self._gateway(notification.recipient, *notification.args, **notification.kwargs),  # type: ignore[arg-type]  # as the caller gave them
                "use AsyncNotifier.",
            )
        except BaseException as error:
            if self._refunded(error):
                give_back(self.limiter, [decision])
            raise
        return Delivery(Status.SENT, decision, notification, result)

    def close(self) -> None:
        """Close the limiter, if it is this notifier's own; what `Limiter.close` says goes for use after it."""
        if self._owned:
            self.limiter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncNotifier(Sending[P, R]):
    """A `Notifier` to await. Gateways are coroutine functions, or plain functions, which run in a thread."""

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
        concurrency: int = 1,
        **options: Unpack[LimiterOptions],
    ) -> None:
        """Make a notifier, with a limiter of its own or with one that is shared: the arguments of `Notifier`, and one more.

        Arguments:
            concurrency: how many notifications of a batch are sent at once, 1 by default.
        """
        check_gateway(gateway)
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise NotifyError("concurrency= must be a whole number, 1 or more.")
        super().__init__(on_limit, max_wait, refund, owned=limiter is None)
        self._gateway = gateway
        self._awaits = is_async(gateway)
        self._concurrency = concurrency
        if limiter is None:
            limiter = AsyncLimiter(rules, storage, **known(options, AsyncNotifier))
        else:
            check_limiter(limiter, AsyncLimiter, given(rules, storage, known(options, AsyncNotifier)))
        self.limiter = limiter
        """What decides."""
        self._policy.check(limiter.rules)

    async def send(self, type: str, recipient: Recipient, /, *args: P.args, **kwargs: P.kwargs) -> Delivery[R]:
        """As `Notifier.send`."""
        return await self.deliver(self._notification(type, recipient, args, kwargs))

    async def deliver(self, notification: Notification) -> Delivery[R]:
        """As `Notifier.deliver`."""
        decision = await self._admit(notification)
        if not decision.allowed:
            return self._suppressed(notification, decision)
        return await self._pass(notification, decision)

    async def send_many(
        self, type: str, recipients: Iterable[Recipient], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[Delivery[R]]:
        """As `Notifier.send_many`, with as many sent at once as `concurrency` says."""
        each = several(recipients)
        notifications = (self._notification(type, recipient, args, kwargs) for recipient in each)
        return [delivery async for delivery in self._deliver_each(notifications, Patience())]

    def iter_many(self, notifications: Iterable[Notification]) -> AsyncGenerator[Delivery[R], None]:
        """As `Notifier.iter_many`; deliveries come in the order of the notifications."""
        return self._deliver_each(notifications, ENDLESS)

    async def _deliver_each(
        self, notifications: Iterable[Notification], patience: Patience
    ) -> AsyncGenerator[Delivery[R]]:
        for batch, failure in batches(notifications):
            decisions = await self.limiter.decide(batch, patience)
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
        freed = False

        async def begin(notification: Notification, decision: Decision | Exception) -> Delivery[R]:
            nonlocal freed
            begun.add(id(decision))
            delivery = await self._deliver_one(notification, decision, freed)
            freed = freed or gave_back(delivery)
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
                # A task that is cancelled before its first step has sent nothing, and says nothing.
                unsent = [decision for _, decision in sending if id(decision) not in begun]
                await give_back_async(self.limiter, [*unsent, *(decision for _, decision in waiting)])

    async def _deliver_one(
        self, notification: Notification, decision: Decision | Exception, freed: bool
    ) -> Delivery[R]:
        import asyncio

        if isinstance(decision, Exception):
            return self._undecided(notification, decision)
        try:
            if not decision.allowed:
                try:
                    decision = await self._admit(notification, None if freed else decision)
                except RateLimitExceeded as refusal:
                    decision = refusal.decision
                if not decision.allowed:
                    return self._suppressed(notification, decision)
            return await self._pass(notification, decision)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled(asyncio.current_task()):
                raise
            return Delivery(Status.FAILED, decision, notification, error=error)

    async def _admit(self, notification: Notification, decision: Decision | None = None) -> Decision:
        return await admit_async(
            self.limiter,
            self._policy,
            notification.type,
            notification.recipient,
            notification.cost,
            notification.priority,
            notification.fields,
            decision,
        )

    async def _pass(self, notification: Notification, decision: Decision) -> Delivery[R]:
        try:
            result = await self._send(notification)
        except BaseException as error:
            if self._refunded(error):
                await give_back_async(self.limiter, [decision])
            raise
        return Delivery(Status.SENT, decision, notification, result)

    async def _send(self, notification: Notification) -> R:
        recipient, args, kwargs = notification.recipient, notification.args, notification.kwargs
        if self._awaits:
            sent = self._gateway(recipient, *args, **kwargs)  # type: ignore[arg-type]  # as the caller gave them
        else:
            import asyncio

            sent, error = await asyncio.to_thread(outcome_of, self._gateway, recipient, *args, **kwargs)
            if error is not None:
                try:
                    raise error
                finally:
                    # Or the exception and this frame, which is in its traceback, keep each other.
                    del error
        return cast("R", await sent if isawaitable(sent) else sent)

    async def close(self) -> None:
        """As `Notifier.close`."""
        if self._owned:
            await self.limiter.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
