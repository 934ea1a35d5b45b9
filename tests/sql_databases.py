"""Databases with the tables of the rules, and a second process that edits them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify.sources.sql.schema import make_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgresql import PostgreSQL

_EDIT = """
import sys
url, *statements = sys.argv[1:]
if url.startswith("/"):
    import sqlite3
    connection = sqlite3.connect(url, isolation_level=None)
else:
    import psycopg
    connection = psycopg.connect(url, autocommit=True)
for statement in statements:
    connection.execute(statement)
connection.close()
"""

_numbers = count(1)


class Tables:
    """A database of one test. Its tables are empty.

    Arguments:
        kind: `sqlite` or `postgresql`.
        url: for SQLAlchemy.
        address: for the driver: a path, or a URL.
    """

    def __init__(self, kind: str, url: str, address: str) -> None:
        self.kind = kind
        self.url = url
        self.address = address

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, each in a transaction of its own, on another connection. Returns the rows of the last one."""
        if self.kind == "sqlite":
            connection = sqlite3.connect(self.address, isolation_level=None)
            try:
                for statement in statements[:-1]:
                    connection.execute(statement)
                return connection.execute(statements[-1]).fetchall()
            finally:
                connection.close()
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as client:
            for statement in statements[:-1]:
                client.execute(statement.encode())
            cursor = client.execute(statements[-1].encode())
            return cursor.fetchall() if cursor.description else []

    def edit(self, *statements: str) -> None:
        """Run statements in another process."""
        subprocess.run([sys.executable, "-c", _EDIT, self.address, *statements], check=True)

    def limit(self, amount: int) -> None:
        """Allow so many news a day."""
        self.run(f"UPDATE notify_rules SET limit_text = '{amount}/day' WHERE type = 'news'")


def sqlite_tables(directory: Path) -> Tables:
    """A file of SQLite."""
    path = directory / "rules.db"
    make_tables(f"sqlite:///{path}")
    return Tables("sqlite", f"sqlite:///{path}", str(path))


def postgresql_tables(server: PostgreSQL) -> Tables:
    """A database on a server."""
    name = f"rules_{next(_numbers)}"
    server.run(f"CREATE DATABASE {name}")
    url = f"postgresql+psycopg://postgres@{server.address}/{name}"
    make_tables(url)
    return Tables("postgresql", url, url.replace("+psycopg", ""))


NEWS = "INSERT INTO notify_rules (type, limit_text) VALUES ('news', '2/day')"


@pytest.fixture(params=["sqlite", "postgresql"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tables]:
    """A database with one rule: two news a day."""
    if request.param == "sqlite":
        made = sqlite_tables(tmp_path)
        made.run(NEWS)
        yield made
    else:
        yield from _on_postgresql(request.getfixturevalue("postgresql"))


@pytest.fixture
def on_postgresql(postgresql: PostgreSQL) -> Iterator[Tables]:
    """The same, only on PostgreSQL."""
    yield from _on_postgresql(postgresql)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Tables:
    """The same, only on SQLite."""
    made = sqlite_tables(tmp_path)
    made.run(NEWS)
    return made


def _on_postgresql(server: PostgreSQL) -> Iterator[Tables]:
    made = postgresql_tables(server)
    made.run(NEWS)
    yield made
    server.run(f"DROP DATABASE {made.url.rpartition('/')[2]} WITH (FORCE)")
