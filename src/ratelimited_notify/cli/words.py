"""Messages of the library in the words of somebody who writes rules in a file, and no Python. No I/O."""

from __future__ import annotations

import re

_KINDS = {
    "array": "a list",
    "bool": "true or false",
    "date": "a date",
    "datetime": "a date and a time",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "object": "a table",
    "str": "a string",
    "time": "a time",
}
"""What msgspec calls the kinds of values."""

_KIND = re.compile(r"`((?:\w+ \| )*\w+)`")
_CLASS = re.compile(r" \(\w+(?:Error|Exception|Refused)\)")
_NO_LIMIT = re.compile(r"write None, or 'none' in a file")
_RULE_SET = re.compile(r", or RuleSet\(rules, fields=\[[^\]]*\]\)")

_IN_A_PROGRAM = re.compile(r"(on every notification of this type): write notifier\.bind\(.* on a decorator")


def plain(text: str) -> str:
    """The message without the names of types and exceptions of Python."""
    text = _RULE_SET.sub("", _CLASS.sub("", text))
    text = _NO_LIMIT.sub("write 'none'", text)
    text = _IN_A_PROGRAM.sub(r"\1", text)
    return _KIND.sub(_kinds, text)


def _kinds(found: re.Match[str]) -> str:
    names = found[1].split(" | ")
    return " or ".join(_KINDS[name] for name in names) if all(name in _KINDS for name in names) else found[0]
