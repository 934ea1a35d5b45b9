"""What to ask the storage about one notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.windows.strategies import Request

if TYPE_CHECKING:
    from ratelimited_notify.limiter.refusals import AskedAt
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Subject


class Query:
    """What to ask the storage about one notification."""

    __slots__ = ("asked", "began", "cost", "exempt", "keys", "recipient", "subject", "windows")

    def __init__(
        self, subject: Subject, recipient: Recipient, cost: int, windows: tuple[Counter, ...], keys: list[str]
    ) -> None:
        self.subject = subject
        self.recipient = recipient
        self.cost = cost
        self.windows = windows
        self.keys = keys
        self.asked: AskedAt | None = None
        """When the storage is asked. Set only if refusals are remembered."""
        self.began = 0.0
        """When the storage is asked, by `Watching.now`. Set only if somebody watches."""
        self.exempt = False
        """Whether a rule exempts the notification and does not count it, so that no window tells."""

    def request(self) -> Request:
        return Request(self.windows, self.keys, self.cost)
