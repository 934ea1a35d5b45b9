"""The final decision about a notification: ask the limiter, and wait for its turn if the policy is to wait."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.limiter.waiters import changes, lines
from ratelimited_notify.notifier.signals import TaskSignal, ThreadSignal
from ratelimited_notify.notifier.telling import Wait, tell_decision, tell_no_decision
from ratelimited_notify.notifier.turns import Pause, turns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.limiter.waiters import Place
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.notifier.policy import Policy
    from ratelimited_notify.notifier.turns import Step, Steps


class _Detour:
    """In place of the switch, for callers that may wait: they do not overtake those that wait already."""

    __slots__ = ()

    @property
    def off(self) -> bool:
        """Whether no shortcut may decide."""
        return switch.off or bool(lines)


detour = _Detour()


def admit(
    limiter: Limiter,
    policy: Policy,
    type: str,
    recipient: Recipient,
    cost: int,
    priority: str | None,
    fields: Mapping[str, Recipient | None],
    decision: Decision | None = None,
) -> Decision:
    """The final decision. `decision` is one that was already made, alone or in a batch.

    Raises:
        RateLimitExceeded: the notification was refused, and the policy is to raise, or the wait would be too long.
    """
    waiting: Wait | None = None
    try:
        line: Place | None = None
        seen = changes.latest
        # Others in the batch may have waited since this decision was made, so it may have changed: ask again before waiting.
        if decision is None or policy.waits(decision):
            if lines and policy.max_wait is not None:
                line = limiter.line_for(policy.on_limit, type, recipient, cost, priority, fields)
            decision = None
            if line is None:
                decision = limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
        if decision is None or policy.pause(decision, 0.0) is not None:
            timing = limiter.timing()
            waiting = Wait(timing.now)
            signal = ThreadSignal()
            with closing(turns(policy, limiter.place_of, timing, line, decision, signal.wake, seen)) as steps:
                step = _next(steps, None)
                while not isinstance(step, Decision):
                    answer: Decision | bool | None = None
                    if isinstance(step, Pause) and step.by_clock:
                        limiter.wait(step.seconds)
                    elif isinstance(step, Pause):
                        answer = signal.wait(step.seconds)
                    else:
                        ask = limiter.hit if step == "hit" else limiter.test
                        answer = ask(type, recipient, cost=cost, priority=priority, **fields)
                    step = _next(steps, answer)
                decision = step
    except BaseException as error:
        tell_no_decision(limiter.watching, type, recipient, error, waiting)
        raise
    # Not in the block above: what a callback lets through must not be told as a second end of the same notification.
    if waiting is not None or not decision.allowed:
        tell_decision(limiter.watching, type, recipient, decision, waiting)
    return decision


async def admit_async(
    limiter: AsyncLimiter,
    policy: Policy,
    type: str,
    recipient: Recipient,
    cost: int,
    priority: str | None,
    fields: Mapping[str, Recipient | None],
    decision: Decision | None = None,
) -> Decision:
    """`admit` for asyncio."""
    waiting: Wait | None = None
    try:
        line: Place | None = None
        seen = changes.latest
        if decision is None or policy.waits(decision):
            if lines and policy.max_wait is not None:
                line = limiter.line_for(policy.on_limit, type, recipient, cost, priority, fields)
            decision = None
            if line is None:
                decision = await limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
        if decision is None or policy.pause(decision, 0.0) is not None:
            timing = limiter.timing()
            waiting = Wait(timing.now)
            from ratelimited_notify.storage.event_loop import running_loop

            signal = TaskSignal(running_loop())
            with closing(turns(policy, limiter.place_of, timing, line, decision, signal.wake, seen)) as steps:
                step = _next(steps, None)
                while not isinstance(step, Decision):
                    answer: Decision | bool | None = None
                    if isinstance(step, Pause) and step.by_clock:
                        await limiter.wait(step.seconds)
                    elif isinstance(step, Pause):
                        answer = await signal.wait(step.seconds)
                    else:
                        ask = limiter.hit if step == "hit" else limiter.test
                        answer = await ask(type, recipient, cost=cost, priority=priority, **fields)
                    step = _next(steps, answer)
                decision = step
    except BaseException as error:
        tell_no_decision(limiter.watching, type, recipient, error, waiting)
        raise
    if waiting is not None or not decision.allowed:
        tell_decision(limiter.watching, type, recipient, decision, waiting)
    return decision


def _next(steps: Steps, answer: Decision | bool | None) -> Step | Decision:
    """The next step, or the final decision."""
    try:
        return steps.send(answer)
    except StopIteration as done:
        final: Decision = done.value
        return final
