"""What is said about notifications that the rules do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, type_text
from ratelimited_notify.log import warning
from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.rule import Rule


def missing(type: str, field: str, rule: Rule) -> NotifyError:
    """The error about a notification without a field that a rule requires."""
    return NotifyError(
        f"A notification of type {type_text(type)} has no {field}, but the rule {rule.name!r} requires it. "
        f"Set this field on every notification of this type: write notifier.bind({field}=...).send(...), "
        f"limiter.hit(..., {field}=...), or fields={{{field!r}: ...}} on a decorator."
    )


def log_missing(type: str, field: str, rule: Rule) -> None:
    """Log that a notification has no field that a rule in shadow mode requires."""
    warning(
        "A notification of type %s has no %s. The rule %r requires it, but is in shadow mode.",
        type_text(type),
        field,
        rule.name,
    )


def log_unlimited(type: str, windows: Sequence[Counter]) -> None:
    """Log that no rule matches a type, or only caps over all types, which have these windows."""
    counting = [window for window in windows if window.mode is not Mode.SHADOW and window.strategy != "pause"]
    caps = ", ".join(dict.fromkeys(repr(window.rule) for window in counting))
    if caps:
        warning(
            "Only caps over all types (%s) match notifications of type %s, so they are sent without a limit of their own. "
            "Add a rule or a default.",
            caps,
            type_text(type),
        )
    else:
        warning(
            "No rule matches notifications of type %s, so they are sent without a limit of their own. "
            "Add a rule or a default.",
            type_text(type),
        )
