"""Whether a send that failed gives its hit back: yes, unless the message may have gone out all the same. And giving it back."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, cast

from ratelimited_notify.callables import is_async
from ratelimited_notify.errors import NotifyError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

_T = TypeVar("_T")
_D_contra = TypeVar("_D_contra", contravariant=True)

Refund: TypeAlias = (
    bool | type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
)
"""True always gives back, False never, exception types for just these, a callable decides, None as below."""

PATIENCE = 10.0
"""Seconds of failures after which nothing more is given back: a storage that hangs takes a time-out for each hit."""

_UNKNOWN_NAMES = frozenset(
    (
        "connectionerror",
        "cancellederror",
        # A connection that was lost while it carried the request or the reply, by the names that clients give it.
        "readerror",
        "writeerror",
        "protocolerror",
        "remoteprotocolerror",
        "connectionclosederror",
        "httpclienterror",
        "incompleteread",
        "incompletereaderror",
        "chunkedencodingerror",
        "clientpayloaderror",
        "badstatusline",
        "ssleoferror",
        "deadlineexceeded",
    )
)
_UNKNOWN_PARTS = ("timeout", "timedout", "disconnected")
_LOST = frozenset((errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ESHUTDOWN, errno.ETIMEDOUT))

_log = logging.getLogger("ratelimited_notify")


def outcome_unknown(error: BaseException) -> bool:
    """Whether the message may have gone out although the gateway raised.

    So it is for a time-out (a `TimeoutError`, or a class that says time-out in its name or in that of a base), for a lost
    connection (a `ConnectionError` other than a refused one, an `OSError` with the number of one, a class that says
    disconnected, and what the usual clients of web services raise: `ReadError`, `RemoteProtocolError`, `IncompleteRead`
    and the like), for a cancellation, for every other exception that is not an `Exception`, such as an interrupt, and for
    a group that has one of these in it.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(map(outcome_unknown, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    if not isinstance(error, Exception):
        return True
    if isinstance(error, ConnectionRefusedError):
        return False
    if isinstance(error, OSError) and error.errno in _LOST:
        return True
    return any(map(_says_unknown, type(error).__mro__))


def _says_unknown(kind: type) -> bool:
    # Clients of web services have classes of their own, which have only the name in common with the builtin ones.
    name = kind.__name__.replace("_", "").lower()
    return name in _UNKNOWN_NAMES or any(part in name for part in _UNKNOWN_PARTS)


def refunding(refund: Refund) -> Callable[[BaseException], bool]:
    """The function that decides, for a choice of `refund=`.

    Raises:
        NotifyError: it is none of the choices.
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
        raise NotifyError("refund= is a coroutine function; nobody would await it, so it must be a plain one.")
    if callable(decide):
        return _guarded(decide)
    raise NotifyError("refund= must be True, False, exception types, a callable from the exception to a bool, or None.")


def _guarded(decide: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    def decided(error: BaseException) -> bool:
        try:
            return bool(decide(error))
        except Exception as raised:  # noqa: BLE001  # whatever it is, the gateway's own exception is what the caller must see
            # Its class alone: what it says, and the gateway's exception behind it, may name the recipient.
            _log.error("refund= raised %s; the hit is kept.", type(raised).__name__)
            return False

    return decided


class _Limiter(Protocol[_D_contra]):
    def release(self, decision: _D_contra, /) -> bool: ...


class _AsyncLimiter(Protocol[_D_contra]):
    async def release(self, decision: _D_contra, /) -> bool: ...


def give_back(limiter: _Limiter[_D_contra], decisions: Iterable[_D_contra | Exception | None]) -> None:
    """Release what was decided and not sent. If the storage cannot give a hit back, it stays counted, and the log says so."""
    attempts = _Attempts()
    for decision in attempts.worthwhile(decisions):
        with attempts:
            limiter.release(decision)


async def give_back_async(limiter: _AsyncLimiter[_D_contra], decisions: Iterable[_D_contra | Exception | None]) -> None:
    """`give_back`, awaited."""
    attempts = _Attempts()
    for decision in attempts.worthwhile(decisions):
        with attempts:
            await limiter.release(decision)


class _Attempts:
    """Logs the attempts that fail, and ends them when they have failed for too long."""

    __slots__ = ("_failing", "_started")

    def __init__(self) -> None:
        self._failing = 0.0

    def worthwhile(self, decisions: Iterable[_T | Exception | None]) -> Iterator[_T]:
        """The decisions among these, until attempts have failed for too long."""
        for decision in decisions:
            if decision is None or isinstance(decision, Exception):
                continue
            if self._failing > PATIENCE:
                _log.warning(
                    "The rest of the batch is not given back, and stays counted, as the storage has failed for too long."
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
        _log.warning("A hit could not be given back, and stays counted: %s", error)
        return True
