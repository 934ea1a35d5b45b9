"""Contenders measured in turns, so that what disturbs one disturbs the others as well."""

# Own code, and not pyperf or pytest-benchmark: these run one benchmark to its end before the next, in processes of their
# own, and compare afterwards. On a machine that others use too, its speed changes more between two such runs than the
# contenders differ. Here contenders take turns of milliseconds (A B C, B C A, ...), each turn is divided by the other's of the
# same round, and the median of these ratios stands. Nothing in either library does that.

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
        decide: decides about each of the recipients and returns what came of them.
        share: of how many of a round's recipients it decides, the slower ones of fewer.
        allowed: what every outcome is to be, so that no path is mistaken for another.
        recipients: those of each round, where they are not the same as the others'.
    """

    decide: Callable[[Sequence[str]], Sequence[object]]
    share: float = 1.0
    allowed: bool = True
    recipients: Iterator[list[str]] | None = None


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and between what most of them lie: from the first to the last decile."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Ratio:
        deciles = quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else list(samples)
        return cls(median(samples), deciles[0], deciles[-1])


@dataclass(frozen=True)
class Times:
    """Seconds a recipient, by contender, one for each round."""

    seconds: Mapping[str, Sequence[float]]

    def ratio(self, of: str, to: str) -> Ratio:
        """How many times as long one takes as the other."""
        pairs = zip(self.seconds[of], self.seconds[to], strict=True)
        return Ratio.of([one / other for one, other in pairs])

    def ratios(self, of: str, others: Mapping[str, str]) -> dict[str, float]:
        """The same to each of the others that took part, by the name that it is shown under."""
        return {shown: self.ratio(of, name).value for shown, name in others.items() if name in self.seconds}


def fresh(people: int, hits: int, each: int = 1) -> Iterator[list[str]]:
    """For each round the recipients to decide about: each is met `hits` times, then come others."""
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
    """Let the contenders take turns.

    Arguments:
        contenders: by name.
        recipients: those of each round, the same for all contenders.
        rounds: how many rounds count.
        clock: `time.thread_time` for work without waiting: other processes do not blur it, and what a library does in
            threads of its own is not held against it. `time.perf_counter` where a server does part of the work.
        warm_up: rounds before those that count.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        todo = next(recipients)
        # Each is first, second, last equally often.
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
    """Wait for threads that a library started by itself: what they do is not to disturb the next turn."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(5)
