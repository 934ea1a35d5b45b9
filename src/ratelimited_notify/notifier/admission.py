"""From a limiter's decisions to the one that stands: waiting where the policy is to wait, giving back what a send lost."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ratelimited_notify.errors import StorageError
from ratelimited_notify.limiter.refund import log_stays_counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.notifier.policy import Policy

PATIENCE = 10.0
"""Seconds of failures after which nothing more is given back: a storage that hangs takes a time-out for each hit."""

_log = logging.getLogger("ratelimited_notify")


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
    """The decision that stands; `decision` is one that was made already, alone or in a batch.

    Raises:
        RateLimitExceeded: it is refused, and the policy is to raise, or to wait longer than it may.
    """
    waited = 0.0
    if decision is not None and policy.waits(decision):
        # While those before it in the batch waited, its own time may have come: what is to be waited for is asked anew.
        decision = None
    while True:
        if decision is None:
            decision = limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
        pause = policy.pause(decision, waited)
        if pause is None:
            return decision
        limiter.wait(pause)
        waited += pause
        decision = None


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
    """`admit`, awaited."""
    waited = 0.0
    if decision is not None and policy.waits(decision):
        # While those before it in the batch waited, its own time may have come: what is to be waited for is asked anew.
        decision = None
    while True:
        if decision is None:
            decision = await limiter.hit(type, recipient, cost=cost, priority=priority, **fields)
        pause = policy.pause(decision, waited)
        if pause is None:
            return decision
        await limiter.wait(pause)
        waited += pause
        decision = None


def give_back(limiter: Limiter, decisions: Iterable[Decision | Exception]) -> None:
    """Release what was decided and not sent. What the storage cannot give back stays counted, and the log says so."""
    failing = 0.0
    for decision in decisions:
        if isinstance(decision, Exception):
            continue
        if failing > PATIENCE:
            _given_up()
            return
        started = time.monotonic()
        try:
            limiter.release(decision)
        except StorageError as error:
            failing += time.monotonic() - started
            log_stays_counted(error)


async def give_back_async(limiter: AsyncLimiter, decisions: Iterable[Decision | Exception]) -> None:
    """`give_back`, awaited."""
    failing = 0.0
    for decision in decisions:
        if isinstance(decision, Exception):
            continue
        if failing > PATIENCE:
            _given_up()
            return
        started = time.monotonic()
        try:
            await limiter.release(decision)
        except StorageError as error:
            failing += time.monotonic() - started
            log_stays_counted(error)


def _given_up() -> None:
    _log.warning("The rest of the batch is not given back, and stays counted, as the storage has failed for too long.")
