"""Advice in the notation of the document that it is about. Messages are made in that of TOML."""

from __future__ import annotations

import re

from ratelimited_notify.errors import Problem

_KEYS = (
    *(
        "by",
        "count_exempt",
        "default",
        "enforce",
        "exempt",
        "fields",
        "limit",
        "name",
        "on_limit",
        "overrides",
        "required",
    ),
    *("strategy", "tiers", "type", "unknown_type"),
)
_PAIR = re.compile(rf"""\b({"|".join(_KEYS)}) ?= ?("[^"\n]*"|\[[^\[\]\n]*\]|\{{[^{{}}\n]*\}})""")
_INNER = re.compile(r"(\"[^\"]*\"|\b\w+) = ")


def noted(problem: Problem, kind: str) -> Problem:
    """The same problem, with advice in this notation.

    Arguments:
        problem: a problem of a document.
        kind: TOML, YAML or JSON.
    """
    if kind == "TOML":
        return problem
    message = _PAIR.sub(lambda found: _written(found[1], found[2], kind), problem.message)
    rules = '"rules": [{...}]' if kind == "JSON" else "rules: [{...}]"
    message = message.replace("each rule as a [[rules]] table", f"a list, as in {rules}").replace("[[rules]]", "rules")
    return Problem(problem.place, message)


def _written(key: str, value: str, kind: str) -> str:
    value = value.replace("'", '"')
    if value[0] == "{":
        pairs = _INNER.sub(lambda found: '"' + found[1].strip('"') + '": ', value)
        value = f"{{{pairs[1:-1].strip()}}}"
    return f'"{key}": {value}' if kind == "JSON" else f"{key}: {value}"
