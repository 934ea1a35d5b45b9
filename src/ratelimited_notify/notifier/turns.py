"""Who may ask the limiter next, and when: how a refused caller waits, without the waiting itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.waiters import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ratelimited_notify.limiter.waiters import Place, Timing
    from ratelimited_notify.notifier.policy import Policy

_LONGEST = 3600.0
"""Seconds after which a waiting caller looks at the time again: no system waits as long as `max_wait` may be."""

_ROUNDING = 1e-3
"""Seconds by which the sum of several waits may miss `max_wait`."""


class Pause(NamedTuple):
    """Wait until woken, at most this many seconds. Send back whether it was woken."""

    seconds: float
    by_clock: bool
    """Whether the limiter's clock has a `sleep` of its own, which has to do this, and cannot be woken."""


Step: TypeAlias = Literal["hit", "test"] | Pause
"""What to do next. Send back the decision of a hit or a test."""


Steps: TypeAlias = "Generator[Step, Decision | bool | None, Decision]"


def turns(
    policy: Policy,
    place_of: Callable[[Decision], Place],
    timing: Timing,
    line: Place | None,
    refusal: Decision | None,
    wake: Callable[[], bool],
    seen: object,
) -> Steps:
    """The steps of a caller that waits for its turn. They return the final decision. Close them in any case.

    Arguments:
        policy: what to do with a refusal.
        place_of: the window that holds a refused notification longest.
        timing: the time by which it waits.
        line: the window for which others are waiting already, if it has not asked for this reason.
        refusal: the decision that refused it, if it has asked.
        wake: as for `Waiter`.
        seen: as for `Waiter`.

    Raises:
        RateLimitExceeded: as `Policy.pause`; also if its turn did not come within `max_wait`.
    """
    waiter, granted, waited = Waiter(wake, seen), False, 0.0
    try:
        waiting = _Waiting(waiter, timing, policy.max_wait or 0.0)
        latest = _decision((yield "test")) if refusal is None else refusal
        while True:
            # If a test finds room, that belongs to those in front.
            pause = 0.0 if latest.allowed else policy.pause(latest, waited)
            if pause is None:
                return latest
            if not latest.allowed:
                line = place_of(latest)
            if line is not None:
                waiter.line_up(line)
            if not (yield from waiting.for_its_turn(pause)):
                return policy.give_up(_refused(latest))
            waiter.asks()
            latest, waited = _decision((yield "hit")), waiting.waited()
            if latest.allowed:
                granted = True
                return latest
    finally:
        waiter.leave(freed=granted)


class _Waiting:
    """How long a caller has waited, and still waits."""

    __slots__ = ("_began", "_longest", "_slept", "_timing", "_waiter")

    def __init__(self, waiter: Waiter, timing: Timing, longest: float) -> None:
        self._waiter = waiter
        self._timing = timing
        self._longest = longest
        self._began = timing.now()
        self._slept = 0.0

    def waited(self) -> float:
        # Both, so that it ends even by a clock that stands still.
        return max(self._slept, self._timing.now() - self._began)

    def for_its_turn(self, pause: float) -> Generator[Step, Decision | bool | None, bool]:
        """Wait until this caller is first in its line, and this pause is over. False if that takes too long."""
        waiter, now = self._waiter, self._timing.now
        until, is_over = now() + pause, False
        while True:
            first = waiter.is_first()
            rest = 0.0 if waiter.hurries else until - now()
            left = self._longest - self.waited()
            if first and (is_over or (rest <= 0 <= left)):
                return True
            if left <= 0 or (first and rest > left + _ROUNDING):
                return False
            if not first:
                called = yield Pause(min(left, _LONGEST, waiter.watch_after(time.monotonic())), by_clock=False)
                if not called:
                    waiter.watch(time.monotonic())
                continue
            seconds = min(rest, _LONGEST)
            waiter.due = time.monotonic() + seconds
            called = yield Pause(seconds, self._timing.has_sleep)
            if self._timing.has_sleep:
                self._slept += seconds
            is_over = seconds == rest and not called


def _decision(answer: Decision | bool | None) -> Decision:
    if answer is None or isinstance(answer, bool):
        raise TypeError("A decision was expected.")
    return answer


def _refused(latest: Decision) -> Decision:
    """The decision of a caller that never got its turn. If a test found room, others were before it: no rule is to blame."""
    return Decision(latest.type, latest.recipient, latest.cost, False) if latest.allowed else latest
