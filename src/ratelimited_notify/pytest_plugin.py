"""pytest fixtures for programs that send notifications: a clock that you move, fresh limits, no limits, and an outbox.

pytest finds them without configuration when this package is installed. pytest loads this module at the start of every
run, so it imports, creates and changes nothing until a test uses one of the fixtures. They stand on
`ratelimited_notify.testing`, which works without pytest too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify.testing import (
        AsyncOutbox as AsyncOutbox,
        Clock as Clock,
        Limits as Limits,
        Outbox as Outbox,
        Sent as Sent,
    )
else:  # hidden from type checkers, which would accept every misspelt name because of it

    def __getattr__(name: str) -> object:
        if name not in ("AsyncOutbox", "Clock", "Limits", "Outbox", "Sent"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ratelimited_notify import testing

        return getattr(testing, name)


@pytest.fixture
def notify_clock() -> Clock:
    """A clock that the test moves: `notify_clock.advance(seconds)`, `notify_clock.set(decision.retry_at)`.

    Decorated functions use it if the test also uses `notify_limits`. For notifiers and limiters, pass it:
    `Notifier(gateway, rules, clock=notify_clock)`. Waiting moves the clock instead of sleeping.
    """
    from ratelimited_notify.testing.clock import Clock

    return Clock()


@pytest.fixture
def notify_limits(notify_clock: Clock) -> Iterator[Limits[Clock]]:
    """Fresh windows in memory for all decorated functions, with the time of `notify_clock`, for this test only.

    The rules of the program apply, also those that it sets with `configure` during the test, and so do the limits on
    decorators. The storage of the program is not opened. To use other rules, call `configure(rules=...)` in the test;
    the previous configuration is restored after the test. Limiting is on, even if `RATELIMITED_NOTIFY_DISABLED` is set.
    """
    from ratelimited_notify.testing.limits import isolated_limits

    with isolated_limits(notify_clock) as limits:
        yield limits


@pytest.fixture
def notify_disabled() -> Iterator[None]:
    """Turn all limits off in this test: decorated functions, notifiers and limiters send everything and count nothing."""
    from ratelimited_notify.testing.limits import disabled_limits

    with disabled_limits():
        yield


@pytest.fixture
def notify_outbox() -> Outbox:
    """A gateway that records messages: a list of messages, each with `recipient`, `args` and `kwargs`.

    Pass it to a sync or async notifier, `Notifier(notify_outbox, rules)`, or replace the function that sends:
    `monkeypatch.setattr("shop.mail.send_mail", notify_outbox)`. To make it raise, set
    `notify_outbox.error = TimeoutError()`. To replace a coroutine function, use `notify_async_outbox`.
    """
    from ratelimited_notify.testing.outbox import Outbox

    return Outbox()


@pytest.fixture
def notify_async_outbox() -> AsyncOutbox:
    """`notify_outbox` for asyncio: pass it to an `AsyncNotifier`, or replace a coroutine function that sends.

    It does not share its list with `notify_outbox`.
    """
    from ratelimited_notify.testing.outbox import AsyncOutbox

    return AsyncOutbox()
