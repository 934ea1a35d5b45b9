"""The tables of the file, their version, and whose file it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.storage.sqlite import failures

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection

VERSION = 1
"""The version of the tables below. A file of a later version is refused."""

APPLICATION = 0x724C6E57
"""What SQLite calls the application id: it says that a file is one of this library's windows."""

_TABLES = (
    "CREATE TABLE schema_of_windows (version INTEGER NOT NULL)",
    f"INSERT INTO schema_of_windows VALUES ({VERSION})",  # noqa: S608  # a number of ours
    # A row per recipient; see `item`.
    "CREATE TABLE items (head TEXT PRIMARY KEY, expires INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX items_by_expiry ON items (expires)",
    # See `large`.
    "CREATE TABLE blocks (id INTEGER PRIMARY KEY, newest INTEGER NOT NULL, total INTEGER NOT NULL, hits BLOB NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
)


def is_ready(connection: Connection, path: Path) -> bool:
    """Whether the file has the tables. False if it is empty.

    Raises:
        StorageError: the file is another program's, or a later release's.
        sqlite3.Error: the file cannot be read.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    if application == APPLICATION:
        found: object = connection.execute("SELECT max(version) FROM schema_of_windows").fetchone()[0]
        if not isinstance(found, int) or found < 1:
            raise failures.changed(path)
        if found > VERSION:
            raise failures.later(path, found, VERSION)
        return True
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application or tables:
        raise failures.foreign(path)
    return False


def create(connection: Connection, path: Path) -> None:
    """Make the tables, unless another process was faster."""
    use_log(connection, path)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not is_ready(connection, path):
            for statement in _TABLES:
                connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def use_log(connection: Connection, path: Path) -> None:
    """Let SQLite write to a log first, so that a write waits for no reader and no disk."""
    ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
    if mode != b"wal":
        raise failures.no_wal(path)
