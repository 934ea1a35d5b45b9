"""Telling those who watch that rules cannot be used or loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ratelimited_notify.instrumentation import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratelimited_notify.instrumentation.watcher import Watcher


class _Follower(Protocol):
    @property
    def watchers(self) -> Iterable[Watcher]:
        """Those who watch this limiter alone."""
        ...


def tell_rejection(source: object, followers: Callable[[], Iterable[_Follower]], error: str, problems: int) -> None:
    """Tell those who watch the process, or a limiter that goes by these rules.

    Arguments:
        source: the source of the rules.
        followers: returns who goes by its rules.
        error: what is wrong.
        problems: how many problems there are; 0 if the source failed in another way.
    """
    watchers = dict.fromkeys(registry.watchers())
    for follower in followers():
        watchers.update(dict.fromkeys(follower.watchers))
    if not watchers:
        return
    from ratelimited_notify.instrumentation.events import RulesRejected

    event = RulesRejected(repr(source), problems, error)
    for watcher in watchers:
        watcher.tell(event)
