"""`failed=`: whether what a gateway returned says that it did not send."""

from __future__ import annotations

import logging
from inspect import iscoroutine
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.callables import is_async
from ratelimited_notify.errors import NotifyError, SendFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    Failure: TypeAlias = Callable[[object], SendFailed | None]

_log = logging.getLogger("ratelimited_notify")


def failing(failed: Callable[..., object] | None) -> Failure | None:
    """The function that makes a `SendFailed` of a result, or None if the result is fine, for a value of `failed=`.

    Raises:
        NotifyError: the value cannot be used.
    """
    if failed is None:
        return None
    if is_async(failed):
        raise NotifyError("failed= is a coroutine function, which nothing would await; it must be a plain function.")
    if not callable(failed):
        raise NotifyError("failed= must be a callable from the result to a bool, or None.")
    says_failed = failed

    def failure(result: object) -> SendFailed | None:
        try:
            said = says_failed(result)
            if iscoroutine(said):
                said.close()
                raise TypeError("It returned a coroutine.")
            return SendFailed(result) if said else None
        except Exception as raised:  # noqa: BLE001  # the message went out as far as is known; the caller must see that
            # Only its class: its message may name the recipient.
            _log.error("failed= raised %s; the notification counts as sent.", type(raised).__name__)
            return None

    return failure
