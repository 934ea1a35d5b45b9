"""What a callable is, before anybody calls it: whether it is awaited, and whether it sends at all when it is called."""

from __future__ import annotations

from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction


def bare(function: object) -> object:
    """The function without the arguments that a `functools.partial` holds."""
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # of a partial of anything
    return function  # pyright: ignore[reportUnknownVariableType]  # likewise


def is_async(function: object) -> bool:
    """Whether calls of it are to be awaited: a coroutine function, an object called by one, or a `partial` of these."""
    called = bare(function)
    return iscoroutinefunction(called) or iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004  # asks whether it is a coroutine function, not whether it is callable


def is_generator(function: object) -> bool:
    """Whether a call of it does nothing yet: a generator function, or an object that is called by one."""
    called = bare(function)
    return any(
        isgeneratorfunction(each) or isasyncgenfunction(each)
        for each in (called, getattr(called, "__call__", None))  # noqa: B004  # asks what it is, not whether it is callable
    )
