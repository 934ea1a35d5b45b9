"""The rows of recipients: reading, writing and deleting them, in a transaction of the caller."""

from __future__ import annotations

from contextlib import suppress
from sqlite3 import DataError
from typing import TYPE_CHECKING

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.sqlite import failures
from ratelimited_notify.storage.sqlite.item import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from sqlite3 import Cursor

_SELECT = "SELECT expires, value FROM items WHERE head = ?"
_SELECT_MANY = "SELECT head, expires, value FROM items WHERE head IN"
_UPDATE = "UPDATE items SET value = ? WHERE head = ?"
_REPLACE = "INSERT OR REPLACE INTO items (value, head, expires) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM items WHERE head = ?"
_EXPIRED = "SELECT head, value FROM items WHERE expires <= ? LIMIT ?"
# Heads come as bytes, and are text unless another program wrote them.
_DELETE_EXPIRED = "DELETE FROM items WHERE head IN (CAST(? AS TEXT), ?)"
_DELETE_UNREAD = "DELETE FROM items WHERE head IN (SELECT head FROM items WHERE expires <= ? LIMIT ?)"

_AT_ONCE = 250
"""How many rows one statement reads. Old releases of SQLite take less than a thousand arguments."""

_LATER = 8
"""A row is indexed under an instant later than its end by one part in this many of the time until then. So most decisions leave
the index as it is."""

_LATEST = (1 << 63) - 1
"""The latest instant that SQLite has a number for."""


def load(cursor: Cursor, head: str) -> Item:
    """The windows under a key head."""
    try:
        found = cursor.execute(_SELECT, (head,)).fetchone()
    except DataError:
        # Larger than any row of ours.
        raise failures.unreadable("a row") from None
    return Item(head, None, b"") if found is None else Item(head, *found)


def load_many(cursor: Cursor, heads: Sequence[str]) -> list[Item]:
    """The windows under each of these key heads."""
    found: dict[str, tuple[int, bytes]] = {}
    for start in range(0, len(heads), _AT_ONCE):
        part = heads[start : start + _AT_ONCE]
        places = ", ".join("?" * len(part))
        try:
            for head, *row in cursor.execute(f"{_SELECT_MANY} ({places})", part):
                found[head.decode()] = row[0], row[1]
        except DataError:
            raise failures.unreadable("a row") from None
    return [Item(head, *found[head]) if head in found else Item(head, None, b"") for head in heads]


def save(cursor: Cursor, items: Iterable[Item], now: int) -> None:
    """Write these rows. A row whose windows are all over is deleted."""
    updated: list[tuple[bytes, str]] = []
    replaced: list[tuple[bytes, str, int]] = []
    for item in items:
        encoded = item.encode(now, cursor)
        if encoded is None:
            cursor.execute(_DELETE, (item.head,))
            continue
        value, end = encoded
        try:
            is_indexed = item.expires is not None and end <= item.expires
        except TypeError:
            # Another program wrote it.
            is_indexed = False
        if is_indexed:
            updated.append((value, item.head))
        else:
            item.expires = min(end + (end - now) // _LATER, _LATEST)
            replaced.append((value, item.head, item.expires))
    for statement, rows in ((_UPDATE, updated), (_REPLACE, replaced)):
        if len(rows) == 1:
            cursor.execute(statement, rows[0])
        elif rows:
            cursor.executemany(statement, rows)


def sweep(cursor: Cursor, now: int, most: int) -> int:
    """Delete rows whose windows are over, at most so many. Returns how many."""
    try:
        expired = cursor.execute(_EXPIRED, (now, most)).fetchall()
    except DataError:
        # One is too large to be read. Hits of large windows stay.
        return cursor.execute(_DELETE_UNREAD, (now, most)).rowcount
    for head, value in expired:
        # What cannot be read is an error for its own recipient, not for others.
        with suppress(StorageError):
            Item(head, now, value).drop_all(cursor)
    if expired:
        cursor.executemany(_DELETE_EXPIRED, [(head, head) for head, _ in expired])
    return len(expired)


def delete_all(cursor: Cursor) -> int:
    """Delete all rows. Returns how many recipients they were of."""
    ((held,),) = cursor.execute("SELECT count(*) FROM items")
    cursor.execute("DELETE FROM items")
    cursor.execute("DELETE FROM blocks")
    return int(held)
