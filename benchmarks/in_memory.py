"""Windows in this process: the cost of a call, the longest call, and the memory that a window takes."""

from __future__ import annotations

import gc
import random
import threading
import time
import tracemalloc
from itertools import repeat
from typing import TYPE_CHECKING

from contenders import (
    OURS,
    PEERS,
    bare,
    decorated,
    each,
    hitting,
    one_rule,
    periods,
    pyrate,
    raising,
    three_rules,
    throttled_memory,
)
from limits.strategies import MovingWindowRateLimiter
from measured import Figure, ratio
from paired import Contender, Ratio, fresh, in_turns

from ratelimited_notify import Limiter

if TYPE_CHECKING:
    from measured import Effort

# Each recipient comes up twenty times before another takes its place: some calls begin a window, most do not.
_AMOUNT = 20
_PEOPLE = 500


def one(effort: Effort) -> list[Figure]:
    """One rule, allowed."""
    times = in_turns(
        {
            OURS: each(decorated(one_rule(_AMOUNT))),
            "fixed": each(bare(_AMOUNT)),
            "moving": each(bare(_AMOUNT, MovingWindowRateLimiter)),
            "throttled-py": each(throttled_memory([(_AMOUNT, 86400)])),
            "pyrate-limiter": each(pyrate([(_AMOUNT, 86400)])),
        },
        fresh(_PEOPLE, _AMOUNT),
        effort.rounds,
        clock=time.thread_time,
    )
    return [
        ratio("memory-one", times.ratio(OURS, "fixed"), times.ratios(OURS, PEERS)),
        ratio("memory-one-moving", times.ratio(OURS, "moving")),
    ]


def three(effort: Effort) -> list[Figure]:
    """Three rules, allowed, compared with one bare hit."""
    times = in_turns(
        {
            OURS: each(decorated(three_rules(_AMOUNT))),
            "fixed": each(bare(_AMOUNT)),
            "throttled-py": each(throttled_memory(periods(_AMOUNT))),
            "pyrate-limiter": each(pyrate(periods(_AMOUNT))),
        },
        fresh(_PEOPLE, _AMOUNT),
        effort.rounds,
        clock=time.thread_time,
    )
    return [ratio("memory-three", times.ratio(OURS, "fixed"), times.ratios(OURS, PEERS))]


def refused(effort: Effort) -> list[Figure]:
    """Refused calls, compared with allowed calls of the same kind and with refusals of the other libraries."""
    people = [f"refused.{number}@example.com" for number in range(_PEOPLE)]
    contenders = {
        OURS: decorated(one_rule(1)),
        "three": decorated(three_rules(1)),
        "raised": raising(one_rule(1)),
        "fixed": bare(1),
        "throttled-py": throttled_memory([(1, 86400)]),
        "pyrate-limiter": pyrate([(1, 86400)]),
    }
    for hit in contenders.values():
        if not all(map(hit, people)):
            raise AssertionError("The first hit must be allowed.")
    # Allowed calls in the same rounds, for other recipients.
    turns = {name: each(hit, allowed=False) for name, hit in contenders.items()}
    turns["allowed"] = each(decorated(one_rule(_AMOUNT)), recipients=fresh(_PEOPLE, _AMOUNT))
    turns["allowed three"] = each(decorated(three_rules(_AMOUNT)), recipients=fresh(_PEOPLE, _AMOUNT))
    times = in_turns(turns, repeat(people), effort.rounds, clock=time.thread_time)
    return [
        ratio("memory-refused", times.ratio(OURS, "allowed")),
        ratio("memory-refused-three", times.ratio("three", "allowed three")),
        ratio("memory-refused-bare", times.ratio(OURS, "fixed"), times.ratios(OURS, PEERS)),
        ratio("memory-raised", times.ratio("raised", "fixed")),
    ]


def million(effort: Effort) -> list[Figure]:
    """All recipients of the effort, in random order: after their first hits, and during them."""
    filled, filling = _among(effort.people, each(decorated(one_rule(1000))), effort.rounds // 2)
    return [
        ratio("memory-million", filled, people=effort.people),
        ratio("memory-filling", filling, people=effort.people),
    ]


def hits(effort: Effort) -> list[Figure]:
    """`Limiter.hit` and the decision that it makes, with fewer recipients."""
    people = effort.people * 2 // 5
    hit = hitting(one_rule(1000), "memory://")
    # Like a caller: look at the decision and do not keep it.
    ours = Contender(lambda recipients: [bool(decision) for decision in map(hit, recipients)])
    filled, _ = _among(people, ours, effort.rounds // 2)
    return [ratio("memory-hit", filled, people=people)]


def _among(number: int, ours: Contender, rounds: int) -> tuple[Ratio, Ratio]:
    """Ours compared with a bare hit, for many recipients in random order: after their first hits, and during them."""
    people = [f"person.{one}@example.com" for one in range(number)]
    random.Random(1).shuffle(people)  # noqa: S311  # an order, not a secret
    contenders = {OURS: ours, "fixed": each(bare(1000))}
    turn = 2000
    filling = in_turns(
        contenders,
        (people[start : start + turn] for start in range(0, len(people), turn)),
        len(people) // turn,
        clock=time.thread_time,
        warm_up=0,
    )
    chosen = random.Random(2)  # noqa: S311  # likewise
    # Only half the rounds: after each one `limits` checks all of its keys, and we wait for it.
    filled = in_turns(contenders, iter(lambda: chosen.sample(people, turn), None), rounds, clock=time.thread_time)
    return filled.ratio(OURS, "fixed"), filling.ratio(OURS, "fixed")


def pauses(effort: Effort) -> list[Figure]:
    """How long single calls take while new recipients come, and their windows expire a million calls later.

    Each call is made in two runs, and its smaller time counts: interruptions by the machine hit other calls in each run.
    """
    taken = sorted(map(min, _times(effort), _times(effort)))
    share, worst = taken[int(len(taken) * 0.9999)] / 1e6, taken[-1] / 1e6
    return [
        Figure("memory-pause", share, people=effort.people),
        Figure(
            "memory-pause-worst",
            worst,
            people=effort.people,
            note=f"{len(taken):,} calls, processor time of the thread, the lesser of two runs",
        ),
    ]


def _times(effort: Effort) -> list[int]:
    # The limiter's clock moves with the calls, so a window expires after as many other recipients have come.
    now = 0.0
    send = decorated(three_rules(20), clock=lambda: now)
    second = 7 * 86400 / effort.people
    taken = []
    measure = time.thread_time_ns
    for number in range(3 * effort.people):
        recipient = f"person.{number}@example.com"
        now += second
        started = measure()
        send(recipient)
        taken.append(measure() - started)
    return taken


def weight(effort: Effort) -> list[Figure]:
    """The bytes that a window takes, including its keys, in memory that Python allocates."""
    figures = []
    for row, strategy in (("memory-bytes", "moving-window"), ("memory-bytes-fixed", "fixed-window")):
        limiter = Limiter(three_rules(20, strategy))
        limiter.hit("news", "first@example.com")
        people = min(effort.people, 200_000)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(people):
            limiter.hit("news", f"person.{number}@example.com")
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        figures.append(Figure(row, held / people / 3))
    return figures


def threads(effort: Effort) -> list[Figure]:
    """The throughput of eight threads together, compared with that of one. Each recipient comes up twenty-four times."""
    send = decorated(one_rule(1000))
    pools = fresh(2000, 1)

    def calls(people: list[str], times: int, gate: threading.Barrier | None = None) -> None:
        if gate is not None:
            gate.wait()
        for _ in range(times):
            for recipient in people:
                send(recipient)

    samples = []
    for _ in range(max(7, effort.rounds // 5)):
        people = next(pools)
        started = time.perf_counter()
        calls(people, 24)
        alone = time.perf_counter() - started
        people = next(pools)
        gate = threading.Barrier(9)
        crowd = [threading.Thread(target=calls, args=(people, 3, gate)) for _ in range(8)]
        for thread in crowd:
            thread.start()
        gate.wait()
        started = time.perf_counter()
        for thread in crowd:
            thread.join()
        samples.append(alone / (time.perf_counter() - started))
    return [ratio("memory-threads", Ratio.of(samples))]


MEASUREMENTS = (one, three, refused, million, hits, pauses, weight, threads)
