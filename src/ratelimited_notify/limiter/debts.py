"""What the insurance allowed while the storage failed, until it is added to the storage: the debts. Nothing here does I/O.

Only hits that certainly did not reach the storage become debts. They are taken out before they are sent, and put back only if
the storage certainly did not count them: so none is counted twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING
from weakref import WeakSet

from ratelimited_notify.forking import forkable, in_children
from ratelimited_notify.windows.strategies import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratelimited_notify.windows.strategies import Window

_LOOKS = 2
"""For each change, so many windows are looked at, and dropped if what they owe is over."""

_PARTS = 256
"""Hits of one window that end within this part of its period are one number."""


_PIECES = 4
"""What exceeds the amount of a window is added in so many pieces for each whole amount."""


class Owed:
    """Hits of one window that end at about the same time."""

    __slots__ = ("cost", "until")

    def __init__(self, until: int, cost: int) -> None:
        self.until = until
        """When the last of them no longer counts."""
        self.cost = cost


class Debt:
    """One hit that the storage does not know of, in all its windows."""

    __slots__ = ("cost", "owed")

    def __init__(self, cost: int, owed: Sequence[Owed]) -> None:
        self.cost = cost
        self.owed = owed


class Due:
    """What is taken out to be added to the storage."""

    __slots__ = ("requests", "taken")

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.taken: dict[str, deque[Owed]] = {}


class Debts:
    """The debts by the keys of their windows.

    Arguments:
        now: returns the current instant in microseconds.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._by_key: OrderedDict[str, deque[Owed]] = OrderedDict()
        # A signal handler may ask the limiter while this thread holds the lock.
        self._lock = forkable(threading.RLock())
        _all.add(self)

    def __len__(self) -> int:
        """The number of windows with debts, including some that are over."""
        return len(self._by_key)

    def add(self, windows: Sequence[Window], keys: Sequence[str], cost: int, lasting: Sequence[int]) -> Debt:
        """Note a hit.

        Arguments:
            windows: its windows.
            keys: their keys.
            cost: its cost.
            lasting: for how many microseconds it counts in each window.
        """
        with self._lock:
            now = self._now()
            owed = [
                self._added(key, now, now + left, cost, window.period // _PARTS)
                for window, key, left in zip(windows, keys, lasting, strict=True)
            ]
            self._sweep(now)
        return Debt(cost, owed)

    def _added(self, key: str, now: int, until: int, cost: int, part: int) -> Owed:
        each = self._by_key.setdefault(key, deque())
        while each and each[0].until <= now:
            each.popleft()
        if each and abs(until - each[-1].until) <= part:
            last = each[-1]
            last.cost += cost
            last.until = max(last.until, until)
            return last
        each.append(Owed(until, cost))
        return each[-1]

    def cancel(self, debt: Debt) -> None:
        """Note that a hit was given back. What was added to the storage meanwhile stays there."""
        with self._lock:
            for owed in debt.owed:
                owed.cost = max(0, owed.cost - debt.cost)

    def forget(self, keys: Iterable[str]) -> None:
        """Note that windows were cleared."""
        with self._lock:
            for key in keys:
                self._by_key.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._by_key = OrderedDict()

    def take(self, windows: Sequence[Window], keys: Sequence[str], due: Due) -> None:
        """Take out what these windows owe, as requests that force it into them.

        Arguments:
            windows: windows that force hits.
            keys: their keys.
            due: gets the requests.
        """
        with self._lock:
            now = self._now()
            by_cost: dict[int, tuple[list[Window], list[str]]] = {}
            for window, key in zip(windows, keys, strict=True):
                each = self._by_key.pop(key, None)
                cost = 0 if each is None else sum(owed.cost for owed in each if owed.until > now)
                if each is None or not cost:
                    continue
                due.taken[key] = each
                if cost > window.amount:
                    # A window forces hits up to twice its amount: so most of these still fit.
                    part = -(-window.amount // _PIECES)
                    due.requests += [Request([window], [key], part)] * (cost // part)
                    cost %= part
                if cost:
                    together = by_cost.setdefault(cost, ([], []))
                    together[0].append(window)
                    together[1].append(key)
            due.requests += [Request(*together, cost) for cost, together in by_cost.items()]
            self._sweep(now)

    def put_back(self, due: Due) -> None:
        """Note that the storage counted nothing of this."""
        with self._lock:
            for key, each in due.taken.items():
                newer = self._by_key.setdefault(key, deque())
                newer.extendleft(reversed(each))

    def _sweep(self, now: int) -> None:
        """Look at a few windows, and drop them if all that they owe is over: nobody may ever ask about them again."""
        for _ in range(min(_LOOKS, len(self._by_key))):
            key, each = next(iter(self._by_key.items()))
            if all(owed.until <= now or not owed.cost for owed in each):
                del self._by_key[key]
            else:
                self._by_key.move_to_end(key)


_all: WeakSet[Debts] = WeakSet()


def _after_fork() -> None:
    # The parent adds them, too.
    for debts in list(_all):
        debts.clear()


in_children(_after_fork)
