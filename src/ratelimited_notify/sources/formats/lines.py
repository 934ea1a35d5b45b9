"""On which line of a text a place such as `rules[3].limit` is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.sources.formats import kind_of_file
from ratelimited_notify.sources.formats.toml import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    _Path: TypeAlias = tuple[str | int, ...]
    _Lines: TypeAlias = dict[_Path, int]

_DEEPEST = 8
"""No problem is in a place further down."""

_STEP = re.compile(r"\[([0-9]{1,9})\]|\.?([^.\[\]]+)")
_SAID = re.compile(r"\(at line ([0-9]{1,9})[,)]").search

_HEADER = re.compile(r"(\[\[?)([^\[\]]*)\]").match
_KEY = re.compile(r"([^=\[\]{}]+)=").match
_JSON = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],]|\n')


def line_finder(content: bytes, ending: str) -> Callable[[str, str], int | None]:
    """A function that finds the line of a problem, from its place and its message.

    Arguments:
        content: the bytes of a file.
        ending: the ending of its name, such as `.toml`.

    Returns:
        The function. It returns the number of the line, or of the line where the rule begins that the place is in; None if it
        is not known.
    """
    lines: _Lines = {}
    kind = kind_of_file(ending)
    text = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    try:
        {"TOML": _in_toml, "JSON": _in_json, "YAML": _in_yaml}[kind](text, lines)
    except Exception:  # noqa: BLE001  # what cannot be parsed has no places; its message has the line
        lines.clear()

    def find(place: str, message: str) -> int | None:
        said = _SAID(message)
        if said is not None:
            return int(said[1])
        path: _Path = tuple(int(number) if number else name for number, name in _STEP.findall(place))
        while path and path not in lines:
            path = path[:-1]
        return lines.get(path)

    return find


class _Counted:
    """Notes the line of each place, and numbers the entries of each table: `overrides[2]` is the third."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._entries: dict[_Path, int] = {}

    def note(self, path: _Path, line: int) -> None:
        if not path or len(path) > _DEEPEST or path in self._lines:
            return
        self._lines[path] = line
        if isinstance(path[-1], str):
            number = self._entries.get(path[:-1], 0)
            self._entries[path[:-1]] = number + 1
            self._lines.setdefault((*path[:-1], number), line)


def _in_toml(text: str, lines: _Lines) -> None:
    counted = _Counted(lines)
    tables: dict[_Path, int] = {}
    here: _Path = ()
    depth = 0
    # Without brackets and equals signs that mean nothing; each string keeps its lines.
    for number, line in enumerate(TEXT.sub(_masked, text).split("\n"), 1):
        rest = line.strip()
        if depth == 0:
            header, key = _HEADER(rest), _KEY(rest)
            if header is not None:
                path = _path(header[2])
                if header[1] == "[[":
                    tables[path] = tables.get(path, -1) + 1
                    here = (*path, tables[path])
                else:
                    here = _inside(path, tables)
                counted.note(here, number)
                continue
            if key is not None:
                path = (*here, *_path(key[1]))
                for end in range(len(here) + 1, min(len(path), _DEEPEST) + 1):
                    counted.note(path[:end], number)
                rest = rest[key.end() :]
        depth += sum(map(rest.count, "[{")) - sum(map(rest.count, "]}"))


def _masked(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] == "#":
        return ""
    # A key in quotes is known by where it is: it may be an address.
    return f"q{found.start()}" + "\n" * text.count("\n")


def _path(text: str) -> _Path:
    return tuple(part.strip() for part in text.split("."))


def _inside(path: _Path, tables: dict[_Path, int]) -> _Path:
    """The path of a table in the last of several tables: `[rules.overrides]`."""
    if path[:1] in tables:
        return (*path[:1], tables[path[:1]], *path[1:])
    return path


def _in_json(text: str, lines: _Lines) -> None:
    counted = _Counted(lines)
    # What is open, outermost first: the number of the element of a list, or the key in an object, which is None before it.
    open_: list[int | str | None] = []
    line = 1
    for found in _JSON.finditer(text):
        piece = found[0]
        if piece == "\n":
            line += 1
            continue
        if piece in "]}":
            open_.pop()
        elif piece == ",":
            inner = open_[-1]
            open_[-1] = inner + 1 if isinstance(inner, int) else None
        else:
            if open_ and open_[-1] is None and piece[0] == '"':
                open_[-1] = piece[1:-1]
            counted.note(tuple(each for each in open_[: _DEEPEST + 1] if each is not None), line)
            if piece in "[{":
                open_.append(0 if piece == "[" else None)


def _in_yaml(text: str, lines: _Lines) -> None:
    import yaml

    counted = _Counted(lines)
    open_: list[int | str | None] = []
    events: Iterable[Any] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]  # Any: PyYAML has no types
    for event in events:
        mark: Any = event.start_mark  # Any: as above
        line: int = mark.line + 1
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            open_.pop()
        elif isinstance(event, yaml.ScalarEvent) and open_ and open_[-1] is None:
            open_[-1] = str(event.value)
            counted.note(tuple(each for each in open_[: _DEEPEST + 1] if each is not None), line)
            continue
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent, yaml.ScalarEvent)):
            counted.note(tuple(each for each in open_[: _DEEPEST + 1] if each is not None), line)
            if not isinstance(event, yaml.ScalarEvent):
                open_.append(None if isinstance(event, yaml.MappingStartEvent) else 0)
                continue
        else:
            continue
        if open_:
            inner = open_[-1]
            open_[-1] = inner + 1 if isinstance(inner, int) else None
