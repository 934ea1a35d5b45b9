"""The exception for a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from ratelimited_notify.limiter.decision import Decision


class RateLimitExceeded(NotifyError):
    """A rule refused the notification, and `on_limit` is `"raise"`, or the wait would be too long.

    Its message says which rule refused, and when the notification would be allowed.

    Arguments:
        decision: the refusal, or just its text: task queues that keep results as JSON, such as Celery, make the exception
            again from its text.
    """

    decision: Decision | None
    """The refusal: which rule refused, and when the notification would be allowed. None if the exception was made from
    its text."""

    def __init__(self, decision: Decision | str = "") -> None:
        if isinstance(decision, str):
            super().__init__(decision)
            self.decision = None
        else:
            super().__init__()
            self.decision = decision

    # The message is made when it is read: most handlers never read it.
    @property
    def args(self) -> tuple[Any, ...]:  # Any: as in `BaseException`
        """The message."""
        kept: tuple[object, ...] = super().args
        return kept if kept or self.decision is None else (str(self.decision),)

    @args.setter
    def args(self, args: tuple[object, ...]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # read and set alike
        super().__init__(*args)

    @property
    def retry_after(self) -> float:
        """Seconds until it would be allowed, as `Decision.retry_after`; 0 if that is not known."""
        return 0.0 if self.decision is None else self.decision.retry_after

    def headers(self, *, ratelimit: bool = False) -> dict[str, str]:
        """The headers for an HTTP response, as `Decision.headers`; none without a decision."""
        return {} if self.decision is None else self.decision.headers(ratelimit=ratelimit)

    def __str__(self) -> str:
        args = self.args
        return str(args[0]) if len(args) == 1 else super().__str__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[type[RateLimitExceeded], tuple[Decision | str], dict[str, object]]:
        if self.decision is None:
            return type(self), (str(self),), self.__dict__
        kept: tuple[object, ...] = super().args
        return type(self), (self.decision,), {**self.__dict__, "args": kept} if kept else self.__dict__
