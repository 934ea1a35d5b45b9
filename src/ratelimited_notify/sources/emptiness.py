"""A source that has no rules: a truncated table or the wrong database must not lift all limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError
from ratelimited_notify.log import warning

if TYPE_CHECKING:
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.base import RuleSource

_INTENDED = "If that is what you want, pass allow_empty=True."


def check_not_empty(source: RuleSource, before: RuleSet | None, rules: RuleSet) -> None:
    """Check rules that have just been loaded.

    Arguments:
        source: where they come from.
        before: the rules in force; None if nothing has been loaded yet.
        rules: the new rules.

    Raises:
        RuleError: there are no rules any more; or not yet, and the source has a fallback.
    """
    if rules.rules or source.options.allow_empty:
        return
    if before is None:
        if rules.default is not None:
            return
        if source.options.fallback is not None:
            raise RuleError(f"{source!r} has no rules, so the fallback is in force. {_INTENDED}")
        warning("%r has no rules, so nothing is limited. %s", source, _INTENDED)
    elif before.rules or (before.default is not None and rules.default is None):
        raise RuleError(f"{source!r} has no rules any more, so the last ones stay in force. {_INTENDED}")
