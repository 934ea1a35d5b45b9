"""A rule set from a document of tables, such as a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.ruleset import RuleSet
from ratelimited_notify.rules.table import TEXTS, decoded, limit_from, rule_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_DOCUMENT = {
    "rules": list[object],
    "fields": list[object],
    "default": TEXTS,
    "unknown_type": str,
}

MOST_RULES = 100_000
"""The most rules in one document."""

MOST_LIMITS = 1_000_000
"""The most overrides and tiers in one document, those of all rules together."""

MOST_FIELDS = 1000
"""The most declared fields in one document."""

_FEWER = "Write globs, or tiers and let tier_of= say who is in them."

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
            `default` and `unknown_type` are optional and have the meaning that they have for `RuleSet`. It has at most
            1,000 fields, 100,000 rules, and 1,000,000 overrides and tiers.

    Raises:
        RuleError: something in the document cannot be used. The error lists all problems, each with its place
            (`rules[3].limit`).
    """
    problems: list[Problem] = []
    read = decoded(cast("Mapping[object, object]", document), _DOCUMENT, _WRITE, problems)
    tables = cast("list[object]", read.pop("rules", []))
    _check_size(tables, cast("list[object]", read.get("fields", [])))
    rules = [rule_of(table, f"rules[{index}]", problems) for index, table in enumerate(tables)]
    if "default" in read:
        read["default"] = limit_from(read["default"])
    try:
        made = RuleSet(rules, **read)
    except RuleError as error:
        raise RuleError([*problems, *error.problems]) from None
    if problems:
        raise RuleError(problems)
    return made


def _check_size(tables: Sequence[object], fields: Sequence[object]) -> None:
    """Check that there are not so many rules that they must be a mistake.

    Raises:
        RuleError: there are too many fields, too many rules, or too many overrides and tiers.
    """
    if len(fields) > MOST_FIELDS:
        raise RuleError([Problem("fields", f"are {len(fields):,}; at most {MOST_FIELDS:,} are read.")])
    if len(tables) > MOST_RULES:
        raise RuleError([Problem("rules", f"are {len(tables):,}; at most {MOST_RULES:,} are read. {_FEWER}")])
    limits = sum(
        len(cast("Mapping[str, object]", table[option]))
        for table in cast("Sequence[Mapping[str, object]]", tables)
        if isinstance(table, Mapping)
        for option in ("overrides", "tiers")
        if isinstance(table.get(option), Mapping)
    )
    if limits > MOST_LIMITS:
        raise RuleError(
            [Problem("rules", f"have {limits:,} overrides and tiers; at most {MOST_LIMITS:,} are read. {_FEWER}")]
        )
