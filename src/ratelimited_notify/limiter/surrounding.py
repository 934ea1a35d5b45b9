"""What surrounds a delivery, from before the decision until after the gateway: the spans of those who trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.instrumentation.events import Decided, Delivered
from ratelimited_notify.limiter.exceeded import RateLimitExceeded
from ratelimited_notify.limiter.judgement import judged
from ratelimited_notify.limiter.watching import Attempt

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ratelimited_notify.instrumentation.events import DeliveryStatus
    from ratelimited_notify.instrumentation.watcher import Surround, Watcher
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.watching import Watching
    from ratelimited_notify.notification.annotations import Recipient


class Surrounding:
    """What surrounds one delivery. Make the decision and call the gateway in a `with` block of it.

    It ends with the block, or with an attempt that ends later. What those who surround raise does not reach the sender.

    Arguments:
        watching: tells who surrounds.
        type: the type of the notification. It may be anything: nothing has looked at it yet.
    """

    __slots__ = ("_decision", "_end", "_left", "_open", "_type", "_watching")

    def __init__(self, watching: Watching, type: str) -> None:
        self._watching = watching
        self._type = type
        self._open: list[tuple[Watcher, Surround]] = []
        self._left = False
        self._decision: Decision | None = None
        self._end: Delivered | None = None

    def __enter__(self) -> Self:
        try:
            for watcher in self._watching.surrounders:
                self._begin(watcher)
        except BaseException:
            # A signal handler raised it. There will be no end of the block.
            self._leave()
            raise
        return self

    def _begin(self, watcher: Watcher) -> None:
        try:
            surround = watcher.surround(self._watching.shown(self._type))
            if surround is not None:
                # First, so that an interrupt leaves nothing entered that is never left.
                self._open.append((watcher, surround))
                surround.enter()
        except Exception as error:  # noqa: BLE001  # a watcher may be somebody else's code
            watcher.raised(error)

    def decided(self, decision: Decision) -> Decision:
        """Note the decision, and return it."""
        self._decision = decision
        return decision

    def attempt(self, type: str, recipient: Recipient) -> Attempt:
        """The call of the gateway begins, as with `Watching.attempt`."""
        return SurroundedAttempt(self._watching.attempt(type, recipient), self)

    def failed(self, error: BaseException) -> None:
        """Note that nothing was sent, because of this error."""
        if self._decision is None and isinstance(error, RateLimitExceeded):
            self._decision = error.decision
            self.ended("suppressed")
        else:
            self.ended("failed", error)

    def ended(self, status: DeliveryStatus, error: BaseException | None = None) -> None:
        """Note how the delivery ended, and with which exception it failed."""
        self._end = Delivered(
            self._watching.shown(self._type), status, None if error is None else error.__class__.__name__
        )
        if self._left:
            self._tell_end()

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._end is None:
            if error is not None:
                self.failed(error)
            elif self._decision is not None and not self._decision.allowed:
                self.ended("suppressed")
        self._leave()
        if self._end is not None:
            self._tell_end()

    def _leave(self) -> None:
        self._left = True
        for watcher, surround in reversed(self._open):
            try:
                surround.leave()
            except Exception as error:  # noqa: BLE001  # as above
                watcher.raised(error)

    def _tell_end(self) -> None:
        decided, delivered = self._verdict(), self._end
        while self._open and delivered is not None:
            try:
                watcher, surround = self._open.pop()
            except IndexError:  # Another thread has ended it.
                return
            try:
                surround.end(decided, delivered)
            except Exception as error:  # noqa: BLE001  # as above
                watcher.raised(error)

    def _verdict(self) -> Decided | None:
        decision = self._decision
        if decision is None:
            return None
        verdict, rule = judged(decision)
        return Decided(self._watching.shown(decision.type), verdict, rule, False, decision.cost, self._watching.backend)


class SurroundedAttempt(Attempt):
    """A delivery that has begun, and that something surrounds.

    Arguments:
        attempt: tells how it ends.
        surrounding: what surrounds it.
    """

    __slots__ = ("_attempt", "_surrounding")

    def __init__(self, attempt: Attempt, surrounding: Surrounding) -> None:
        self._attempt = attempt
        self._surrounding = surrounding

    def sent(self) -> None:
        """Tell that it was sent."""
        self._attempt.sent()
        self._surrounding.ended("sent")

    def failed(self, error: BaseException | None) -> None:
        """Tell that it failed with this exception; None if it was given up before it began."""
        self._attempt.failed(error)
        self._surrounding.ended("failed", error)
