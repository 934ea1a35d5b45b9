"""The names and the values of attributes. All but `error.type`, which every library has, begin with the name of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import HIDDEN_TYPE, type_text
from ratelimited_notify.instrumentation.labels import Label

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation.events import Decided, Delivered

TYPE = "ratelimited_notify.type"
VERDICT = "ratelimited_notify.verdict"
RULE = "ratelimited_notify.rule"
DEGRADED = "ratelimited_notify.degraded"
STATUS = "ratelimited_notify.status"
BACKEND = "ratelimited_notify.backend"
POLICY = "ratelimited_notify.policy"
SERVER = "ratelimited_notify.server"
ERROR_TYPE = "error.type"

OTHER_ERROR = "_OTHER"
"""What the semantic conventions have in place of further classes of exceptions."""


class Values:
    """The values of attributes of metrics, which have to be few."""

    __slots__ = ("_errors", "_rules", "_types")

    def __init__(self) -> None:
        self._types = Label()
        self._rules = Label()
        self._errors = Label(OTHER_ERROR)

    def type(self, type: str) -> dict[str, str | bool]:
        """The attributes that name a type."""
        return {TYPE: self._types.of(type)}

    def decided(self, event: Decided) -> dict[str, str | bool]:
        """The attributes of a decision."""
        found: dict[str, str | bool] = {**self.type(event.type), VERDICT: event.verdict}
        if event.rule is not None:
            found[RULE] = self._rules.of(event.rule)
        if event.degraded:
            found[DEGRADED] = True
        return found

    def delivered(self, event: Delivered) -> dict[str, str | bool]:
        """The attributes of a delivery."""
        found: dict[str, str | bool] = {**self.type(event.type), STATUS: event.status}
        if event.status == "failed":
            found[ERROR_TYPE] = self.error(event.error)
        return found

    def error(self, error: str | None) -> str:
        """The value for the class of an exception."""
        return OTHER_ERROR if error is None else self._errors.of(error)


def shown_type(type: object) -> str:
    """A type, for a span. One that looks like an address is not shown, as in messages."""
    text = type_text(type)
    return str.__str__(type) if isinstance(type, str) and text != HIDDEN_TYPE else text


def shown_policy(policy: str) -> str:
    """A policy without what follows its scheme: that of a storage may contain a password."""
    scheme, colon, _ = policy.partition("://")
    return scheme + colon
