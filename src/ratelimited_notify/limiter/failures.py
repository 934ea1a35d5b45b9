"""The log lines about a storage that fails. Limiters that use the same servers share them: an outage is logged once a process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ratelimited_notify.log import RecurringLine
from ratelimited_notify.rules.wording import duration_text

if TYPE_CHECKING:
    from ratelimited_notify.limiter.options import FailurePolicy
    from ratelimited_notify.log import Message
    from ratelimited_notify.recurring import End, Report

_MOST_PLACES = 64
"""The most storages whose lines are shared. With more, those that were opened first are no longer found by new limiters."""


class StorageFailures:
    """What the log says about one storage that fails.

    Arguments:
        policy: what its limiters do when it fails.
    """

    __slots__ = ("uncounted", "uninsured", "unreleased")

    def __init__(self, policy: FailurePolicy) -> None:
        said = "refused" if policy == "deny" else "allowed"

        def begun(report: Report, cause: str) -> Message:
            number = f"{report.number}" if report.first else f"{report.number} more"
            message = "Notifications were %s without being counted (%s), because the storage failed: %s"
            return message, (said, number, cause)

        def over(end: End) -> Message:
            message = "Notifications are counted again. Before that, %d were %s without being counted, in %s."
            return message, (end.number, said, duration_text(end.seconds))

        self.uncounted = (
            RecurringLine(logging.WARNING, _degraded, _not_degraded)
            if policy == "insurance"
            else RecurringLine(logging.WARNING, begun, over)
        )
        """The notifications that `on_storage_error` decided about."""
        self.uninsured = RecurringLine(logging.WARNING, _uninsured, _insured_again)
        """The hits that the insurance could not copy."""
        self.unreleased = RecurringLine(logging.WARNING, _unreleased, _released_again)
        """The hits that could not be given back."""


def _degraded(report: Report, cause: str) -> Message:
    number = f"{report.number}" if report.first else f"{report.number} more"
    return "The insurance decided about notifications (%s), because the storage failed: %s", (number, cause)


def _not_degraded(end: End) -> Message:
    message = "The storage decides again. Before that, the insurance decided about %d notifications, in %s."
    return message, (end.number, duration_text(end.seconds))


def _uninsured(report: Report, cause: str) -> Message:
    number = f"{report.number}" if report.first else f"{report.number} more"
    return "The insurance failed and does not know of what the storage allowed (%s): %s", (number, cause)


def _insured_again(end: End) -> Message:
    message = "The insurance works again. Before that, it failed %d times, in %s."
    return message, (end.number, duration_text(end.seconds))


def _unreleased(report: Report, cause: str) -> Message:
    if report.first and report.number == 1:
        return "A hit could not be given back and stays counted: %s", (cause,)
    number = f"{report.number}" if report.first else f"{report.number} more"
    return "Hits could not be given back and stay counted (%s): %s", (number, cause)


def _released_again(end: End) -> Message:
    message = "Hits are given back again. Before that, %d could not be given back, in %s, and %s counted."
    return message, (end.number, duration_text(end.seconds), "stays" if end.number == 1 else "stay")


_known: dict[tuple[str, FailurePolicy], StorageFailures] = {}


def failures_at(place: str, policy: FailurePolicy) -> StorageFailures:
    """The log lines about the storage at this place, for limiters that do the same when it fails.

    Limiters share them even after one another: a program that makes a limiter for each message must not log each message.
    """
    found = _known.setdefault((place, policy), StorageFailures(policy))
    if len(_known) > _MOST_PLACES:
        for oldest in list(_known.copy())[:-_MOST_PLACES]:
            _known.pop(oldest, None)
    return found
