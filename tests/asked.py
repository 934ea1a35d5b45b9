"""Recipients whose answers cannot be confused with each other, for tests that interrupt calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify import AsyncLimiter, Limiter, Rule

if TYPE_CHECKING:
    from ratelimited_notify import Decision

AMOUNT = 1_000_000_000
STEP = 100_000
"""The difference between the counts of two consecutive recipients. No test makes this many calls."""
RULES = [Rule("news", f"{AMOUNT}/day", strategy="fixed-window")]


class People:
    """Recipients with different counts, so that each answer shows which recipient it belongs to.

    Arguments:
        name: the first part of their names.
        number: how many recipients.
    """

    def __init__(self, name: str, number: int) -> None:
        self.names = [f"{name}-{each}" for each in range(number)]
        self.wrong: list[str] = []
        """Answers that belong to another recipient."""

    def begin(self, uri: str) -> None:
        """Make the first hit of each recipient."""
        with Limiter(RULES, uri, timeout=20) as limiter:
            for number, name in enumerate(self.names):
                decision = limiter.hit("news", name, cost=STEP * (number + 1))
                if used(decision) != STEP * (number + 1):
                    raise RuntimeError(f"{name} was there before.")

    def check(self, number: int, decision: Decision) -> None:
        """Record the answer if it belongs to another recipient."""
        count = used(decision)
        if not STEP * (number + 1) < count < STEP * (number + 2):
            self.wrong.append(f"{self.names[number]} was told {count}")

    def ask(self, limiter: Limiter, number: int) -> None:
        """Hit for one recipient and check the answer."""
        self.check(number, limiter.hit("news", self.names[number]))

    async def await_answer(self, limiter: AsyncLimiter, number: int) -> None:
        """The same for asyncio."""
        self.check(number, await limiter.hit("news", self.names[number]))


def used(decision: Any) -> int:
    """The recipient's count, according to the answer of the server."""
    return AMOUNT - int(decision.remaining)
