"""What kind of value something in a document is, for messages."""

from __future__ import annotations

from collections.abc import Mapping

_KINDS = {
    "bool": "true or false",
    "date": "a date",
    "datetime": "a date and a time",
    "float": "a number",
    "int": "a number",
    "str": "a string",
    "time": "a time",
}


def kind_of(value: object) -> str:
    """What kind of value this is, in words that fit each notation of a document."""
    if value is None:
        return "nothing"
    if isinstance(value, (Mapping, list, tuple)):
        return "a table" if isinstance(value, Mapping) else "a list"
    return _KINDS.get(type(value).__name__, f"a {type(value).__name__}")
