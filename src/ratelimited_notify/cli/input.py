"""Read notifications from a stream, one JSON object per line. Lines are read on demand and may contain any bytes."""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import suppress
from gzip import BadGzipFile, GzipFile
from io import RawIOBase
from typing import TYPE_CHECKING, BinaryIO

from ratelimited_notify.cli.first_bytes import GZIP, unreadable
from ratelimited_notify.cli.line import Malformed, read_line
from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimited_notify.notification.notification import Notification

LONGEST_LINE = 1_048_576
"""The longest line, in bytes. A longer line is malformed, and is never held in memory as a whole."""

_AROUND = b" \t\r\n\v\f\x1a\xef\xbb\xbf"
"""What may stand before the first notification: space, Ctrl-Z and the bytes of a byte order mark."""


class InputError(NotifyError):
    """The input cannot be read to its end. Lines that were read before are processed."""


class WrongFormat(NotifyError):
    """The input is not JSON lines. Nothing of it was processed. The message says what to do."""


class Input:
    """Iterates over the notifications of a stream. The `id` of a notification is its line number.

    Arguments:
        stream: the bytes. If they are compressed with gzip, they are unpacked.
        malformed: called for each malformed line, with its number and a description of the problem that does not quote
            the line.
    """

    def __init__(self, stream: BinaryIO, malformed: Callable[[int, str], None]) -> None:
        self._stream: BinaryIO | GzipFile = stream
        self._malformed = malformed
        self.size = _size(stream)
        """The size of the stream in bytes, or None if it is not known in advance."""
        self._read_bytes = 0
        self._compressed: _Replayed | None = None

    @property
    def position(self) -> int:
        """How many bytes of the stream have been read."""
        return self._read_bytes if self._compressed is None else self._compressed.position

    def __iter__(self) -> Iterator[Notification]:
        """Yield the notifications.

        Raises:
            WrongFormat: the input does not begin like JSON lines.
            InputError: the stream cannot be read to its end.
        """
        for number, line in self._lines():
            if line is None:
                self._malformed(number, f"longer than {LONGEST_LINE:,} bytes")
                continue
            try:
                notification = read_line(line, number)
            except Malformed as error:
                self._malformed(number, str(error))
                continue
            if notification is not None:
                yield notification

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield each line with its number. A line that is too long is None."""
        number, begun = 0, False
        if self._is_packed():
            self._unpack(b"")
        while line := self._read():
            if number == 0 and line.startswith(GZIP) and self._compressed is None:
                self._unpack(line)
                continue
            number += 1
            if not begun and (begun := bool(line.strip(_AROUND))) and (said := unreadable(line)) is not None:
                raise WrongFormat(f"Nothing was sent. {said}")
            if len(line) <= LONGEST_LINE:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = self._read()
            yield number, None

    def _is_packed(self) -> bool:
        """Whether the first bytes are those of gzip. From a pipe, a line of packed bytes may be long in coming."""
        peek: Callable[[int], bytes] | None = getattr(self._stream, "peek", None)
        with suppress(OSError):  # reading raises it again
            return peek is not None and peek(len(GZIP)).startswith(GZIP)
        return False

    def _unpack(self, head: bytes) -> None:
        """Go on with what is in the gzip file that begins with these bytes."""
        self._compressed = _Replayed(head, self._stream)
        self._stream = GzipFile(fileobj=self._compressed, mode="rb")

    def _read(self) -> bytes:
        """Read to the end of the line, or one byte more than the longest line."""
        try:
            line = self._stream.readline(LONGEST_LINE + 1)
        except (EOFError, BadGzipFile, zlib.error) as error:
            reason = "the gzip file ends too early" if isinstance(error, EOFError) else "the gzip file is damaged"
        except OSError as error:
            reason = error.strerror or "the system gave no reason"
        else:
            self._read_bytes += len(line)
            return line
        raise InputError(f"The input cannot be read any further: {reason}.")


class _Replayed(RawIOBase):
    """A stream from which some bytes were already read."""

    def __init__(self, head: bytes, stream: BinaryIO | GzipFile) -> None:
        self._head = head
        self._stream = stream
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # io passes nothing but memoryviews
        if self._head:
            chunk, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            # What a pipe has so far, without waiting until the buffer is full.
            read = getattr(self._stream, "read1", self._stream.read)
            chunk = read(len(buffer))
        buffer[: len(chunk)] = chunk
        self.position += len(chunk)
        return len(chunk)


def _size(stream: BinaryIO) -> int | None:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
