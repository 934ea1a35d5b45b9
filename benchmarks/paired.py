"""Measure contenders in turns, so that a disturbance affects all of them equally."""

# This is our own code instead of pyperf or pytest-benchmark. These run each benchmark to its end, in separate processes, and
# compare afterwards. On a shared machine, the speed changes more between two such runs than the contenders differ. Here the
# contenders take turns of milliseconds (A B C, B C A, ...), the times of two contenders in the same round are divided, and
# the median of these ratios is the result. Neither library can do that.

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Contender:
    """One way to decide about recipients.

    Arguments:
        decide: decides about each recipient and returns the outcomes.
        share: the share of a round's recipients that it gets. Slower contenders get fewer.
        allowed: the expected outcome of every decision, to make sure that the intended path is measured.
        recipients: the recipients of each round, if they differ from those of the other contenders.
    """

    decide: Callable[[Sequence[str]], Sequence[object]]
    share: float = 1.0
    allowed: bool = True
    recipients: Iterator[list[str]] | None = None


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of all rounds, and the range of most of them, from the first to the last decile."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Ratio:
        deciles = quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else list(samples)
        return cls(median(samples), deciles[0], deciles[-1])


@dataclass(frozen=True)
class Times:
    """Seconds per recipient, by contender, with one value for each round."""

    seconds: Mapping[str, Sequence[float]]

    def ratio(self, of: str, to: str) -> Ratio:
        """How many times as long the first contender takes as the second."""
        pairs = zip(self.seconds[of], self.seconds[to], strict=True)
        return Ratio.of([one / other for one, other in pairs])

    def ratios(self, of: str, others: Mapping[str, str]) -> dict[str, float]:
        """The ratio to each of the others that were measured, by their display names."""
        return {shown: self.ratio(of, name).value for shown, name in others.items() if name in self.seconds}


def fresh(people: int, hits: int, each: int = 1) -> Iterator[list[str]]:
    """Yield the recipients of each round. Each recipient comes up `hits` times before another takes its place."""
    for pool in count():
        recipients = [f"person.{pool}.{number}@example.com" for number in range(people)]
        for _ in range(0, hits, each):
            yield recipients


def in_turns(
    contenders: Mapping[str, Contender],
    recipients: Iterator[list[str]],
    rounds: int,
    *,
    clock: Callable[[], float],
    warm_up: int = 2,
) -> Times:
    """Measure the contenders in turns.

    Arguments:
        contenders: the contenders by name.
        recipients: the recipients of each round, the same for all contenders.
        rounds: how many rounds count.
        clock: `time.thread_time` for work without waiting: it ignores other processes, and the work of a library in its
            own threads. `time.perf_counter` if a server does part of the work.
        warm_up: how many rounds to run first without counting them.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        todo = next(recipients)
        # Each contender is equally often first, second and so on.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            contender = contenders[name]
            mine = todo if contender.recipients is None else next(contender.recipients)
            mine = mine[: max(1, round(len(mine) * contender.share))]
            gc.collect(1)
            started = clock()
            outcomes = contender.decide(mine)
            taken = clock() - started
            if any(bool(outcome) is not contender.allowed for outcome in outcomes):
                raise AssertionError(f"{name}: not every hit was {'allowed' if contender.allowed else 'refused'}.")
            if turn >= 0:
                seconds[name].append(taken / len(mine))
            quiet()
    return Times(seconds)


def quiet() -> None:
    """Wait for threads that a library has started, so that they do not disturb the next turn."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(5)
