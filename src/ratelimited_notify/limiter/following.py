"""How a limiter goes by live rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.log import warning

if TYPE_CHECKING:
    from ratelimited_notify.sources.follower import Follower
    from ratelimited_notify.sources.live import LiveRules


class Following:
    """What leads from a limiter to the live rules: until it is closed, and again from its next decision on.

    Arguments:
        live: the live rules.
    """

    __slots__ = ("_joined", "live")

    def __init__(self, live: LiveRules) -> None:
        self.live = live
        self._joined = False

    @property
    def runs(self) -> bool:
        """Whether the thread keeps the rules of the limiter up to date in this process."""
        return self._joined and self.live.running

    def join(self, limiter: Follower) -> None:
        """Put the rules in force, and every change of them.

        Raises:
            NotifyError: the limiter cannot go by them.
        """
        try:
            self.live.follow(limiter)
        except NotifyError:
            self.live.leave(limiter)
            raise
        self._joined = True

    def begin(self, limiter: Follower) -> None:
        """Start the thread, if it does not run. What cannot be done is logged: a decision goes on by the rules there are."""
        if not self._joined or limiter.rules is not self.live.rules:
            # The rules may have changed after the limiter was closed, or during a fork.
            try:
                self.live.follow(limiter)
            except NotifyError as error:
                warning("A limiter goes on by earlier rules, because it cannot use those of today: %s", error)
            self._joined = True
        self.live.start()

    def leave(self, limiter: Follower) -> None:
        """Go by the rules there are, until the next decision."""
        self._joined = False
        limiter.forget_shortcuts()
        self.live.leave(limiter)

    def unassignable(self) -> NotifyError:
        """The error about rules that somebody assigns."""
        return NotifyError(
            f"The rules come from {self.live.source!r}, which would replace what you assign. Change them there, or make a "
            "limiter without a source."
        )
