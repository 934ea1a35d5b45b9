"""A clock for tests, and both limiters behind one interface, so that one test covers the sync and the async limiter."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from ratelimited_notify import AsyncLimiter, Limiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimited_notify import Decision

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class Clock:
    """A clock that the test moves. It counts in microseconds and returns seconds."""

    def __init__(self, now: int = 1_700_000_000 * SECOND) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now / SECOND

    def advance(self, microseconds: int) -> None:
        """Move the clock forward."""
        self.now += microseconds


class DrivenLimiter:
    """Wraps an `AsyncLimiter` so that it can be called like a `Limiter`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.__dict__["limiter"] = AsyncLimiter(*arguments, **options)
        self.__dict__["runner"] = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.limiter, name)
        if not iscoroutinefunction(value):
            return value
        return lambda *arguments, **options: self.runner.run(value(*arguments, **options))

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.limiter, name, value)

    @contextmanager
    def reserve(self, *arguments: Any, **options: Any) -> Iterator[Decision]:
        reservation = self.limiter.reserve(*arguments, **options)
        decision = self.runner.run(reservation.__aenter__())
        try:
            yield decision
        except BaseException as error:
            # Like `async with`: pass the exception of the body in, and raise it unless it was swallowed.
            if not self.runner.run(_thrown(reservation, error)):
                raise
        else:
            self.runner.run(reservation.__aexit__(None, None, None))

    def close(self) -> None:
        self.runner.run(self.limiter.close())
        self.runner.close()


async def _thrown(reservation: Any, error: BaseException) -> bool:
    return await reservation.__aexit__(type(error), error, error.__traceback__)


LIMITERS: dict[str, Callable[..., Any]] = {"sync": Limiter, "async": DrivenLimiter}
"""Callables that make a limiter, by kind."""
