"""What happens to a notification that is over the limit: raise, drop or wait."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.exceeded import RateLimitExceeded
from ratelimited_notify.rules.rule import on_limit_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.rule import OnLimit, Rule
    from ratelimited_notify.rules.ruleset import RuleSet

# Seconds to pause if a storage refuses but says that there is room now, so that it is not asked in a tight loop.
_SHORTEST_PAUSE = 0.001

_STRICTEST_FIRST: tuple[OnLimit, ...] = ("raise", "drop", "wait")


class Policy:
    """What a notifier or a decorated function does with a refusal, if the refusing rule has no `on_limit`.

    Arguments:
        on_limit: `"raise"`, `"drop"` or `"wait"`.
        max_wait: the longest wait for one notification, in seconds. `"wait"` requires it.

    Raises:
        NotifyError: one of the arguments cannot be used.
    """

    __slots__ = ("_raises", "max_wait", "on_limit")

    def __init__(self, on_limit: OnLimit, max_wait: float | None) -> None:
        wrong = on_limit_problem(on_limit)
        if wrong:
            raise NotifyError(f"on_limit={wrong}")
        if max_wait is not None and (
            isinstance(max_wait, bool) or not isinstance(max_wait, (int, float)) or not 0 <= max_wait < inf
        ):
            raise NotifyError("max_wait= must be a finite number of seconds, 0 or more.")
        if on_limit == "wait" and max_wait is None:
            raise NotifyError("on_limit='wait' needs max_wait=, the longest wait in seconds.")
        self.on_limit: OnLimit = on_limit
        self.max_wait = max_wait
        self._raises = True

    def without_raising(self) -> Policy:
        """The same policy for batches: a refusal raises nothing, so that it does not affect the other notifications."""
        policy = Policy(self.on_limit, self.max_wait)
        policy._raises = False
        return policy

    def check(self, rules: Iterable[Rule]) -> None:
        """Check that this policy can do what the rules say.

        Raises:
            NotifyError: a rule has `on_limit="wait"`, and there is no `max_wait`.
        """
        waiting = [rule.name for rule in rules if rule.on_limit == "wait"]
        if waiting and self.max_wait is None:
            raise NotifyError(
                f"Rule {waiting[0]!r} has on_limit='wait'; that needs max_wait=, the longest wait in seconds."
            )

    def drops(self, windows: Iterable[Counter]) -> bool:
        """Whether a refusal is dropped, no matter which of these windows refuses."""
        if self.on_limit != "drop":
            return False
        for window in windows:  # noqa: SIM110  # a generator would take longer than the decision
            if window.on_limit is not None:
                return False
        return True

    def of(self, decision: Decision) -> OnLimit:
        """What happens to this refusal. If several rules refuse, the strictest `on_limit` counts."""
        return _strictest(self.on_limit if choice is None else choice for choice in decision.refusals) or self.on_limit

    def waits(self, decision: Decision) -> bool:
        """Whether to wait after this refusal, if `max_wait` allows it."""
        return not decision.allowed and _is_explained(decision) and self.of(decision) == "wait"

    def pause(self, decision: Decision, waited: float) -> float | None:
        """Seconds to wait before asking again, after `waited` seconds of waiting; None if this decision is final.

        Raises:
            RateLimitExceeded: the notification was refused, and the policy is to raise, or the wait would exceed
                `max_wait`. A policy `without_raising` returns None instead.
        """
        if decision.allowed:
            return None
        choice = self.of(decision)
        if choice == "drop":
            return None
        if choice == "wait" and _is_explained(decision):
            pause = decision.retry_after if decision.retry_after > 0 else _SHORTEST_PAUSE
            if waited + pause <= (self.max_wait or 0):
                return pause
        self.give_up(decision)
        return None

    def give_up(self, refusal: Decision) -> Decision:
        """The refusal, if waiting for it to change has no sense or has taken too long.

        Raises:
            RateLimitExceeded: always, except by a policy `without_raising`.
        """
        if self._raises:
            raise RateLimitExceeded(refusal)
        return refusal


def checking(policy: Policy, who: str) -> Callable[[RuleSet], None]:
    """A function that checks whether a policy can do what new rules say, for `limiter.register`.

    Arguments:
        policy: the policy.
        who: whose policy it is; the beginning of the error message.
    """

    def check(rules: RuleSet) -> None:
        try:
            policy.check(rules)
        except NotifyError as error:
            raise NotifyError(f"{who} cannot go by these rules: {error}") from None

    return check


def _is_explained(decision: Decision) -> bool:
    """Whether windows made the decision, so that it says when it may change."""
    return decision.error is None or decision.degraded


def _strictest(choices: Iterable[OnLimit]) -> OnLimit | None:
    return min(choices, key=_STRICTEST_FIRST.index, default=None)
