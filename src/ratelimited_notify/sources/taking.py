"""Functions that a source calls: whether they take what it gives them."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable


def check_takes(function: object, number: int, what: str) -> None:
    """Check that this function can be called with so many arguments. What has no signature is not checked.

    Arguments:
        function: any callable.
        number: how many arguments it is called with.
        what: the message of the error, without its end: what it is called with.

    Raises:
        NotifyError: it takes fewer, or needs more.
    """
    try:
        taken = signature(cast("Callable[..., object]", function), follow_wrapped=False)
    except Exception:  # noqa: BLE001  # since Python 3.13, a callable __signature__ is called, which may do and raise anything
        # Some callables that are written in C have none.
        return
    try:
        taken.bind(*[None] * number)
    except TypeError:
        fits = False
    else:
        fits = True
    if not fits:
        raise NotifyError(f"{what}.")
