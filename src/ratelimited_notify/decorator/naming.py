"""The name of a function that is decorated, and how the limited function gets it."""

from __future__ import annotations

import functools
from types import FunctionType
from typing import TYPE_CHECKING

from ratelimited_notify.callables import without_partial

if TYPE_CHECKING:
    from collections.abc import Callable


def _of(function: object, attribute: str) -> object:
    """The attribute of a function, or of its class if it is an object with `__call__`."""
    called = without_partial(function)
    return getattr(called, attribute, None) or getattr(type(called), attribute)


def name_of(function: object) -> str:
    """The name, with the names of the classes and functions around it."""
    return str(_of(function, "__qualname__"))


def place_of(function: object) -> str:
    """The name with its module."""
    return f"{_of(function, '__module__')}.{name_of(function)}"


def is_redefined(function: object) -> bool:
    """Whether a function with the same name is this function again, because its module was loaded again.

    That is not so for a function that another function makes at each call, or for an object that has no name of its own.
    """
    return isinstance(function, FunctionType) and "<" not in function.__qualname__


def named(limited: Callable[..., object], function: Callable[..., object]) -> Callable[..., object]:
    """The limited function, with the name, the docstring and the signature of the function that it limits."""
    called = without_partial(function)
    if isinstance(called, FunctionType):
        functools.update_wrapper(limited, called)
    else:
        functools.update_wrapper(limited, function, updated=())
        for attribute in ("__module__", "__name__", "__qualname__"):
            setattr(limited, attribute, _of(function, attribute))
    limited.__wrapped__ = function  # type: ignore[attr-defined]  # as functools.wraps does
    return limited
