"""Arguments of log records in one line each, so that nothing in them can look like another record or move the cursor."""

from __future__ import annotations


def in_one_line(arguments: tuple[object, ...]) -> tuple[object, ...]:
    """The arguments, of which none has more than one line in any format. Numbers stay what they are."""
    return tuple(each if isinstance(each, (int, float)) else _OneLine(each) for each in arguments)


class _OneLine:
    # An argument of a record, so that nothing in it can look like another record or move the cursor.

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return one_line(str(self._value))

    def __repr__(self) -> str:
        return one_line(repr(self._value))


def one_line(text: str) -> str:
    """The text in one line, without control characters."""
    if text.isprintable():
        return text
    lines = " | ".join(text.splitlines())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in lines)
