"""Which window a refused caller of a limiter waits for, and by which clock."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.limiter.lookup import RuleLookup
from ratelimited_notify.limiter.waiters import Timing, call_first, changes, lines
from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.waiters import Place
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.storage.base import AsyncStorage, Storage


_S = TypeVar("_S", "Storage", "AsyncStorage")


class Places(RuleLookup, Generic[_S]):
    """The part of a limiter that waiting callers use. Nothing here asks the storage."""

    _clock: Callable[[], float] | None
    _storage: _S | None
    _storage_argument: str | _S | Storage

    @abstractmethod
    def _is_off(self) -> bool:
        """Whether limiting is off."""

    def _rules_changed(self) -> None:
        self._call_waiting()

    def _call_waiting(self, keys: Collection[str] | None = None) -> None:
        """Let the first ones ask that wait for these windows, or for any, because there may be room."""
        # First, for those that have asked and are about to line up.
        changes.latest = object()
        if lines and self._storage is not None:
            call_first(self._where(), keys)

    def _where(self) -> object:
        """What the storage shares with those of other limiters: the windows in memory, or the server."""
        from ratelimited_notify.storage.adapter import Adapter, AsyncAdapter

        storage: object = self._storage
        if isinstance(self._storage_argument, str) and hasattr(storage, "circuits"):
            return self._storage_argument
        if isinstance(storage, (Adapter, AsyncAdapter)):
            return id(storage.storage)
        return id(getattr(storage, "windows", storage))

    def timing(self) -> Timing:
        """The time by which callers wait."""
        clock = self._clock
        return Timing(clock, True) if clock is not None and hasattr(clock, "sleep") else Timing(time.monotonic, False)

    def place_of(self, decision: Decision) -> Place:
        """The window that holds a refused notification longest."""
        window = decision.blocked_by
        if window is None:
            return self._where(), "", 0
        return self._where(), window.item.key_for(*window.identifiers), window.item.amount

    def line_for(
        self,
        on_limit: OnLimit,
        type: str,
        recipient: Recipient,
        cost: int,
        priority: str | None,
        fields: Mapping[str, Recipient | None],
    ) -> Place | None:
        """A window of this notification for which others are waiting already; None if there is none.

        Arguments:
            on_limit: what happens over the limit, if a rule does not say. Only what waits has to line up.
        """
        if self._is_off():
            return None
        try:
            query = self._query(type, recipient, cost, priority, fields)
        except Exception:  # noqa: BLE001  # `normalize` and `tier_of` may raise anything, and `hit` raises it again
            return None
        where = self._where()
        for window, key in zip(query.windows, query.keys, strict=True):
            place = where, key, window.amount
            if place in lines and window.mode is Mode.ENFORCE and (window.on_limit or on_limit) == "wait":
                return place
        return None
