"""One window at the moment of a decision, as users see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

from ratelimited_notify.rules.wording import limit_text
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, NEVER, Mode

if TYPE_CHECKING:
    from limits import RateLimitItem

    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Subject
    from ratelimited_notify.windows.strategies import Reading, StrategyName

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_FIRST, _LAST = ((each - _EPOCH) // timedelta(microseconds=1) for each in (_EARLIEST, _LATEST))


@dataclass(frozen=True, slots=True)
class WindowState:
    """One window at the moment of a decision.

    You can ask `limits` about the same window: `strategy.hit(state.item, *state.identifiers)` on the limiter's storage.
    """

    rule: str
    """The name of the rule."""
    item: RateLimitItem
    """The limit, a `RateLimitItem` of `limits`."""
    identifiers: tuple[str, ...]
    """The values that the rule counts by."""
    strategy: StrategyName
    remaining: int
    """How many hits are left: after this hit if it was taken, before it if it was refused."""
    reset_at: datetime
    """When the window is empty, if nothing else happens. After the year 9999, it is the end of that year."""
    retry_after: float
    """Seconds until this cost fits, if nothing else happens. 0 if it fits or was taken, `inf` if it never fits."""
    enforced: bool
    """False for a window that could not refuse: its rule is in shadow mode, or the priority is exempt from it."""
    paused: bool = False
    """True if this is no limit but a pause of the rule, by `limiter.pause`. It lasts until `reset_at`. `item` has the amount
    0, and `limits` does not know the pause."""

    # Not by `field(repr=False)`: this module is loaded during a decision, and if a signal handler raises while a class with a
    # field is made, Python up to 3.11 raises a RuntimeError instead.
    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self.__match_args__ if name != "identifiers"]
        return f"WindowState({', '.join(shown)})"

    def to_dict(self) -> dict[str, object]:
        """The window as a JSON object, as in `Decision.to_dict`: `rule`, `limit` (`"paused"` for a pause), `remaining`,
        `retry_after` (None if the cost never fits) and `reset_at`. It does not contain the `identifiers`.
        """
        return {
            "rule": self.rule,
            "limit": limit_text(self.item),
            "remaining": self.remaining,
            "retry_after": None if self.retry_after == inf else self.retry_after,
            "reset_at": self.reset_at.isoformat(),
        }


def state_of(subject: Subject, window: Counter, reading: Reading, now: int) -> WindowState:
    """The state of a window, from what the storage read in it at the instant `now`."""
    if reading.retry_at == NEVER:
        retry_after = inf
    elif reading.retry_at == FITS:
        retry_after = 0.0
    else:
        retry_after = (reading.retry_at - now) / MICROSECONDS
    return WindowState(
        rule=window.rule,
        item=window.item,
        identifiers=subject.identifiers(window.by) or (),
        strategy=window.rule_strategy,
        remaining=max(0, window.amount - reading.count),
        reset_at=utc(reading.reset_at),
        retry_after=retry_after,
        enforced=window.mode is Mode.ENFORCE,
        paused=window.strategy == "pause",
    )


def utc(instant: int) -> datetime:
    """The time of an instant in microseconds, aware, in UTC. One that `datetime` cannot express is the last that it can, at the
    end of the year 9999, or the first.
    """
    return _EPOCH + timedelta(microseconds=min(max(instant, _FIRST), _LAST))
