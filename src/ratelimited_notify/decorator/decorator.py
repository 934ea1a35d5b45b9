"""`rate_limited`: limits a function that sends, where it is defined."""

from __future__ import annotations

from inspect import currentframe
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from ratelimited_notify.callables import (
    PLAIN,
    check_is_called_only,
    is_async,
    wraps_coroutine_function,
)
from ratelimited_notify.decorator.argument import INSTEAD_OF_AWAITING, Call
from ratelimited_notify.decorator.awaited import Pending, ended, ends_later
from ratelimited_notify.decorator.configuration import configuration, decided_by, declare
from ratelimited_notify.decorator.naming import is_redefined, name_of, named, place_of
from ratelimited_notify.decorator.surrounded import Surrounded
from ratelimited_notify.decorator.telling import (
    attempt_of,
    reading,
    tell_dropped,
    tell_end,
    tell_failure,
    tell_undecided,
)
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.aio import AsyncLimiter
from ratelimited_notify.limiter.exceeded import RateLimitExceeded
from ratelimited_notify.limiter.failed import failing
from ratelimited_notify.limiter.refund import give_back, give_back_async, refunding
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.limiter.sync import Limiter
from ratelimited_notify.notifier.admission import admit, admit_async, detour
from ratelimited_notify.notifier.policy import Policy
from ratelimited_notify.rules.plans import check_fields
from ratelimited_notify.rules.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from ratelimited_notify.decorator.signatures import DroppingDecorator, RaisingDecorator
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.refund import Refund
    from ratelimited_notify.limiter.watching import Attempt
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.annotations import LimitNotation
    from ratelimited_notify.rules.ruleset import RuleSet

_L = TypeVar("_L", bound="Limiter | AsyncLimiter")


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
    failed: Callable[[Any], object] | None = None,  # Any: what the function returns
) -> RaisingDecorator: ...


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
    failed: Callable[[Any], object] | None = None,  # Any: what the function returns
) -> DroppingDecorator: ...


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
    failed: Callable[[Any], object] | None = None,  # Any: what the function returns
) -> RaisingDecorator | DroppingDecorator:
    """Limit a function that sends: a function, a method, a class method, a static method or a coroutine function.

    The windows belong to the type. Functions with the same type share them, whatever their names are.

    Arguments:
        type: the type of notification that the function sends, or a callable that takes its arguments.
        limit: a rule for that type, in the notation of `limits` (`"1/day"`). It holds for all functions of that type. A
            configured rule that matches the type wins.
        recipient: the argument that is the recipient: its name, a dotted path (`"user.email"`), or a callable that
            takes the arguments. By default the parameter called recipient, to, user_id, user_email, email or user. In a
            path, each name is an item of a mapping if there is one that leads on, else an attribute.
        cost: how many hits a call counts as: a number (1 by default), or a name, a path or a callable as for `recipient`.
        priority: a priority that rules can exempt: a name, a path or a callable as for `recipient`, or else a constant.
        fields: further values that rules can count by, each given like `priority`: `{"tenant": "account.id", "channel":
            "sms"}`.
        on_limit: what a call does over the limit, if the rule does not say: `"raise"` (the default) raises
            `RateLimitExceeded`, `"drop"` returns None, `"wait"` waits until the call is allowed.
        max_wait: the longest wait of one call, in seconds. `"wait"` requires it. If the wait would be longer, the call
            raises at once. Calls that wait for the same window are served first come, first served.
        limiter: the limiter that decides. By default the one that `configure` or the environment sets up.
        refund: whether a call that raised gives its hit back, as for `Notifier`.
        failed: a callable that takes what the function returned, and returns True if this means that the message was
            not sent. The caller gets the result unchanged, and `refund` decides about the hit, as for `Notifier`.

    Returns:
        A decorator that keeps the signature, the name and the docstring. A function with `"raise"` or `"wait"` never
        returns None because of a rule.

    Raises:
        RuleError: the limit cannot be used.
        NotifyError: another argument cannot be used, or does not fit the function. It is raised at decoration.
    """
    if not isinstance(type, str):
        from ratelimited_notify.decorator.refused import check_has_arguments

        check_has_arguments(type, currentframe())
    policy = Policy(on_limit, max_wait)
    declared = _Decorator(type, limit, recipient, cost, priority, fields, policy, limiter, refund, failed)
    return cast("RaisingDecorator", declared)


class _Decorator:
    """A decorator with its arguments: what is known before there is a function."""

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
        failed: Callable[[Any], object] | None,  # Any: what the function returns
    ) -> None:
        if not (callable(type) or (isinstance(type, str) and type)):
            raise NotifyError(
                "type= must be a non-empty string such as 'news', or a callable that takes the arguments."
            )
        check_is_called_only(type, "type=", INSTEAD_OF_AWAITING)
        if limiter is not None and not isinstance(limiter, (Limiter, AsyncLimiter)):
            raise NotifyError(f"limiter= must be a Limiter or an AsyncLimiter, not {limiter.__class__.__name__}.")
        self.type = type
        self.rule = None
        if limit is not None:
            if not isinstance(type, str):
                raise NotifyError("limit= needs a type that is a string. If the type varies, write rules.")
            if any(character in type for character in "*?["):
                raise NotifyError(f"limit= is for one type, but {type!r} looks like a pattern. Write a rule for it.")
            self.rule = Rule(type, limit)
        self.recipient = recipient
        self.cost = cost
        self.priority = priority
        self.fields = {} if fields is None else dict(fields)
        self.policy = policy
        self.limiter = limiter
        self.refunded = refunding(refund)
        self.failure = failing(failed)
        self._checks: dict[str, Callable[[RuleSet], None]] = {}

    # Any, twice: the two protocols say what it takes and returns.
    def __call__(self, *functions: Any, **misplaced: Any) -> Any:  # Any: see above
        if len(functions) != 1 or misplaced:
            from ratelimited_notify.decorator.refused import WITH_ARGUMENTS

            # The call of a function that was decorated without arguments. `type` is that function.
            raise NotifyError(f"rate_limited decorates one function that sends. {WITH_ARGUMENTS}")
        return self.decorate(functions[0])

    def decorate(self, function: Any) -> Any:  # Any: as above
        if issubclass(type(function), (classmethod, staticmethod)):
            return type(function)(self.decorate(function.__func__))
        from ratelimited_notify.decorator.refused import check_function, rejecting_coroutines

        check_function(function)
        name = name_of(function)
        awaited = is_async(function)
        if isinstance(self.limiter, Limiter if awaited else AsyncLimiter):
            kind, needed = ("an async", "AsyncLimiter") if awaited else ("a sync", "Limiter")
            raise NotifyError(f"{name} is {kind} function, so its limiter= must be a {needed}.")
        call = Call(
            function, name,
            type=self._type_for(name), recipient=self.recipient, cost=self.cost, priority=self.priority, fields=self.fields,
        )  # fmt: skip
        if self.limiter is not None:
            self._check(self.limiter, name)
        if self.rule is not None:
            declare(self.limiter, self.rule, place_of(function), again=is_redefined(function))
        if awaited:
            return named(self._awaited(cast("Callable[..., Awaitable[object]]", function), call, name), function)
        return named(
            self._called(
                rejecting_coroutines(function) if wraps_coroutine_function(function) else function, call, name
            ),
            function,
        )

    def _type_for(self, name: str) -> str | Callable[..., str]:
        """The type. One that varies is checked at each call: something must limit it."""
        type_of = self.type
        if isinstance(type_of, str) or self.limiter is not None:
            return type_of

        def checked(*args: object, **kwargs: object) -> str:
            type = type_of(*args, **kwargs)
            # The limiter says it if this is no string.
            if isinstance(type, str) and not switch.off:
                configuration.require(name, str.__str__(type))
            return type

        return checked

    def _check(self, limiter: _L, name: str) -> _L | None:
        """The limiter, after a check that its rules fit the function; None if limiting is off, so that nothing is
        checked.

        Raises:
            NotifyError: there are no rules, they do not declare a field of the function, or a rule for its type has
                `on_limit="wait"` and there is no `max_wait`.
        """
        if switch.off or switch.read():
            return None
        if self.rule is None and self.limiter is None:
            configuration.require(name, self.type if isinstance(self.type, str) else None)
        self._check_rules(limiter.rules)
        # The decorator lives as long as the function.
        if name not in self._checks:
            self._checks[name] = self._checking(name)
        limiter.register(self._checks[name])
        if self.limiter is None:
            configuration.used = True
        return limiter

    def _check_rules(self, rules: RuleSet) -> None:
        check_fields(self.fields, rules)
        if isinstance(self.type, str):
            self.policy.check(rules.matching(self.type))

    def _checking(self, name: str) -> Callable[[RuleSet], None]:
        def check(rules: RuleSet) -> None:
            try:
                self._check_rules(rules)
            except NotifyError as error:
                raise NotifyError(f"{name} cannot go by these rules: {error}") from None

        return check

    def _dropped(self, decision: Decision) -> object:
        """The result of a call that a rule drops. A function whose own `on_limit` is not `"drop"` raises instead."""
        if self.policy.on_limit == "drop":
            return None
        raise RateLimitExceeded(decision)

    def _called(  # noqa: C901  # as `limited` in it
        self, function: Callable[..., object], call: Call, name: str
    ) -> Callable[..., object]:
        fixed = cast("Limiter | None", self.limiter)
        policy, refunded, failure, read = self.policy, self.refunded, self.failure, reading(call)
        plain, position, parameter = call.plain, call.position, call.parameter
        bypass = switch if policy.max_wait is None else detour
        checked = fixed
        surrounded = Surrounded(function, call, policy, refunded, failure, self._dropped)

        def limited(*args: object, **kwargs: object) -> object:  # noqa: C901  # a call takes a twentieth of a decision
            nonlocal checked
            limiter = configuration.limiter() if fixed is None else fixed
            if limiter is not checked:
                checked = self._check(limiter, name)
            recipient, outcome, decision = None, None, None
            shortcut = None if bypass.off else limiter.plans.shortcuts.get(plain)
            if shortcut is not None:
                try:
                    recipient = args[position]
                except IndexError:
                    recipient = kwargs.get(parameter)
                if type(recipient) is str:
                    try:
                        outcome = shortcut.decide(recipient)
                    except BaseException as error:
                        tell_undecided(limiter, plain, recipient, error)
                        raise
            if outcome is None or not outcome[0]:
                if outcome is not None and policy.drops(outcome[-1].windows):
                    tell_dropped(limiter, plain, recipient, outcome)
                    return None
                if limiter.watching is not None and limiter.watching.surrounds:
                    return surrounded.call(limiter, limiter.watching, args, kwargs)
                decision = limiter.decision_from(plain, recipient, outcome)
                decision = admit(limiter, policy, *read(limiter, args, kwargs), decision)
                if not decision.allowed:
                    return self._dropped(decision)
            # What has to know how the call ends. One look at it costs less than two.
            ending = failure if limiter.watching is None else attempt_of(limiter, plain, recipient, decision, failure)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                tell_failure(ending, failure, error)
                if refunded(error):
                    decision = decision or limiter.decision_from(plain, recipient, outcome)
                    give_back(limiter, [decision])
                raise
            kind = type(result)
            if ending is None and (kind in PLAIN or not ends_later(kind)):
                return result
            attempt = cast("Attempt | None", None if ending is failure else ending)
            if attempt is not None and failure is None and (kind in PLAIN or not ends_later(kind)):
                attempt.sent()
                return result
            decision = decision or limiter.decision_from(plain, recipient, outcome)
            return ended(result, Pending(limiter, decision, refunded, failure, attempt))

        decided_by(limited, fixed, awaited=False)
        return limited

    def _awaited(  # noqa: C901  # as `limited` in it
        self, function: Callable[..., Awaitable[object]], call: Call, name: str
    ) -> Callable[..., Coroutine[object, object, object]]:
        fixed = cast("AsyncLimiter | None", self.limiter)
        policy, refunded, failure, read = self.policy, self.refunded, self.failure, reading(call)
        plain, position, parameter = call.plain, call.position, call.parameter
        bypass = switch if policy.max_wait is None else detour
        checked = fixed
        surrounded = Surrounded(function, call, policy, refunded, failure, self._dropped)

        async def limited(*args: object, **kwargs: object) -> object:  # noqa: C901  # the same as above, with two awaits
            nonlocal checked
            limiter = configuration.async_limiter() if fixed is None else fixed
            if limiter is not checked:
                checked = self._check(limiter, name)
            recipient, outcome, decision = None, None, None
            shortcut = None if bypass.off else limiter.plans.shortcuts.get(plain)
            if shortcut is not None:
                try:
                    recipient = args[position]
                except IndexError:
                    recipient = kwargs.get(parameter)
                if type(recipient) is str:
                    try:
                        outcome = shortcut.decide(recipient)
                    except BaseException as error:
                        tell_undecided(limiter, plain, recipient, error)
                        raise
            if outcome is None or not outcome[0]:
                if outcome is not None and policy.drops(outcome[-1].windows):
                    tell_dropped(limiter, plain, recipient, outcome)
                    return None
                if limiter.watching is not None and limiter.watching.surrounds:
                    return await surrounded.call_async(limiter, limiter.watching, args, kwargs)
                decision = limiter.decision_from(plain, recipient, outcome)
                decision = await admit_async(limiter, policy, *read(limiter, args, kwargs), decision)
                if not decision.allowed:
                    return self._dropped(decision)
            ending = failure if limiter.watching is None else attempt_of(limiter, plain, recipient, decision, failure)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                tell_failure(ending, failure, error)
                if refunded(error):
                    decision = decision or limiter.decision_from(plain, recipient, outcome)
                    await give_back_async(limiter, [decision])
                raise
            if ending is None:
                return result
            failed = None if failure is None else failure(result)
            tell_end(ending, failure, failed)
            if failed is not None and refunded(failed):
                await give_back_async(limiter, [decision or limiter.decision_from(plain, recipient, outcome)])
            return result

        decided_by(limited, fixed, awaited=True)
        return limited
