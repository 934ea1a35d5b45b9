"""The functions that are called when rules change."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from ratelimited_notify.callables import check_is_called_only
from ratelimited_notify.disposal import let_go
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.forking import holds
from ratelimited_notify.log import warning
from ratelimited_notify.sources.taking import check_takes

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import RLock

    from ratelimited_notify.rules.ruleset import RuleSet

    OnChange = Callable[[RuleSet, RuleSet, tuple[str, ...]], object]


class Callbacks:
    """Functions that are called with the rules before, the rules after, and the changes in words.

    Arguments:
        locks: what is not held while they are called: they may wait for a thread that wants it.
    """

    def __init__(self, *locks: RLock) -> None:
        self._locks = locks
        self._callbacks: list[OnChange] = []
        self._untold: deque[tuple[RuleSet, RuleSet]] = deque()
        self._rejections: deque[Callable[[], object]] = deque()

    def add(self, callback: OnChange) -> Callable[[], None]:
        """Call this function from now on. What you get ends this.

        Raises:
            NotifyError: it cannot be called with the rules before, the rules after, and the changes in words.
        """
        if not callable(callback):
            raise NotifyError(
                f"The function that is told about changes is a {type(callback).__name__}, not a function."
            )
        check_is_called_only(callback, "The function that is told about changes")
        check_takes(
            callback,
            3,
            "The function that is told about changes gets the rules before, the rules after, and the changes in words. This one "
            "cannot be called like that; write def changed(before, after, changes)",
        )
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def note(self, before: RuleSet, rules: RuleSet) -> None:
        """Note a change. `tell` tells about it."""
        self._untold.append((before, rules))

    def note_rejection(self, tell: Callable[[], object]) -> None:
        """Note that rules cannot be used or loaded. `tell` calls this function, which raises nothing."""
        self._rejections.append(tell)

    def tell(self, caught: type[BaseException]) -> None:
        """Call all of them about each change that was noted. What one raises is logged.

        A thread that holds a lock, such as in a signal handler, leaves that to the next one.

        Arguments:
            caught: what a callback may raise.
        """
        while self._rejections and not any(map(holds, self._locks)):
            with suppress(IndexError):  # another thread tells about it
                self._rejections.popleft()()
        while self._untold and not any(map(holds, self._locks)):
            try:
                before, rules = self._untold.popleft()
            except IndexError:
                # Another thread tells about it.
                return
            self._call(before, rules, caught)
            former: list[object] = list(before)
            del before, rules
            let_go(former)

    def _call(self, before: RuleSet, rules: RuleSet, caught: type[BaseException]) -> None:
        if not self._callbacks:
            return
        from ratelimited_notify.rules.difference import differences

        changes = tuple(differences(before, rules))
        for callback in list(self._callbacks):
            try:
                callback(before, rules, changes)
            except caught as error:
                warning("A function that is told about changes of the rules raised %s.", type(error).__name__)
