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


def judged(decision: Decision, *, exempt: bool = False) -> tuple[VerdictName, str | None]:
    """What was decided, and the first rule in the order of the rules that refuses, or in shadow mode would refuse.

    If several apply: refused before would_refuse before exempt before allowed.

    Arguments:
        decision: the decision.
        exempt: whether a rule exempts the notification and does not count it, so that the decision does not tell.
    """
    if decision.error is not None and not decision.degraded:
        return ("failed_open" if decision.allowed else "failed_closed"), None
    if decision.allowed and not exempt and _are_plain(counters := decision.counters()):
        # Most are. Some storages make the readings only when somebody asks for them.
        return ("allowed" if counters else "unlimited"), None
    counters, verdict = decision.grounds()
    if verdict is None:
        return ("exempt" if exempt else "unlimited"), None
    readings = verdict.readings
    if not decision.allowed:
        return "refused", refusing_rule(counters, readings)
    if (rule := refusing_rule(counters, readings, Mode.SHADOW)) is not None:
        return "would_refuse", rule
    # A rule without a limit has only the window of its pause, and limits nothing while it is not paused.
    modes = {
        counter.mode
        for counter, reading in zip(counters, readings, strict=True)
        if counter.strategy != "pause" or reading.count
    }
    if exempt or Mode.FORCE in modes:
        return "exempt", None
    return ("allowed" if modes else "unlimited"), None


def _are_plain(counters: Sequence[Counter]) -> bool:
    """Whether all of these are limits that refuse what is over them."""
    for counter in counters:  # noqa: SIM110  # a generator would take three times as long
        if counter.mode is not Mode.ENFORCE or counter.strategy == "pause":
            return False
    return True


def refusing_rule(counters: Iterable[Counter], readings: Sequence[Reading], mode: Mode = Mode.ENFORCE) -> str | None:
    """The first rule among those in this mode that has no room; None if all have."""
    for counter, reading in zip(counters, readings, strict=True):
        if reading.retry_at != FITS and counter.mode is mode:
            return counter.rule
    return None
