"""The result of a measurement, and the size of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paired import Ratio


@dataclass(frozen=True)
class Effort:
    """The length and size of the measurements."""

    rounds: int
    """The number of rounds of most measurements."""
    people: int
    """The number of recipients, for measurements that depend on it."""
    batch: int
    """The number of recipients of one `hit_many`."""
    stored: int
    """The number of recipients for measuring the bytes on the server."""


@dataclass(frozen=True)
class Address:
    """The address of a server of this run."""

    url: str
    host: str
    port: int


FULL = Effort(rounds=200, people=1_000_000, batch=100_000, stored=1_000_000)
QUICK = Effort(rounds=40, people=50_000, batch=10_000, stored=65_000)


@dataclass(frozen=True)
class Figure:
    """The measurement for one row of `targets`."""

    row: str
    value: float
    low: float | None = None
    high: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict)
    """The same ratio for other libraries."""
    people: int | None = None
    note: str = ""


def ratio(
    row: str, found: Ratio, peers: Mapping[str, float] | None = None, people: int | None = None, note: str = ""
) -> Figure:
    """Make a figure from a ratio and its spread."""
    return Figure(row, found.value, found.low, found.high, peers or {}, people, note)
