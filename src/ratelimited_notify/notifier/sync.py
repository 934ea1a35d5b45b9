"""Limiter times gateway: notifications are sent as far as the rules allow."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Concatenate, TypeAlias

from ratelimited_notify.callables import is_async, reject_coroutine
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.batch import ENDLESS, FailureBudget
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
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.notifier.policy import Policy
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.storage.base import Storage

    _Gateway: TypeAlias = Callable[Concatenate[Any, P], R]  # Any: what it takes as recipient is its own affair


class Notifier(BaseNotifier[P, R, Limiter]):
    """Stands between code that notifies and the gateway that sends; any thread may send."""

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
        if is_async(gateway):
            raise NotifyError("The gateway is a coroutine function; use AsyncNotifier.")
        options = check_option_names(options, Notifier)
        super().__init__(Limiter, gateway, rules, storage, limiter, on_limit, max_wait, refund, options)

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
            TypeError: the gateway does not take these arguments. If one of them belongs in `bind`, the message says so.
        """
        return self.deliver(self._notification(type, recipient, args, kwargs))

    def deliver(self, notification: Notification) -> Delivery[R]:
        """`send`, spelled out: what is bound does not apply, the notification says everything itself."""
        decision = self._admit(notification, self._policy)
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
        return list(self._deliver_each(notifications, FailureBudget()))

    def iter_many(self, notifications: Iterable[Notification]) -> Generator[Delivery[R], None, None]:
        """`send_many` for notifications that differ, lazily: each is sent when its delivery is asked for.

        When it is closed early, what was decided and not sent is given back.
        """
        return self._deliver_each(notifications, ENDLESS)

    def _deliver_each(self, notifications: Iterable[Notification], patience: FailureBudget) -> Generator[Delivery[R]]:
        for batch, failure in batches(notifications):
            decisions = deque(self.limiter.decide(batch, patience))
            freed = False
            try:
                for notification in batch:
                    delivery = self._deliver_one(notification, decisions.popleft(), freed)
                    freed = freed or was_released(delivery)
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
                # A send before it in the batch may have given its hit back and so made room: then ask again.
                decision = self._admit(notification, self._batch_policy, None if freed else decision)
            if not decision.allowed:
                return self._suppressed(notification, decision)
            return self._pass(notification, decision)
        except Exception as error:  # noqa: BLE001  # whatever a gateway raises is told in the delivery
            return Delivery(Status.FAILED, decision, notification, error=error)

    def _admit(self, notification: Notification, policy: Policy, decision: Decision | None = None) -> Decision:
        return admit(
            self.limiter, policy,
            notification.type, notification.recipient, notification.cost, notification.priority, notification.fields,
            decision,
        )  # fmt: skip

    def _pass(self, notification: Notification, decision: Decision) -> Delivery[R]:
        try:
            result = reject_coroutine(
                self._gateway(notification.recipient, *notification.args, **notification.kwargs),
                "use AsyncNotifier.",
            )
        except BaseException as error:
            if self._refunded(error):
                give_back(self.limiter, [decision])
            raise_misplaced(error, self._gateway, notification.kwargs, self.limiter.rules)
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
