"""What is special about SQLite: a number that shows changes of other connections, and transactions that must be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError

if TYPE_CHECKING:
    from sqlalchemy import Connection


class DataVersion:
    """Tells that a database has not changed since rules were read from it, without reading them again.

    The number that SQLite has for that is comparable on one connection only, and does not count its own changes. Ours makes none.

    Arguments:
        connection: to the database.
    """

    def __init__(self, connection: Connection) -> None:
        self._path = _path_of(connection)
        self._file = self._identity()
        self._seen: object = None
        self._version: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether another file has taken the place of the one that is open, such as a backup of it."""
        return self._identity() != self._file

    def look(self, connection: Connection, known: str | None) -> bool:
        """Whether nothing has changed since this version was read. Otherwise, say with `read` which one is there."""
        seen = connection.exec_driver_sql("PRAGMA data_version").scalar()
        if known is not None and known == self._version and seen == self._seen:
            return True
        self._seen, self._version = seen, None
        return False

    def read(self, version: str) -> None:
        """Note which version was read after the last look."""
        self._version = version

    def _identity(self) -> tuple[int, int] | None:
        if not self._path:
            return None
        try:
            found = Path(self._path).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def holds_windows(connection: Connection) -> bool:
    """Whether this is a file of the SQLite storage, in which the windows are."""
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'schema_of_windows'"
    return connection.dialect.name == "sqlite" and bool(connection.exec_driver_sql(query).scalar())


def windows_instead_of_rules(connection: Connection) -> RuleError | None:
    """The error to raise if this file holds windows."""
    if not holds_windows(connection):
        return None
    return RuleError(
        f"The file {_path_of(connection)} holds the windows of a limiter (storage='sqlite:///…'), no rules. Give the rules a file of "
        "their own. To make it, run: ratelimited-notify rules init sqlite:///rules.db."
    )


def begin(connection: Connection) -> None:
    """Begin a transaction that sees one state of the database: its driver begins one only to write."""
    if not getattr(connection.connection.dbapi_connection, "in_transaction", False):
        connection.exec_driver_sql("BEGIN")


def _path_of(connection: Connection) -> str:
    """The path of the file; empty for a database in memory."""
    paths = [row[2] for row in connection.exec_driver_sql("PRAGMA database_list") if row[1] == "main"]
    return str(paths[0] or "") if paths else ""
