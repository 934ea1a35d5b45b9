"""Documents in YAML 1.2, as far as rules need it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ratelimited_notify.errors import MissingExtra, RuleError

try:
    import yaml
except ImportError:
    raise MissingExtra("yaml", "A rules file in YAML") from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The parser that is written in C is ten times as fast. Not every build of PyYAML has it.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: one of two classes without types

_parse: Any = yaml.parse  # Any: it has no types

_DEEPEST = 50
"""Rules nest four levels."""

# The core schema of YAML 1.2: `yes`, `on` and `22:00` are texts, and so is every date.
_INTEGER = re.compile(r"[-+]?[0-9]{1,1000}").fullmatch
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?").fullmatch
_CONSTANTS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TEXT = "tag:yaml.org,2002:str"


class _Refused(Exception):
    """Something that YAML allows and a document of rules does not."""

    def __init__(self, said: str, event: Any) -> None:  # Any: an event of PyYAML, which has no types
        self.said = said
        self.line = event.start_mark.line + 1


def read_yaml(text: str) -> Mapping[str, object]:
    """The document in a text. Keys stay texts, as they are written: a telephone number is no integer.

    Raises:
        RuleError: the text is not YAML, or has more than one document, an alias, a tag, or a key twice. The message names the
            line, and quotes nothing: a key may be an address.
    """
    try:
        document = _document(_parse(text, Loader=_PARSER))
    except _Refused as error:
        said = f"{error.said} (at line {error.line})"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "at end of document" if mark is None else f"at line {mark.line + 1}, column {mark.column + 1}"
        said = f"it cannot be parsed ({place})"
    except (yaml.YAMLError, ValueError):
        said = "a character is not allowed"
    else:
        if document is None:
            return {}
        if isinstance(document, dict):
            return document  # pyright: ignore[reportUnknownVariableType]  # its keys are texts
        raise RuleError("The file must contain a mapping, as in rules: [{type: news, limit: 1/day}].")
    raise RuleError(f"The file is not valid YAML: {said}.")


def _document(events: Iterable[Any]) -> object:  # Any: events of PyYAML, which have no types
    # Made of the events and not of the nodes: each event has its line, and no depth is too deep for a loop.
    document: object = None
    documents = 0
    # What is open, outermost first: a list, or a dict and its next key, if that has been read.
    open_: list[tuple[list[object] | dict[str, object], list[str]]] = []
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("an alias is not allowed, write out what it stands for", event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused("there is a second document", event)
        value: object
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, key=bool(open_) and isinstance(open_[-1][0], dict) and not open_[-1][1])
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if event.tag is not None and not event.implicit:
                raise _Refused("a tag is not allowed", event)
            if len(open_) >= _DEEPEST:
                raise _Refused("it is nested too deeply", event)
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            open_.pop()
            continue
        else:
            continue
        if not open_:
            document = value
        else:
            _add(value, *open_[-1], event)
        if isinstance(value, (dict, list)):
            open_.append((value, []))  # pyright: ignore[reportUnknownArgumentType]  # it was made here
    return document


def _add(value: object, into: list[object] | dict[str, object], key: list[str], event: Any) -> None:  # Any: as above
    if isinstance(into, list):
        into.append(value)
    elif key:
        into[key.pop()] = value
    elif not isinstance(value, str):
        raise _Refused("a key must be a text", event)
    elif value in into:
        raise _Refused("a key is defined twice", event)
    else:
        key.append(value)


def _scalar(event: Any, *, key: bool) -> object:  # Any: as above
    text: str = event.value
    plain, quoted = event.implicit
    if not plain and not quoted and event.tag != _TEXT:
        raise _Refused("a tag is not allowed", event)
    if key or not plain:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER(text):
        return int(text)
    return float(text) if _FLOAT(text) else text
