"""What the call of a decorated function tells those who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimited_notify.decorator.argument import Call
    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.failed import Failure
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.limiter.watching import Attempt
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.windows.strategies import Outcome

    Ending = Attempt | Failure | None
    """What has to know how a call ends: those who watch, a check of the result, or nobody."""

    _Read = tuple[str, Recipient, int, str | None, Mapping[str, Recipient | None]]


def reading(
    call: Call,
) -> Callable[[Limiter | AsyncLimiter, tuple[object, ...], dict[str, object]], _Read]:
    """The function that reads calls as `Call.read` does, and tells that nothing is sent if a call cannot be read."""
    read = call.read

    def read_or_tell(limiter: Limiter | AsyncLimiter, args: tuple[object, ...], kwargs: dict[str, object]) -> _Read:
        try:
            return read(args, kwargs)
        except BaseException as error:
            tell_undecided(limiter, call.constant_type, None, error)
            raise

    return read_or_tell


def attempt_of(
    limiter: Limiter | AsyncLimiter, plain: str, recipient: object, decision: Decision | None, failure: Failure | None
) -> Ending:
    """The beginning of a delivery, of which a shortcut knew the type and the recipient, or else the decision knows them. If nobody
    watches, `failure`.
    """
    watching = limiter.watching
    if watching is None:
        # It was closed just now.
        return failure
    if decision is None:
        return watching.attempts.get(plain) or watching.attempt(plain, cast("str", recipient))
    return watching.attempt(decision.type, decision.recipient)


def tell_failure(ending: Ending, failure: Failure | None, error: BaseException) -> None:
    """Tell that the function failed, if somebody watches: if `ending` is not just the check of the result, `failure`."""
    if ending is not failure:
        cast("Attempt", ending).failed(error)


def tell_end(ending: Ending, failure: Failure | None, failed: BaseException | None) -> None:
    """Tell that the function returned, and whether that means that nothing was sent, if somebody watches."""
    if ending is failure:
        return
    attempt = cast("Attempt", ending)
    if failed is None:
        attempt.sent()
    else:
        attempt.failed(failed)


def tell_dropped(limiter: Limiter | AsyncLimiter, type: str, recipient: object, outcome: Outcome) -> None:
    """Tell that a call is dropped, if somebody watches."""
    if limiter.watching is not None:
        limiter.watching.dropped(type, cast("Recipient", recipient), outcome)


def tell_undecided(limiter: Limiter | AsyncLimiter, type: str | None, recipient: object, error: BaseException) -> None:
    """Tell that nothing is sent, because nothing could be decided, if somebody watches and the type is known."""
    if limiter.watching is not None and type is not None:
        limiter.watching.undecided(type, cast("Recipient", recipient), error)
