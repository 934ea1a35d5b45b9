"""Whether a send that failed gives its hit back: yes, unless the message may have gone out all the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from ratelimited_notify.errors import NotifyError

Refund: TypeAlias = (
    bool | type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None
)
"""True always gives back, False never, exception types for just these, a callable decides, None as below."""

_log = logging.getLogger("ratelimited_notify")


def outcome_unknown(error: BaseException) -> bool:
    """Whether the message may have gone out although the gateway raised.

    So it is for a time-out (a `TimeoutError`, or a class that says time-out in its name or in that of a base), for a lost
    connection (a `ConnectionError` other than a refused one), for a cancellation and for every other exception that is not
    an `Exception`, such as an interrupt.
    """
    if not isinstance(error, Exception):
        return True
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return True
    names = "".join(kind.__name__.lower() for kind in type(error).__mro__)
    return "timeout" in names or "timedout" in names or "cancelled" in names


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
    kinds = refund if isinstance(refund, tuple) else (refund,)
    if kinds and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        caught = kinds
        return lambda error: isinstance(error, caught)  # type: ignore[arg-type]  # checked to be exception types
    if callable(refund):
        return _guarded(refund)
    raise NotifyError("refund= must be True, False, exception types, a callable from the exception to a bool, or None.")


def _guarded(decide: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    def decided(error: BaseException) -> bool:
        try:
            return bool(decide(error))
        except Exception:
            # The gateway's own exception is what the caller must see.
            _log.exception("refund= raised; the hit is kept.")
            return False

    return decided
