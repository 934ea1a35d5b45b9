"""The options of a limiter, apart from its rules and its storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from ratelimited_notify.callables import check_is_called_only, if_unawaited
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.storage.circuit import Circuit
from ratelimited_notify.storage.timeout import checked_timeout
from ratelimited_notify.windows.keys import valid_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.limiter.tiers import TierOf

OnStorageError: TypeAlias = Literal["raise", "allow", "deny"]
"""What a limiter does when the storage fails."""


class LimiterOptions(TypedDict, total=False):
    """The options of a limiter, to annotate a function that passes them on."""

    namespace: str
    normalize: str | Callable[[str], str] | None
    tier_of: TierOf | None
    pseudonymize: bytes | None
    on_storage_error: OnStorageError
    timeout: float
    clock: Callable[[], float] | None
    enabled: bool
    remember_refusals: bool
    circuit: Circuit | None


def check_option_names(options: LimiterOptions, function: Callable[..., object]) -> LimiterOptions:
    """The options, after a check that a limiter has all of them.

    Arguments:
        options: the options to pass on to a limiter.
        function: the function or class that got them.

    Raises:
        TypeError: there is no such option. The message lists those that exist.
    """
    unknown = next((name for name in options if name not in LimiterOptions.__annotations__), None)
    if unknown is None:
        return options
    from difflib import get_close_matches
    from inspect import Parameter, signature

    parameters = signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind is not Parameter.VAR_KEYWORD]
    names += LimiterOptions.__annotations__
    meant = "".join(f" Did you mean {name!r}?" for name in get_close_matches(unknown, names, n=1))
    raise TypeError(f"{function.__name__}() has no argument {unknown!r}.{meant} It has {', '.join(names)}.")


def check_options(
    *,
    namespace: object,
    tier_of: object,
    on_storage_error: object,
    timeout: object,
    clock: object,
    enabled: object,
    remember_refusals: object,
    circuit: object,
) -> None:
    """Check the values of options. `normalize` and `pseudonymize` are checked where they are used.

    Raises:
        NotifyError: one of them cannot be used.
    """
    if not isinstance(namespace, str) or not valid_namespace(namespace):
        raise NotifyError("namespace= must be 1 to 32 letters, digits, '.', '_' or '-', such as 'notify'.")
    if on_storage_error not in ("raise", "allow", "deny"):
        raise NotifyError(f"on_storage_error={on_storage_error!r} is unknown; use 'raise', 'allow' or 'deny'.")
    checked_timeout(timeout)
    for name, switched in (("enabled", enabled), ("remember_refusals", remember_refusals)):
        if not isinstance(switched, bool):
            raise NotifyError(f"{name}= must be True or False, not a {type(switched).__name__}.")
    if circuit is not None and not isinstance(circuit, Circuit):
        raise NotifyError(
            f"circuit= must be a Circuit, such as Circuit(failures=3), or None, not a {type(circuit).__name__}."
        )
    for option, value in (("tier_of", tier_of), ("clock", clock)):
        if value is not None and not callable(value):
            raise NotifyError(f"{option}= must be a callable or None, not a {type(value).__name__}.")
        check_is_called_only(value, f"{option}=")
    check_is_called_only(getattr(clock, "sleep", None), "The method sleep of clock=")


def check_slept(result: object) -> None:
    """Check what the `sleep` of a clock returned: it must have waited itself."""
    if result is not None and if_unawaited(result):
        raise NotifyError(
            f"The method sleep of clock= returned a {type(result).__name__}, which nothing awaits; it must wait itself."
        )
