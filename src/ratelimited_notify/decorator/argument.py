"""What a call of a decorated function counts as: found once in the parameters, read from the arguments of each call."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from inspect import Parameter, signature
from types import FunctionType
from typing import TYPE_CHECKING, TypeAlias, cast

from ratelimited_notify.callables import check_is_called_only
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.notification.cost import checked_cost
from ratelimited_notify.notification.recipient import check_field_names, is_uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from inspect import Signature

    from ratelimited_notify.notification.annotations import Recipient

    Reader: TypeAlias = Callable[[tuple[object, ...], dict[str, object]], object]

RECIPIENT_NAMES = ("recipient", "to", "user_id", "user_email", "email", "user")
"""The names of a parameter that is the recipient by default. The first that the function has is used."""

INSTEAD_OF_AWAITING = "Await what it needs before the call, and pass the result as an argument."
"""What an error says about a coroutine function that was given for an option."""

_NOWHERE = 1 << 30


class MissingArgument(Exception):
    """The call lacks the argument. The error of the function itself says that better."""


def reader(path: str, signature: Signature, option: str) -> Reader:
    """A function that reads the value at a path (`"to"`, `"user.email"`) from the arguments of a call.

    Raises:
        NotifyError: the function has no such parameter. The message lists those that it has.
    """
    name, *steps = path.split(".")
    if not takes(signature, name):
        raise NotifyError(
            f"{option}={path!r}: the function has no parameter {name!r}. It has {_listed(signature)}. "
            f"Write one of them, a path that starts with one, such as 'user.email', or a callable that takes the arguments."
        )
    read = _argument(name, signature)
    if not steps:
        return read

    def follow(args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        try:
            return _follow(read(args, kwargs), steps)
        except _DeadEnd as end:
            kind, step = end.args
        # Without the cause, which would show the value.
        raise NotifyError(f"{option}={path!r} cannot be followed: a {kind} has no {step!r}.")

    return follow


class _DeadEnd(Exception):
    """A path leads no further: the kind of value, and the step that it does not have."""


def _follow(value: object, steps: Sequence[str]) -> object:
    """The value at the end of the path. A step is an item of a mapping if that leads on, else an attribute."""
    for place, step in enumerate(steps):
        mapping = _mapping(value)
        if mapping is not None and step in mapping:
            rest = steps[place + 1 :]
            try:
                return _follow(mapping[step], rest)
            except _DeadEnd as end:
                dead = _DeadEnd(*end.args)
            # A request of Starlette has an item `client` that is a tuple, and an attribute `client` with a `host`.
            try:
                return _follow(getattr(mapping, step), rest)
            except (AttributeError, _DeadEnd):
                raise dead from None
        value = _attribute(value, step)
    return value


def _mapping(value: object) -> Mapping[str, object] | None:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def _attribute(value: object, step: str) -> object:
    with suppress(AttributeError):
        return getattr(value, step)
    mapping = _mapping(value)
    if mapping is not None:
        # An item that the mapping makes when it is asked for it, as a `defaultdict` does.
        with suppress(KeyError):
            return mapping[step]
    raise _DeadEnd(type(value).__name__, step)


def recipient_reader(signature: Signature) -> Reader:
    """The reader of the parameter that is the recipient by default.

    Raises:
        NotifyError: there is none. The message says what to write.
    """
    name = _recipient_name(signature)
    if name is not None:
        return reader(name, signature, "recipient")
    raise NotifyError(
        f"Which parameter is the recipient? None is called {', '.join(RECIPIENT_NAMES)}; the function has "
        f"{_listed(signature)}. Write recipient='name', recipient='name.attribute', or a callable that takes the arguments."
    )


def _recipient_name(signature: Signature) -> str | None:
    """The parameter that is the recipient by default. One that collects others, such as `*to`, does not count."""
    names = (name for name in RECIPIENT_NAMES if name in signature.parameters and takes(signature, name))
    return next(names, None)


def takes(signature: Signature, name: str) -> bool:
    """Whether calls can have an argument with this name."""
    parameter = signature.parameters.get(name)
    if parameter is None:
        return any(each.kind is Parameter.VAR_KEYWORD for each in signature.parameters.values())
    return parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _argument(name: str, signature: Signature) -> Reader:
    parameter = signature.parameters.get(name)
    default = Parameter.empty if parameter is None else parameter.default
    by_name = parameter is None or parameter.kind is not Parameter.POSITIONAL_ONLY

    def named(kwargs: dict[str, object]) -> object:
        if by_name and name in kwargs:
            return kwargs[name]
        if default is Parameter.empty:
            raise MissingArgument(name)
        return default

    position = _positional(signature).get(name)
    if position is None:
        return lambda args, kwargs: named(kwargs)
    index = position
    return lambda args, kwargs: args[index] if len(args) > index else named(kwargs)


def _positional(signature: Signature) -> dict[str, int]:
    """The parameters that can be passed by position, and their positions."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in signature.parameters.values() if each.kind in kinds]
    return {name: place for place, name in enumerate(names)}


def _parameter(recipient: object, signature: Signature) -> str:
    """The name of the parameter that is the recipient itself; empty if there is none."""
    if recipient is None:
        recipient = _recipient_name(signature)
    if not isinstance(recipient, str) or "." in recipient:
        return ""
    parameter = signature.parameters.get(recipient)
    return "" if parameter is not None and parameter.kind is Parameter.POSITIONAL_ONLY else recipient


def _listed(signature: Signature) -> str:
    stars: dict[object, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
    names = (f"{stars.get(each.kind, '')}{each.name}" for each in signature.parameters.values())
    return ", ".join(map(repr, names)) or "no parameters"


class Call:
    """Reads the calls of one function."""

    __slots__ = (
        "_cost",
        "_fields",
        "_function",
        "_name",
        "_priority",
        "_recipient",
        "_signature",
        "_type",
        "constant_type",
        "parameter",
        "plain",
        "position",
    )

    def __init__(
        self,
        function: Callable[..., object],
        name: str,
        *,
        type: str | Callable[..., object],
        recipient: object,
        cost: object,
        priority: object,
        fields: Mapping[str, object],
    ) -> None:
        """Find out how to read the calls.

        Raises:
            NotifyError: an option does not fit the function, or cannot be used.
            TypeError: the name of a field is not a string.
        """
        check_field_names(fields)
        self._function = function
        self._name = name
        try:
            self._signature = found = signature(function)
        except Exception:  # noqa: BLE001  # since Python 3.13, a callable __signature__ is called, which may do and raise anything
            raise NotifyError(
                f"The parameters of {name} cannot be found out; wrap it in a function that declares them."
            ) from None
        self.constant_type = type if isinstance(type, str) else None
        """The type, if it is the same for all calls."""
        self._type = type if isinstance(type, str) else _from_callable(type, "type")
        if recipient is None:
            self._recipient = recipient_reader(found)
        else:
            self._recipient = _reads(recipient, found, "recipient", "it must name a parameter")
        if isinstance(cost, int) and not isinstance(cost, bool):
            self._cost: Reader | int = checked_cost(cost)
        else:
            self._cost = _reads(cost, found, "cost", "it must be a whole number, name a parameter")
        self._priority = _reads_or_is(priority, found, "priority")
        self._fields = {field: _reads_or_is(value, found, field) for field, value in fields.items()}
        self.parameter = _parameter(recipient, found)
        """The parameter that is the recipient; empty if the recipient is an attribute of one, or computed."""
        self.position = _positional(found).get(self.parameter, _NOWHERE)
        """The position of `parameter` among the positional arguments."""
        self.plain = ""
        """The type, if calls differ only in the recipient (each is 1 hit without priority and fields); else empty."""
        if isinstance(type, str) and self.parameter and self._cost == 1 and priority is None and not fields:
            self.plain = str.__str__(type)

    def read(
        self, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[str, Recipient, int, str | None, Mapping[str, Recipient | None]]:
        """Type, recipient, cost, priority and fields of a call. The limiter checks their values."""
        try:
            return self._read(args, kwargs)
        except (MissingArgument, TypeError) as error:
            wrong = error
        # Outside the handler, so that the function's own error has no context.
        self._check_bound(args, kwargs)
        if isinstance(wrong, MissingArgument):
            raise NotifyError(f"The call of {self._name} has no argument {str(wrong)!r}, which it is counted by.")
        raise wrong

    def _read(
        self, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[str, Recipient, int, str | None, Mapping[str, Recipient | None]]:
        type = self._type(args, kwargs) if callable(self._type) else self._type
        recipient = self._recipient(args, kwargs)
        cost = self._cost(args, kwargs) if callable(self._cost) else self._cost
        priority = self._priority(args, kwargs) if callable(self._priority) else self._priority
        fields = {field: value(args, kwargs) if callable(value) else value for field, value in self._fields.items()}
        return cast(
            "tuple[str, Recipient, int, str | None, Mapping[str, Recipient | None]]",
            (type, recipient, cost, priority, fields),
        )

    def _check_bound(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Check that the function takes these arguments.

        Raises:
            TypeError: it does not. This is the function's own error if possible.
        """
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            unbound = TypeError(f"{self._name}() {error}")
        else:
            return
        function = self._function
        if isinstance(function, FunctionType) and not vars(function).keys() & {"__signature__", "__wrapped__"}:
            # The function itself says it best. Other callables may do something first, and must not do it uncounted.
            function(*args, **kwargs)
        raise unbound


def _from_callable(function: Callable[..., object], option: str) -> Reader:
    check_is_called_only(function, f"{option}=", INSTEAD_OF_AWAITING)
    return lambda args, kwargs: function(*args, **kwargs)


def _reads(where: object, signature: Signature, option: str, must: str) -> Reader:
    if isinstance(where, str):
        return reader(where, signature, option)
    if callable(where):
        return _from_callable(where, option)
    raise NotifyError(f"{option}= is a {where.__class__.__name__}; {must}, or be a callable that takes the arguments.")


def _reads_or_is(value: object, signature: Signature, option: str) -> object:
    """A reader if the string names a parameter; otherwise the constant."""
    if callable(value):
        return _from_callable(value, option)
    if isinstance(value, str):
        name, dot, _ = value.partition(".")
        if name in signature.parameters and takes(signature, name):
            return reader(value, signature, option)
        if dot:
            _check_spelling(name, value, signature, option)
        return value
    is_identifier = (isinstance(value, int) and not isinstance(value, bool)) or is_uuid(value)
    if value is None or (is_identifier and option != "priority"):
        return value
    raise NotifyError(
        f"{option}= is a {value.__class__.__name__}; it must be a string, name a parameter, or be a callable that "
        "takes the arguments."
    )


def _check_spelling(name: str, path: str, signature: Signature, option: str) -> None:
    # A misspelt path would be one constant for all calls, and would count them all together.
    from difflib import get_close_matches

    meant = get_close_matches(name, signature.parameters, n=1, cutoff=0.8)
    if meant:
        raise NotifyError(
            f"{option}={path!r} looks like a path, but the function has no parameter {name!r}. Did you mean {meant[0]!r}? "
            "To use a constant that looks like a path, write a callable that returns it."
        )
