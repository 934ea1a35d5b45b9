"""What goes by live rules: a limiter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from weakref import ref

    from ratelimited_notify.instrumentation.watcher import Watcher
    from ratelimited_notify.rules.ruleset import RuleSet


class Follower(Protocol):
    """What goes by live rules: a limiter."""

    @property
    def rules(self) -> RuleSet:
        """The rules by which it goes."""
        ...

    @property
    def reconsiders(self) -> bool:
        """Whether the rules that it refused last may be usable by now."""
        ...

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Those who watch this limiter alone."""
        ...

    def prepared(self, rules: RuleSet) -> Callable[[], None]:
        """Make everything for these rules. What you get puts them in force, and cannot fail. Hold `editing` until then.

        Raises:
            NotifyError: the rules cannot be used. The message says why, and by whom.
        """
        ...

    def changed(self) -> None:
        """Note that other rules are in force. No lock is held."""
        ...

    def forget_shortcuts(self) -> None:
        """Decide the next notification the long way, which starts the thread."""
        ...


def may_accept(refusing: ref[Follower] | None) -> bool:
    """Whether the rules that this follower refused may be usable by now: it is gone, or reconsiders."""
    if refusing is None:
        return False
    follower = refusing()
    return follower is None or follower.reconsiders
