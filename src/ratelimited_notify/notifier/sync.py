"""`Notifier`: sends notifications through a gateway, as far as the rules allow."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Concatenate, TypeAlias

from ratelimited_notify.callables import is_async, reject_coroutine
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.failure_budget import ENDLESS, FailureBudget
from ratelimited_notify.limiter.options import LimiterOptions, check_option_names
from ratelimited_notify.limiter.refund import give_back
from ratelimited_notify.limiter.sync import Limiter
from ratelimited_notify.notification.recipient import several
from ratelimited_notify.notifier.admission import admit
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
    from collections.abc import Callable, Generator, Iterable
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
    from ratelimited_notify.storage.base import Storage

    _Gateway: TypeAlias = Callable[Concatenate[Any, P], R]  # Any: the gateway decides what it takes as recipient


class Notifier(BaseNotifier[P, R, Limiter]):
    """Stands between your code and the gateway that sends, and sends only what the rules allow. Any thread may use it."""

    limiter: Limiter
    """What decides."""

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
        failed: Callable[[R], object] | None = None,
        **options: Unpack[LimiterOptions],
    ) -> None:
        """Make a notifier, with a limiter of its own or with a shared one.

        Arguments:
            gateway: any callable that sends: `gateway(recipient, *args, **kwargs)`.
            rules: what may be sent, in any form that `Limiter` takes.
            storage: where windows are kept, in any form that `Limiter` takes.
            limiter: a limiter to share, instead of rules, storage and options.
            on_limit: what happens over the limit, if the rule does not say: `"drop"` (the default), `"raise"` or
                `"wait"`.
            max_wait: the longest wait for one notification, in seconds. `"wait"` requires it. Callers of this process that
                wait for the same window are served first come, first served.
            refund: whether a send that raised gives its hit back: True, False, exception types, or a callable that
                takes the exception and returns a bool. By default it does, unless the message may have been sent: see
                `outcome_unknown`.
            failed: a callable that takes what the gateway returned, and returns True if this means that the message was not
                sent. The delivery is then FAILED, its error is a `SendFailed` with the result, and `refund` decides
                about the hit. By default it is given back, unless the result is a response with a status after which
                the message may have been sent, such as 503.
            options: the other arguments of `Limiter`.

        Raises:
            RuleError: the rules cannot be used. The error lists all problems, each with its place.
            NotifyError: another argument cannot be used.
        """
        if is_async(gateway):
            raise NotifyError("The gateway is a coroutine function; use AsyncNotifier.")
        options = check_option_names(options, Notifier)
        super().__init__(Limiter, gateway, rules, storage, limiter, on_limit, max_wait, refund, failed, options)

    def send(self, type: str, recipient: Recipient, /, *args: P.args, **kwargs: P.kwargs) -> Delivery[R]:
        """Send one notification through the gateway, if the rules allow.

        Arguments:
            type: the type of the notification, which rules match.
            recipient: who it is for. The gateway gets it unchanged.
            args: further arguments for the gateway.
            kwargs: further keyword arguments for the gateway. Do not pass a priority, a cost or fields here: see `bind`.

        Returns:
            What happened. It is true if the notification was sent, and its `result` is what the gateway returned.

        Raises:
            RateLimitExceeded: a rule refused it and `on_limit` is `"raise"`, or the wait would be longer than `max_wait`.
            NotifyError: nothing can be decided about such a notification, for the reasons that `Limiter.hit` names.
            StorageError: the storage failed, and `on_storage_error` is `"raise"`.
            BaseException: what the gateway raised, unchanged. `refund` decides whether the hit is given back.
            TypeError: the gateway does not take these arguments. If one of them belongs in `bind`, the message says so.
        """
        return self.deliver(self._notification(type, recipient, args, kwargs))

    def deliver(self, notification: Notification) -> Delivery[R]:
        """`send` for a `Notification` object. What is bound does not apply, because the object contains everything."""
        watching = self.limiter.watching
        if watching is not None and watching.surrounds:
            from ratelimited_notify.limiter.surrounding import Surrounding

            with Surrounding(watching, notification.type) as surrounding:
                decision = surrounding.decided(self._admit(notification, self._policy))
                if not decision.allowed:
                    return self._suppressed(notification, decision)
                return self._pass(notification, decision, watching, surrounding)
        decision = self._admit(notification, self._policy)
        if not decision.allowed:
            return self._suppressed(notification, decision)
        return self._pass(notification, decision, watching)

    def send_many(
        self, type: str, recipients: Iterable[Recipient], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[Delivery[R]]:
        """Send the same to many recipients, in the given order. Decisions are made in batches, which a shared storage
        answers at once.

        What happens to one recipient does not affect the others. If the gateway or the storage raises, the delivery has
        the status FAILED. If `on_limit` is `"raise"`, a refused delivery has the status SUPPRESSED. If the storage
        fails for two batches in a row, it is not asked about the rest, which fails too.
        """
        each = several(recipients)
        notifications = (self._notification(type, recipient, args, kwargs) for recipient in each)
        return list(self._deliver_each(notifications, FailureBudget()))

    def iter_many(self, notifications: Iterable[Notification]) -> Generator[Delivery[R], None, None]:
        """`send_many` for notifications that differ. It is lazy: each is sent when you ask for its delivery.

        If you close the generator early, the hits of what was decided and not sent are given back.
        """
        return self._deliver_each(notifications, ENDLESS)

    def _deliver_each(self, notifications: Iterable[Notification], patience: FailureBudget) -> Generator[Delivery[R]]:
        for batch, failure in batches(notifications):
            decisions = deque(self.limiter.decide(self._counted(batch), patience))
            deliver = self._deliver_one if self.limiter.watching is None else self._deliver_surrounded
            freed = False
            try:
                for notification in batch:
                    delivery = deliver(notification, decisions.popleft(), freed)
                    freed = freed or was_released(delivery)
                    yield delivery
            finally:
                give_back(self.limiter, decisions)
            if failure is not None:
                raise failure

    def _deliver_surrounded(
        self, notification: Notification, decision: Decision | Exception, freed: bool
    ) -> Delivery[R]:
        """`_deliver_one`, if somebody may surround it."""
        watching = self.limiter.watching
        if watching is None or not watching.surrounds:
            return self._deliver_one(notification, decision, freed)
        from ratelimited_notify.limiter.surrounding import Surrounding

        with Surrounding(watching, notification.type) as surrounding:
            return self._deliver_one(notification, decision, freed, surrounding)

    def _deliver_one(
        self,
        notification: Notification,
        decision: Decision | Exception,
        freed: bool,
        surrounding: Surrounding | None = None,
    ) -> Delivery[R]:
        if isinstance(decision, Exception):
            if surrounding is not None:
                surrounding.failed(decision)
            return self._undecided(notification, decision)
        try:
            if not decision.allowed:
                # If an earlier send of the batch failed and gave its hit back, there may be room now: ask again.
                decision = self._admit(notification, self._batch_policy, None if freed else decision)
            if surrounding is not None:
                surrounding.decided(decision)
            if not decision.allowed:
                return self._suppressed(notification, decision)
            return self._pass(notification, decision, self.limiter.watching, surrounding)
        except Exception as error:  # noqa: BLE001  # whatever a gateway raises is in the delivery
            if surrounding is not None:
                surrounding.failed(error)
            return Delivery(Status.FAILED, decision, notification, error=error)

    def _admit(self, notification: Notification, policy: Policy, decision: Decision | None = None) -> Decision:
        count = self._counted_as
        recipient = notification.recipient if count is None else count(notification.recipient)
        return admit(
            self.limiter, policy,
            notification.type, recipient, notification.cost, notification.priority, notification.fields,
            decision,
        )  # fmt: skip

    def _pass(
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
            result = reject_coroutine(
                self._gateway(notification.recipient, *notification.args, **notification.kwargs),
                "use AsyncNotifier.",
            )
        except BaseException as error:
            if attempt is not None:
                attempt.failed(error)
            if self._refunded(error):
                give_back(self.limiter, [decision])
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
            give_back(self.limiter, [decision])
        return Delivery(Status.FAILED, decision, notification, error=failure)

    def close(self) -> None:
        """Close the limiter if this notifier made it. For use after that, see `Limiter.close`."""
        if self._owned:
            self.limiter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
