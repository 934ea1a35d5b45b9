"""Callers of every policy and kind, who go on while a storage fails, and what each of them sees."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster_servers import wait_for
from left_behind import census, left_since
from ratelimited_notify import AsyncLimiter, Circuit, Limiter, Rule, StorageError
from storage_faults import REFUSING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults import World
    from ratelimited_notify import Decision
    from storage_faults import Case

POLICIES = ("raise", "allow", "deny", "memory://")
"""What a limiter does when its storage fails."""

KINDS = ("threads", "asyncio")

TIMEOUT = 0.5
"""Of all limiters, in seconds: the default."""

CAP = 50
"""The amount per hour of the limit that all callers share."""

CAPPED, COUNTED = "capped", "counted"
RULES = [Rule(CAPPED, f"{CAP}/hour"), Rule(COUNTED, "1000000000/day", strategy="fixed-window")]

_PACE = 0.004
"""Between two decisions of a caller, in seconds: so that callers leave each other time on a busy machine."""

_BACK_WITHIN = 30.0
_ENDS_WITHIN = 20.0

_IN_DOUBT = re.compile("not known|unknown").search


class Answer(NamedTuple):
    """What a caller got for one question. Times are from the monotonic clock."""

    start: float
    end: float
    type: str
    counted: bool
    allowed: bool | None
    """None for an error."""
    degraded: bool
    """Whether the windows of the insurance decided."""
    error: str
    """What the storage said; empty if it decided."""
    certain: bool = False
    """Whether the error has it that nothing was counted."""

    @property
    def in_doubt(self) -> bool:
        """Whether a hit that failed may have been counted."""
        return _IN_DOUBT(self.error) is not None


@dataclass
class Caller:
    """A thread or a task with a limiter and a recipient of its own, which decides all the time."""

    kind: str
    policy: str
    recipient: str
    shared: str
    """The recipient of the limit that all callers share."""
    answers: list[Answer] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    """The classes of the errors of the library, as users can name them."""
    foreign: list[str] = field(default_factory=list)
    """Errors that are not the library's own. There must be none."""
    tasks: int = 0
    """How many tasks were left when the limiter was closed."""
    stopped: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, {self.policy}"

    def counted_since(self, instant: float) -> float | None:
        """The end of its first counted decision that ended after this instant."""
        return next((one.end for one in self.answers if one.counted and one.end >= instant), None)

    def _turns(self) -> Iterator[tuple[str, str]]:
        while not self.stopped:
            yield CAPPED, self.shared
            yield COUNTED, self.recipient

    def _note(self, start: float, kind: str, got: Decision | Exception) -> None:
        end = time.monotonic()
        if isinstance(got, StorageError):
            self.classes.add(StorageError.__name__)
            self.answers.append(Answer(start, end, kind, False, None, False, str(got), got.nothing_counted))
        elif isinstance(got, Exception):
            self.foreign.append(repr(got))
        else:
            degraded = bool(getattr(got, "degraded", False))
            counted = got.error is None and not degraded
            self.answers.append(Answer(start, end, kind, counted, got.allowed, degraded, got.error or ""))

    def run_in_thread(self, limiter: Limiter) -> None:
        """Decide until stopped."""
        with limiter:
            for kind, recipient in self._turns():
                start = time.monotonic()
                try:
                    self._note(start, kind, limiter.hit(kind, recipient))
                except Exception as error:  # noqa: BLE001  # what it is, is what the test is about
                    self._note(start, kind, error)
                time.sleep(_PACE)

    async def run_in_task(self, limiter: AsyncLimiter) -> None:
        """Decide until stopped."""
        async with limiter:
            for kind, recipient in self._turns():
                start = time.monotonic()
                try:
                    self._note(start, kind, await limiter.hit(kind, recipient))
                except Exception as error:  # noqa: BLE001  # as above
                    self._note(start, kind, error)
                await asyncio.sleep(_PACE)
        # What ends by itself may need a turn of the loop for it.
        await asyncio.sleep(0)
        self.tasks = len(asyncio.all_tasks()) - 1


@dataclass(frozen=True)
class Seen:
    """What the callers saw of a fault. Times are in seconds."""

    callers: tuple[Caller, ...]
    struck: float
    returned: float
    stuck: tuple[str, ...]
    """The callers that did not end."""
    left: dict[str, int]
    """What was left when all limiters were closed, and how much of it."""
    twice: int
    """How many hits the storage counted that nobody made: neither counted nor in doubt."""
    missing: int
    """How many hits were granted that the storage does not have, although it kept its counts."""
    most: int
    """The most hits that a small limit allowed while the storage decided."""

    @property
    def uncounted(self) -> list[Answer]:
        return [one for caller in self.callers for one in caller.answers if not one.counted]

    @property
    def longest(self) -> float:
        """The duration of the longest decision."""
        return max(one.end - one.start for caller in self.callers for one in caller.answers)

    @property
    def back(self) -> float | None:
        """The time from the return until every caller had a counted decision; None if that never came."""
        firsts = [caller.counted_since(self.returned) for caller in self.callers]
        return None if None in firsts else max(0.0, *(first - self.returned for first in firsts if first is not None))


def observe(case: Case, *, lasting: float = 0.0, patience: float = 8.0) -> Seen:
    """Let a fault strike a storage while callers of every policy decide, and say what they saw.

    Arguments:
        case: the servers, and what goes wrong.
        lasting: for how many seconds at least, if the server does not answer meanwhile.
        patience: how long to wait until every caller is counted again, in seconds.
    """
    fault = case.fault()
    with ExitStack() as ending:
        world = case.open(ending, fault)
        _settle(world)
        before = census()
        made = list(product(KINDS, POLICIES))
        recipients = world.recipients(len(made))
        callers = [
            Caller(kind, policy, who, recipients[0]) for (kind, policy), who in zip(made, recipients, strict=True)
        ]
        threads = [threading.Thread(target=_run, args=(world.uri, *each), daemon=True) for each in enumerate(callers)]
        for thread in threads:
            thread.start()
        wait_for("all are counted", lambda: all(caller.counted_since(0) for caller in callers))
        time.sleep(0.2)
        struck = time.monotonic()
        fault.strike(world)
        answering = fault.lasting in (0, REFUSING)
        time.sleep(fault.lasting if answering else max(fault.lasting, lasting))
        fault.heal(world)
        wait_for("the server is back", world.answers, _BACK_WITHIN)
        returned = time.monotonic()
        while time.monotonic() - returned < patience and not all(each.counted_since(returned) for each in callers):
            time.sleep(0.02)
        time.sleep(0.1)
        for caller in callers:
            caller.stopped = True
        deadline = time.monotonic() + _ENDS_WITHIN
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = tuple(str(caller) for caller, thread in zip(callers, threads, strict=True) if thread.is_alive())
        twice, missing = _compared(world, callers, struck, returned, keeps=fault.keeps)
        left = left_since(before)
        return Seen(tuple(callers), struck, returned, stuck, left, twice, missing, _most(callers, struck, fault.keeps))


def _run(uri: str, number: int, caller: Caller) -> None:
    # A circuit of its own: what one caller finds out is not to help the others.
    options: dict[str, Any] = {
        "timeout": TIMEOUT,
        "on_storage_error": caller.policy,
        "circuit": Circuit(pause=0.5 - number / 1000),
    }
    if uri.startswith("sqlite:"):
        del options["circuit"]
    if caller.kind == "asyncio":
        asyncio.run(caller.run_in_task(AsyncLimiter(RULES, uri, **options)))
    else:
        caller.run_in_thread(Limiter(RULES, uri, **options))


def _settle(world: World) -> None:
    """Let everything be imported that limiters need, and the file of SQLite be made."""

    async def decide() -> None:
        async with AsyncLimiter(RULES, world.uri, timeout=10) as limiter:
            await limiter.hit(COUNTED, "first")

    with Limiter(RULES, world.uri, timeout=10) as limiter:
        limiter.hit(COUNTED, "first")
    asyncio.run(decide())


# --- What is counted ------------------------------------------------------------------------------------------------


def _compared(world: World, callers: list[Caller], struck: float, returned: float, *, keeps: bool) -> tuple[int, int]:
    """How many hits the storage counted that nobody made, and how many it should have counted and has not."""
    twice = missing = 0
    # A new limiter forgets the circuits of those that are gone.
    gc.collect()
    with Limiter(RULES, world.uri, timeout=10) as limiter:
        for caller in callers:
            own = [one for one in caller.answers if one.type == COUNTED]
            # A server without its data begins anew: what it counted before the fault is gone.
            kept = keeps or not world.harms(caller.recipient)
            least = sum(one.counted and (kept or one.start >= returned) for one in own)
            # The hits that an insurance has allowed follow when the server is back, except for those in doubt.
            least += sum(one.degraded and not one.in_doubt for one in own)
            most = sum(one.counted or one.in_doubt or one.degraded for one in own if kept or one.end >= struck)
            (window,) = limiter.windows(COUNTED, caller.recipient)
            held = window.item.amount - window.remaining
            twice += max(0, held - most)
            missing += max(0, least - held)
    return twice, missing


def _most(callers: list[Caller], struck: float, keeps: bool) -> int:
    """The most hits of the small limit that the storage allowed, in the life of its counts."""
    lives: Counter[bool] = Counter(
        keeps or one.end >= struck
        for caller in callers
        for one in caller.answers
        if one.type == CAPPED and one.counted and one.allowed
    )
    return max(lives.values(), default=0)
