"""Refunds: whether a failed send gives its hit back (unless the message may have been sent), and giving it back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, cast

from ratelimited_notify.callables import is_async
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.limiter.outcome import outcome_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

_T = TypeVar("_T")
_D_contra = TypeVar("_D_contra", contravariant=True)

Refund: TypeAlias = (
    bool | type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
)
"""True: always. False: never. Exception types: for these. A callable decides. None: if `outcome_unknown` says no."""

PATIENCE = 10.0
"""After this many seconds of failures, nothing more is given back: each hit costs a time-out if the storage hangs."""

_log = logging.getLogger("ratelimited_notify")


def refunding(refund: Refund) -> Callable[[BaseException], bool]:
    """The function that decides about a refund, for a value of `refund=`.

    Raises:
        NotifyError: the value cannot be used.
    """
    if refund is None:
        return lambda error: not outcome_unknown(error)
    if isinstance(refund, bool):
        always = refund
        return lambda error: always
    kinds = cast("tuple[object, ...]", refund) if isinstance(refund, tuple) else (refund,)
    caught = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseException))
    if kinds and len(caught) == len(kinds):
        return lambda error: isinstance(error, caught)
    decide = cast("Callable[[BaseException], bool]", refund)
    if is_async(decide):
        raise NotifyError("refund= is a coroutine function, which nothing would await; it must be a plain function.")
    if callable(decide):
        return _guarded(decide)
    raise NotifyError("refund= must be True, False, exception types, a callable from the exception to a bool, or None.")


def _guarded(decide: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    def decided(error: BaseException) -> bool:
        try:
            return bool(decide(error))
        except Exception as raised:  # noqa: BLE001  # the caller must see the gateway's own exception, not this one
            # Only its class: its message, and the gateway's exception behind it, may name the recipient.
            _log.error("refund= raised %s; the hit is kept.", type(raised).__name__)
            return False

    return decided


class _Limiter(Protocol[_D_contra]):
    def release(self, decision: _D_contra, /) -> bool: ...


class _AsyncLimiter(Protocol[_D_contra]):
    async def release(self, decision: _D_contra, /) -> bool: ...


def give_back(limiter: _Limiter[_D_contra], decisions: Iterable[_D_contra | Exception | None]) -> None:
    """Give back the hits of what was decided and not sent. If the storage fails, a hit stays counted, which is logged."""
    attempts = _Attempts()
    for decision in attempts.worthwhile(decisions):
        with attempts:
            limiter.release(decision)


async def give_back_async(limiter: _AsyncLimiter[_D_contra], decisions: Iterable[_D_contra | Exception | None]) -> None:
    """`give_back` for asyncio."""
    attempts = _Attempts()
    for decision in attempts.worthwhile(decisions):
        with attempts:
            await limiter.release(decision)


class _Attempts:
    """Attempts to give hits back: it logs those that fail, and ends when they have failed for too long."""

    __slots__ = ("_failing", "_started")

    def __init__(self) -> None:
        self._failing = 0.0

    def worthwhile(self, decisions: Iterable[_T | Exception | None]) -> Iterator[_T]:
        """The decisions to give back, until attempts have failed for too long."""
        for decision in decisions:
            if decision is None or isinstance(decision, Exception):
                continue
            if self._failing > PATIENCE:
                _log.warning(
                    "The rest of the batch is not given back and stays counted, because the storage has failed for too long."
                )
                return
            yield decision

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, StorageError):
            return False
        self._failing += time.monotonic() - self._started
        _log.warning("A hit could not be given back and stays counted: %s", error)
        return True
