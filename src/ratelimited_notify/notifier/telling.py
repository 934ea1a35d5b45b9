"""What is told to those who watch when a notification is not sent, or had to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.limiter.exceeded import RateLimitExceeded
from ratelimited_notify.log import debug, is_debugging

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.watching import Watching
    from ratelimited_notify.notification.annotations import Recipient


class Wait:
    """A wait that begins now.

    Arguments:
        now: the time by which the limiter waits, in seconds.
    """

    __slots__ = ("_began", "_now")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()

    def seconds(self) -> float:
        """How long it has lasted."""
        return max(0.0, self._now() - self._began)


def tell_decision(
    watching: Watching | None, type: str, recipient: Recipient, decision: Decision, wait: Wait | None
) -> None:
    """Tell that a notification waited for its decision, and that it is not sent if it was refused."""
    if wait is not None and watching is not None:
        watching.waited(type, recipient, wait.seconds(), allowed=decision.allowed)
    if not decision.allowed:
        _tell_suppression(watching, type, recipient, decision)


def tell_no_decision(
    watching: Watching | None, type: str, recipient: Recipient, error: BaseException, wait: Wait | None
) -> None:
    """Tell that nothing is sent, because of this error."""
    if wait is not None and watching is not None:
        watching.waited(type, recipient, wait.seconds(), allowed=False)
    if isinstance(error, RateLimitExceeded):
        _tell_suppression(watching, type, recipient, error.decision)
    elif watching is not None:
        watching.undecided(type, recipient, error)


def _tell_suppression(watching: Watching | None, type: str, recipient: Recipient, decision: Decision | None) -> None:
    """Tell that a notification is not sent, because of this refusal. If nobody logs that, it is a line at the level DEBUG."""
    if watching is not None:
        watching.suppressed(type, recipient, decision)
    if decision is not None and is_debugging() and (watching is None or not watching.logs_suppressions):
        debug("A notification is suppressed: %s.", decision)
