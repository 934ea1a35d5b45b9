"""Who watches, and which limiters there are. Limiters import it, so it loads nothing.

Nothing here takes a lock: each change is one atomic step of a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.instrumentation.events import Event
    from ratelimited_notify.instrumentation.watcher import Watcher


class Watchable(Protocol):
    """What can be watched: a limiter."""

    def watchers_changed(self) -> None:
        """Note that others watch the whole process."""
        ...

    def watchers_of(self, server: str) -> tuple[Watcher, ...]:
        """Those who watch this limiter alone, if its storage uses this server."""
        ...


_everywhere: dict[Watcher, None] = {}

_limiters: dict[ref[Watchable], None] = {}


def watchers() -> tuple[Watcher, ...]:
    """Those who watch the whole process, in the order in which they began."""
    return tuple(_everywhere.copy())


def enroll(limiter: Watchable) -> None:
    """Note a limiter, as long as it lives."""
    _limiters[ref(limiter, _gone)] = None


def _gone(limiter: ref[Watchable]) -> None:
    _limiters.pop(limiter, None)


def limiters() -> list[Watchable]:
    """All limiters of the process."""
    found = [(each, each()) for each in _limiters.copy()]
    for each, limiter in found:
        if limiter is None:
            # An exception of a signal handler goes nowhere in `_gone`.
            _gone(each)
    return [limiter for _, limiter in found if limiter is not None]


def begin(watcher: Watcher) -> None:
    """Tell this watcher about all limiters from now on."""
    _everywhere[watcher] = None
    _note_change()


def end(watcher: Watcher) -> None:
    """Tell this watcher nothing more."""
    if _everywhere.pop(watcher, watcher) is None:
        _note_change()


def _note_change() -> None:
    for limiter in limiters():
        limiter.watchers_changed()


def tell_of_server(server: str, event: Callable[[], Event]) -> None:
    """Tell everybody about a server who watches the process, or a limiter that uses it.

    Arguments:
        server: its address.
        event: makes the event. It is called only if somebody watches.
    """
    told = dict.fromkeys(watchers())
    for limiter in limiters():
        told.update(dict.fromkeys(limiter.watchers_of(server)))
    if told:
        made = event()
        for watcher in told:
            watcher.tell(made)
