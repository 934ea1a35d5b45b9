"""What `rate_limited` returns, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    _Later: TypeAlias = Coroutine[Any, Any, "R"]  # Any: what a coroutine yields belongs to the event loop
    _ClassMethod: TypeAlias = classmethod[Any, "P", "R"]  # Any: of any class

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., object] | _ClassMethod[..., object] | staticmethod[..., object]")


class DroppingDecorator(Protocol):
    """A decorator whose functions return None if a rule refuses."""

    @overload
    def __call__(self, function: staticmethod[P, _Later[R]], /) -> staticmethod[P, _Later[R | None]]: ...

    @overload
    def __call__(self, function: staticmethod[P, R], /) -> staticmethod[P, R | None]: ...  # type: ignore[overload-overlap]  # it is callable, and stays a static method

    @overload
    def __call__(self, function: Callable[P, _Later[R]], /) -> Callable[P, _Later[R | None]]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | None]: ...

    @overload
    def __call__(self, function: _ClassMethod[P, _Later[R]], /) -> _ClassMethod[P, _Later[R | None]]: ...

    @overload
    def __call__(self, function: _ClassMethod[P, R], /) -> _ClassMethod[P, R | None]: ...


class RaisingDecorator(Protocol):
    """A decorator whose functions keep their type, because a refusal raises."""

    def __call__(self, function: F, /) -> F: ...
