"""The common part of both notifiers: everything except deciding and sending."""

from __future__ import annotations

from inspect import Parameter, signature
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar

from ratelimited_notify.callables import is_generator, without_partial
from ratelimited_notify.errors import NotifyError, is_name
from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.failed import failing
from ratelimited_notify.limiter.known_attributes import KnownAttributes
from ratelimited_notify.limiter.refund import refunding
from ratelimited_notify.notification.notification import Notification
from ratelimited_notify.notification.recipient import ARGUMENTS
from ratelimited_notify.notifier.delivery import Delivery, Status
from ratelimited_notify.notifier.policy import Policy, checking
from ratelimited_notify.pickling import NotPickled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Self

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.options import LimiterOptions
    from ratelimited_notify.limiter.refund import Refund
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.storage.base import AsyncStorage, Storage

BATCH = 250
"""How many notifications are decided at once, in one round trip on Redis. If the process is killed in the middle, at
most this many decisions are lost. Smaller batches lose less and cost more: batches of 50 took a third longer.
"""

P = ParamSpec("P")
R = TypeVar("R")
_L = TypeVar("_L", "Limiter", "AsyncLimiter")


class _Bound(TypedDict, total=False):
    priority: str | None
    cost: int


class BaseNotifier(KnownAttributes, NotPickled, Generic[P, R, _L]):
    """The base of both notifiers: the gateway, the limiter, the policy, and what is bound."""

    _settable = ("limiter", "rules")

    limiter: _L

    def __init__(
        self,
        kind: type[_L],
        gateway: Callable[..., object],
        rules: Rules | None,
        storage: str | Storage | AsyncStorage,
        limiter: _L | None,
        on_limit: OnLimit,
        max_wait: float | None,
        refund: Refund,
        failed: Callable[[Any], object] | None,  # Any: what the gateway returns
        options: LimiterOptions,
    ) -> None:
        _check_gateway(gateway)
        self._gateway: Callable[..., Any] = gateway  # Any: it returns R
        self._counted_as = _counting_of(gateway)
        self._policy = Policy(on_limit, max_wait)
        self._batch_policy = self._policy.without_raising()
        self._refunded = refunding(refund)
        self._failure = failing(failed)
        self._bound: _Bound = {}
        self._fields: Mapping[str, Recipient | None] = {}
        self._owned = limiter is None
        if limiter is None:
            limiter = kind(rules, storage, **options)  # type: ignore[arg-type]  # each notifier passes what its limiter takes
        else:
            _check_limiter(limiter, kind, _limiter_arguments(rules, storage, options))
        self.limiter = limiter
        # The copies that `bind` makes keep it alive, too.
        self._check_rules = checking(self._policy, f"The notifier of {_gateway_text(gateway)}")
        self._policy.check(limiter.rules)
        limiter.register(self._check_rules)

    def __repr__(self) -> str:
        policy = self._policy
        parts = [_gateway_text(self._gateway), self.limiter.summary(), f"on_limit={policy.on_limit!r}"]
        if policy.max_wait is not None:
            parts.append(f"max_wait={policy.max_wait!r}")
        # A value may be personal, and so may a name that does not look like one.
        bound = {name if is_name(name) else "..." for name in (*self._bound, *self._fields)}
        if bound:
            parts.append(f"bound: {', '.join(sorted(bound, key=lambda name: (name == '...', name)))}")
        return f"<{type(self).__name__}: {', '.join(parts)}>"

    @property
    def rules(self) -> RuleSet:
        """The rules in force. Assign new ones in any form that the constructor takes, and the next decision uses them.

        They are the rules of `limiter`, so they change for every notifier that shares it. The counters stay. Rules that
        cannot be used raise an error and change nothing.
        """
        return self.limiter.rules

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        self.limiter.rules = rules

    def bind(self, *, priority: str | None = None, cost: int | None = None, **fields: Recipient | None) -> Self:
        """A cheap copy of the notifier for notifications that have these values in common, with the same windows.

        Arguments:
            priority: a name that rules can exempt.
            cost: how many hits each notification counts as.
            fields: further values that rules can count by: channel, tenant, dedupe_key, and the fields that the rule
                set declares. What is already bound stays, unless you bind it again.
        """
        bound = {**self._bound}
        if priority is not None:
            bound["priority"] = priority
        if cost is not None:
            bound["cost"] = cost
        copy = self.__copy__()
        state = copy.__dict__
        state["_bound"] = bound
        state["_fields"] = {**self._fields, **fields}
        return copy

    def __copy__(self) -> Self:
        copy = object.__new__(type(self))
        state = copy.__dict__
        state.update(self.__dict__)
        # Closing the copy must not close the limiter of the original.
        state["_owned"] = False
        return copy

    def _notification(
        self, type: str, recipient: Recipient, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Notification:
        return Notification(type, recipient, args, kwargs, fields=self._fields, **self._bound)

    def _counted(self, batch: list[Notification]) -> list[Notification]:
        """The notifications with their recipients as this gateway counts them. The gateway gets the original ones."""
        count = self._counted_as
        if count is None:
            return batch
        from copy import copy

        counted = list(map(copy, batch))
        for each in counted:
            each.recipient = count(each.recipient)
        return counted

    def _suppressed(self, notification: Notification, decision: Decision) -> Delivery[R]:
        return Delivery(Status.SUPPRESSED, decision, notification)

    def _undecided(self, notification: Notification, error: Exception) -> Delivery[R]:
        """The delivery if there is no decision. Nothing is sent; if the storage failed, a hit may have been counted."""
        if self.limiter.watching is not None:
            count, recipient = self._counted_as, notification.recipient
            self.limiter.watching.undecided(notification.type, recipient if count is None else count(recipient), error)
        # What `normalize` or `tier_of` raised may name the recipient. A decision never does.
        said = str(error) if isinstance(error, NotifyError) else type(error).__name__
        decision = Decision(notification.type, notification.recipient, notification.cost, False, error=said)
        return Delivery(Status.FAILED, decision, notification, error=error)


def raise_misplaced(
    error: BaseException, gateway: Callable[..., object], kwargs: Mapping[str, object], rules: RuleSet
) -> None:
    """Raise an error that explains `bind`, if the gateway got a priority, a cost or a field that it does not take.

    `send` passes all its arguments to the gateway, so this is the usual mistake.

    Arguments:
        error: what the call of the gateway raised.
        gateway: the gateway.
        kwargs: the keyword arguments that it got.
        rules: the rules, which declare the fields.

    Raises:
        TypeError: this is the mistake. The cause is the error of the call.
    """
    if not kwargs or type(error) is not TypeError:
        return
    bindable = {*ARGUMENTS, *rules.fields} - {"type", "recipient"}
    misplaced = [name for name in kwargs if name in bindable and not _takes_keyword(gateway, name)]
    said = str(error)
    if any(repr(name) in said for name in misplaced):
        stop = "" if said.endswith((".", "?")) else "."
        raise TypeError(
            f"{said}{stop} What you pass to send() goes to the gateway; {_advice(misplaced, kwargs)}"
        ) from error


def _takes_keyword(function: Callable[..., object], name: str) -> bool:
    """Whether a call can pass an argument by this name; False if that cannot be found out."""
    try:
        parameters = signature(function).parameters
    except Exception:  # noqa: BLE001  # since Python 3.13, a callable __signature__ is called, which may do and raise anything
        return False
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        return True
    return name in parameters and parameters[name].kind is not Parameter.POSITIONAL_ONLY


def _advice(misplaced: Iterable[str], kwargs: Mapping[str, object]) -> str:
    """What to write instead. Values may be personal, so it shows only a priority that looks like a name, and a number."""
    shown = dict.fromkeys(misplaced, "...")
    if "priority" in shown and is_name(kwargs["priority"]):
        shown["priority"] = repr(kwargs["priority"])
    if "cost" in shown and type(kwargs["cost"]) is int:
        shown["cost"] = repr(kwargs["cost"])
    bound = ", ".join(f"{name}={value}" for name, value in shown.items())
    arguments = [f"{name}={shown[name]}" for name in ("priority", "cost") if name in shown]
    fields = ", ".join(f"{name!r}: {value}" for name, value in shown.items() if name not in ARGUMENTS)
    if fields:
        arguments.append(f"fields={{{fields}}}")
    return f"write notifier.bind({bound}).send(...), or Notification(..., {', '.join(arguments)})."


def _gateway_text(gateway: object) -> str:
    called = without_partial(gateway)
    name: object = getattr(called, "__qualname__", None)
    return name if isinstance(name, str) else type(called).__name__


def _counting_of(gateway: object) -> Callable[[Recipient], Recipient] | None:
    """What the class of the gateway says about counting recipients. A mock has every attribute, but its class has not."""
    called = without_partial(gateway)
    counted_as: object = getattr(type(called), "counted_as", None)
    return getattr(called, "counted_as") if callable(counted_as) else None  # noqa: B009  # a type checker knows no such attribute


def _check_gateway(gateway: object) -> None:
    """Check that a call of the gateway can send.

    Raises:
        NotifyError: the gateway is not callable, or it is a generator function.
    """
    if not callable(gateway):
        raise NotifyError(f"The gateway is a {type(gateway).__name__}; it must be a callable that sends.")
    if is_generator(gateway):
        raise NotifyError("The gateway is a generator function: a call of it would send nothing.")


def was_released(delivery: Delivery[object]) -> bool:
    """Whether the send failed and its hit was given back, so that there may be room for others."""
    return delivery.status is Status.FAILED and delivery.decision.released


def _check_limiter(limiter: object, kind: type[object], limiter_arguments: Mapping[str, object]) -> None:
    """Check that the limiter has the right class, and that no options of a limiter were passed with it.

    Raises:
        NotifyError: it has another class, or there are options that belong to the limiter.
    """
    if not isinstance(limiter, kind):
        raise NotifyError(f"limiter= must be of type {kind.__name__}, not {type(limiter).__name__}.")
    if limiter_arguments:
        raise NotifyError(
            f"Pass {', '.join(f'{name}=' for name in limiter_arguments)} to the limiter, or leave out limiter=."
        )


def _limiter_arguments(rules: object, storage: object, options: Mapping[str, object]) -> dict[str, object]:
    """The arguments that belong to a limiter, among those that were passed."""
    found = dict(options)
    if rules is not None:
        found["rules"] = rules
    if storage != "memory://":
        found["storage"] = storage
    return found


def _checked(notification: object) -> Notification:
    if isinstance(notification, Notification):
        return notification
    raise TypeError(f"iter_many takes objects of the class Notification, not a {type(notification).__name__}.")


def batches(notifications: Iterable[Notification]) -> Iterator[tuple[list[Notification], Exception | None]]:
    """The notifications in batches. If the iterable raises, its error comes with the last batch, so that none is lost."""
    remaining = iter(notifications)
    failure: Exception | None = None
    more = True
    while more:
        batch: list[Notification] = []
        try:
            batch.extend(map(_checked, islice(remaining, BATCH)))  # extend keeps what came before an exception
        except Exception as error:  # noqa: BLE001  # the caller raises it after the batch
            failure = error
        more = failure is None and len(batch) == BATCH
        yield batch, failure
