"""What decides about a decorated function."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, overload

from ratelimited_notify.decorator.configuration import decided
from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ratelimited_notify.limiter.aio import AsyncLimiter
    from ratelimited_notify.limiter.sync import Limiter


@overload
def limiter_of(  # type: ignore[overload-overlap]  # a coroutine function is a callable, too
    function: Callable[..., Coroutine[Any, Any, object]],  # Any: what a coroutine yields belongs to the event loop
    /,
) -> AsyncLimiter: ...


@overload
def limiter_of(function: Callable[..., object], /) -> Limiter: ...


def limiter_of(function: Callable[..., object], /) -> Limiter | AsyncLimiter:
    """The limiter that decides about a function with `@rate_limited`: its `limiter=`, or the one of the configuration in
    force. With it you can test, clear, and read windows: `limiter_of(send_news).clear("news", "ana@example.com")`.

    Arguments:
        function: the function, a method, or what other decorators made of it, such as a task of Celery, if they set
            `__wrapped__` as `functools.wraps` does.

    Returns:
        A `Limiter`, or for a coroutine function an `AsyncLimiter`. After another `configure`, ask again.

    Raises:
        NotifyError: the function has no `@rate_limited`.
    """
    for decides in _deciding(function):
        limiter = decides()
        if limiter is not None:
            return limiter
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    raise NotifyError(f"{name} has no @rate_limited, so no limiter decides about it.")


def is_limited(function: object) -> bool:
    """Whether a function has `@rate_limited`, as `limiter_of` finds it."""
    return next(_deciding(function), None) is not None


def _deciding(function: object) -> Iterator[Callable[[], Limiter | AsyncLimiter | None]]:
    """What returns the limiter of the function, and of those inside it."""
    seen: set[int] = set()
    inner = function
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        decides = _found(inner)
        if decides is not None:
            yield decides
        inner = inner.func if isinstance(inner, partial) else _inside(inner)


def _found(function: object) -> Callable[[], Limiter | AsyncLimiter | None] | None:
    try:
        return decided.get(function)  # type: ignore[call-overload, no-any-return]  # any object may be asked for
    except TypeError:  # it cannot be hashed, or not be referred to weakly
        return None


def _inside(function: object) -> object:
    """The function inside a method or a wrapper; None if there is none."""
    for attribute in ("__func__", "__wrapped__"):
        inner: object = getattr(function, attribute, None)
        if inner is not None:
            return inner
    return None
