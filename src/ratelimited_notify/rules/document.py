"""A rule set from a document of tables, such as a TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.ruleset import RuleSet
from ratelimited_notify.rules.table import TEXTS, decoded, limit_from, rule_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOCUMENT = {
    "rules": list[object],
    "fields": list[object],
    "default": TEXTS,
    "unknown_type": str,
}

# Advice for a value of the wrong type.
_WRITE = {
    "rules": "each rule as a [[rules]] table",
    "fields": 'a list, as in fields = ["ip"]',
    "default": 'a string, as in default = "5/hour"',
    "unknown_type": 'unknown_type = "send" or unknown_type = "raise"',
}


def rule_set_of(document: Mapping[str, object]) -> RuleSet:
    """Build the rule set that a document describes.

    Arguments:
        document: `rules` is a list of tables with the arguments of `Rule`; the limit `"none"` means no limit. `fields`,
            `default` and `unknown_type` are optional and have the meaning that they have for `RuleSet`.

    Raises:
        RuleError: something in the document cannot be used. The error lists all problems, each with its place
            (`rules[3].limit`).
    """
    problems: list[Problem] = []
    read = decoded(cast("Mapping[object, object]", document), _DOCUMENT, _WRITE, problems)
    rules = [rule_of(table, f"rules[{index}]", problems) for index, table in enumerate(read.pop("rules", ()))]
    if "default" in read:
        read["default"] = limit_from(read["default"])
    try:
        made = RuleSet(rules, **read)
    except RuleError as error:
        raise RuleError([*problems, *error.problems]) from None
    if problems:
        raise RuleError(problems)
    return made
