"""A mixin for test cases of unittest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify.testing.limits import isolated_limits
from ratelimited_notify.testing.outbox import AsyncOutbox, Outbox

if TYPE_CHECKING:
    from unittest import TestCase as _TestCase, TestResult

    from ratelimited_notify.testing.clock import Clock
    from ratelimited_notify.testing.limits import Limits
else:
    _TestCase = object


class NotifyTestMixin(_TestCase):
    """A mixin for `unittest.TestCase` and its subclasses: each test has fresh limits, a clock and outboxes.

    Write it first: `class NewsTests(NotifyTestMixin, TestCase)`. The attributes are there in `setUp` too, and until the
    last cleanup has run.
    """

    notify_clock: Clock
    """The clock of decorated functions. For notifiers and limiters, pass it as `clock=`."""
    notify_limits: Limits[Clock]
    """The limits of decorated functions, as `isolated_limits` gives them."""
    notify_outbox: Outbox
    """A gateway that records messages."""
    notify_async_outbox: AsyncOutbox
    """The same as a coroutine function."""

    def __init_subclass__(cls, **options: Any) -> None:  # Any: they are for other bases
        """Check the order of the bases: after the test case, this class could do nothing."""
        super().__init_subclass__(**options)
        for base in cls.__mro__[: cls.__mro__.index(NotifyTestMixin)]:
            if "run" in vars(base) and not issubclass(base, NotifyTestMixin):
                raise TypeError(f"Write NotifyTestMixin first: class {cls.__name__}(NotifyTestMixin, {base.__name__}).")

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run the test, with fresh limits."""
        with isolated_limits() as limits:
            self._begin(limits)
            return super().run(result)

    def debug(self) -> None:
        """Run the test without collecting its result, with fresh limits."""
        with isolated_limits() as limits:
            self._begin(limits)
            super().debug()

    def _begin(self, limits: Limits[Clock]) -> None:
        self.notify_limits, self.notify_clock = limits, limits.clock
        self.notify_outbox, self.notify_async_outbox = Outbox(), AsyncOutbox()
