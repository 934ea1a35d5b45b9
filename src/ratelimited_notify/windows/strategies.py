"""The count of one window under each of the three strategies, and hits in several windows, all or none.

Everything is an integer: instants and periods in microseconds, counts in hits. Nothing here reads a clock or does I/O.
Storages that count in Python (memory, memcached) keep these records. The Redis script does the same arithmetic in Lua.

The strategies are those of `limits` (https://limits.readthedocs.io/en/stable/strategies.html), with one difference that
applies to every backend: a window begins at its first hit.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratelimited_notify.windows.hits import Hit

StrategyName: TypeAlias = Literal["moving-window", "fixed-window", "sliding-window-counter"]

WindowKind: TypeAlias = StrategyName | Literal["pause"]
"""How a window decides: by one of the strategies, or by the instant until which its rule is paused."""

MICROSECONDS = 1_000_000
"""Microseconds in a second."""

FITS = -(1 << 100)
"""The `Reading.retry_at` of a cost that fits now. Earlier than any instant: a caller's clock may be before 1970."""

NEVER = 1 << 100
"""The `Reading.retry_at` of a cost above the limit: waiting does not help. Later than any instant."""

Token: TypeAlias = tuple[int, int]
"""What identifies one hit in one window, enough to give exactly that hit back: an instant, and a number that distinguishes
equal instants. For a moving window the instant is the hit's own stamp, for the others the edge of the window that counted it."""


class Mode(IntEnum):
    """How a hit treats one window."""

    ENFORCE = 0
    """The hit is counted if it fits; otherwise the whole hit is refused, in all windows."""
    FORCE = 1
    """The window never refuses (exempt). The hit is counted as long as the count stays within twice the amount."""
    SHADOW = 2
    """The window never refuses. The hit is counted if it fits, and reported if it does not."""


class Window:
    """One limit as a storage sees it. The recipient comes with each call, as a key.

    A window is made once per rule and kept, so it compares and hashes by identity, which is cheap.
    """

    __slots__ = ("amount", "mode", "period", "rule", "shared", "strategy")

    def __init__(
        self,
        strategy: WindowKind,
        amount: int,
        period: int,
        mode: Mode = Mode.ENFORCE,
        *,
        rule: str = "",
        shared: bool = False,
    ) -> None:
        self.strategy: WindowKind = strategy
        self.amount = amount
        self.period = period
        """Microseconds."""
        self.mode = mode
        self.rule = rule
        """The name of the rule, for errors."""
        self.shared = shared
        """Whether it counts many recipients together, so that it may be stored elsewhere than the recipient's own windows."""

    def __repr__(self) -> str:
        return f"Window({self.strategy!r}, {self.amount}, {self.period}, {self.mode!s}, rule={self.rule!r}, shared={self.shared})"


class Reading(NamedTuple):
    """What one window says about one cost."""

    count: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]  # the right word; `tuple.count` has no use here
    """Hits in the window, including this one if it was counted."""
    retry_at: int
    """The instant from which this very cost would fit if nothing else happens; or `FITS` or `NEVER`."""
    reset_at: int
    """The instant at which the window is empty if nothing else happens."""
    token: Token | None
    """Identifies the hit, to give it back; None if nothing was counted here."""


class Verdict(NamedTuple):
    """A storage's decision: whether the hit was granted, at what instant, and a reading of each window."""

    granted: bool
    now: int
    readings: Sequence[Reading]


class VerdictLike(Protocol):
    """What a decision is made of: a `Verdict`, or a stand-in that computes the readings when a caller asks for them."""

    @property
    def granted(self) -> bool: ...

    @property
    def now(self) -> int: ...

    @property
    def readings(self) -> Sequence[Reading]: ...


class Request(NamedTuple):
    """One hit of a batch: its windows, their keys in the same order, and the cost."""

    windows: Sequence[Window]
    keys: Sequence[str]
    cost: int

    def __repr__(self) -> str:
        # The keys contain recipients, and a tool may show the variables of a traceback.
        return "<Request>"


Outcome: TypeAlias = tuple[Any, ...]  # Any: a truth value, whatever the storage remembers, and an `ExplainingShortcut`
"""The decision of a shortcut: whether the hit was granted, the values that explain it, and the shortcut that decided."""


class Shortcut(Protocol):
    """A fast path for `acquire` at cost 1."""

    def decide(self, recipient: str, /) -> Outcome | None:
        """Count a hit for this recipient, or refuse it. None: nothing was done, and the caller has to use `acquire`."""
        ...


class ExplainingShortcut(Shortcut, Protocol):
    """A fast path for `acquire` at cost 1, in a fixed set of windows. It is the last item of its outcomes."""

    windows: Sequence[Any]  # Any: windows of the kind that it was made for

    def explain(self, outcome: Outcome) -> VerdictLike:
        """The verdict that `acquire` would have returned."""
        ...


class Record(Protocol):
    """The count of one window. The strategy determines the class, see `RECORDS`."""

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        """Return count, `retry_at` and `reset_at` of this window for a hit of `cost`. Changes nothing."""
        ...

    def take(self, now: int, period: int, cost: int, mark: int) -> Token | None:
        """Count a hit unconditionally. `mark` is a number that no other hit of this storage has. None: nothing is counted here."""
        ...

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        """Give back the hit that `token` identifies, if the window that counted it still exists."""
        ...

    def ends(self, now: int, period: int) -> int:
        """The instant from which the record counts nothing and may be dropped."""
        ...


class MovingWindow:
    """Every hit with its stamp, so the count is exact. A hit counts in [stamp, stamp + period)."""

    __slots__ = ("hits",)

    def __init__(self, hits: Iterable[Hit] = ()) -> None:
        # Loaded with the first such window: in memory, most are kept as numbers.
        from ratelimited_notify.windows.hits import Hits

        self.hits = Hits(hits)
        """The hits that count, and some expired ones: expired hits are dropped when the next hit is counted."""

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        hits = self.hits
        if not hits or hits.newest + period <= now:
            return 0, FITS if cost <= amount else NEVER, now
        over = hits.cost_until(now - period)
        count = hits.total - over
        if cost > amount:
            retry_at = NEVER
        elif count + cost > amount:
            retry_at = hits.reached(over + count + cost - amount) + period
        else:
            retry_at = FITS
        return count, retry_at, hits.newest + period

    def take(self, now: int, period: int, cost: int, mark: int) -> Token:
        hits = self.hits
        hits.drop_until(now - period)
        # Stamps never run backwards, even if the clock does.
        stamp = max(now, hits.newest) if hits else now
        hits.add(stamp, mark, cost)
        return stamp, mark

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        return now < token[0] + period and self.hits.remove(*token, cost)

    def ends(self, now: int, period: int) -> int:
        return self.hits.newest + period if self.hits else now


class FixedWindow:
    """One counter that begins at the first hit and expires a period later. It is empty once every hit has been given back."""

    __slots__ = ("count", "end", "mark")

    def __init__(self) -> None:
        self.end = 0
        self.count = 0
        self.mark = 0

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        count = self.count if now < self.end else 0
        if cost > amount:
            retry_at = NEVER
        elif count + cost > amount:
            retry_at = self.end
        else:
            retry_at = FITS
        return count, retry_at, self.end if count else now

    def take(self, now: int, period: int, cost: int, mark: int) -> Token:
        if now >= self.end or not self.count:
            self.end, self.count, self.mark = now + period, 0, mark
        self.count += cost
        return self.end, self.mark

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        # Equal hits cannot be distinguished, but a hit given back twice must not free room that it never used.
        if now >= self.end or self.count < cost or (self.end, self.mark) != token:
            return False
        self.count -= cost
        return True

    def ends(self, now: int, period: int) -> int:
        return self.end if self.count else now


class SlidingWindowCounter:
    """Two counters, the previous one weighted by the time it still overlaps: a cheap and smooth estimate.

    At an instant in [start, start + period) the count is floor(previous * (start + period - now) / period) + current.
    """

    __slots__ = ("current", "mark", "previous", "start")

    def __init__(self) -> None:
        self.start = 0
        self.previous = 0
        self.current = 0
        self.mark = 0

    def _at(self, now: int, period: int) -> tuple[int, int, int]:
        """Start, previous count and current count at `now`."""
        if now < self.start + period:
            return self.start, self.previous, self.current
        if now < self.start + 2 * period:
            return self.start + period, self.current, 0
        return now, 0, 0

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        start, previous, current = self._at(now, period)
        # If the clock ran backwards, the weight must not exceed the whole window.
        left = min(start + period - now, period)
        count = previous * left // period + current
        if cost > amount:
            retry_at = NEVER
        elif count + cost <= amount:
            retry_at = FITS
        elif current + cost <= amount:
            retry_at = _lightened(previous, start, period, amount - current - cost)
        else:
            retry_at = _lightened(current, start + period, period, amount - cost)
        if current:
            reset_at = start + 2 * period
        elif previous:
            reset_at = start + period
        else:
            reset_at = now
        return count, retry_at, reset_at

    def take(self, now: int, period: int, cost: int, mark: int) -> Token:
        self.start, self.previous, self.current = self._at(now, period)
        if not self.previous and not self.current:
            self.start, self.mark = now, mark
        self.current += cost
        return self.start, self.mark

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        counted, mark = token
        start, previous, current = self._at(now, period)
        if mark != self.mark:
            return False
        if counted == start and current >= cost:
            current -= cost
        elif counted + period == start and previous >= cost:
            previous -= cost
        else:
            return False
        self.start, self.previous, self.current = start, previous, current
        return True

    def ends(self, now: int, period: int) -> int:
        start, previous, current = self._at(now, period)
        if current:
            return start + 2 * period
        return start + period if previous else now


class Pause:
    """The instant until which a rule is paused. It reads 1 until then and 0 from then on, and no hit changes that."""

    __slots__ = ("until",)

    def __init__(self, until: int | None = None) -> None:
        self.until = until

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        if self.until is None or self.until <= now:
            return 0, FITS, now
        return 1, self.until, self.until

    def extend(self, until: int) -> int:
        """Pause until this instant, or longer if it is paused for longer already. Returns the instant."""
        self.until = until if self.until is None else max(until, self.until)
        return self.until

    def take(self, now: int, period: int, cost: int, mark: int) -> None: ...

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        return False

    def ends(self, now: int, period: int) -> int:
        return now if self.until is None else self.until


def _lightened(previous: int, start: int, period: int, room: int) -> int:
    """The first instant of the window that begins at `start` at which the weighted previous count is at most `room`."""
    left = ((room + 1) * period - 1) // previous
    return start + period - min(left, period)


RECORDS: dict[WindowKind, Callable[[], Record]] = {
    "moving-window": MovingWindow,
    "fixed-window": FixedWindow,
    "sliding-window-counter": SlidingWindowCounter,
    "pause": Pause,
}
"""The class that keeps a window's count, by strategy."""


def look(windows: Sequence[Window], records: Sequence[Record], now: int, cost: int) -> Verdict:
    """The verdict on a hit of `cost`, without counting it."""
    granted = True
    readings: list[Reading] = []
    for window, record in zip(windows, records, strict=True):
        count, retry_at, reset_at = record.read(now, window.period, window.amount, cost)
        if window.mode is Mode.ENFORCE:
            granted = granted and retry_at == FITS
        elif window.mode is Mode.FORCE:
            retry_at = FITS
        readings.append(Reading(count, retry_at, reset_at, None))
    return Verdict(granted, now, readings)


def take(windows: Sequence[Window], records: Sequence[Record], now: int, cost: int, mark: int) -> Verdict:
    """Count a hit of `cost` in all windows, or in none if an enforced window has no room.

    `records` holds one record per window, a fresh one if the storage had none. `mark` distinguishes this hit from every
    other hit of the storage. A refusal changes no record.
    """
    seen = look(windows, records, now, cost)
    if not seen.granted:
        return seen
    readings: list[Reading] = []
    for window, record, reading in zip(windows, records, seen.readings, strict=True):
        if window.mode is Mode.FORCE:
            taken = reading.count + cost <= 2 * window.amount
        else:
            taken = reading.retry_at == FITS
        if taken:
            token = record.take(now, window.period, cost, mark)
            if token is None:
                readings.append(reading)
                continue
            count, _, reset_at = record.read(now, window.period, window.amount, cost)
            readings.append(Reading(count, FITS, reset_at, token))
        else:
            readings.append(reading)
    return Verdict(True, now, readings)
