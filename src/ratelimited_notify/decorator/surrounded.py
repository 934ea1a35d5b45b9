"""The call of a decorated function if somebody surrounds deliveries: the same as in `decorator`, without a shortcut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratelimited_notify.decorator.awaited import Pending, ended
from ratelimited_notify.decorator.telling import reading
from ratelimited_notify.limiter.refund import give_back_async
from ratelimited_notify.notifier.admission import admit, admit_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.decorator.argument import Call
    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.failed import Failure
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.limiter.watching import Watching
    from ratelimited_notify.notifier.policy import Policy


class Surrounded:
    """Calls a decorated function, in the middle of what surrounds its deliveries.

    Arguments:
        function: the function.
        call: reads its arguments.
        policy: what happens over the limit.
        refunded: whether an exception gives the hit back.
        failure: makes an exception of a result that is a failure, or None.
        dropped: makes the result of a call that is refused.
    """

    __slots__ = ("_dropped", "_failure", "_function", "_policy", "_read", "_refunded")

    def __init__(
        self,
        function: Callable[..., Any],  # Any: it may have to be awaited
        call: Call,
        policy: Policy,
        refunded: Callable[[BaseException], bool],
        failure: Failure | None,
        dropped: Callable[[Decision], object],
    ) -> None:
        self._function = function
        self._read = reading(call)
        self._policy = policy
        self._refunded = refunded
        self._failure = failure
        self._dropped = dropped

    def call(self, limiter: Limiter, watching: Watching, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Call a plain function."""
        from ratelimited_notify.limiter.surrounding import Surrounding

        type, recipient, cost, priority, fields = self._read(limiter, args, kwargs)
        with Surrounding(watching, type) as surrounding:
            decision = admit(limiter, self._policy, type, recipient, cost, priority, fields)
            surrounding.decided(decision)
            if not decision.allowed:
                return self._dropped(decision)
            pending = Pending(
                limiter, decision, self._refunded, self._failure, surrounding.attempt(decision.type, decision.recipient)
            )
            try:
                result = self._function(*args, **kwargs)
            except BaseException as error:
                pending.failed(error)
                raise
            return ended(result, pending)

    async def call_async(
        self, limiter: AsyncLimiter, watching: Watching, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """Call a coroutine function."""
        from ratelimited_notify.limiter.surrounding import Surrounding

        type, recipient, cost, priority, fields = self._read(limiter, args, kwargs)
        with Surrounding(watching, type) as surrounding:
            decision = await admit_async(limiter, self._policy, type, recipient, cost, priority, fields)
            surrounding.decided(decision)
            if not decision.allowed:
                return self._dropped(decision)
            attempt = surrounding.attempt(decision.type, decision.recipient)
            try:
                result = await self._function(*args, **kwargs)
            except BaseException as error:
                attempt.failed(error)
                if self._refunded(error):
                    await give_back_async(limiter, [decision])
                raise
            failed = None if self._failure is None else self._failure(result)
            if failed is None:
                attempt.sent()
                return result
            attempt.failed(failed)
            if self._refunded(failed):
                await give_back_async(limiter, [decision])
            return result
