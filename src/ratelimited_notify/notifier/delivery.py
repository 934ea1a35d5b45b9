"""What happened to one notification."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.notification.notification import Notification

R_co = TypeVar("R_co", covariant=True)


class Status(Enum):
    """What happened to a notification."""

    SENT = "sent"
    """The gateway returned."""
    SUPPRESSED = "suppressed"
    """It was refused and not sent: by a rule, or by `on_storage_error="deny"` when the storage failed. In batches also if
    `on_limit` is `"raise"`."""
    DEFERRED = "deferred"
    """A rule refused it, and it is kept to be sent later."""
    FAILED = "failed"
    """The gateway raised, `failed=` took its result for a failure, or the decision could not be made. `error` is the exception."""


class Delivery(Generic[R_co]):
    """What happened to one notification. It is true if it was sent."""

    __slots__ = ("_result", "decision", "error", "notification", "status")

    def __init__(
        self,
        status: Status,
        decision: Decision,
        notification: Notification,
        result: R_co | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.status = status
        self.decision = decision
        """Why it was sent or not."""
        self.notification = notification
        self._result = result
        self.error = error
        """What the gateway raised, a `SendFailed` with what it returned, or why there is no decision; None unless FAILED."""

    @property
    def result(self) -> R_co | None:
        """What the gateway returned; None if it was not sent."""
        return self._result

    def __bool__(self) -> bool:
        return self.status is Status.SENT

    def __repr__(self) -> str:
        failed = f", {type(self.error).__name__}" if self.error is not None else ""
        return f"<Delivery {self.status.value}: {self.decision}{failed}>"
