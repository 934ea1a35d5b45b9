"""Rules from a document of tables, such as a TOML file. Decoded field by field, so that each problem names its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from ratelimited_notify.errors import Problem, RuleError, is_name
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet

# Rule and RuleSet check the entries of a list or of a table of limits themselves.
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

# Advice for a value of the wrong type.
_WRITE = {
    "rules": "each rule as a [[rules]] table",
    "fields": 'a list, as in fields = ["ip"]',
    "default": 'a string, as in default = "5/hour"',
    "unknown_type": 'unknown_type = "send" or unknown_type = "raise"',
    "type": 'a string, as in type = "news"',
    "limit": 'a string, as in limit = "3/day"',
    "by": 'a field or a list of them, as in by = "recipient"',
    "strategy": 'a string, as in strategy = "fixed-window"',
    "name": 'a string, as in name = "marketing"',
    "on_limit": 'a string, as in on_limit = "drop"',
    "overrides": 'a table, as in overrides = { "+491701" = "50/day" }',
    "tiers": 'a table, as in tiers = { gold = "20/day" }',
    "exempt": 'a list, as in exempt = ["critical"]',
    "count_exempt": "true or false, without quotes",
    "enforce": "true or false, without quotes",
}

_NO_LIMIT = "none"

_Read: TypeAlias = dict[str, Any]  # Any: each value has the type that the tables above give for its key


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
    """The rule that a table describes. If the table has problems, a rule without the wrong parts, for further checks."""
    if not isinstance(table, Mapping):
        problems.append(Problem(place, "must be a table with at least a type and a limit."))
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
        # These three decide which windows the rule has, so nothing can be checked against the other rules.
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
            # The name may be a recipient, from an override outside its table, so only plain names are shown.
            place = name if is_name(name) else "?"
            problems.append(Problem(place, f"is not known; known are {', '.join(types)}.{_meant(name, types)}"))
            continue
        try:
            read[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            problems.append(Problem(name, f"{error}. Write {_WRITE[name]}."))
    return read


def _meant(name: object, known: Iterable[str]) -> str:
    """Suggest the known name that is most similar, if there is one."""
    from difflib import get_close_matches

    close = get_close_matches(str(name), known, 1)
    if not close:
        return ""
    return " Is it meant to be [[rules]]?" if close[0] == "rules" else f" Is it meant to be {close[0]}?"


def _limit(limit: object) -> object:
    return None if limit == _NO_LIMIT else limit
