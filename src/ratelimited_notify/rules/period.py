"""The names of periods as people write them: `hour`, `hours`, `h`."""

from __future__ import annotations

_SPELLINGS = (
    ("second", 1, "s sec secs second seconds"),
    ("minute", 1, "m min mins minute minutes"),
    ("hour", 1, "h hr hrs hour hours"),
    ("day", 1, "d day days"),
    ("day", 7, "w wk wks week weeks"),
    ("month", 1, "mo mos month months"),
    ("year", 1, "y yr yrs year years"),
)

_PERIODS = {spelling: (name, times) for name, times, spellings in _SPELLINGS for spelling in spellings.split()}


def period_of(spelling: str) -> tuple[str, int] | None:
    """The period with this name: what `limits` calls it, and how many of these it is. None if there is no such period.

    A capital M is none: it stands for a month as often as for a minute.
    """
    return None if spelling == "M" else _PERIODS.get(spelling.lower())
