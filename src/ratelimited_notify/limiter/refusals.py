"""A memory of refusals in this process: who was refused a moment ago is not worth a round trip.

It refuses for no longer than the storage said that nothing fits, and never for longer than `LONGEST`, since others may have
given a hit back meanwhile, cleared the windows or raised a limit.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ratelimited_notify.windows.keys import tag_in
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Outcome, VerdictLike, Window

    _Question: TypeAlias = tuple[tuple[Window, ...], tuple[str, ...], int]

LONGEST = 5_000_000_000
"""Nanoseconds for which a refusal is remembered at the most."""

MOST_RECIPIENTS = 10_000
"""So many recipients are remembered; with more, those who were refused first are forgotten."""

MOST_EACH = 32
"""So many different questions are remembered of one recipient; with more, the memory of this one starts over."""


class Refusal(NamedTuple):
    """What the storage said, when it was asked, and for how long that holds; on the monotonic clock, in nanoseconds."""

    verdict: VerdictLike
    asked: int
    until: int

    def as_of(self, now: int) -> Verdict:
        """The same answer some time later: the instants stay, and the present has moved on."""
        return Verdict(False, self.verdict.now + (now - self.asked) // 1000, self.verdict.readings)


class AskedAt(NamedTuple):
    """When the storage was asked, and how much had been dropped by then."""

    instant: int
    """On the monotonic clock, in nanoseconds."""
    drops: int


class RefusalCache:
    """Who was refused lately, by windows, keys and cost. The windows belong to one rule set, and stand for their limits.

    Arguments:
        monotonic: nanoseconds that no step of a clock moves.
    """

    def __init__(self, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic = monotonic
        # By recipient, those who were refused last behind the others.
        self._refused: dict[str, dict[_Question, Refusal]] = {}
        self._drops = 0
        # Not held while somebody looks something up.
        self._writing = threading.Lock()

    def asked_at(self) -> AskedAt:
        """To be taken before the storage is asked, and handed to `remember`."""
        return AskedAt(self._monotonic(), self._drops)

    def remember(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, verdict: VerdictLike, asked: AskedAt
    ) -> None:
        """Remember what the storage answered, if that is a refusal by enforced windows alone."""
        if verdict.granted or any(window.mode is not Mode.ENFORCE for window in windows):
            return
        retries = [reading.retry_at for reading in verdict.readings if reading.retry_at != FITS]
        lasts = LONGEST if NEVER in retries else min(LONGEST, (max(retries) - verdict.now) * 1000)
        with self._writing:
            if asked.drops != self._drops:
                # Something was given back or cleared since then, perhaps after the storage had looked.
                return
            tag = _tag(windows, keys)
            mine = self._refused.pop(tag, {})
            if len(mine) >= MOST_EACH:
                mine.clear()
            # Counted from before the question: the storage looked later, so this ends no later than what it said.
            mine[tuple(windows), tuple(keys), cost] = Refusal(verdict, asked.instant, asked.instant + lasts)
            self._refused[tag] = mine
            self._evict()

    def _evict(self) -> None:
        # More than come, so that those who do not come again are gone in time.
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
        """What the storage would most likely say once more; None where it has to be asked."""
        mine = self._refused.get(_tag(windows, keys))
        refusal = None if mine is None else mine.get((tuple(windows), tuple(keys), cost))
        now = self._monotonic()
        return None if refusal is None or refusal.until <= now else refusal.as_of(now)

    def drop(self, windows: Sequence[Window], keys: Sequence[str]) -> None:
        """Forget what was said of these windows: something was given back there, or they were cleared."""
        with self._writing:
            self._drops += 1
            if any(window.shared for window in windows):
                self._refused.clear()
            else:
                for key in keys:
                    self._refused.pop(tag_in(key), None)

    def shortcut(self, windows: tuple[Window, ...], key_parts: Sequence[tuple[str, str]]) -> RefusalShortcut:
        """A shortcut to what is remembered of windows that are always the same."""
        return RefusalShortcut(self._refused, self._monotonic, windows, key_parts)

    def __len__(self) -> int:
        """Of how many recipients anything is remembered, though it may be over."""
        return len(self._refused)


class RefusalShortcut:
    """Refuses those who are remembered, and says nothing of others."""

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
        # A % would have to be escaped: this may be how keys write another recipient.
        if mine is None or "%" in recipient:
            return None
        refusal = mine.get((self.windows, tuple(self.keys(recipient)), 1))
        if refusal is None or refusal.until <= (now := self._monotonic()):
            return None
        return False, refusal, now

    def keys(self, recipient: str) -> list[str]:
        """Where the windows of this recipient are kept."""
        return [f"{before}{recipient}{after}" if after else before for before, after in self._around]

    def explain(self, outcome: Outcome) -> Verdict:
        """What the storage would most likely say once more."""
        refusal: Refusal = outcome[1]
        return refusal.as_of(outcome[2])


def _tag(windows: Sequence[Window], keys: Sequence[str]) -> str:
    """The recipient, as keys have it; of windows that are all shared, what the first is counted by."""
    own = (key for window, key in zip(windows, keys, strict=True) if not window.shared)
    return tag_in(next(own, keys[0]))
