"""Recipients whose answers cannot be mistaken for one another's, for tests that break off calls in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify import AsyncLimiter, Limiter, Rule

if TYPE_CHECKING:
    from ratelimited_notify import Decision

AMOUNT = 1_000_000_000
STEP = 100_000
"""What one recipient was counted more than the one before; no test counts as often."""
RULES = [Rule("news", f"{AMOUNT}/day", strategy="fixed-window")]


class People:
    """Recipients who differ in what is counted of them, so that each answer tells whose it is.

    Arguments:
        name: what their names begin with.
        number: how many.
    """

    def __init__(self, name: str, number: int) -> None:
        self.names = [f"{name}-{each}" for each in range(number)]
        self.wrong: list[str] = []
        """Answers that were somebody else's."""

    def begin(self, uri: str) -> None:
        """Count each of them for the first time."""
        with Limiter(RULES, uri, timeout=20) as limiter:
            for number, name in enumerate(self.names):
                decision = limiter.hit("news", name, cost=STEP * (number + 1))
                if used(decision) != STEP * (number + 1):
                    raise RuntimeError(f"{name} was there before.")

    def check(self, number: int, decision: Decision) -> None:
        """Note an answer that is not this one's."""
        count = used(decision)
        if not STEP * (number + 1) < count < STEP * (number + 2):
            self.wrong.append(f"{self.names[number]} was told {count}")

    def ask(self, limiter: Limiter, number: int) -> None:
        """Decide about one, and check the answer."""
        self.check(number, limiter.hit("news", self.names[number]))

    async def await_answer(self, limiter: AsyncLimiter, number: int) -> None:
        """The same, awaited."""
        self.check(number, await limiter.hit("news", self.names[number]))


def used(decision: Any) -> int:
    """How much was counted of the recipient, by the answer of the server."""
    return AMOUNT - int(decision.remaining)
