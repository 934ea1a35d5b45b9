"""What to say about a database that cannot be used. Never in the words of the driver, which may contain a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeout

from ratelimited_notify.errors import NotifyError, RuleError

if TYPE_CHECKING:
    from ratelimited_notify.sources.sql.database import Database

_NO_TABLES = (
    "The tables of the rules are missing, or a column of them. To make them, run: ratelimited-notify rules init URL."
)

_BY_SQLSTATE = {
    "28": "the server refused the user or the password",
    "3D": "the server has no such database",
    "42501": "the user has no right to read the tables",
    "53300": "the server has no connection left",
    "57P": "the server is starting or shutting down, or ended the connection",
}
_BY_SQLITE_NAME = {
    "SQLITE_BUSY": "another program keeps the file locked",
    "SQLITE_CANTOPEN": "the file cannot be opened; its path may be wrong, or this user may not be allowed to open it",
    "SQLITE_CORRUPT": "the file is damaged",
    "SQLITE_IOERR": "the file cannot be read",
    "SQLITE_LOCKED": "another connection keeps the tables locked",
    "SQLITE_NOTADB": "the file is not a database",
}
_BY_CLASS = {"ConnectionTimeout": "the server did not answer in time"}


def failure_of(error: Exception, database: Database) -> NotifyError:
    """The error to raise instead: a `RuleError` if the database answered, and something in it is missing."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    state = str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")
    name = str(getattr(cause, "sqlite_errorname", ""))
    if state in ("42P01", "42703", "3F000") or (name == "SQLITE_ERROR" and "no such" in str(cause)):
        return RuleError(_NO_TABLES)
    why = _BY_CLASS.get(type(cause).__name__) or next(
        (
            said
            for words, code in ((_BY_SQLSTATE, state), (_BY_SQLITE_NAME, name))
            for start, said in words.items()
            if code.startswith(start)
        ),
        None,
    )
    if why is None:
        why = "no connection of the pool became free" if isinstance(error, PoolTimeout) else _kind(cause)
    return NotifyError(f"The rules in {database.place or 'the database'} cannot be loaded: {why}.{database.hint}")


def _kind(cause: BaseException) -> str:
    module = type(cause).__module__.partition(".")[0]
    kind = type(cause).__name__ if module in ("builtins", "sqlalchemy") else f"{module}.{type(cause).__name__}"
    if type(cause).__name__ == "OperationalError":
        # What libpq says about a connection has no code.
        return f"it cannot be reached, or refuses the connection ({kind})"
    return f"it failed with {kind}"
