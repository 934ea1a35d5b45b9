"""A clock to set, and both limiters made to look alike, so that one test serves the sync and the async one."""

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
    """Seconds that pass when they are told to; counted in microseconds."""

    def __init__(self, now: int = 1_700_000_000 * SECOND) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now / SECOND

    def advance(self, microseconds: int) -> None:
        """Let time pass."""
        self.now += microseconds


class DrivenLimiter:
    """An `AsyncLimiter`, called as if it were a `Limiter`."""

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
            # As `async with` does: what the body raised goes in, and comes out unless it was swallowed.
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
"""How to make a limiter, by kind."""
