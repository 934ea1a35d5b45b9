"""The limits of decorated functions in a test: isolated from those of the program and of other tests, or off."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.limiter.switch import VARIABLE, switch
from ratelimited_notify.testing.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.sync import Limiter

C = TypeVar("C", bound=Callable[[], float])


class Limits(Generic[C]):
    """The limits of decorated functions in one test."""

    def __init__(self, clock: C) -> None:
        self.clock = clock
        """The clock of the windows."""

    @property
    def limiter(self) -> Limiter:
        """The limiter of sync functions. Use its `windows`, `test`, `clear` and other methods."""
        return configuration.limiter()

    @property
    def async_limiter(self) -> AsyncLimiter:
        """The limiter of async functions. It uses the same windows."""
        return configuration.async_limiter()


@overload
def isolated_limits() -> AbstractContextManager[Limits[Clock]]: ...


@overload
def isolated_limits(clock: C) -> AbstractContextManager[Limits[C]]: ...


def isolated_limits(clock: Callable[[], float] | None = None) -> AbstractContextManager[object]:
    """Fresh windows in memory for all decorated functions, as long as the `with` block runs.

    The rules of the program apply, also those that it sets with `configure` in the block, and so do the limits on
    decorators. The storage of the program is not opened. Call `configure(rules=...)` in the block to use other rules;
    afterwards the earlier configuration is in force again. Limiting is on, even if `RATELIMITED_NOTIFY_DISABLED` is set.

    This is for the whole process, threads and event loops included: run tests that use it one after another.

    Arguments:
        clock: a callable that returns seconds, by default a `Clock` that stands still until you move it. Waiting moves
            it instead of sleeping.

    Returns:
        A context manager that gives the `Limits`: their `clock`, `limiter` and `async_limiter`.
    """
    return cast("AbstractContextManager[object]", _isolated(Clock() if clock is None else clock))


@contextmanager
def _isolated(clock: C) -> Generator[Limits[C]]:
    disabled = os.environ.pop(VARIABLE, None)
    try:
        with configuration.overriding(clock):
            yield Limits(clock)
    finally:
        if disabled is not None:
            os.environ[VARIABLE] = disabled


@contextmanager
def disabled_limits() -> Generator[None]:
    """No limits as long as the `with` block runs: decorated functions, notifiers and limiters send everything and count
    nothing. This is for the whole process.
    """
    before, switch.off = switch.off, True
    try:
        yield
    finally:
        switch.off = before
