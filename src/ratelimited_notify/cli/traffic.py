"""What is sent and suppressed, by type, from the metrics of the library. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

DELIVERIES = "ratelimited_notify_deliveries_total"
DECISIONS = "ratelimited_notify_decisions_total"

LABELS = {DELIVERIES: ("type", "status"), DECISIONS: ("type", "verdict", "rule")}
"""The metrics that are read, and the labels by which they are told apart. Series that differ in other labels are added up."""

Counts: TypeAlias = dict[tuple[str, ...], float]
"""By the name of a metric and the values of its labels: how much was counted, or counted per second."""

_ByStatus: TypeAlias = "defaultdict[str, float]"

_ALLOWING = frozenset({"allowed", "exempt", "would_refuse", "unlimited", "failed_open"})
_SENT, _SUPPRESSED, _FAILED = "sent", "suppressed", "failed"


class Reading(NamedTuple):
    """What was counted so far, and how much per second lately."""

    totals: Counts
    rates: Counts


class Sample(NamedTuple):
    """What one endpoint had counted at an instant."""

    seconds: float
    """The instant, by a clock that only goes forward."""
    counts: Counts


def add(counts: Counts, name: str, labels: Mapping[str, str], value: float) -> None:
    """Count a series, if it is of one of the metrics. What is no number or negative is no count."""
    names = LABELS.get(name)
    if names is not None and value >= 0:
        key = (name, *(labels.get(label, "") for label in names))
        counts[key] = counts.get(key, 0.0) + value


def rates_between(before: Sample | None, after: Sample) -> Counts:
    """How much was counted per second. A process that was started anew counts from 0."""
    if before is None or after.seconds <= before.seconds:
        return {}
    seconds = after.seconds - before.seconds
    rates: Counts = {}
    for key, value in after.counts.items():
        earlier = before.counts.get(key, 0.0)
        rates[key] = (value - earlier if value >= earlier else value) / seconds
    return rates


def summed(parts: Iterable[Counts]) -> Counts:
    """The sum of several counts."""
    sums: Counts = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


class TypeTraffic(NamedTuple):
    """The traffic of one type."""

    type: str
    sent: float
    suppressed: float
    failed: float
    sent_rate: float
    """Per second."""
    suppressed_rate: float
    """Per second."""
    rule: str
    """The rule that refuses most: lately, or if none did lately, since the beginning. Empty if none refused."""
    share: float
    """Its share in what was refused."""


def by_type(reading: Reading) -> list[TypeTraffic]:
    """The traffic of each type, the busiest first.

    If nothing of a type was delivered or suppressed by a notifier or a decorated function, a limiter decides alone, and the
    program sends by itself. Then what was allowed counts as sent.
    """
    totals, rates = (_by_status(counts) for counts in reading)
    ever, lately = (_refusals(counts) for counts in reading)
    found: list[TypeTraffic] = []
    for type, (delivered, decided) in totals.items():
        is_delivered = any(delivered.values())
        counted, rate = delivered if is_delivered else decided, rates[type][0 if is_delivered else 1]
        rule, share = _most(lately.get(type) or ever.get(type) or {})
        found.append(
            TypeTraffic(
                type,
                counted[_SENT],
                counted[_SUPPRESSED],
                counted[_FAILED],
                rate[_SENT],
                rate[_SUPPRESSED],
                rule,
                share,
            )
        )
    found.sort(key=lambda each: (-each.sent_rate - each.suppressed_rate, -each.sent - each.suppressed, each.type))
    return found


def _by_status(counts: Counts) -> MutableMapping[str, tuple[_ByStatus, _ByStatus]]:
    """By type: what became of deliveries, and what was decided in the same words."""
    found: defaultdict[str, tuple[_ByStatus, _ByStatus]] = defaultdict(lambda: (defaultdict(float), defaultdict(float)))
    for (name, type, what, *_), value in counts.items():
        if name == DELIVERIES:
            found[type][0][what] += value
        else:
            found[type][1][_SENT if what in _ALLOWING else _SUPPRESSED] += value
    return found


def _refusals(counts: Counts) -> dict[str, dict[str, float]]:
    """By type and rule, what rules refused."""
    found: dict[str, dict[str, float]] = {}
    for (name, type, what, *rule), value in counts.items():
        if name == DECISIONS and what == "refused" and value > 0:
            rules = found.setdefault(type, {})
            rules[rule[0]] = rules.get(rule[0], 0.0) + value
    return found


def _most(rules: Mapping[str, float]) -> tuple[str, float]:
    if not rules:
        return "", 0.0
    rule = max(rules, key=lambda name: rules[name])
    return rule, rules[rule] / sum(rules.values())
