"""pytest fixtures for programs that send notifications: a clock that you move, fresh limits, no limits, and an outbox.

pytest finds them without configuration when this package is installed. pytest loads this module at the start of every
run, so it imports, creates and changes nothing until a test uses one of the fixtures.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.sync import Limiter


class Clock:
    """A clock that stands still until you move it. Pass it as `clock=` to a limiter or a notifier.

    Waiting takes no real time: `on_limit="wait"` moves the clock forward and continues at once. The clock starts at
    1 January 2026, 00:00 UTC.
    """

    def __init__(self) -> None:
        from ratelimited_notify.forking import forkable

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
            ValueError: the argument is negative.
        """
        if not isinstance(seconds, (int, float)):
            if not isinstance(seconds, timedelta):
                raise TypeError(f"advance() takes seconds or a timedelta, not {type(seconds).__name__}.")
            seconds = seconds.total_seconds()
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
        with self._lock:
            self._now = round(instant * 1_000_000)


class Limits:
    """The limits of decorated functions in one test."""

    @property
    def limiter(self) -> Limiter:
        """The limiter of sync functions. Use its `windows`, `test`, `clear` and other methods."""
        from ratelimited_notify.decorator.configuration import configuration

        return configuration.limiter()

    @property
    def async_limiter(self) -> AsyncLimiter:
        """The limiter of async functions. It uses the same windows."""
        from ratelimited_notify.decorator.configuration import configuration

        return configuration.async_limiter()


class Sent(NamedTuple):
    """One message in an outbox: its recipient, and the other arguments of the gateway."""

    # The repr shows everything, the recipient too, so that a failed assertion says what was sent: it is test data.
    recipient: object
    args: tuple[object, ...]
    kwargs: Mapping[str, object]


class _Recording(list[Sent]):
    """The common part of both outboxes."""

    error: BaseException | type[BaseException] | None = None
    """An exception that calls raise instead of recording: `outbox.error = ConnectionRefusedError()`. None ends this."""

    @property
    def recipients(self) -> list[object]:
        """The recipients of the messages, in the order in which the messages were sent."""
        return [sent.recipient for sent in self]

    def _record(self, recipient: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        if self.error is not None:
            raise self.error
        self.append(Sent(recipient, args, kwargs))


class Outbox(_Recording):
    """A gateway that sends nothing, and the list of the messages that it was called with, oldest first."""

    def __call__(self, recipient: object = None, /, *args: object, **kwargs: object) -> None:
        """Record a message, or raise `error`.

        Arguments:
            recipient: the first positional argument. None if all arguments are passed by name.
        """
        self._record(recipient, args, kwargs)


class AsyncOutbox(_Recording):
    """An `Outbox` for asyncio."""

    async def __call__(self, recipient: object = None, /, *args: object, **kwargs: object) -> None:
        """The same as `Outbox.__call__`."""
        self._record(recipient, args, kwargs)


@pytest.fixture
def notify_clock() -> Clock:
    """A clock that the test moves: `notify_clock.advance(seconds)`, `notify_clock.set(decision.retry_at)`.

    Decorated functions use it if the test also uses `notify_limits`. For notifiers and limiters, pass it:
    `Notifier(gateway, rules, clock=notify_clock)`. Waiting moves the clock instead of sleeping.
    """
    return Clock()


@pytest.fixture
def notify_limits(notify_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Limits]:
    """Fresh windows in memory for all decorated functions, with the time of `notify_clock`, for this test only.

    The rules of the program apply, also those that it sets with `configure` during the test, and so do the limits on
    decorators. The storage of the program is not opened. To use other rules, call `configure(rules=...)` in the test;
    the previous configuration is restored after the test. Limiting is on, even if `RATELIMITED_NOTIFY_DISABLED` is set.
    """
    from ratelimited_notify.decorator.configuration import configuration
    from ratelimited_notify.limiter.switch import VARIABLE

    monkeypatch.delenv(VARIABLE, raising=False)
    with configuration.overriding(notify_clock):
        yield Limits()


@pytest.fixture
def notify_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn all limits off in this test: decorated functions, notifiers and limiters send everything and count nothing."""
    from ratelimited_notify.limiter.switch import switch

    monkeypatch.setattr(switch, "off", True)


@pytest.fixture
def notify_outbox() -> Outbox:
    """A gateway that records messages: a list of messages, each with `recipient`, `args` and `kwargs`.

    Pass it to a sync or async notifier, `Notifier(notify_outbox, rules)`, or replace the function that sends:
    `monkeypatch.setattr("shop.mail.send_mail", notify_outbox)`. To make it raise, set
    `notify_outbox.error = TimeoutError()`. To replace a coroutine function, use `notify_async_outbox`.
    """
    return Outbox()


@pytest.fixture
def notify_async_outbox() -> AsyncOutbox:
    """`notify_outbox` for asyncio: pass it to an `AsyncNotifier`, or replace a coroutine function that sends.

    It does not share its list with `notify_outbox`.
    """
    return AsyncOutbox()
