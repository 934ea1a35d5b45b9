"""The options of a limiter, apart from its rules and its storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from ratelimited_notify.callables import check_is_called_only, if_unawaited
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.storage.circuit import Circuit
from ratelimited_notify.storage.timeout import checked_timeout
from ratelimited_notify.windows.keys import valid_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.limiter.tiers import TierOf

OnStorageError: TypeAlias = Literal["raise", "allow", "deny"] | str | Storage | AsyncStorage  # noqa: PYI051  # editors offer the words
"""What a limiter does when the storage fails: `"raise"`, `"allow"`, `"deny"`, or a storage that decides then, or its URI."""

FailurePolicy: TypeAlias = Literal["raise", "allow", "deny", "insurance"]
"""What a limiter does when the storage fails, in a word. It shows no URI."""


class LimiterOptions(TypedDict, total=False):
    """The options of a limiter, to annotate a function that passes them on."""

    namespace: str
    normalize: str | Callable[[str], str] | None
    tier_of: TierOf | None
    pseudonymize: bytes | None
    on_storage_error: OnStorageError
    insurance_share: int
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
    insurance_share: object,
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
    check_share(insurance_share, policy_of(on_storage_error))
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


def policy_of(on_storage_error: object) -> FailurePolicy:
    """What a limiter does when the storage fails.

    Raises:
        NotifyError: there is no such policy, and it is no storage either.
    """
    if on_storage_error == "raise":
        return "raise"
    if on_storage_error == "allow":
        return "allow"
    if on_storage_error == "deny":
        return "deny"
    if isinstance(on_storage_error, str):
        is_storage, said = "://" in on_storage_error, repr(on_storage_error)
    else:
        is_storage = any(hasattr(on_storage_error, verb) for verb in ("acquire", "incr"))
        said = f"<{type(on_storage_error).__name__}>"
    if is_storage:
        return "insurance"
    raise NotifyError(
        f"on_storage_error={said} is unknown; use 'raise', 'allow' or 'deny', or another storage, such as 'memory://'."
    )


def without_insurance(options: LimiterOptions) -> LimiterOptions:
    """The options for windows in memory, which need no insurance."""
    if policy_of(options.get("on_storage_error", "raise")) == "insurance":
        return {**options, "on_storage_error": "raise", "insurance_share": 1}
    return options


def check_share(share: object, policy: FailurePolicy) -> None:
    """Check the number of processes that divide the amounts of the insurance.

    Raises:
        NotifyError: it is no such number, or there is no insurance.
    """
    if isinstance(share, bool) or not isinstance(share, int) or share < 1:
        raise NotifyError("insurance_share= must be the number of processes, a whole number of at least 1.")
    if share > 1 and policy != "insurance":
        raise NotifyError(
            "insurance_share= divides the amounts of an insurance. Pass a storage too, such as on_storage_error='memory://'."
        )


def check_slept(result: object) -> None:
    """Check what the `sleep` of a clock returned: it must have waited itself."""
    if result is not None and if_unawaited(result):
        raise NotifyError(
            f"The method sleep of clock= returned a {type(result).__name__}, which nothing awaits; it must wait itself."
        )
