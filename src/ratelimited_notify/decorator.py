"""A function that sends, limited where it stands: the notifier's rules, worn by the function itself."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from ratelimited_notify.admission import admit, admit_async, give_back, give_back_async
from ratelimited_notify.argument import MissingArgument, reader, recipient_reader, takes
from ratelimited_notify.configuration import RULES_VARIABLE, configuration
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter import AsyncLimiter, Limiter
from ratelimited_notify.policy import Policy
from ratelimited_notify.refund import refunding
from ratelimited_notify.rules.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from ratelimited_notify.argument import Reader
    from ratelimited_notify.recipient import Recipient
    from ratelimited_notify.refund import Refund
    from ratelimited_notify.rules.limit import LimitNotation

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar(
    "F", bound="Callable[..., object] | classmethod[Any, ..., object] | staticmethod[..., object]"
)  # Any: of any class


class Dropping(Protocol):
    """A decorator whose functions return None where a rule refuses."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R | None]]: ...  # Any: what a coroutine yields is the event loop's

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | None]: ...


class Keeping(Protocol):
    """A decorator whose functions keep their type: a refusal is an exception."""

    def __call__(self, function: F, /) -> F: ...


@overload
def rate_limited(
    type: str | Callable[..., str],
    limit: LimitNotation = None,
    *,
    recipient: str | Callable[..., Recipient] | None = None,
    cost: int | str | Callable[..., int] = 1,
    priority: str | Callable[..., str | None] | None = None,
    fields: Mapping[str, str | Callable[..., Recipient | None]] | None = None,
    on_limit: Literal["raise", "wait"] = "raise",
    max_wait: float | None = None,
    limiter: Limiter | AsyncLimiter | None = None,
    refund: Refund = None,
) -> Keeping: ...


@overload
def rate_limited(
    type: str | Callable[..., str],
    limit: LimitNotation = None,
    *,
    recipient: str | Callable[..., Recipient] | None = None,
    cost: int | str | Callable[..., int] = 1,
    priority: str | Callable[..., str | None] | None = None,
    fields: Mapping[str, str | Callable[..., Recipient | None]] | None = None,
    on_limit: Literal["drop"],
    max_wait: float | None = None,
    limiter: Limiter | AsyncLimiter | None = None,
    refund: Refund = None,
) -> Dropping: ...


def rate_limited(
    type: str | Callable[..., str],
    limit: LimitNotation = None,
    *,
    recipient: str | Callable[..., Recipient] | None = None,
    cost: int | str | Callable[..., int] = 1,
    priority: str | Callable[..., str | None] | None = None,
    fields: Mapping[str, str | Callable[..., Recipient | None]] | None = None,
    on_limit: Literal["raise", "drop", "wait"] = "raise",
    max_wait: float | None = None,
    limiter: Limiter | AsyncLimiter | None = None,
    refund: Refund = None,
) -> Keeping | Dropping:
    """Limit a function that sends: a function, a method, a class or static method, or a coroutine function.

    The windows belong to the type: functions of one type share them, whatever they are called.

    Arguments:
        type: the type of notification that the function sends, or a callable of its arguments.
        limit: a rule for that type, in the notation of `limits` (`"1/day"`); a configured rule for the type wins over it.
        recipient: the argument that is the recipient: its name, a dotted path (`"user.email"`), or a callable of the
            arguments. By default the parameter called recipient, to, user_id, user_email, email or user.
        cost: how many hits a call counts for: a number (1 by default), a name, a path or a callable, as for recipient.
        priority: a priority that rules may exempt: a name, a path, a callable, or else a constant.
        fields: further fields that rules may count by, each likewise: `{"tenant": "account.id", "channel": "sms"}`.
        on_limit: what a call does when it is over the limit, where the rule does not say: `"raise"` (the default) raises
            `RateLimitExceeded`; `"drop"` returns None; `"wait"` waits until it is allowed.
        max_wait: the longest wait of one call, in seconds; `"wait"` requires it, and beyond it raises at once.
        limiter: what decides; by default what `configure` or the environment set up.
        refund: whether a call that raised gives its hit back, as for `Notifier`.

    Returns:
        A decorator that keeps signature, name and docstring. A function decorated with `"raise"` or `"wait"` never
        returns None because of a rule.

    Raises:
        RuleError: the limit cannot be used.
        NotifyError: another argument cannot be used, or does not fit the function; told at decoration.
    """
    worn = _Worn(type, limit, recipient, cost, priority, fields, Policy(on_limit, max_wait), limiter, refund)
    return cast("Keeping", worn.decorate)


class _Worn:
    """What is known at decoration."""

    def __init__(
        self,
        type: str | Callable[..., str],
        limit: LimitNotation,
        recipient: str | Callable[..., Recipient] | None,
        cost: int | str | Callable[..., int],
        priority: str | Callable[..., str | None] | None,
        fields: Mapping[str, str | Callable[..., Recipient | None]] | None,
        policy: Policy,
        limiter: Limiter | AsyncLimiter | None,
        refund: Refund,
    ) -> None:
        if not (callable(type) or (isinstance(type, str) and type)):
            raise NotifyError("type= must be a text that is not empty, such as 'news', or a callable of the arguments.")
        if limiter is not None and not isinstance(limiter, (Limiter, AsyncLimiter)):
            raise NotifyError(f"limiter= is a {limiter.__class__.__name__}; it must be a Limiter or an AsyncLimiter.")
        self.type = type
        self.rule = None
        if limit is not None:
            if not isinstance(type, str):
                raise NotifyError("limit= needs a type that is a text; for types that vary write rules.")
            self.rule = Rule(type, limit)
        self.recipient = recipient
        self.cost = cost
        self.priority = priority
        self.fields = {} if fields is None else dict(fields)
        self.policy = policy
        self.limiter = limiter
        self.refunded = refunding(refund)

    def decorate(self, function: Any) -> Any:  # Any: Keeping and Dropping say what comes in and goes out
        if isinstance(function, (classmethod, staticmethod)):
            return function.__class__(self.decorate(function.__func__))
        if not callable(function):
            raise NotifyError(f"rate_limited decorates functions that send, not a {function.__class__.__name__}.")
        name = getattr(function, "__qualname__", function.__class__.__name__)
        called = getattr(function, "func", function) if isinstance(function, functools.partial) else function
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called) or inspect.isclass(function):
            raise NotifyError(f"rate_limited decorates functions that send; {name} is a generator function or a class.")
        awaited = inspect.iscoroutinefunction(function)
        if isinstance(self.limiter, Limiter if awaited else AsyncLimiter):
            kind, needed = ("an async", "AsyncLimiter") if awaited else ("a sync", "Limiter")
            raise NotifyError(f"{name} is {kind} function, so its limiter= must be a {needed}.")
        call = _Call(self, inspect.signature(function), name)
        if self.rule is not None:
            self._wear(self.rule, function, name)
        return self._awaited(function, call) if awaited else self._called(function, call)

    def _wear(self, rule: Rule, function: Any, name: str) -> None:  # Any: any function
        if self.limiter is not None:
            self.limiter.wear(rule)
            return
        # A module that is loaded again redefines its functions; a function made by another one each time does not.
        configuration.wear(rule, f"{function.__module__}.{name}", again="<locals>" not in name)

    def _check_configured(self, name: str) -> None:
        if self.rule is None and not configuration.speaks:
            raise NotifyError(
                f"Nothing limits {name}: call configure(rules=...) first, set {RULES_VARIABLE}, or write "
                "limit='1/day' on the decorator."
            )

    def _called(self, function: Callable[..., object], call: _Call) -> Callable[..., object]:
        fixed = self.limiter
        policy, refunded = self.policy, self.refunded

        @functools.wraps(function)
        def limited(*args: object, **kwargs: object) -> object:
            if isinstance(fixed, Limiter):
                limiter = fixed
            else:
                self._check_configured(call.name)
                limiter = configuration.limiter()
            decision = admit(limiter, policy, *call.read(args, kwargs))
            if not decision.allowed:
                return None
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                if refunded(error):
                    give_back(limiter, [decision])
                raise

        return limited

    def _awaited(
        self, function: Callable[..., Awaitable[object]], call: _Call
    ) -> Callable[..., Coroutine[object, object, object]]:
        fixed = self.limiter
        policy, refunded = self.policy, self.refunded

        @functools.wraps(function)
        async def limited(*args: object, **kwargs: object) -> object:
            if isinstance(fixed, AsyncLimiter):
                limiter = fixed
            else:
                self._check_configured(call.name)
                limiter = configuration.async_limiter()
            decision = await admit_async(limiter, policy, *call.read(args, kwargs))
            if not decision.allowed:
                return None
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                if refunded(error):
                    await give_back_async(limiter, [decision])
                raise

        return limited


class _Call:
    """How the calls of one function are read."""

    __slots__ = ("_cost", "_fields", "_priority", "_recipient", "_signature", "_type", "name")

    def __init__(self, worn: _Worn, signature: inspect.Signature, name: str) -> None:
        self.name = name
        self._signature = signature
        self._type = worn.type if isinstance(worn.type, str) else _from_callable(worn.type)
        if worn.recipient is None:
            self._recipient = recipient_reader(signature)
        else:
            self._recipient = _reads(worn.recipient, signature, "recipient")
        self._cost = worn.cost if isinstance(worn.cost, int) else _reads(worn.cost, signature, "cost")
        self._priority = _reads_or_is(worn.priority, signature)
        self._fields = {field: _reads_or_is(value, signature) for field, value in worn.fields.items()}

    def read(
        self, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[str, Recipient, int, str | None, Mapping[str, Recipient | None]]:
        """Type, recipient, cost, priority and fields of a call; the limiter checks what they are."""
        try:
            type = self._type(args, kwargs) if callable(self._type) else self._type
            recipient = self._recipient(args, kwargs)
            cost = self._cost(args, kwargs) if callable(self._cost) else self._cost
            priority = self._priority(args, kwargs) if callable(self._priority) else self._priority
            fields = {field: value(args, kwargs) if callable(value) else value for field, value in self._fields.items()}
        except MissingArgument:
            self._signature.bind(*args, **kwargs)
            raise
        return cast(
            "tuple[str, Recipient, int, str | None, Mapping[str, Recipient | None]]",
            (type, recipient, cost, priority, fields),
        )


def _from_callable(function: Callable[..., object]) -> Reader:
    return lambda args, kwargs: function(*args, **kwargs)


def _reads(where: object, signature: inspect.Signature, option: str) -> Reader:
    if isinstance(where, str):
        return reader(where, signature, option)
    if callable(where):
        return _from_callable(where)
    raise NotifyError(
        f"{option}= is a {where.__class__.__name__}; it must name a parameter, or be a callable of the arguments."
    )


def _reads_or_is(value: object, signature: inspect.Signature) -> object:
    """A reader where the text names a parameter; otherwise the constant."""
    if callable(value):
        return _from_callable(value)
    if isinstance(value, str) and value.partition(".")[0] in signature.parameters:
        return reader(value, signature, "priority or fields")
    return value
