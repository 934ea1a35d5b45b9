"""Rule sets with 10,000 rules and 100,000 overrides: what a decision costs, a new type, a new set, and the change to it."""

from __future__ import annotations

import gc
import threading
import time
from itertools import repeat
from statistics import median
from typing import TYPE_CHECKING

from contenders import decorated, each, three_rules
from measured import Figure, ratio
from paired import fresh, in_turns

from ratelimited_notify import Limiter, Rule, RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measured import Effort

_AMOUNT = 20
_PEOPLE = 500
_OVERRIDES = 100_000
_RULES = 10_000
_KINDS = ("order.{}.shipped", "order.{}.shipped", "order.{}.shipped", "shop.{}.*", "*.{}.late")
_BREAK = 0.0005
"""Seconds between two decisions."""


def choices(effort: Effort) -> list[Figure]:
    """A type with 100,000 overrides, and one with tiers, compared with three rules without them."""
    first, *others = plain = three_rules(_AMOUNT)
    limit = f"{_AMOUNT} per 3600 second"
    known = [f"known.{number}@example.com" for number in range(_OVERRIDES)]
    overridden = [Rule("news", limit, overrides=dict.fromkeys(known, f"{2 * _AMOUNT} per 3600 second")), *others]
    tiered = [Rule("news", limit, tiers={"gold": f"{2 * _AMOUNT} per 3600 second"}), *others]
    if overridden[0].name != first.name:
        raise AssertionError("The rules must be the same but for overrides and tiers.")
    times = in_turns(
        {
            "plain": each(decorated(plain)),
            "override": each(decorated(overridden), recipients=_each_often(known)),
            "no override": each(decorated(overridden)),
            # Every second recipient is in the tier, found by the cheapest callable that there is.
            "tier": each(
                decorated(tiered, tier_of=dict(zip(known[::2], repeat("gold"))).get), recipients=_each_often(known)
            ),
        },
        fresh(_PEOPLE, _AMOUNT),
        effort.rounds,
        clock=time.thread_time,
    )
    return [
        ratio("large-override", times.ratio("override", "plain")),
        ratio("large-no-override", times.ratio("no override", "plain")),
        ratio("large-tier", times.ratio("tier", "plain")),
    ]


def _each_often(people: list[str]) -> Iterator[list[str]]:
    """As `fresh`, with these recipients."""
    for start in range(0, len(people), _PEOPLE):
        yield from repeat(people[start : start + _PEOPLE], _AMOUNT)


def new_types(effort: Effort) -> list[Figure]:
    """The first decision about each type, among rules of all kinds."""
    limiter = Limiter(_rules(0))
    taken = []
    gc.collect()
    for number in range(20 * effort.rounds):
        type = _types_of(number)[number % 4]
        started = time.thread_time_ns()
        limiter.hit(type, "ana@example.com")
        taken.append(time.thread_time_ns() - started)
    # The first ones compile the code for their kinds of windows.
    return [Figure("large-new-type", median(taken[100:]) / 1000)]


def _types_of(number: int) -> tuple[str, str, str, str]:
    """Types for rules with names and globs of two kinds, and one that no rule is for."""
    first = number // 4 * 5 % _RULES
    return f"order.{first}.shipped", f"shop.{first + 3}.login", f"invoice.{first + 4}.late", f"other.{number}"


def _rules(change: int) -> RuleSet:
    """10,000 rules, among them 2,000 globs, with ten overrides each."""
    return RuleSet(
        [
            Rule(
                _KINDS[number % 5].format(number),
                f"{number % 5 + 1 + change}/hour; 20/day",
                overrides={f"user.{number}.{each}@example.com": f"{50 + each % 2}/day" for each in range(10)},
            )
            for number in range(_RULES)
        ],
        default="20/day",
    )


def construction(effort: Effort) -> list[Figure]:
    """From limits as texts to a limiter that can decide."""
    taken = []
    for change in range(max(3, effort.rounds // 20)):
        gc.collect()
        started = time.thread_time()
        limiter = Limiter(_rules(change))
        taken.append(time.thread_time() - started)
        limiter.close()
    return [Figure("large-construction", median(taken))]


def swaps(effort: Effort) -> list[Figure]:
    """How long decisions are held up while another thread makes a new rule set and assigns it.

    The smallest of the runs counts: the machine interrupts each run somewhere else.
    """
    limiter = Limiter(_rules(0))
    for number in range(1000):
        limiter.hit(f"order.{number % 5 // 3 + number // 5 * 5}.shipped", "ana@example.com")
    longest = []

    def swap(change: int) -> None:
        limiter.rules = _rules(change)

    for run in range(max(3, effort.rounds // 20)):
        gc.collect()
        thread = threading.Thread(target=swap, args=(run + 1,))
        thread.start()
        worst, number = 0.0, 0
        while thread.is_alive():
            number += 1
            # The sleep counts too: a thread that wakes up has to wait for the interpreter.
            started = time.perf_counter()
            time.sleep(_BREAK)
            limiter.hit(f"order.{number % 5 // 3 + number % 1000 // 5 * 5}.shipped", f"person.{number}@example.com")
            worst = max(worst, time.perf_counter() - started - _BREAK)
        thread.join()
        longest.append(worst)
    return [Figure("large-swap", min(longest) * 1000)]


MEASUREMENTS = (choices, new_types, construction, swaps)
