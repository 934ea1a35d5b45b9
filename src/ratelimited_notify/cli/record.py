"""What is recorded about one line of the input, for `--json` and `--report`. No recipient, and nothing of the message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.gateways.smtp import DeliveryUnknown
from ratelimited_notify.notifier.delivery import Status

if TYPE_CHECKING:
    from ratelimited_notify.notifier.delivery import Delivery

WOULD_BE_SENT = "would be sent"
"""The status of what a dry run allows."""

_UNKNOWN = "unknown"


class Record(NamedTuple):
    """What happened to one line."""

    line: int
    """The number of the line, which identifies the notification."""
    status: str
    """`sent`, `suppressed`, `failed`, `malformed`, or `unknown` if it may have been sent. In a dry run, `would be sent`."""
    type: str | None = None
    rule: str | None = None
    """The rule that refused."""
    retry_at: str | None = None
    """When a notification that was refused would be allowed, in ISO 8601; None for never."""
    problem: str | None = None
    """Why it failed, is malformed or unknown."""

    def written(self) -> str:
        """The record as a line of JSON in ASCII, which every output can show."""
        return json.dumps(self._asdict()) + "\n"


def record_of(delivery: Delivery[object], *, dry_run: bool = False) -> Record:
    """The record of a notification that was processed."""
    decision, status = delivery.decision, delivery.status.value
    if delivery.status is Status.SENT and dry_run:
        status = WOULD_BE_SENT
    elif isinstance(delivery.error, DeliveryUnknown):
        status = _UNKNOWN
    blocked_by = decision.blocked_by
    return Record(
        int(delivery.notification.id),
        status,
        decision.type,
        None if blocked_by is None else blocked_by.rule,
        None if decision.retry_at is None else decision.retry_at.isoformat(),
        None if delivery.error is None else reason(delivery.error),
    )


def malformed(line: int, problem: str) -> Record:
    """The record of a malformed line."""
    return Record(line, "malformed", problem=problem)


def interrupted(line: int) -> Record:
    """The record of a notification that was being sent when the command was interrupted."""
    return Record(line, _UNKNOWN, problem="interrupted while it was being sent; it may have been sent")


def reason(error: BaseException) -> str:
    """What to say about an error. Messages of this library never contain a recipient. Other messages may."""
    return plain(str(error)) if isinstance(error, NotifyError) else "an unexpected error"
