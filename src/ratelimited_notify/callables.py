"""What a callable is, before anybody calls it: whether it is awaited, and whether it sends at all when it is called."""

from __future__ import annotations

from functools import partial
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, isgeneratorfunction, unwrap
from typing import TYPE_CHECKING, TypeVar

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable

_R = TypeVar("_R")


def without_partial(function: object) -> object:
    """The function without the arguments that a `functools.partial` holds."""
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # of a partial of anything
    return function  # pyright: ignore[reportUnknownVariableType]  # likewise


def is_async(function: object) -> bool:
    """Whether calls of it are to be awaited: a coroutine function, an object called by one, or a `partial` of these."""
    called = without_partial(function)
    return iscoroutinefunction(called) or iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004  # asks whether it is a coroutine function, not whether it is callable


def is_generator(function: object) -> bool:
    """Whether a call of it does nothing yet: a generator function, or an object that is called by one."""
    called = without_partial(function)
    return any(
        isgeneratorfunction(each) or isasyncgenfunction(each)
        for each in (called, getattr(called, "__call__", None))  # noqa: B004  # asks what it is, not whether it is callable
    )


def wraps_coroutine_function(function: object) -> bool:
    """Whether a plain function is wrapped around a coroutine function: a call of it may return what has to be awaited."""
    return callable(function) and not is_async(function) and iscoroutinefunction(unwrap(function))


def reject_coroutine(result: _R, advice: str) -> _R:
    """What a call returned, which is the end of it.

    Raises:
        NotifyError: it is a coroutine, which nobody would await: nothing has been sent.
    """
    if iscoroutine(result):
        result.close()
        raise NotifyError(f"The call returned a coroutine, and nothing was sent: {advice}")
    return result


def outcome_of(
    gateway: Callable[..., _R], /, *args: object, **kwargs: object
) -> tuple[_R | None, BaseException | None]:
    """What the gateway returned, and what it raised: as a value, since a future changes some exceptions and hangs on others."""
    try:
        return gateway(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
        return None, error
