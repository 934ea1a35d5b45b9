"""Rules as a document of tables, such as a TOML file holds: decoded field by field, so that every problem has its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from ratelimited_notify.errors import Problem, RuleError, is_name
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet

# Rule and RuleSet say for themselves what is wrong inside a list or a table of limits, entry by entry.
_TEXTS = str | list[object]
_LIMITS = dict[str, object]

_DOCUMENT = {
    "rules": list[object],
    "fields": list[object],
    "default": _TEXTS,
    "unknown_type": str,
}

_RULE = {
    "type": str,
    "limit": _TEXTS,
    "by": _TEXTS,
    "strategy": str,
    "name": str,
    "on_limit": str,
    "overrides": _LIMITS,
    "tiers": _LIMITS,
    "exempt": _TEXTS,
    "count_exempt": bool,
    "enforce": bool,
}

# What to write, where something of another kind was written.
_WRITE = {
    "rules": "each rule as a [[rules]] table",
    "fields": 'a list, as in fields = ["ip"]',
    "default": 'a text, as in default = "5/hour"',
    "unknown_type": 'unknown_type = "send" or unknown_type = "raise"',
    "type": 'a text, as in type = "news"',
    "limit": 'a text, as in limit = "3/day"',
    "by": 'a field or a list of them, as in by = "recipient"',
    "strategy": 'a text, as in strategy = "fixed-window"',
    "name": 'a text, as in name = "marketing"',
    "on_limit": 'a text, as in on_limit = "drop"',
    "overrides": 'a table, as in overrides = { "+491701" = "50/day" }',
    "tiers": 'a table, as in tiers = { gold = "20/day" }',
    "exempt": 'a list, as in exempt = ["critical"]',
    "count_exempt": "true or false, without quotes",
    "enforce": "true or false, without quotes",
}

_NO_LIMIT = "none"

_Read: TypeAlias = dict[str, Any]  # Any: each value is of the type that is named for it, or left out


def rule_set_of(document: Mapping[str, object]) -> RuleSet:
    """The rule set that a document describes.

    Arguments:
        document: `rules`, a list of tables with the arguments of `Rule` (a limit of `"none"` is no limit), and optionally
            `fields`, `default` and `unknown_type` as `RuleSet` has them.

    Raises:
        RuleError: something in it cannot be used; all problems are named, each with its place (`rules[3].limit`).
    """
    problems: list[Problem] = []
    read = _decoded(document, _DOCUMENT, problems)
    rules = [_rule(table, f"rules[{index}]", problems) for index, table in enumerate(read.pop("rules", ()))]
    if "default" in read:
        read["default"] = _limit(read["default"])
    try:
        made = RuleSet(rules, **read)
    except RuleError as error:
        raise RuleError([*problems, *error.problems]) from None
    if problems:
        raise RuleError(problems)
    return made


def _rule(table: object, place: str, problems: list[Problem]) -> Rule:
    """The rule that a table describes or, with what is wrong left out, one to go on checking with."""
    if not isinstance(table, Mapping):
        problems.append(Problem(place, "must be a table, with a type and a limit at least."))
        return Rule("?", None)
    found: list[Problem] = []
    given = cast("Mapping[str, object]", table)
    read = _decoded(given, _RULE, found)
    found += (Problem(name, "is missing.") for name in ("type", "limit") if name not in given)
    for name in ("overrides", "tiers"):
        if name in read:
            read[name] = {key: _limit(limit) for key, limit in read[name].items()}
    if "limit" in read:
        read["limit"] = _limit(read["limit"])
    try:
        _made(read)
    except RuleError as error:
        found += error.problems
    problems += (problem.under(place) for problem in found)
    return _without(read, {re.split(r"[.\[]", problem.place)[0] for problem in found})


def _without(read: _Read, wrong: set[str]) -> Rule:
    sound = {name: value for name, value in read.items() if name not in wrong}
    if wrong & {"type", "by", "name"}:
        # Which windows it would have is not known.
        sound = {name: value for name, value in sound.items() if name == "by"}
    return _made(sound)


def _made(read: _Read) -> Rule:
    complete: _Read = {"type": "?", "limit": None, **read}
    return Rule(**complete)


def _decoded(table: Mapping[str, object], types: Mapping[str, object], problems: list[Problem]) -> _Read:
    import msgspec

    read: _Read = {}
    for name, value in table.items():
        if name not in types:
            # It may be an override that lost its table.
            place = name if is_name(name) else "?"
            problems.append(Problem(place, f"is not known; known are {', '.join(types)}.{_meant(name, types)}"))
            continue
        try:
            read[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            problems.append(Problem(name, f"{error}. Write {_WRITE[name]}."))
    return read


def _meant(name: object, known: Iterable[str]) -> str:
    """Which name was meant, where one is much like it."""
    from difflib import get_close_matches

    close = get_close_matches(str(name), known, 1)
    if not close:
        return ""
    return " Is it meant to be [[rules]]?" if close[0] == "rules" else f" Is it meant to be {close[0]}?"


def _limit(limit: object) -> object:
    return None if limit == _NO_LIMIT else limit
