"""A clock that a test moves."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from math import isfinite

from ratelimited_notify.forking import forkable


class Clock:
    """A clock that stands still until you move it. Pass it as `clock=` to a limiter or a notifier.

    Waiting takes no real time: `on_limit="wait"` moves the clock forward and continues at once. The clock starts at
    1 January 2026, 00:00 UTC.
    """

    def __init__(self) -> None:
        # Whole microseconds, as in limiters. Sums of fractions of a second would drift.
        self._now = 1_767_225_600_000_000
        self._lock = forkable(threading.Lock())

    def __call__(self) -> float:
        """The time of this clock, in seconds since 1970."""
        return self._now / 1_000_000

    def advance(self, seconds: float | timedelta) -> None:
        """Move the clock forward by seconds or a `timedelta`. To move it back, use `set`.

        Raises:
            TypeError: the argument is neither a number nor a `timedelta`.
            ValueError: the argument is negative, or not finite, as the `retry_after` of what is never allowed.
        """
        if not isinstance(seconds, (int, float)):
            if not isinstance(seconds, timedelta):
                raise TypeError(f"advance() takes seconds or a timedelta, not {type(seconds).__name__}.")
            seconds = seconds.total_seconds()
        if not isfinite(seconds):
            raise ValueError(
                "advance() takes a finite number of seconds; retry_after is inf if a notification is never allowed."
            )
        if seconds < 0:
            raise ValueError("advance() takes 0 seconds or more; to move the clock back, use set().")
        with self._lock:
            self._now += round(seconds * 1_000_000)

    def sleep(self, seconds: float) -> None:
        """The same as `advance`. Limiters call this to wait."""
        self.advance(seconds)

    def set(self, instant: datetime | float) -> None:
        """Set the clock to an aware datetime, such as `decision.retry_at`, or to seconds since 1970.

        Raises:
            TypeError: the argument is neither of these, for example a naive datetime or None.
            ValueError: the seconds are not finite.
        """
        if not isinstance(instant, (int, float)):
            if not isinstance(instant, datetime):
                what = (
                    f"not {type(instant).__name__}"
                    if instant is not None
                    else "not None; retry_at is None if a notification is allowed now, or never"
                )
                raise TypeError(f"set() takes an aware datetime or seconds since 1970, {what}.")
            if instant.tzinfo is None:
                raise TypeError(
                    "set() takes an aware datetime or seconds since 1970; pass tzinfo=timezone.utc to the datetime."
                )
            instant = instant.timestamp()
        if not isfinite(instant):
            raise ValueError("set() takes an aware datetime or a finite number of seconds since 1970.")
        with self._lock:
            self._now = round(instant * 1_000_000)
