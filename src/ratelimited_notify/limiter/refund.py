"""Refunds: whether a failed send gives its hit back (unless the message may have been sent), and giving it back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, cast

from ratelimited_notify.callables import check_is_called_only, if_unawaited
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.log import RecurringLine
from ratelimited_notify.rules.wording import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from ratelimited_notify.limiter.failures import StorageFailures
    from ratelimited_notify.log import Message
    from ratelimited_notify.recurring import End, Report


class _Granted(Protocol):
    @property
    def granted_by(self) -> object:
        """The storage that holds the hit; None if there is nothing to give back."""
        ...


_T = TypeVar("_T", bound=_Granted)
_D_contra = TypeVar("_D_contra", bound=_Granted, contravariant=True)

Refund: TypeAlias = (
    bool | type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
)
"""True: always. False: never. Exception types: for these. A callable decides. None: if `outcome_unknown` says no."""

PATIENCE = 10.0
"""After this many seconds of failures, nothing more is given back: each hit costs a time-out if the storage hangs."""


def refunding(refund: Refund) -> Callable[[BaseException], bool]:
    """The function that decides about a refund, for a value of `refund=`.

    Raises:
        NotifyError: the value cannot be used.
    """
    if refund is None:
        # Loaded now: when something has failed, it may be because no more files can be opened.
        from ratelimited_notify.limiter.outcome import outcome_unknown

        return lambda error: not outcome_unknown(error)
    if isinstance(refund, bool):
        always = refund
        return lambda error: always
    kinds = cast("tuple[object, ...]", refund) if isinstance(refund, tuple) else (refund,)
    caught = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseException))
    if kinds and len(caught) == len(kinds):
        return lambda error: isinstance(error, caught)
    decide = cast("Callable[[BaseException], bool]", refund)
    check_is_called_only(decide, "refund=")
    if callable(decide):
        return _guarded(decide)
    raise NotifyError("refund= must be True, False, exception types, a callable from the exception to a bool, or None.")


def _guarded(decide: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    line = RecurringLine(logging.ERROR, _refund_raised, _refund_decides)

    def decided(error: BaseException) -> bool:
        try:
            answer = decide(error)
            if if_unawaited(answer):
                line.happened(f"returned a {type(answer).__name__}, which nothing awaits")
                return False
            refunded = bool(answer)
        except Exception as raised:  # noqa: BLE001  # the caller must see the gateway's own exception, not this one
            # Only its class: its message, and the gateway's exception behind it, may name the recipient.
            line.happened(f"raised {type(raised).__name__}")
            return False
        if line.event.ongoing:
            line.ended()
        return refunded

    return decided


def _refund_raised(report: Report, cause: str) -> Message:
    if report.first and report.number == 1:
        return "refund= %s; the hit is kept.", (cause,)
    number = f"{report.number} times" if report.first else f"{report.number} more times"
    return "refund= %s (%s); the hits are kept.", (cause, number)


def _refund_decides(end: End) -> Message:
    message = "refund= decides again. Before that, it did not %d times in %s, and the hits were kept."
    return message, (end.number, duration_text(end.seconds))


class _Limiter(Protocol[_D_contra]):
    @property
    def failures(self) -> StorageFailures: ...

    def release(self, decision: _D_contra, /) -> bool: ...


class _AsyncLimiter(Protocol[_D_contra]):
    @property
    def failures(self) -> StorageFailures: ...

    async def release(self, decision: _D_contra, /) -> bool: ...


def give_back(limiter: _Limiter[_D_contra], decisions: Iterable[_D_contra | Exception | None]) -> None:
    """Give back the hits of what was decided and not sent. If the storage fails, a hit stays counted, which is logged."""
    attempts = _Attempts(limiter.failures.unreleased)
    for decision in attempts.worthwhile(decisions):
        with attempts:
            attempts.answered(given_back=limiter.release(decision))


async def give_back_async(limiter: _AsyncLimiter[_D_contra], decisions: Iterable[_D_contra | Exception | None]) -> None:
    """`give_back` for asyncio."""
    attempts = _Attempts(limiter.failures.unreleased)
    for decision in attempts.worthwhile(decisions):
        with attempts:
            attempts.answered(given_back=await limiter.release(decision))


class _Attempts:
    """Attempts to give hits back: it logs those that fail, and ends when they have failed for too long."""

    __slots__ = ("_failing", "_line", "_started")

    def __init__(self, line: RecurringLine) -> None:
        self._failing = 0.0
        self._line = line

    def worthwhile(self, decisions: Iterable[_T | Exception | None]) -> Iterator[_T]:
        """The decisions to give back, until attempts have failed for too long."""
        granted = (decision for decision in decisions if decision is not None and not isinstance(decision, Exception))
        for decision in granted:
            if self._failing > PATIENCE:
                self._give_up(decision, *granted)
                return
            yield decision

    def _give_up(self, *rest: _Granted) -> None:
        kept = sum(1 for decision in rest if decision.granted_by is not None)
        if kept:
            cause = "The storage has failed for too long, so the rest of the batch is not given back."
            self._line.happened(cause, kept)

    def answered(self, *, given_back: bool) -> None:
        """Note the answer of the storage."""
        if given_back and self._line.event.ongoing:
            self._line.ended()

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, StorageError):
            return False
        self._failing += time.monotonic() - self._started
        self._line.happened(str(error))
        return True
