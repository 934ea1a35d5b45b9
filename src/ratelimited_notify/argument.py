"""One argument of a decorated function's calls: found once at decoration, read at each call."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Signature

    Reader: TypeAlias = Callable[[tuple[object, ...], dict[str, object]], object]

RECIPIENT_NAMES = ("recipient", "to", "user_id", "user_email", "email", "user")
"""The parameters that are taken for the recipient, the first that there is."""


class MissingArgument(Exception):
    """The call lacks the argument: what the function itself would say of it is the better message."""


def reader(path: str, signature: Signature, option: str) -> Reader:
    """A function that reads what a path (`"to"`, `"user.email"`) leads to, from the arguments of a call.

    Raises:
        NotifyError: the function has no such parameter; the message says which it has.
    """
    name, *steps = path.split(".")
    if not takes(signature, name):
        raise NotifyError(
            f"{option}={path!r}: the function has no parameter {name!r}. It has {_listed(signature)}. "
            f"Name one of them, a path from one such as 'user.email', or give a callable of the arguments."
        )
    read = _argument(name, signature)
    if not steps:
        return read

    def follow(args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        value = read(args, kwargs)
        for step in steps:
            try:
                value = value[step] if isinstance(value, Mapping) else getattr(value, step)
            except (AttributeError, KeyError):
                # Without its cause: that one would show the value.
                raise NotifyError(
                    f"{option}={path!r} leads nowhere: a {type(value).__name__} has no {step!r}."
                ) from None
        return value

    return follow


def recipient_reader(signature: Signature) -> Reader:
    """The reader of the parameter that is taken for the recipient.

    Raises:
        NotifyError: there is none; the message says what to write.
    """
    for name in RECIPIENT_NAMES:
        if name in signature.parameters:
            return reader(name, signature, "recipient")
    raise NotifyError(
        f"Which parameter is the recipient? None is called {', '.join(RECIPIENT_NAMES)}; the function has "
        f"{_listed(signature)}. Write recipient='name', recipient='name.attribute', or a callable of the arguments."
    )


def takes(signature: Signature, name: str) -> bool:
    """Whether calls can have an argument of this name."""
    parameter = signature.parameters.get(name)
    if parameter is None:
        return any(each.kind is Parameter.VAR_KEYWORD for each in signature.parameters.values())
    return parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _argument(name: str, signature: Signature) -> Reader:
    parameter = signature.parameters.get(name)
    default = Parameter.empty if parameter is None else parameter.default
    positional = [
        each.name
        for each in signature.parameters.values()
        if each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    ]
    index = positional.index(name) if name in positional else None
    by_name = parameter is None or parameter.kind is not Parameter.POSITIONAL_ONLY

    def read(args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if index is not None and index < len(args):
            return args[index]
        if by_name and name in kwargs:
            return kwargs[name]
        if default is Parameter.empty:
            raise MissingArgument(name)
        return default

    return read


def _listed(signature: Signature) -> str:
    return ", ".join(map(repr, signature.parameters)) or "no parameters"
