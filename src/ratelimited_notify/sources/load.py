"""Make a rule set from the forms in which users write rules."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.log import is_logging, warning
from ratelimited_notify.rules.limit import is_limit
from ratelimited_notify.rules.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.sources.annotations import FixedRules, Rules
    from ratelimited_notify.sources.base import RuleSource
    from ratelimited_notify.sources.live import LiveRules

_SCHEME = re.compile(r"(?:file:|sqlite:|[a-z][a-z0-9]+(?:\+[a-z0-9_]+)*:/)").match
"""What begins like this is a source and no path."""

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
        check_path(rules)
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
    return RuleSet(rules)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a source is told as what it is not


def check_path(path: str | os.PathLike[str]) -> None:
    """Check that it is not a URI, which must not be quoted as a path would be: it may have a password.

    Raises:
        RuleError: it is one.
    """
    if isinstance(path, str) and "://" in path:
        raise RuleError(
            "The rules are neither a path nor a source that can be used here. A source begins with its scheme in small letters, "
            "without a space or a quote before it, as in redis://localhost/0?key=notify:rules, and fallback= takes none."
        )


def fallback_from(rules: FixedRules) -> RuleSet:
    """The rules that hold until a source can be loaded.

    Raises:
        NotifyError: they cannot be used, or are a source themselves.
    """
    if source_of(rules) is not None:
        raise NotifyError("fallback= must be rules or the path of a file, not another source.")
    return rules_from(rules)


def source_of(rules: Rules | None, *, off: bool = False) -> RuleSource | None:
    """The source, if these rules are one or a text that names one; otherwise None.

    Raises:
        NotifyError: limiting is not off, and the text has the scheme of a source, but cannot be used.
    """
    if isinstance(rules, str):
        if not _SCHEME(rules):
            return None
        from ratelimited_notify.sources.uri import source_from

        try:
            return source_from(rules)
        except NotifyError as error:
            _ignored(error, off=off)
            return None
    # Most programs have no source, and load no code for it.
    if not hasattr(type(rules), "load"):
        return None
    from ratelimited_notify.sources.base import RuleSource

    return rules if isinstance(rules, RuleSource) else None


def live_rules_from(rules: Rules | None, *, off: bool = False) -> LiveRules | None:
    """The live rules, if these rules are a source or a text that names one; otherwise None."""
    source = source_of(rules, off=off)
    if source is None:
        return None
    from ratelimited_notify.sources.live import live_rules_of

    return live_rules_of(source)


def rules_if_on(rules: Rules | None, *, off: bool) -> RuleSet:
    """Make a rule set, like `rules_from`. If limiting is off, rules that cannot be used are logged and ignored.

    Raises:
        RuleError: limiting is not off, and the rules cannot be used.
    """
    if off and isinstance(rules, str) and _SCHEME(rules):
        # A source that cannot be used. That has been logged.
        return RuleSet()
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


def _ignored(error: NotifyError, *, off: bool) -> RuleSet:
    if not off:
        raise error
    warning("Limiting is off, so everything is sent; but the rules cannot be used: %s", error)
    return RuleSet()
