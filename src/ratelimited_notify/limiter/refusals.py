"""The cache of refusals in this process: a recipient who was refused a moment ago is refused again without a round trip.

A refusal is remembered no longer than the storage said it would last, and never longer than `LONGEST`. Meanwhile others
may have given a hit back, cleared the windows or raised a limit.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ratelimited_notify.forking import forkable
from ratelimited_notify.windows.keys import tag_in
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Outcome, VerdictLike, Window

    _Question: TypeAlias = tuple[tuple[Window, ...], tuple[str, ...], int]

LONGEST = 5_000_000_000
"""A refusal is remembered for at most this many nanoseconds."""

MOST_RECIPIENTS = 10_000
"""The most recipients to remember. With more, those who were refused first are forgotten."""

MOST_EACH = 32
"""The most different queries to remember for one recipient. With more, all of this recipient's are forgotten."""


class Refusal(NamedTuple):
    """The verdict, when the storage was asked, and until when it holds, in nanoseconds on the monotonic clock."""

    verdict: VerdictLike
    asked: int
    until: int

    def as_of(self, now: int) -> Verdict:
        """The same verdict at a later time: its instants are the same, only the present has moved on."""
        return Verdict(False, self.verdict.now + (now - self.asked) // 1000, self.verdict.readings)


class AskedAt(NamedTuple):
    """When the storage was asked, and how many drops there had been by then."""

    instant: int
    """On the monotonic clock, in nanoseconds."""
    drops: int


class RefusalCache:
    """Recent refusals, by windows, keys and cost. The windows belong to one rule set, so they stand for their limits.

    Arguments:
        monotonic: returns nanoseconds, and is not affected when a clock is set.
    """

    def __init__(self, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic = monotonic
        # By recipient, in the order in which they were last refused.
        self._refused: dict[str, dict[_Question, Refusal]] = {}
        self._drops = 0
        # Lookups do not take this lock. Half a change, in a forked child, is a refusal too few: the storage is asked.
        self._writing = forkable(threading.Lock())

    def asked_at(self) -> AskedAt:
        """Call this before the storage is asked, and pass the result to `remember`."""
        return AskedAt(self._monotonic(), self._drops)

    def remember(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, verdict: VerdictLike, asked: AskedAt
    ) -> None:
        """Remember the verdict if it is a refusal and all windows are enforced."""
        if verdict.granted or any(window.mode is not Mode.ENFORCE for window in windows):
            return
        retries = [reading.retry_at for reading in verdict.readings if reading.retry_at != FITS]
        lasts = LONGEST if NEVER in retries else min(LONGEST, (max(retries) - verdict.now) * 1000)
        with self._writing:
            if asked.drops != self._drops:
                # Something was given back or cleared since then, perhaps after the storage had decided.
                return
            tag = _tag(windows, keys)
            mine = self._refused.pop(tag, {})
            if len(mine) >= MOST_EACH:
                mine.clear()
            # Counted from before the query. The storage decided later, so this ends no later than the verdict says.
            mine[tuple(windows), tuple(keys), cost] = Refusal(verdict, asked.instant, asked.instant + lasts)
            self._refused[tag] = mine
            self._evict()

    def _evict(self) -> None:
        # Two for each one that comes, so that recipients who never come again are removed in time.
        now = self._monotonic()
        for _ in range(2):
            first = next(iter(self._refused))
            over = all(refusal.until <= now for refusal in self._refused[first].values())
            if not over and len(self._refused) <= MOST_RECIPIENTS:
                return
            del self._refused[first]
            if not self._refused:
                return

    def find(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict | None:
        """The verdict that the storage would most likely repeat; None if it has to be asked."""
        mine = self._refused.get(_tag(windows, keys))
        refusal = None if mine is None else mine.get((tuple(windows), tuple(keys), cost))
        now = self._monotonic()
        return None if refusal is None or refusal.until <= now else refusal.as_of(now)

    def drop(self, windows: Sequence[Window], keys: Sequence[str]) -> None:
        """Forget refusals by these windows, because something was given back or they were cleared."""
        with self._writing:
            if any(window.shared for window in windows):
                self._refused.clear()
            else:
                for key in keys:
                    self._refused.pop(tag_in(key), None)
            self._drops += 1

    def clear(self) -> None:
        """Forget all refusals, because the rules have changed."""
        with self._writing:
            self._refused.clear()
            self._drops += 1

    def shortcut(self, windows: tuple[Window, ...], key_parts: Sequence[tuple[str, str]]) -> RefusalShortcut:
        """A shortcut to the refusals by windows that are the same for all recipients."""
        return RefusalShortcut(self._refused, self._monotonic, windows, key_parts)

    def __len__(self) -> int:
        """The number of recipients with refusals, including refusals that have ended."""
        return len(self._refused)


class RefusalShortcut:
    """A shortcut that knows only remembered refusals, and has no outcome for other recipients."""

    def __init__(
        self,
        refused: dict[str, dict[_Question, Refusal]],
        monotonic: Callable[[], int],
        windows: tuple[Window, ...],
        key_parts: Sequence[tuple[str, str]],
    ) -> None:
        self.windows = windows
        self._around = key_parts
        self._refused = refused
        self._monotonic = monotonic

    def decide(self, recipient: str, /) -> Outcome | None:
        """A refusal, if one is remembered for this recipient."""
        mine = self._refused.get(recipient)
        # Keys escape a %, so with one the string may be how keys write another recipient.
        if mine is None or "%" in recipient:
            return None
        refusal = mine.get((self.windows, tuple(self.keys(recipient)), 1))
        if refusal is None or refusal.until <= (now := self._monotonic()):
            return None
        return False, refusal, now, self

    def keys(self, recipient: str) -> list[str]:
        """The keys of this recipient's windows."""
        return [f"{before}{recipient}{after}" if after else before for before, after in self._around]

    def explain(self, outcome: Outcome) -> Verdict:
        """The verdict that the storage would most likely repeat."""
        refusal: Refusal = outcome[1]
        return refusal.as_of(outcome[2])


def _tag(windows: Sequence[Window], keys: Sequence[str]) -> str:
    """The recipient as it is written in keys. If all windows are shared, what the first one counts by."""
    own = (key for window, key in zip(windows, keys, strict=True) if not window.shared)
    return tag_in(next(own, keys[0]))
