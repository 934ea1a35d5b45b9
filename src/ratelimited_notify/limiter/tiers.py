"""The tier of a notification, as the limiter's `tier_of=` names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from ratelimited_notify.callables import close_coroutine
from ratelimited_notify.errors import NotifyError, Problem
from ratelimited_notify.notification.annotations import Recipient

if TYPE_CHECKING:
    from ratelimited_notify.rules.ruleset import RuleSet


_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class TierOfFields(Protocol):
    """A `tier_of=` that takes the fields too."""

    def __call__(
        self,
        recipient: Recipient,
        /,
        *,
        fields: Mapping[str, Any],  # Any: the values are what callers pass as fields
    ) -> str | None:
        """The name of the tier, or None."""


TierOf: TypeAlias = Callable[[Recipient], str | None] | TierOfFields
"""Returns the name of a tier for a recipient, or for a recipient and the fields of its notification."""


class Tiers:
    """Asks `tier_of=` for the tier of a notification.

    Arguments:
        tier_of: the callable, or None. If it has a parameter called `fields`, it gets the fields too.

    Raises:
        NotifyError: `tier_of` does not take a recipient, or needs more than recipient and fields.
    """

    __slots__ = ("_ask", "_given", "_with_fields", "plain")

    def __init__(self, tier_of: TierOf | None) -> None:
        self._given = tier_of is not None
        kind = _kind_of_fields(tier_of)
        self._with_fields = kind is not None and kind is not Parameter.VAR_POSITIONAL
        ask = self._ask = _asking(_nobody if tier_of is None else tier_of, kind)
        # A callable that gets no fields is called without a detour.
        given = cast("Callable[[Recipient], object]", _nobody if tier_of is None else tier_of)
        plain = _without_fields(ask) if self._with_fields else given
        self.plain = cast("Callable[[Recipient], str | None]", plain)
        """Asks for a notification without fields. What it returns may not be a tier, see `checked_tier`."""

    def of(self, recipient: Recipient, fields: Mapping[str, Recipient | None]) -> str | None:
        """The tier of a notification, or None.

        Arguments:
            recipient: the recipient as the caller passed it.
            fields: the fields as the caller passed them.

        Raises:
            TypeError: `tier_of=` returned something else than a string or None.
        """
        return checked_tier(self._ask(recipient, fields))

    def problems(self, rules: RuleSet) -> list[Problem]:
        """The rules whose tiers would have no effect, because `tier_of=` is missing or does not know enough."""
        found: list[Problem] = []
        for index, rule in enumerate(rules):
            if not rule.tiers:
                continue
            if not self._given:
                wrong = "need tier_of= on the limiter, a callable that returns the name of a recipient's tier."
            elif "recipient" not in rule.by and not self._with_fields:
                wrong = (
                    f"belong to a rule that counts by {' and '.join(rule.by)}, but tier_of= only gets the recipient. "
                    "Give it a second parameter called fields: def tier_of(recipient, fields)."
                )
            else:
                continue
            found.append(Problem(f"rules[{index}].tiers", wrong))
        return found


def _without_fields(ask: Callable[[Recipient, Mapping[str, object]], object]) -> Callable[[Recipient], object]:
    return lambda recipient: ask(recipient, {})


def checked_tier(tier: object) -> str | None:
    """What `tier_of=` returned, if it is the name of a tier or None.

    Raises:
        TypeError: it is something else.
    """
    if tier is not None and not isinstance(tier, str):
        close_coroutine(tier)
        raise TypeError(f"tier_of= returned a {type(tier).__name__}; it must return the name of a tier, or None.")
    return tier


def _nobody(_recipient: object) -> None:
    """Nobody is in a tier."""


def _kind_of_fields(tier_of: object) -> object:
    """How the parameter `fields` is passed, or None if there is no such parameter.

    Raises:
        NotifyError: `tier_of=` cannot be called like this.
    """
    if not callable(tier_of):
        return None
    try:
        parameter = signature(tier_of).parameters.get("fields")
        # A wrapper may take other arguments than the function that it wraps.
        called = signature(tier_of, follow_wrapped=False)
    except Exception:  # noqa: BLE001  # since Python 3.13, a callable __signature__ is called, which may do and raise anything
        # Some callables that are written in C have no signature.
        return None
    kind = None if parameter is None else parameter.kind
    arguments = (None, None) if kind is Parameter.POSITIONAL_ONLY else (None,)
    try:
        called.bind(*arguments, **({"fields": None} if kind in _BY_NAME else {}))
    except TypeError:
        given = "" if kind is None or kind is Parameter.VAR_POSITIONAL else " and fields"
        raise NotifyError(
            f"tier_of= cannot be called with a recipient{given}. Write def tier_of(recipient), or def tier_of(recipient, fields)."
        ) from None
    return kind


def _asking(tier_of: Callable[..., object], kind: object) -> Callable[[Recipient, Mapping[str, object]], object]:
    """A callable that passes the fields in the way in which `tier_of` takes them, if it does."""
    if kind in _BY_NAME:
        return lambda recipient, fields: tier_of(recipient, fields=MappingProxyType({**fields}))
    if kind is Parameter.POSITIONAL_ONLY:
        return lambda recipient, fields: tier_of(recipient, MappingProxyType({**fields}))
    if kind is Parameter.VAR_KEYWORD:
        return lambda recipient, fields: tier_of(recipient, **fields)
    return lambda recipient, _fields: tier_of(recipient)
