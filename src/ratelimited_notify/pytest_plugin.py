"""Fixtures for the tests of programs that send: a clock to move, fresh limits, no limits, and an outbox.

pytest finds them by itself where this package is installed. Nothing is imported, made or changed before a test asks for
one: this module is loaded at the start of every run.
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
    """A clock that stands still until it is moved: for the `clock=` of a limiter or a notifier.

    Waiting by it takes no time: `on_limit="wait"` moves it on, and goes on at once. It begins on 1 January 2026, 00:00 UTC.
    """

    def __init__(self) -> None:
        # Whole microseconds, as limiters count: sums of fractions of seconds would drift.
        self._now = 1_767_225_600_000_000
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """The seconds since 1970."""
        return self._now / 1_000_000

    def advance(self, seconds: float | timedelta) -> None:
        """Let so much time pass: seconds, or a `timedelta`. Back in time only `set` goes."""
        if not isinstance(seconds, (int, float)):
            if not isinstance(seconds, timedelta):
                raise TypeError(f"A clock is advanced by seconds or a timedelta, not by a {type(seconds).__name__}.")
            seconds = seconds.total_seconds()
        if seconds < 0:
            raise ValueError("A clock is advanced by 0 seconds or more; to go back, set() it to an instant.")
        with self._lock:
            self._now += round(seconds * 1_000_000)

    def sleep(self, seconds: float) -> None:
        """What limiters wait by: the same as `advance`."""
        self.advance(seconds)

    def set(self, instant: datetime | float) -> None:
        """Go to an instant: an aware datetime, such as `decision.retry_at`, or seconds since 1970."""
        if not isinstance(instant, (int, float)):
            if not isinstance(instant, datetime):
                what = (
                    f"not to a {type(instant).__name__}" if instant is not None else "not to None: is there an instant?"
                )
                raise TypeError(f"A clock is set to an aware datetime, or to seconds since 1970, {what}.")
            if instant.tzinfo is None:
                raise TypeError(
                    "A clock is set to an aware datetime, or to seconds since 1970; give tzinfo=timezone.utc."
                )
            instant = instant.timestamp()
        with self._lock:
            self._now = round(instant * 1_000_000)


class Limits:
    """What decorated functions are limited by in one test."""

    @property
    def limiter(self) -> Limiter:
        """What decides about sync functions: for `windows`, `test`, `clear` and the like."""
        from ratelimited_notify.decorator.configuration import configuration

        return configuration.limiter()

    @property
    def async_limiter(self) -> AsyncLimiter:
        """What decides about async functions, on the same windows."""
        from ratelimited_notify.decorator.configuration import configuration

        return configuration.async_limiter()


class Sent(NamedTuple):
    """One message in an outbox: whom it was for, and what else the gateway was called with."""

    # Shown by its repr, recipient and all, so that an assertion that fails says what was sent: there is nobody behind it.
    recipient: object
    args: tuple[object, ...]
    kwargs: Mapping[str, object]


class _Recording(list[Sent]):
    """What both outboxes are."""

    error: BaseException | type[BaseException] | None = None
    """What the next calls raise, instead of recording: `outbox.error = ConnectionRefusedError()`; None sends again."""

    @property
    def recipients(self) -> list[object]:
        """Whom the messages were for, in the order in which they were sent."""
        return [sent.recipient for sent in self]

    def _record(self, recipient: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        if self.error is not None:
            raise self.error
        self.append(Sent(recipient, args, kwargs))


class Outbox(_Recording):
    """A gateway that sends nothing: a list of what it was called with, oldest first."""

    def __call__(self, recipient: object = None, /, *args: object, **kwargs: object) -> None:
        """Record a message, or raise `error`; the recipient is the first argument, None where all are given by name."""
        self._record(recipient, args, kwargs)


class AsyncOutbox(_Recording):
    """An `Outbox` to await."""

    async def __call__(self, recipient: object = None, /, *args: object, **kwargs: object) -> None:
        """As `Outbox`, awaited."""
        self._record(recipient, args, kwargs)


@pytest.fixture
def notify_clock() -> Clock:
    """A clock that the test moves: `notify_clock.advance(seconds)`, `notify_clock.set(decision.retry_at)`.

    Decorated functions go by it where the test asks for `notify_limits` too; notifiers and limiters where they are made
    with it: `Notifier(gateway, rules, clock=notify_clock)`. Waiting moves it instead of sleeping.
    """
    return Clock()


@pytest.fixture
def notify_limits(notify_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Limits]:
    """Fresh windows in memory for all decorated functions, by `notify_clock`, for this test alone.

    The program's own rules apply, those that it sets up by `configure` during the test included, and limits written on
    decorators; the storage that it names is not opened. A test that wants other rules calls `configure(rules=...)`; what was
    configured before is in force again afterwards. Limiting is on, whatever `RATELIMITED_NOTIFY_DISABLED` says.
    """
    from ratelimited_notify.decorator.configuration import configuration
    from ratelimited_notify.limiter.switch import VARIABLE

    monkeypatch.delenv(VARIABLE, raising=False)
    with configuration.overriding(notify_clock):
        yield Limits()


@pytest.fixture
def notify_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No limits in this test, for anybody: decorated functions, notifiers and limiters send everything, and count nothing."""
    from ratelimited_notify.limiter.switch import switch

    monkeypatch.setattr(switch, "off", True)


@pytest.fixture
def notify_outbox() -> Outbox:
    """A gateway that records: a list of messages, each with `recipient`, `args` and `kwargs`.

    Give it to a notifier, `Notifier(notify_outbox, rules)`, sync or async, or put it in the place of the function that sends:
    `monkeypatch.setattr("shop.mail.send_mail", notify_outbox)`. With `notify_outbox.error = TimeoutError()` it raises. In
    the place of a function that is awaited put `notify_async_outbox`.
    """
    return Outbox()


@pytest.fixture
def notify_async_outbox() -> AsyncOutbox:
    """A `notify_outbox` to await: for an `AsyncNotifier`, or in the place of a coroutine function that sends.

    It is a list of its own, beside that of `notify_outbox`.
    """
    return AsyncOutbox()
