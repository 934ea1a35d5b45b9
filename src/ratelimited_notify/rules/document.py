"""Rules as a document of tables, such as a TOML file holds: decoded field by field, so that every problem has its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.rule import Rule
from ratelimited_notify.rules.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXTS = str | list[str]

_DOCUMENT = {
    "rules": list[dict[str, object]],
    "fields": list[str],
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
    "overrides": dict[str, _TEXTS],
    "tiers": dict[str, _TEXTS],
    "exempt": _TEXTS,
    "count_exempt": bool,
    "enforce": bool,
}

_NO_LIMIT = "none"


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
    rules: dict[int, Rule] = {}
    tables = read.pop("rules", [])
    for index, table in enumerate(tables):  # type: ignore[arg-type, var-annotated]  # msgspec made it a list
        rule = _rule(table, f"rules[{index}]", problems)
        if rule is not None:
            rules[index] = rule
    if "default" in read:
        read["default"] = _limit(read["default"])
    try:
        made = RuleSet(rules.values(), **read)  # type: ignore[arg-type]  # RuleSet checks what it is given
    except RuleError as error:
        # Rules that could not be made are missing from the set, so its places are moved back to the document's.
        places = {f"rules[{made}]": f"rules[{index}]" for made, index in enumerate(rules)}
        problems += (_moved(problem, places) for problem in error.problems)
    if problems:
        raise RuleError(problems)
    return made


def _rule(table: Mapping[str, object], place: str, problems: list[Problem]) -> Rule | None:
    found: list[Problem] = []
    read = _decoded(table, _RULE, found)
    found += (Problem(name, "is missing.") for name in ("type", "limit") if name not in table)
    for name in ("overrides", "tiers"):
        if name in read:
            read[name] = {key: _limit(value) for key, value in read[name].items()}  # type: ignore[attr-defined]  # a table
    # A stand-in for what is missing or mistyped, so that everything else is checked in the same go.
    read["type"] = read.get("type", "?")
    read["limit"] = _limit(read.get("limit", _NO_LIMIT))
    try:
        rule = Rule(**read)  # type: ignore[arg-type]  # Rule checks what it is given
    except RuleError as error:
        found += error.problems
    problems += (problem.under(place) for problem in found)
    return None if found else rule


def _decoded(table: Mapping[str, object], types: Mapping[str, object], problems: list[Problem]) -> dict[str, object]:
    import msgspec

    read = {}
    for name, value in table.items():
        if name not in types:
            problems.append(Problem(name, f"is not known; known are {', '.join(types)}."))
            continue
        try:
            read[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            problems.append(Problem(name, f"{error}."))
    return read


def _limit(value: object) -> object:
    return None if value == _NO_LIMIT else value


def _moved(problem: Problem, places: Mapping[str, str]) -> Problem:
    head, dot, rest = problem.place.partition(".")
    return Problem(places.get(head, head) + dot + rest, problem.message)
