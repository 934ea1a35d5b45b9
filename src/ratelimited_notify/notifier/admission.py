"""The final decision about a notification: ask the limiter, and wait and ask again if the policy is to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.notifier.policy import Policy


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
    # Others in the batch may have waited since this decision was made, so it may have changed: ask again before waiting.
    if decision is None or policy.waits(decision):
        decision = limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
    waited = 0.0
    while (pause := policy.pause(decision, waited)) is not None:
        limiter.wait(pause)
        waited += pause
        decision = limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
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
    if decision is None or policy.waits(decision):
        decision = await limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
    waited = 0.0
    while (pause := policy.pause(decision, waited)) is not None:
        await limiter.wait(pause)
        waited += pause
        decision = await limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
    return decision
