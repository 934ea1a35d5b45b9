"""What `rate_limited` does not decorate, and what to write instead."""

from __future__ import annotations

from inspect import isclass, unwrap
from types import CodeType
from typing import TYPE_CHECKING

from ratelimited_notify.callables import is_generator, reject_coroutine, without_partial
from ratelimited_notify.decorator.naming import name_of
from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

WITH_ARGUMENTS = "Write it with its arguments, as in @rate_limited('news', '1/day')."

_OF_TASKS = ("delay", "apply_async", "kiq", "send_with_options", "call_local", "defer_async", "aenqueue")
"""Only tasks have one of these: those of Celery and RQ (`delay`), Celery, Taskiq, Dramatiq, Huey, Procrastinate, Django."""


def check_function(function: object) -> None:
    """Check that a call of this sends something, and that it is not a task, which would lose what makes it one.

    Raises:
        NotifyError: it is no function, a generator function, a class or a task.
    """
    if not callable(function):
        raise NotifyError(
            f"rate_limited decorates functions that send, not a {function.__class__.__name__}. {WITH_ARGUMENTS}"
        )
    name = name_of(function)
    if is_generator(function) or isclass(without_partial(function)):
        raise NotifyError(f"rate_limited decorates functions that send; {name} is a generator function or a class.")
    task = next((each for each in _OF_TASKS if callable(getattr(function, each, None))), None)
    # A mock has every attribute.
    if task is not None and not hasattr(function, "no_task_has_this"):
        raise NotifyError(
            f"{name} is a task (it has .{task}), and the limited function would be none. Write @rate_limited below the "
            "decorator that makes it a task, directly above the function: then it is limited where the task runs."
        )


def check_has_arguments(type: Callable[..., object], frame: FrameType | None) -> None:
    """Check that `@rate_limited` was not written without arguments, so that the function became the type.

    Arguments:
        type: what it got as the type of notification.
        frame: that of the call of `rate_limited`.

    Raises:
        NotifyError: its caller is just defining that function.
    """
    caller = None if frame is None else frame.f_back
    if caller is not None and _is_being_defined(type, caller):
        raise NotifyError(f"@rate_limited has no arguments here. {WITH_ARGUMENTS}")


def _is_being_defined(function: object, frame: FrameType) -> bool:
    """Whether the frame is at the decorators of this function. A function that was defined before has its name already."""
    try:
        inner = unwrap(function)  # type: ignore[arg-type]  # a static method has `__wrapped__` too
    except ValueError:
        # It wraps itself.
        return False
    code, name = getattr(inner, "__code__", None), getattr(inner, "__name__", "")
    if not isinstance(code, CodeType) or name == "<lambda>" or code.co_filename != frame.f_code.co_filename:
        return False
    # The lines of a function begin with its first decorator.
    last = max(line or 0 for _, _, line in code.co_lines())
    bound: object = frame.f_locals.get(name, frame.f_globals.get(name))
    return code.co_firstlineno <= frame.f_lineno <= last and bound is not function


def rejecting_coroutines(function: Callable[..., object]) -> Callable[..., object]:
    """The function, which from now on raises an error if it returns a coroutine."""

    def called(*args: object, **kwargs: object) -> object:
        return reject_coroutine(
            function(*args, **kwargs), "put @rate_limited below the decorator that hides the async function."
        )

    return called
