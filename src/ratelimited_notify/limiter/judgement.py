"""A decision in one word, for those who count decisions: what was decided, and which rule says so first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.windows.strategies import FITS, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimited_notify.instrumentation.events import VerdictName
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.windows.strategies import Reading


def judged(decision: Decision) -> tuple[VerdictName, str | None]:
    """What was decided, and the first rule in the order of the rules that refuses, or in shadow mode would refuse.

    If several apply: refused before would_refuse before exempt before allowed.
    """
    if decision.error is not None:
        return ("failed_open" if decision.allowed else "failed_closed"), None
    counters, verdict = decision.grounds()
    if verdict is None:
        return "unlimited", None
    if not decision.allowed:
        return "refused", refusing_rule(counters, verdict.readings)
    modes = {counter.mode for counter in counters if counter.strategy != "pause"}
    if Mode.SHADOW in modes and (rule := refusing_rule(counters, verdict.readings, Mode.SHADOW)) is not None:
        return "would_refuse", rule
    if Mode.FORCE in modes:
        return "exempt", None
    # A rule without a limit has only the window of its pause.
    return ("allowed" if modes else "unlimited"), None


def refusing_rule(counters: Iterable[Counter], readings: Sequence[Reading], mode: Mode = Mode.ENFORCE) -> str | None:
    """The first rule among those in this mode that has no room; None if all have."""
    for counter, reading in zip(counters, readings, strict=True):
        if reading.retry_at != FITS and counter.mode is mode:
            return counter.rule
    return None
