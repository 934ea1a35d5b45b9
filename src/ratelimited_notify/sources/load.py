"""Make a rule set from the forms in which users write rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError
from ratelimited_notify.log import is_logging, warning
from ratelimited_notify.rules.limit import is_limit
from ratelimited_notify.rules.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.sources.annotations import Rules

_MOST_LOGGED = 1000
_logged: set[Problem] = set()


def rules_from(rules: Rules | None) -> RuleSet:
    """Make a rule set from any form of rules. None makes an empty one.

    Raises:
        RuleError: something in the rules cannot be used. The error lists all problems, each with its place.
    """
    if isinstance(rules, RuleSet):
        return rules
    if rules is None:
        return RuleSet()
    if isinstance(rules, (str, os.PathLike)):
        from ratelimited_notify.sources.file import read_rules

        try:
            return read_rules(rules)
        except RuleError as error:
            if isinstance(rules, str) and isinstance(error.__cause__, OSError) and is_limit(rules):
                raise RuleError(
                    f"{rules!r} is a limit, and no file has this name. Say what it is for: "
                    f'rules={{"news": {rules!r}}} limits one type, rules={{"*": {rules!r}}} each type.'
                ) from None
            raise
    return RuleSet(rules)


def rules_if_on(rules: Rules | None, *, off: bool) -> RuleSet:
    """Make a rule set, like `rules_from`. If limiting is off, rules that cannot be used are logged and ignored.

    Raises:
        RuleError: limiting is not off, and the rules cannot be used.
    """
    try:
        return rules_from(rules)
    except RuleError as error:
        return _ignored(error, off=off)


def usable_if_on(rules: RuleSet, use: Callable[[RuleSet], object], *, off: bool) -> RuleSet:
    """Use the rules and return them. If limiting is off, rules that cannot be used are logged, and none are used.

    Raises:
        RuleError: limiting is not off, and the rules cannot be used.
    """
    try:
        use(rules)
    except RuleError as error:
        rules = _ignored(error, off=off)
        use(rules)
    return rules


def warn_of_doubts(rules: RuleSet) -> None:
    """Log what in the rules is hardly meant as it is written, once in the life of the process."""
    if is_logging():
        return
    for problem in rules.warnings:
        if problem not in _logged and len(_logged) < _MOST_LOGGED:
            _logged.add(problem)
            warning("%s", problem)


def _ignored(error: RuleError, *, off: bool) -> RuleSet:
    if not off:
        raise error
    warning("Limiting is off, so everything is sent; but the rules cannot be used: %s", error)
    return RuleSet()
