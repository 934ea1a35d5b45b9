"""Read one line of the input: a JSON object that describes one notification. No I/O."""

from __future__ import annotations

import json
import re
from typing import Annotated, TypeAlias

import msgspec

from ratelimited_notify.errors import is_name
from ratelimited_notify.notification.cost import LARGEST_AMOUNT
from ratelimited_notify.notification.notification import Notification
from ratelimited_notify.notification.recipient import ARGUMENTS
from ratelimited_notify.rules.rule import FIELDS

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Addresses: TypeAlias = str | list[str] | None

# Editors and DOS programs leave these at the beginning or at the end of files, and files are joined to other files.
_AROUND = " \t\r\n\v\f\ufeff\x1a"


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    type: _Text
    recipient: _Text
    subject: str
    body: str
    html: str | None = None
    headers: dict[str, str] | None = None
    cc: _Addresses = None
    bcc: _Addresses = None
    reply_to: _Addresses = None
    priority: str | None = None
    cost: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_AMOUNT)] = 1
    fields: dict[str, str | int | None] = {}  # msgspec copies it for each object

    def __repr__(self) -> str:
        # A tool may show the variables of a traceback.
        return "<_Line>"


KEYS = _Line.__struct_fields__
"""The keys that an object may have."""

_FOR_THE_GATEWAY = ("html", "headers", "cc", "bcc", "reply_to")

_NOT_EMPTY = "a string that is not empty"
_ONE_OR_MORE = "a string or a list of strings"
_EXPECTED = {
    "type": _NOT_EMPTY,
    "recipient": _NOT_EMPTY,
    "headers": "an object with strings",
    "cc": _ONE_OR_MORE,
    "bcc": _ONE_OR_MORE,
    "reply_to": _ONE_OR_MORE,
    "cost": f"a whole number from 1 to {LARGEST_AMOUNT:,}",
    "fields": "an object with strings, whole numbers and null",
}
"""What the value of a key must be, if it is not just a string."""

# The messages of msgspec, of which only the parts in groups are shown.
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL).fullmatch
_MISSING_KEY = re.compile(r"Object missing required field `([a-z_]+)`").match
_WRONG_VALUE = re.compile(r"- at `\$\.([a-z_]+)").search
_PLACE = re.compile(r"\(byte (\d+)\)").search

_decode = msgspec.json.Decoder(_Line).decode


class Malformed(Exception):
    """The line is not a notification. The message says why, and quotes nothing of the line."""


def read_line(line: bytes, number: int) -> Notification | None:
    """The notification in a line; its `id` is the line number. None for an empty line.

    Raises:
        Malformed: the line is not a notification.
    """
    try:
        text = line.decode().strip(_AROUND)
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None
    if not text:
        return None
    if not text.startswith("{"):
        raise Malformed("not a JSON object; each line must be one")
    try:
        read = _decode(text)
    except ValueError as error:
        raise Malformed(_problem(str(error))) from None
    # msgspec takes the last one. By now the text is known to be valid and not deep. Numbers need no look.
    json.loads(text, object_pairs_hook=_no_key_twice, parse_int=str, parse_float=str)
    for name in read.fields:
        if name in ARGUMENTS:
            raise Malformed(f"{name!r} is not a field; write it next to type and recipient")
        if not is_name(name):
            raise Malformed("a field has a name that cannot be declared")
    passed = {name: value for name in _FOR_THE_GATEWAY if (value := getattr(read, name)) is not None}
    return Notification(
        read.type,
        read.recipient,
        (read.subject, read.body),
        passed,
        priority=read.priority,
        cost=read.cost,
        fields=read.fields,
        id=str(number),
    )


def _no_key_twice(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise Malformed(f"{_shown(key)} is given twice")
        seen.add(key)


def _shown(key: str) -> str:
    # A key may be anything, even an address, so it is shown only if it looks like the name of an option.
    return repr(key) if is_name(key) else "a key"


def _problem(said: str) -> str:
    """What is wrong, in plain words, from a message of msgspec."""
    if found := _UNKNOWN_KEY(said):
        if found[1] in FIELDS:
            return f'{found[1]!r} is a field; write it in fields: {{"fields": {{"{found[1]}": ...}}}}'
        return f"{_shown(found[1])} is not known; known are {', '.join(KEYS)}"
    if found := _MISSING_KEY(said):
        return f"{found[1]} is missing"
    if found := _WRONG_VALUE(said):
        return f"{found[1]} must be {_EXPECTED.get(found[1], 'a string')}"
    if "truncated" in said:
        return "not valid JSON: it ends too early"
    found = _PLACE(said)
    return f"not valid JSON at byte {found[1]}" if found else "not valid JSON"
