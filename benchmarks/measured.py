"""What a measurement hands over, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paired import Ratio


@dataclass(frozen=True)
class Effort:
    """How long and how large."""

    rounds: int
    """Rounds of most measurements."""
    people: int
    """Recipients where the number is what is measured."""
    batch: int
    """Recipients of one `hit_many`."""
    stored: int
    """Recipients of which the bytes on the server are measured."""


@dataclass(frozen=True)
class Address:
    """Where a server of this run listens."""

    url: str
    host: str
    port: int


FULL = Effort(rounds=200, people=1_000_000, batch=100_000, stored=1_000_000)
QUICK = Effort(rounds=40, people=50_000, batch=10_000, stored=65_000)


@dataclass(frozen=True)
class Figure:
    """What was measured for one row of `targets`."""

    row: str
    value: float
    low: float | None = None
    high: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict)
    """The same ratio to other libraries."""
    people: int | None = None
    note: str = ""


def ratio(
    row: str, found: Ratio, peers: Mapping[str, float] | None = None, people: int | None = None, note: str = ""
) -> Figure:
    """A ratio with its spread."""
    return Figure(row, found.value, found.low, found.high, peers or {}, people, note)
