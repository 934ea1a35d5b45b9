"""Recognize inputs that are not JSON lines by how they begin, so that one message says what to do. No I/O."""

from __future__ import annotations

import re

GZIP = b"\x1f\x8b"
"""How a gzip file begins. It is read as what is in it."""

_LINES = "It must be UTF-8 text with one JSON object in each line."

_ICONV = f"{_LINES} Convert it, for example with: iconv -f {{0}} -t UTF-8 FILE"
_UNPACK = "Unpack it, for example with: {0} FILE | ratelimited-notify send ..."

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\0\0", f"The input is UTF-32. {_ICONV.format('UTF-32')}"),
    (b"\0\0\xfe\xff", f"The input is UTF-32. {_ICONV.format('UTF-32')}"),
    (b"\xff\xfe", f"The input is UTF-16. {_ICONV.format('UTF-16')}"),
    (b"\xfe\xff", f"The input is UTF-16. {_ICONV.format('UTF-16')}"),
    (b"{\0\0\0", f"The input is UTF-32. {_ICONV.format('UTF-32LE')}"),
    (b"\0\0\0{", f"The input is UTF-32. {_ICONV.format('UTF-32BE')}"),
    (b"{\0", f"The input is UTF-16. {_ICONV.format('UTF-16LE')}"),
    (b"\0{", f"The input is UTF-16. {_ICONV.format('UTF-16BE')}"),
    (b"PK\x03\x04", f"The input is a ZIP archive or a spreadsheet. {_LINES}"),
    (b"7z\xbc\xaf\x27\x1c", f"The input is a 7z archive. {_LINES}"),
    (b"Rar!\x1a\x07", f"The input is a RAR archive. {_LINES}"),
    (b"\xd0\xcf\x11\xe0", f"The input is an Office document. {_LINES}"),
    (b"%PDF-", f"The input is a PDF document. {_LINES}"),
    (GZIP, f"The input is compressed twice. {_UNPACK.format('gzip -dc')}"),
    (b"BZh", f"The input is compressed with bzip2. {_UNPACK.format('bzip2 -dc')}"),
    (b"\xfd7zXZ\0", f"The input is compressed with xz. {_UNPACK.format('xz -dc')}"),
    (b"\x28\xb5\x2f\xfd", f"The input is compressed with zstd. {_UNPACK.format('zstd -dc')}"),
)

_TAR = f"The input is a tar archive. {_UNPACK.format('tar -xOf')}"

_ARRAY = (
    "The input is one JSON array. Each line must be one JSON object. Convert it, for example with: jq -c '.[]' FILE"
)
_PRETTY = (
    "The input is JSON with line breaks within an object. Each line must be one whole object. Convert it, for example "
    "with: jq -c . FILE"
)
_CSV = (
    'The input looks like CSV. Each line must be one JSON object, such as {"type": "news", "recipient": "ana@example.com", '
    '"subject": "Hello", "body": "..."}.'
)
_MARKUP = f"The input is XML or HTML. {_LINES}"

_SEPARATOR = re.compile(r"[,;\t|]")
_CELL = re.compile(r"[\w .-]{1,40}").fullmatch
_COLUMNS = frozenset(
    ("type", "recipient", "subject", "body", "email", "e-mail", "mail", "to", "address", "name", "text", "message")
)


def unreadable(line: bytes) -> str | None:
    """Why an input with this first line is not JSON lines, and what to do about it. None if it may be.

    Arguments:
        line: the first line that is not empty.
    """
    for magic, said in _MAGIC:
        if line.startswith(magic):
            return said
    if b"\0" in line and line.startswith(b"ustar", 257):
        return _TAR  # it has no magic at its beginning, but the name of its first file
    text = line.decode(errors="replace").strip(" \t\r\n\v\f\ufeff\x1a")
    if text.startswith("["):
        return _ARRAY
    if text == "{" or (text.startswith("{") and text.endswith(",") and not text.endswith("},")):
        return _PRETTY
    if text.startswith("<"):
        return _MARKUP
    return _CSV if _is_header(text) else None


def _is_header(text: str) -> bool:
    """Whether the line is a row of column names, one of which is usual for notifications."""
    cells = [cell.strip(" \"'") for cell in _SEPARATOR.split(text)]
    return len(cells) > 1 and all(map(_CELL, cells)) and not _COLUMNS.isdisjoint(map(str.lower, cells))
