"""Inspect a callable before it is called: whether it must be awaited, and whether a call runs any of its code."""

from __future__ import annotations

from functools import partial
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, isgeneratorfunction, unwrap
from typing import TYPE_CHECKING, TypeVar

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable

_R = TypeVar("_R")


def without_partial(function: object) -> object:
    """The function inside any `functools.partial` objects."""
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # of a partial of anything
    return function  # pyright: ignore[reportUnknownVariableType]  # likewise


def is_async(function: object) -> bool:
    """Whether calls must be awaited: a coroutine function, an object whose `__call__` is one, or a `partial` of these."""
    called = without_partial(function)
    return iscoroutinefunction(called) or iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004  # checks for a coroutine function, not whether it is callable


def is_generator(function: object) -> bool:
    """Whether a call runs none of the code yet: a generator function, or an object whose `__call__` is one."""
    called = without_partial(function)
    return any(
        isgeneratorfunction(each) or isasyncgenfunction(each)
        for each in (called, getattr(called, "__call__", None))  # noqa: B004  # checks for a generator function, not whether it is callable
    )


def wraps_coroutine_function(function: object) -> bool:
    """Whether this is a plain function that wraps a coroutine function, so a call may return an awaitable."""
    return callable(function) and not is_async(function) and iscoroutinefunction(unwrap(function))


def reject_coroutine(result: _R, advice: str) -> _R:
    """Return the result of a call unchanged, unless it is a coroutine that nobody would await.

    Arguments:
        result: what the call returned.
        advice: the end of the error message: what to use instead.

    Raises:
        NotifyError: the result is a coroutine, so nothing has been sent. The coroutine is closed.
    """
    if iscoroutine(result):
        result.close()
        raise NotifyError(f"The call returned a coroutine, and nothing was sent: {advice}")
    return result


def outcome_of(
    gateway: Callable[..., _R], /, *args: object, **kwargs: object
) -> tuple[_R | None, BaseException | None]:
    """Call the gateway and return its result and its exception, one of which is None.

    The exception is returned as a value because a future changes some exceptions and hangs on others.
    """
    try:
        return gateway(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
        return None, error
