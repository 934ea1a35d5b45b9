"""Numbers as the file has them: 64 bits each, little-endian, on every machine."""

from __future__ import annotations

import sys
from array import array

from ratelimited_notify.storage.sqlite import failures


def numbers(stored: object) -> array[int]:
    """The numbers that were stored.

    Raises:
        StorageError: this is something else.
    """
    found = array("q")
    try:
        found.frombytes(stored)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # another program may have written anything
    except (TypeError, ValueError):
        raise failures.unreadable("a count") from None
    if sys.byteorder == "big":
        found.byteswap()
    return found


def as_bytes(found: array[int]) -> bytes:
    """The bytes to store."""
    if sys.byteorder == "big":
        found = found[:]
        found.byteswap()
    return found.tobytes()
