"""The database that the rules are in: where it is, and what makes connections to it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from sqlalchemy import URL, Engine, NullPool, SingletonThreadPool, StaticPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ratelimited_notify.callables import check_is_called_only
from ratelimited_notify.errors import MissingExtra, NotifyError
from ratelimited_notify.rules.table import meant
from ratelimited_notify.sources.base import SOURCE_OPTIONS
from ratelimited_notify.sources.taking import check_takes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    Given: TypeAlias = "str | URL | Engine | AsyncEngine | Callable[[], Engine]"

CONNECT_TIMEOUT = 10
"""Seconds until a connection must be open, unless the URL says something else."""

_WAYS = (
    "a URL such as 'postgresql+psycopg://user@host/database' or 'sqlite:///rules.db', an Engine of SQLAlchemy, or a function "
    "that returns one"
)

_IN_MEMORY = (
    "A database of SQLite in memory belongs to one connection, and the thread that keeps rules up to date needs another one. Use "
    "a file, or share the memory: 'sqlite:///file:rules?mode=memory&cache=shared&uri=true'."
)

_NO_HOST = "An SQLite file has no host. Write three slashes before its path, as in sqlite:///rules.db, and four if the path is absolute."

_DRIVERS = {
    "aiomysql": "pymysql",
    "aioodbc": "pyodbc",
    "aiosqlite": "pysqlite",
    "asyncmy": "pymysql",
    "asyncpg": "psycopg",
    "oracledb_async": "oracledb",
    "psycopg_async": "psycopg",
}
"""For each asyncio driver the one that a thread can use."""

_USUAL = {
    "mariadb": "mariadb+pymysql://",
    "mssql": "mssql+pyodbc://",
    "mysql": "mysql+pymysql://",
    "oracle": "oracle+oracledb://",
    "postgresql": "postgresql+psycopg://, which pip install 'ratelimited-notify[postgresql]' installs",
}
"""For each kind of database, a URL with a driver that many use."""

_RENAMED = {"ssl": "sslmode", "timeout": "connect_timeout"}
_DROPPED = (
    "async_fallback",
    "command_timeout",
    "max_cached_statement_lifetime",
    "max_cacheable_statement_size",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "statement_cache_size",
)
# Options of asyncpg, which psycopg calls differently or does not have.

_SQLITE = (
    *(
        "cache",
        "cached_statements",
        "check_same_thread",
        "detect_types",
        "immutable",
        "isolation_level",
        "mode",
        "modeof",
        "nolock",
    ),
    *("psow", "timeout", "uri", "vfs"),
)
"""The options of SQLite, and of its driver in the standard library."""

_LIBPQ: Mapping[str, object] = {
    "connect_timeout": CONNECT_TIMEOUT,
    # A host that is gone says nothing. Without these the system would wait for hours.
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "ratelimited-notify",
}


class Database:
    """What makes the connections: an engine of the user, or one of our own that keeps no connection.

    Arguments:
        given: what the user gave to the source.

    Raises:
        NotifyError: it cannot be used. The message shows no password.
    """

    def __init__(self, given: Given) -> None:
        self.place = ""
        """Where the database is, without user and password. Empty until a factory has been called."""
        self.hint = ""
        """What to try if there is no connection."""
        self._engine: Engine | None = None
        self._factory: Callable[[], Engine] | None = None
        self._is_given = False
        sync = getattr(given, "sync_engine", given)
        if isinstance(sync, Engine):
            if not sync.dialect.is_async:
                self._take(sync)
                return
            self.hint = (
                " It was tried with an engine made from the URL of the AsyncEngine. If that one needs more than its URL, pass a "
                "function that returns an Engine."
            )
            given = sync.url
        if isinstance(given, (str, URL)):
            url = url_of(given)
            self._engine, self.place = own_engine(url), place_of(url)
        elif callable(given):
            check_is_called_only(given, "The function for SQLRules")
            check_takes(given, 0, "SQLRules calls its function without an argument, so it cannot be called")
            self._factory = given
        else:
            raise NotifyError(f"SQLRules needs {_WAYS}, not a {type(given).__name__}.")

    def engine(self) -> Engine:
        """The engine of this process.

        Raises:
            NotifyError: the factory did not return an engine.
        """
        if self._engine is None:
            made: object = None if self._factory is None else self._factory()
            if not isinstance(made, Engine) or made.dialect.is_async:
                raise NotifyError(
                    f"The function for SQLRules returned a {type(made).__name__}; it must return an Engine of SQLAlchemy that "
                    "is not for asyncio."
                )
            return self._take(made)
        return self._engine

    def _take(self, engine: Engine) -> Engine:
        """Use this engine, or one with its URL if all threads share its connection, or its connection belongs to one thread."""
        self._is_given, self.place = True, place_of(engine.url)
        if isinstance(engine.pool, (SingletonThreadPool, StaticPool)):
            self._is_given, engine = False, own_engine(engine.url)
        self._engine = engine
        return engine

    def forked(self) -> None:
        """Let the connections of the parent alone, in a forked child, before any other code runs there."""
        if self._engine is not None and self._is_given:
            self._engine.dispose(close=False)
        if self._factory is not None:
            self._engine = None


def url_of(given: str | URL) -> URL:
    """The URL, with a driver that a thread can use.

    Raises:
        NotifyError: it is not a URL of a database. The message does not show it.
    """
    try:
        url = make_url(given.replace("postgres://", "postgresql://", 1) if isinstance(given, str) else given)
    except (ArgumentError, ValueError):
        url = None
    if url is None:
        # Outside of the block: the error of SQLAlchemy may quote it.
        raise NotifyError(f"This is not the URL of a database. Write {_WAYS}.")
    if isinstance(given, str) and url.get_backend_name() != "sqlite" and given.count("@") > 1:
        # What follows the first one would count as the host, and be shown.
        raise NotifyError(
            "The URL of a database has more than one @. Write %40 for @ in user name, password and options, and %2F for / there."
        )
    backend, _, driver = url.drivername.partition("+")
    if backend == "postgresql" and not driver and importlib.util.find_spec("psycopg"):
        # Before SQLAlchemy 2.1 it is psycopg2, which is not told about changes.
        return url.set(drivername="postgresql+psycopg")
    if driver not in _DRIVERS:
        return url
    if driver == "asyncpg":
        options = {_RENAMED.get(name, name): value for name, value in url.query.items() if name not in _DROPPED}
        url = url.set(query=options)
    return url.set(drivername=f"{backend}+{_DRIVERS[driver]}")


def not_known(url: URL) -> str:
    """What to say about a kind of database that SQLAlchemy does not know."""
    said = f"SQLAlchemy knows no database {url.drivername!r}."
    if url.drivername.startswith(("redis", "valkey")):
        said += " Rules in Redis need no tables. Write them with rules push, and read them with RedisRules."
    return said


def own_engine(url: URL, *, create: bool = False) -> Engine:
    """An engine that keeps no connection, with time-outs where the driver has them.

    Arguments:
        url: of the database.
        create: whether an SQLite file may be created.

    Raises:
        NotifyError: there is no such kind of database, or its driver is not installed.
    """
    backend, _, driver = url.drivername.partition("+")
    if backend == "sqlite" and url.host:
        raise NotifyError(_NO_HOST)
    if backend == "sqlite" and not is_file(url) and url.query.get("cache") != "shared":
        raise NotifyError(_IN_MEMORY)
    if backend == "sqlite" and driver in ("", "pysqlite"):
        _check_options_of_sqlite(url)
    options: Mapping[str, object] = {}
    if driver.startswith("psycopg"):
        options = {name: value for name, value in _LIBPQ.items() if name not in url.query}
        if driver == "psycopg":
            # PgBouncer gives each transaction another backend, which does not know what was prepared.
            options = {**options, "prepare_threshold": None}
    elif driver in ("pymysql", "mysqldb"):
        options = {"connect_timeout": CONNECT_TIMEOUT}
    elif backend == "sqlite" and driver in ("", "pysqlite") and is_file(url) and "uri" not in url.query:
        # A wrong path must be an error, not an empty database.
        url = url.set(database=f"file:{_absolute(url.database or '')}").update_query_dict(
            {"mode": "rwc" if create else "rw", "uri": "true"}
        )
    try:
        return create_engine(url, poolclass=NullPool, connect_args=dict(options))
    except NoSuchModuleError:
        missing = not_known(url)
    except ImportError as error:
        if backend == "postgresql" and driver in ("", "psycopg"):
            raise MissingExtra("postgresql", "A source of rules at postgresql+psycopg:// (or postgresql://)") from None
        missing = f"Rules in {backend} need the package {error.name or driver}, which is not installed. Install it"
        missing += f", or name another driver in the URL: {_USUAL[backend]}." if backend in _USUAL else "."
    except (ArgumentError, TypeError, ValueError):
        missing = "The options in the URL of the database cannot be used."
    raise NotifyError(missing)


def _absolute(path: str) -> str:
    """The path of a file as it is written in a URI of SQLite.

    Raises:
        NotifyError: it is no text.
    """
    try:
        return quote(str(Path(path).absolute()))
    except UnicodeEncodeError:
        pass
    raise NotifyError("The path in the URL of the database contains a character that cannot be printed.")


def _check_options_of_sqlite(url: URL) -> None:
    """Check that SQLite knows the options in a URL. Itself, it says nothing about one that it does not know.

    Raises:
        NotifyError: it does not know one of them.
    """
    unknown = next((name for name in url.query if name not in _SQLITE), None)
    if unknown in SOURCE_OPTIONS:
        raise NotifyError(
            f"{unknown} is an option of the source and not of the database: write SQLRules(url, {unknown}=...). A URL has it "
            "only where a text names a source, as in RATELIMITED_NOTIFY_RULES."
        )
    if unknown is not None:
        raise NotifyError(
            f"The URL of the database has an option that is not known.{meant(unknown, (*SOURCE_OPTIONS, *_SQLITE))} SQLite has "
            f"{', '.join(_SQLITE)}; a source that is named by a text also has {', '.join(SOURCE_OPTIONS)}."
        )


def is_file(url: URL) -> bool:
    """Whether a database of SQLite is a file, and not in memory."""
    return url.database not in (None, "", ":memory:") and url.query.get("mode") != "memory"


def place_of(url: URL) -> str:
    """Where a database is, without user, password and options, any of which may be secret."""
    host = url.host or ""
    if ":" in host:
        host = f"[{host}]"
    port = "" if url.port is None else f":{url.port}"
    return f"{url.get_backend_name()}://{host}{port}/{url.database or ''}"
