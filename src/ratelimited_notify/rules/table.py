"""One rule from a table of a file, or from a dict. Decoded field by field, so that each problem names its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from ratelimited_notify.errors import MOST_SHOWN, Problem, RuleError, is_name
from ratelimited_notify.rules.rule import Rule

# Rule and RuleSet check the entries of a list or of a table of limits themselves.
TEXTS = str | list[object]
_LIMITS = dict[object, object]

_RULE = {
    "type": str,
    "limit": TEXTS,
    "by": TEXTS,
    "strategy": str,
    "name": str,
    "on_limit": str,
    "overrides": _LIMITS,
    "tiers": _LIMITS,
    "exempt": TEXTS,
    "count_exempt": bool,
    "enforce": bool,
    "required": TEXTS,
}

# Advice for a value of the wrong type.
_WRITE = {
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
    "required": 'a field or a list of them, as in required = "tenant"',
}

_NONE = ("limit", "name", "on_limit", "overrides", "tiers")
"""What can be None, as for `Rule`. A file cannot say that."""

_NO_LIMIT = "none"

_LONGEST = 200
"""The longest name that is compared with others."""

Read: TypeAlias = dict[str, Any]  # Any: each value has the type that the tables of types give for its key


def is_rule_table(table: Mapping[object, object]) -> bool:
    """Whether the mapping looks like one rule, and not like limits by type."""
    return {"type", "limit"} <= table.keys() <= _RULE.keys()


def rule_of(table: object, place: str, problems: list[Problem]) -> Rule:
    """The rule that a table describes. If the table has problems, a rule without the wrong parts, for further checks.

    Arguments:
        table: the arguments of `Rule`. The limit `"none"` means no limit.
        place: the place of the table, for messages: `rules[3]`.
        problems: a list to which problems are added.
    """
    if not isinstance(table, Mapping):
        problems.append(Problem(place, "must be a table with at least a type and a limit."))
        return Rule("?", None)
    found: list[Problem] = []
    given = dict(cast("Mapping[object, object]", table))
    read: Read = {name: given.pop(name) for name in _NONE if name in given and _is_plain(given[name])}
    read = decoded(given, _RULE, _WRITE, found, len(problems)) | read
    found += (Problem(name, "is missing.") for name in ("type", "limit") if name not in table)
    for name in ("overrides", "tiers"):
        if read.get(name) is not None:
            read[name] = {key: limit_from(limit) for key, limit in read[name].items()}
    if "limit" in read:
        read["limit"] = limit_from(read["limit"])
    try:
        made = _made(read)
        if not found:
            return made
    except RuleError as error:
        found += error.problems
    problems += (problem.under(place) for problem in found)
    return _without(read, {re.split(r"[.\[]", problem.place)[0] for problem in found})


def _is_plain(value: object) -> bool:
    """Whether this is None or a limit of `limits`, which a dict can hold but a file cannot."""
    from limits import RateLimitItem

    return value is None or isinstance(value, RateLimitItem)


def _without(read: Read, wrong: set[str]) -> Rule:
    sound = {name: value for name, value in read.items() if name not in wrong}
    if wrong & {"type", "by", "name"}:
        # These three decide which windows the rule has, so nothing can be checked against the other rules.
        sound = {name: value for name, value in sound.items() if name in ("by", "required")}
    return _made(sound)


def _made(read: Read) -> Rule:
    complete: Read = {"type": "?", "limit": None, **read}
    return Rule(**complete)


def decoded(
    table: Mapping[object, object],
    types: Mapping[str, object],
    write: Mapping[str, str],
    problems: list[Problem],
    before: int = 0,
) -> Read:
    """The values of a table that have the right type, by name. Others are problems, and so are unknown names.

    Arguments:
        table: the table as it was read.
        types: the type of each value, by name.
        write: the advice for a value of the wrong type, by name.
        problems: a list to which problems are added.
        before: how many problems there are in other tables. Only those that are shown get a similar name: to search for it
            takes longest.
    """
    import msgspec

    read: Read = {}
    for name, value in table.items():
        if not isinstance(name, str) or name not in types:
            # The name may be a recipient, from an override outside its table, so only plain names are shown.
            place = str(name) if is_name(name) else "?"
            similar = meant(name, types) if before + len(problems) < MOST_SHOWN else ""
            problems.append(Problem(place, f"is not known; known are {', '.join(types)}.{similar}"))
            continue
        try:
            read[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError:
            from ratelimited_notify.rules.kinds import kind_of

            problems.append(Problem(name, f"is {kind_of(value)}. Write {write[name]}."))
    return read


def meant(name: object, known: Iterable[str]) -> str:
    """Suggest the known name that is most similar, if there is one."""
    from difflib import get_close_matches

    text = str(name)
    close = get_close_matches(text, known, 1) if len(text) <= _LONGEST else []
    if not close:
        return ""
    return " Is it meant to be [[rules]]?" if close[0] == "rules" else f" Is it meant to be {close[0]}?"


def limit_from(limit: object) -> object:
    """The limit in a table, where `"none"` means no limit."""
    return None if isinstance(limit, str) and limit == _NO_LIMIT else limit
