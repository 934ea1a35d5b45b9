"""What a plain function returned, if it ends later: watched until then, because it may fail until then."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine
from typing import TYPE_CHECKING, Any, cast

from ratelimited_notify.limiter.refund import give_back

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.failed import Failure
    from ratelimited_notify.limiter.sync import Limiter
    from ratelimited_notify.limiter.watching import Attempt


class Pending:
    """A send that was allowed and called, and may still turn out to have failed. It is told once how it ended.

    Arguments:
        limiter: what decided.
        decision: the decision.
        refunded: whether an exception gives the hit back.
        failure: makes an exception of a result that is a failure, or None.
        attempt: is told how it ended, if somebody watches.
    """

    __slots__ = ("_attempt", "_decision", "_failure", "_limiter", "_refunded")

    def __init__(
        self,
        limiter: Limiter,
        decision: Decision | None,
        refunded: Callable[[BaseException], bool],
        failure: Failure | None,
        attempt: Attempt | None,
    ) -> None:
        self._attempt = attempt
        self._limiter = limiter
        self._decision = decision
        self._refunded = refunded
        self._failure = failure

    def failed(self, error: BaseException | None) -> None:
        """It failed with this exception; with None it was closed or cancelled before its first step, so nothing was sent."""
        if self._attempt is not None:
            self._attempt.failed(error)
        if error is None or self._refunded(error):
            give_back(self._limiter, [self._decision])

    def returned(self, result: object) -> None:
        """It ended with this result."""
        failed = None if self._failure is None else self._failure(result)
        if failed is not None:
            self.failed(failed)
        elif self._attempt is not None:
            self._attempt.sent()


def ends_later(kind: type) -> bool:
    """Whether a result of this class tells how the send ends: something to await, or a future of a pool of threads."""
    return hasattr(kind, "__await__") or hasattr(kind, "add_done_callback")


def ended(result: object, pending: Pending) -> object:
    """The result to return to the caller, after `pending` was told of it, or will be as soon as it ends."""
    if ends_later(type(result)):
        return watched(cast("Awaitable[object]", result), pending)
    pending.returned(result)
    return result


def watched(awaitable: Awaitable[object], pending: Pending) -> Awaitable[object]:
    """The awaitable to return to the caller instead: it works the same, and reports how it ends.

    A future, a task or a `Deferred` of Twisted is returned itself. A coroutine that is never awaited reports nothing: the garbage collector may
    find it in the middle of anything, where no hit can be given back.

    Arguments:
        awaitable: what the function returned.
        pending: is told how it ends.
    """
    if hasattr(awaitable, "add_done_callback"):
        _watch_future(cast("asyncio.Future[object]", awaitable), pending)
        return awaitable
    if hasattr(awaitable, "addCallbacks"):
        _watch_deferred(awaitable, pending)
        return awaitable
    is_coroutine, is_entered = isinstance(awaitable, Coroutine), hasattr(awaitable, "__aenter__")
    if is_coroutine:
        return (_EnteredCoroutine if is_entered else _Coroutine)(awaitable, pending)
    return (_Entered if is_entered else _Awaited)(awaitable, pending)


def _watch_future(future: asyncio.Future[object], pending: Pending) -> None:
    def done(future: asyncio.Future[object]) -> None:
        error = _error_of(future)
        if error is not None:
            pending.failed(error)
        else:
            pending.returned(future.result())

    if future.done():
        done(future)
    else:
        future.add_done_callback(done)


def _watch_deferred(deferred: Any, pending: Pending) -> None:  # Any: Twisted need not be installed
    def returned(result: object) -> object:
        pending.returned(result)
        return result

    def failed(failure: Any) -> object:  # Any: as above
        pending.failed(failure.value)
        return failure

    deferred.addCallbacks(returned, failed)


def _error_of(future: asyncio.Future[object]) -> BaseException | None:
    if future.cancelled():
        from asyncio import CancelledError

        return CancelledError()
    # `exception()` would count as a look at it: asyncio would no longer log an exception that nobody else retrieves.
    error = getattr(future, "_exception", future)
    return error if error is None or isinstance(error, BaseException) else future.exception()


class _Awaited(Awaitable[object]):
    """An awaitable that reports how it ends. Otherwise it is the awaitable: it has its attributes too."""

    __slots__ = ("__weakref__", "_awaitable", "_pending")

    def __init__(self, awaitable: Any, pending: Pending) -> None:  # Any: what kind of awaitable it is, differs
        self._awaitable = awaitable
        self._pending: Pending | None = pending

    def __getattr__(self, name: str) -> object:
        return getattr(self._awaitable, name)

    def __repr__(self) -> str:
        return repr(self._awaitable)

    def __await__(self) -> Generator[Any, Any, Any]:  # Any: what it yields belongs to the event loop
        if getattr(self._awaitable, "cr_await", None) is not None:
            # Python itself sees this only where a coroutine is awaited directly.
            raise RuntimeError("coroutine is being awaited already")
        steps = cast("Generator[Any, Any, Any]", self._awaitable.__await__())  # Any: as above
        try:
            result = yield from steps
        except BaseException as error:
            self._raised(error)
            raise
        self._returned(result)
        return result

    def _raised(self, error: BaseException | None) -> None:
        """Report the exception that ended it. An error of somebody who only asked too early, or too late, is none."""
        pending = self._pending
        if pending is None or getattr(self._awaitable, "cr_frame", None) is not None:
            return
        self._pending = None
        pending.failed(error)

    def _returned(self, result: object) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.returned(result)


class _Coroutine(_Awaited, Coroutine[Any, Any, object]):  # Any: as above
    """A coroutine that reports how it ends."""

    __slots__ = ()

    def send(self, value: Any, /) -> object:  # Any: as above
        try:
            return self._awaitable.send(value)
        except StopIteration as stop:
            self._returned(stop.value)
            raise
        except BaseException as error:
            self._raised(error)
            raise

    def throw(self, *exception: Any) -> object:  # Any: as above
        begun = self._has_begun()
        try:
            return self._awaitable.throw(*exception)
        except StopIteration as stop:
            self._returned(stop.value)
            raise
        except BaseException as error:
            self._raised(error if begun else None)
            raise

    def close(self) -> None:
        begun = self._has_begun()
        self._awaitable.close()
        self._raised(GeneratorExit() if begun else None)

    def _has_begun(self) -> bool:
        """Whether some of its code may have run."""
        return not iscoroutine(self._awaitable) or getcoroutinestate(self._awaitable) != CORO_CREATED


class _Entered(_Awaited):
    """An awaitable for `async with` too, as a request of aiohttp is."""

    __slots__ = ()

    async def __aenter__(self) -> object:
        try:
            entered = await self._awaitable.__aenter__()
        except BaseException as error:
            self._raised(error)
            raise
        self._returned(entered)
        return entered

    async def __aexit__(self, *raised: object) -> object:
        return await self._awaitable.__aexit__(*raised)


class _EnteredCoroutine(_Coroutine, _Entered):
    __slots__ = ()
