"""Read notifications from a stream, one JSON object per line. Lines are read on demand and may contain any bytes."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Annotated, BinaryIO

import msgspec

from ratelimited_notify.errors import NotifyError, is_name
from ratelimited_notify.notification.cost import LARGEST_AMOUNT
from ratelimited_notify.notification.notification import Notification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_LINE = 1_048_576
"""The longest line, in bytes. A longer line is malformed, and is never held in memory as a whole."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL).fullmatch

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    type: _Text
    recipient: _Text
    subject: str
    body: str
    priority: str | None = None
    cost: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_AMOUNT)] = 1
    fields: dict[str, str | int | None] = {}  # msgspec copies it for each object


KEYS = _Line.__struct_fields__
"""The keys that an object may have."""

_decode = msgspec.json.Decoder(_Line).decode


class InputError(NotifyError):
    """The input cannot be read to its end. Lines that were read before are processed."""


class Input:
    """Iterates over the notifications of a stream. The `id` of a notification is its line number.

    Arguments:
        stream: the bytes.
        malformed: called for each malformed line, with its number and a description of the problem that does not quote
            the line.
    """

    def __init__(self, stream: BinaryIO, malformed: Callable[[int, str], None]) -> None:
        self._stream = stream
        self._malformed = malformed
        self.size = _size(stream)
        """The size of the stream in bytes, or None if it is not known in advance."""
        self.position = 0
        """How many bytes have been read."""

    def __iter__(self) -> Iterator[Notification]:
        """Yield the notifications. Raises `InputError` if the stream cannot be read to its end."""
        for number, line in self._lines():
            if line is None:
                self._malformed(number, f"longer than {LONGEST_LINE:,} bytes")
                continue
            if not line.strip():
                continue
            try:
                read = _decode(line)
            except ValueError as error:
                self._malformed(number, _problem(error))
                continue
            if not all(map(is_name, read.fields)):
                self._malformed(number, "a field has a name that cannot be declared")
                continue
            try:
                notification = Notification(
                    read.type,
                    read.recipient,
                    (read.subject, read.body),
                    priority=read.priority,
                    cost=read.cost,
                    fields=read.fields,
                    id=str(number),
                )
            except NotifyError as error:
                self._malformed(number, str(error))
                continue
            yield notification

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield each line with its number. A line that is too long is None."""
        number = 0
        while line := self._read():
            number += 1
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if len(line) <= LONGEST_LINE:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = self._read()
            yield number, None

    def _read(self) -> bytes:
        """Read to the end of the line, or one byte more than the longest line."""
        try:
            line = self._stream.readline(LONGEST_LINE + 1)
        except OSError as error:
            raise InputError(
                f"The input cannot be read any further: {error.strerror or type(error).__name__}."
            ) from None
        self.position += len(line)
        return line


def _size(stream: BinaryIO) -> int | None:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _problem(error: Exception) -> str:
    """Describe what is wrong with a line, without quoting any of its content."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    said = str(error)
    unknown = _UNKNOWN_KEY(said)
    if said.startswith("Expected `object`") and "$" not in said:
        return "not a JSON object; each line must be one"
    if unknown is None:
        return said
    # A key may be anything, even an address, so it is shown only if it looks like the name of an option.
    named = f"{unknown[1]!r}" if is_name(unknown[1]) else "a key"
    return f"{named} is not known; known are {', '.join(KEYS)}"
