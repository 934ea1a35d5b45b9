"""What happens to a notification that is over the limit: raise, drop or wait."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.decision import RateLimitExceeded
from ratelimited_notify.rules.rule import on_limit_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.rule import OnLimit, Rule

# A storage that says "not yet", and in the same breath that the time has come, is not to be asked without a break.
_SHORTEST_PAUSE = 0.001

_STRICTEST_FIRST: tuple[OnLimit, ...] = ("raise", "drop", "wait")


class Policy:
    """What a notifier or a decorated function does with a refusal, where the refusing rule does not say.

    Arguments:
        on_limit: `"raise"`, `"drop"` or `"wait"`.
        max_wait: the longest wait for one notification, in seconds; `"wait"` requires it.

    Raises:
        NotifyError: one of the two cannot be used.
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
        """The same policy for batches, where a refusal keeps nothing from the others: it is final, and not raised."""
        policy = Policy(self.on_limit, self.max_wait)
        policy._raises = False
        return policy

    def check(self, rules: Iterable[Rule]) -> None:
        """Make sure that this policy can do what the rules ask for.

        Raises:
            NotifyError: a rule says wait, and there is no `max_wait`.
        """
        waiting = [rule.name for rule in rules if rule.on_limit == "wait"]
        if waiting and self.max_wait is None:
            raise NotifyError(
                f"Rule {waiting[0]!r} has on_limit='wait'; that needs max_wait=, the longest wait in seconds."
            )

    def drops(self, windows: Iterable[Counter]) -> bool:
        """Whether a refusal by any of these windows is dropped, whichever it is."""
        if self.on_limit != "drop":
            return False
        for window in windows:  # noqa: SIM110  # a generator takes longer than the decision
            if window.on_limit is not None:
                return False
        return True

    def of(self, decision: Decision) -> OnLimit:
        """What is to happen to this refusal: of several refusing rules, what the strictest says."""
        return _strictest(self.on_limit if choice is None else choice for choice in decision.refusals) or self.on_limit

    def waits(self, decision: Decision) -> bool:
        """Whether this refusal is one to wait for, if `max_wait` allows."""
        return not decision.allowed and decision.error is None and self.of(decision) == "wait"

    def pause(self, decision: Decision, waited: float) -> float | None:
        """Seconds to wait before asking again, after having waited so long; None when this decision is the last word.

        Raises:
            RateLimitExceeded: it is refused and the policy is to raise, or to wait longer than `max_wait`.
        """
        if decision.allowed:
            return None
        choice = self.of(decision)
        if choice == "drop":
            return None
        if choice == "wait" and decision.error is None:
            pause = decision.retry_after if decision.retry_after > 0 else _SHORTEST_PAUSE
            if waited + pause <= (self.max_wait or 0):
                return pause
        if self._raises:
            raise RateLimitExceeded(decision)
        return None


def _strictest(choices: Iterable[OnLimit]) -> OnLimit | None:
    return min(choices, key=_STRICTEST_FIRST.index, default=None)
