"""Whether a send that failed gives its hit back: yes, unless the message may have gone out all the same."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.callables import is_async
from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from ratelimited_notify.errors import StorageError

Refund: TypeAlias = (
    bool | type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
)
"""True always gives back, False never, exception types for just these, a callable decides, None as below."""

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


def log_stays_counted(error: StorageError) -> None:
    """Log that a hit could not be given back. The caller gets the error because of which it was to be given back."""
    _log.warning("A hit could not be given back, and stays counted: %s", error)


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
