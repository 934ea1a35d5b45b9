"""A small fault in one file, as a replacement in its text."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One replacement."""

    file: str
    """The path below `src/ratelimited_notify`."""
    start: int
    """Where it begins, in characters."""
    end: int
    text: str
    """What stands there instead."""

    def planted(self, source: str) -> str:
        """The file with the fault in it."""
        return source[: self.start] + self.text + source[self.end :]

    def lines(self, source: str) -> tuple[int, str, str]:
        """The number of the line, and the line before and after, without indentation."""
        first = source.rfind("\n", 0, self.start) + 1
        last = source.find("\n", self.end)
        last = len(source) if last < 0 else last
        before = source[first:last]
        after = source[first : self.start] + self.text + source[self.end : last]
        return source.count("\n", 0, self.start) + 1, _flat(before), _flat(after)


def _flat(lines: str) -> str:
    return " ".join(line.strip() for line in lines.splitlines())
