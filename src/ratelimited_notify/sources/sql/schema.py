"""Making the tables, or the SQL that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.sources.sql.database import Database, not_known, own_engine, place_of, url_of
from ratelimited_notify.sources.sql.failures import failure_of
from ratelimited_notify.sources.sql.postgresql import trigger_statements
from ratelimited_notify.sources.sql.sqlite import holds_windows
from ratelimited_notify.sources.sql.tables import metadata, version

if TYPE_CHECKING:
    from sqlalchemy import Connection

_FIRST = (
    "INSERT INTO notify_rules_version (id, version) SELECT 1, 1 WHERE NOT EXISTS (SELECT 1 FROM notify_rules_version)"
)


def statements(url: str) -> list[str]:
    """The SQL that makes the tables, on PostgreSQL with the triggers, without a connection. It can be run again.

    Arguments:
        url: of the database. Only its kind counts: `postgresql://` is enough.

    Raises:
        NotifyError: it is not the URL of a database.
    """
    parsed = url_of(url)
    try:
        dialect = parsed.get_dialect()()
    except (NoSuchModuleError, ArgumentError):
        dialect = None
    if dialect is None:
        raise NotifyError(not_known(parsed))
    made = [
        str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)).strip() for table in metadata.sorted_tables
    ]
    return [*made, _FIRST, *(trigger_statements() if dialect.name == "postgresql" else ())]


def make_tables(url: str) -> tuple[str, bool]:
    """Make the tables, unless they are there, and the triggers on PostgreSQL.

    Arguments:
        url: of the database. An SQLite file is created.

    Returns:
        Where they are, without a password, and whether changes are announced.

    Raises:
        NotifyError: the database cannot be reached, or refuses.
    """
    parsed = url_of(url)
    place = place_of(parsed)
    engine = own_engine(parsed, create=True)
    try:
        with engine.begin() as connection:
            if holds_windows(connection):
                raise NotifyError(
                    f"The file {place} holds the windows of a limiter (storage='sqlite:///…'), and nothing else may be in it. "
                    "Give the rules a file of their own."
                )
            metadata.create_all(connection)
            if connection.execute(version.select()).first() is None:
                connection.execute(version.insert().values(id=1))
            return place, _announced(connection)
    except (SQLAlchemyError, UnicodeError) as error:
        database = Database(engine)
        database.place = place
        failure = failure_of(error, database)
    # Outside of the block, so that nothing is chained to it: the error of SQLAlchemy may contain a password.
    raise failure


def _announced(connection: Connection) -> bool:
    """Make the triggers, if there are rights to."""
    if connection.dialect.name != "postgresql":
        return False
    try:
        with connection.begin_nested():
            for statement in trigger_statements():
                connection.exec_driver_sql(statement.replace("%", "%%"))
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) != "42501":
            raise
        return False
    return True
