"""Whether a message may have been sent although the gateway raised: the table of outcomes, applied along the causes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import SendFailed
from ratelimited_notify.limiter.outcome_table import Outcome, row_of
from ratelimited_notify.limiter.responses import attribute
from ratelimited_notify.limiter.retried import frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

_MOST = 100
"""How many exceptions are looked at. If there are more, the outcome is unknown."""


def outcome_unknown(error: BaseException, *, handled: BaseException | None = None) -> bool:
    """Whether the message may have been sent although the gateway raised. The guarantees page has the table.

    If the table knows the exception, it decides, and the causes of the exception do not count. Otherwise the causes
    decide: `__cause__`, or `__context__` if it is not suppressed, `reason`, the exceptions among the arguments and in
    lists, tuples and dicts there, the last attempt of a retry, and the members of an exception group. If one of them says
    that the message may have been sent, it may have been sent. If none of them says anything, it was not sent.

    If the gateway handled a failure and then tried something else, that failure counts by itself.

    Arguments:
        error: what the gateway raised, or the `SendFailed` for what it returned.
        handled: the exception that your code was handling before it called the gateway. It does not count.
    """
    try:
        return any(outcome is not None and outcome.kept for outcome in _Walk(handled).outcomes(error))
    except Exception:  # noqa: BLE001  # it reads exceptions of any library, and must not replace the gateway's own
        return True


class _Walk:
    """A look at one exception and what is behind it, from the outside in."""

    def __init__(self, handled: BaseException | None) -> None:
        # The exceptions are kept so that their ids stay theirs. None is also the outcome of what is being looked at.
        self._seen: dict[int, tuple[BaseException, Outcome | None]] = {}
        if handled is not None:
            self._seen[id(handled)] = (handled, None)
        self._frames: set[FrameType] = set()
        self._earlier: list[BaseException] = []

    def outcomes(self, error: BaseException) -> Iterator[Outcome | None]:
        """The outcome of the exception, then those of earlier failures, after which the gateway tried something else."""
        self._seen.pop(id(error), None)
        yield self._outcome(error)
        while self._earlier:
            yield self._outcome(self._earlier.pop())

    def _outcome(self, error: BaseException) -> Outcome | None:
        if id(error) in self._seen:
            return self._seen[id(error)][1]
        if len(self._seen) >= _MOST:
            return Outcome.UNKNOWN
        self._seen[id(error)] = (error, None)
        self._frames.update(frames(error))
        outcome = self._judge(error)
        self._seen[id(error)] = (error, outcome)
        return outcome

    def _judge(self, error: BaseException) -> Outcome | None:
        # Causes are looked at even if the exception hides them: behind them there may be earlier failures.
        causes = [self._outcome(cause) for cause in self._causes(error)]
        if isinstance(error, BaseExceptionGroup):
            members = cast("BaseExceptionGroup[BaseException]", error).exceptions
            return _together([self._outcome(member) for member in members]) or _together(causes)
        row = row_of(error)
        if row is None:
            return _together(causes)
        if row.outcome is not Outcome.WRAPPED:
            return row.outcome
        never_connected = bool(causes) and all(outcome is Outcome.NEVER_CONNECTED for outcome in causes)
        return Outcome.NEVER_CONNECTED if never_connected else Outcome.UNKNOWN

    def _causes(self, error: BaseException) -> list[BaseException]:
        """What the exception was made of, each once."""
        told: list[object] = [error.__cause__]
        if error.__context__ is not None and not error.__suppress_context__ and self._was_translated(error):
            told.append(error.__context__)
        told += [attribute(error, "reason"), _last_failure(error)]
        for held in (*error.args, error.result if isinstance(error, SendFailed) else None):
            told += _members(held)
        return list({id(each): each for each in told if isinstance(each, BaseException) and each is not error}.values())

    def _was_translated(self, error: BaseException) -> bool:
        """Whether the exception was made of its context.

        It was, if it was raised in the function that caught the context: that is how one exception is translated into
        another. If it was raised in a call that the `except` block made, the context is an earlier failure, after which
        the gateway tried something else. If the context was not caught in the gateway but in what called it, it has
        nothing to do with the message.
        """
        context = cast("BaseException", error.__context__)
        caught, raised = next(frames(context), None), next(reversed(list(frames(error))), None)
        if caught is None or raised is None or caught is raised:
            return True
        if caught in self._frames:
            self._earlier.append(context)
        return False


def _members(held: object) -> Iterable[object]:
    """What is in a collection: some exceptions hold those of several attempts in one. Of anything else, itself."""
    if isinstance(held, dict):
        return cast("dict[object, object]", held).values()
    return cast("list[object]", held) if isinstance(held, (list, tuple)) else (held,)


def _last_failure(error: BaseException) -> object:
    """What the last attempt raised, if the exception holds a future of it (tenacity)."""
    attempt = attribute(error, "last_attempt")
    done, exception = attribute(attempt, "done"), attribute(attempt, "exception")
    return exception() if callable(done) and callable(exception) and done() else None


def _together(outcomes: list[Outcome | None]) -> Outcome | None:
    """What independent exceptions tell together. That the message may have been sent outranks everything else."""
    for outcome in (Outcome.UNKNOWN, Outcome.SENT, Outcome.NOT_SENT, Outcome.NEVER_CONNECTED):
        if outcome in outcomes:
            return outcome
    return None
