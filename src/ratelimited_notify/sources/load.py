"""Rules in any form that users have them in, made a rule set."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError
from ratelimited_notify.rules.ruleset import RuleSet

if TYPE_CHECKING:
    from ratelimited_notify.sources.annotations import Rules

_log = logging.getLogger("ratelimited_notify")


def rules_from(rules: Rules | None) -> RuleSet:
    """The rule set that is meant; an empty one for None.

    Raises:
        RuleError: something in it cannot be used; all problems are named, each with its place.
    """
    if isinstance(rules, RuleSet):
        return rules
    if rules is None:
        return RuleSet()
    if isinstance(rules, (str, os.PathLike)):
        from ratelimited_notify.sources.file import read_rules

        return read_rules(rules)
    return RuleSet(rules)


def rules_if_on(rules: Rules | None, *, off: bool) -> RuleSet:
    """The rule set that is meant. Where limiting is off, rules that cannot be used keep nothing from being sent.

    Raises:
        RuleError: it is not off, and the rules cannot be used.
    """
    try:
        return rules_from(rules)
    except RuleError as error:
        if not off:
            raise
        _log.warning("While limiting is off everything is sent, but the rules cannot be used: %s", error)
        return RuleSet()
