"""`failed=`: whether what a gateway returned says that it did not send."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.callables import check_is_called_only, if_unawaited
from ratelimited_notify.errors import NotifyError, SendFailed
from ratelimited_notify.log import RecurringLine
from ratelimited_notify.rules.wording import duration_text

if TYPE_CHECKING:
    from ratelimited_notify.log import Message
    from ratelimited_notify.recurring import End, Report

Failure: TypeAlias = Callable[[object], SendFailed | None]
"""Makes an exception of a result that is a failure; None if the result is fine."""


def failing(failed: Callable[..., object] | None) -> Failure | None:
    """The function that makes a `SendFailed` of a result, or None if the result is fine, for a value of `failed=`.

    Raises:
        NotifyError: the value cannot be used.
    """
    if failed is None:
        return None
    check_is_called_only(failed, "failed=")
    if not callable(failed):
        raise NotifyError("failed= must be a callable from the result to a bool, or None.")
    says_failed = failed
    line = RecurringLine(logging.ERROR, _undecided, _decides)

    def failure(result: object) -> SendFailed | None:
        try:
            said = says_failed(result)
            if if_unawaited(said):
                line.happened(f"returned a {type(said).__name__}, which nothing awaits")
                return None
            found = SendFailed(result) if said else None
        except Exception as raised:  # noqa: BLE001  # the message went out as far as is known; the caller must see that
            # Only its class: its message may name the recipient.
            line.happened(f"raised {type(raised).__name__}")
            return None
        if line.event.ongoing:
            line.ended()
        return found

    return failure


def _undecided(report: Report, cause: str) -> Message:
    if report.first and report.number == 1:
        return "failed= %s; the notification counts as sent.", (cause,)
    number = f"{report.number} times" if report.first else f"{report.number} more times"
    return "failed= %s (%s); the notifications count as sent.", (cause, number)


def _decides(end: End) -> Message:
    message = "failed= decides again. Before that, it did not %d times in %s, and the notifications counted as sent."
    return message, (end.number, duration_text(end.seconds))
