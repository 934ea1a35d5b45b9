"""Inspect a callable before it is called: whether it must be awaited, and whether a call runs any of its code."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isgeneratorfunction, unwrap
from typing import TYPE_CHECKING, TypeVar

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable

_R = TypeVar("_R")

PLAIN: frozenset[type] = frozenset((bool, bytes, dict, float, int, list, str, tuple, type(None)))
"""What most functions return. Nobody awaits these, and to look here is faster than to look for an attribute in vain."""


def without_partial(function: object) -> object:
    """The function inside any `functools.partial` objects."""
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # of a partial of anything
    return function  # pyright: ignore[reportUnknownVariableType]  # likewise


def _called(function: object) -> tuple[object, object]:
    """What a call runs: the function without `partial`, and its `__call__` if it is an object that has one."""
    called = without_partial(function)
    return called, None if isinstance(called, type) else getattr(called, "__call__", None)  # noqa: B004  # asks for the function, not whether there is one


def is_async(function: object) -> bool:
    """Whether calls must be awaited: a coroutine function, an object whose `__call__` is one, or a `partial` of these."""
    return any(map(iscoroutinefunction, _called(function)))


def is_generator(function: object) -> bool:
    """Whether a call runs none of the code yet: a generator function, an object whose `__call__` is one, or a function
    that says by `functools.wraps` that it wraps one.
    """
    return any(isgeneratorfunction(each) or isasyncgenfunction(each) for each in map(_unwrapped, _called(function)))


def _unwrapped(function: object) -> object:
    """The function inside any wrappers and `functools.partial` objects."""
    inner = function
    while callable(inner):
        try:
            inner, outer = without_partial(unwrap(inner)), inner
        except ValueError:
            # It wraps itself.
            break
        if inner is outer:
            break
    return inner


def check_is_called_only(function: object, what: str, instead: str = "") -> None:
    """Check that this function can be used where it is called, and what it returns is not awaited.

    Arguments:
        function: the value of an option. What cannot be called is not checked.
        what: what it is for, such as `recipient=`; the beginning of the error message.
        instead: the end of the error message: what to write instead.

    Raises:
        NotifyError: it is a coroutine function or a generator function, also as an object with such a `__call__`, or in
            a `functools.partial`.
    """
    if is_async(function):
        wrong = "a coroutine function, which nothing would await"
    elif any(isgeneratorfunction(each) or isasyncgenfunction(each) for each in _called(function)):
        wrong = "a generator function, whose calls return no value"
    else:
        return
    raise NotifyError(f"{what} is {wrong}; it must be a plain function.{instead and ' '}{instead}")


def if_unawaited(value: object) -> str:
    """The end of an error message about a value that cannot be used, if the reason is that nobody awaited it; otherwise
    empty. If the value is a coroutine, it is closed.
    """
    if not isawaitable(value):
        return ""
    close_coroutine(value)
    return "Await it first, and pass the result: nothing awaits it here."


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
    kind = type(result)
    if kind not in PLAIN and hasattr(kind, "__await__") and close_coroutine(result):
        raise NotifyError(f"The call returned a coroutine, and nothing was sent: {advice}")
    return result


def close_coroutine(value: object) -> bool:
    """Close the value if it is a coroutine, which nothing will await. Whether it is one."""
    if not isinstance(value, Coroutine):
        return False
    value.close()
    return True


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
