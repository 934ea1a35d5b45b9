"""The one connection that a source keeps: it is opened when it is needed, and belongs to one process."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError

from ratelimited_notify.forking import copied_whole
from ratelimited_notify.sources.sql.deadline import answering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from ratelimited_notify.sources.sql.database import Database

_T = TypeVar("_T")


class Watch(Protocol):
    """Tells that something has changed, on one connection."""

    @property
    def is_over(self) -> bool:
        """Whether another connection is needed."""
        ...


class Open(NamedTuple):
    """An open connection."""

    connection: Connection
    driver: Any  # Any: the connection of any driver
    """The same, as the driver knows it."""
    watch: Watch | None = None
    """What tells that something has changed; None if only reading everything tells."""


_ISOLATION: Mapping[str, Mapping[str, Any]] = {  # Any: options of SQLAlchemy have many types
    "mariadb": {"isolation_level": "REPEATABLE READ"},
    "mysql": {"isolation_level": "REPEATABLE READ"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
"""What makes several queries see one state, by the name of the database."""

_inherited: list[Open] = []
"""The connections of the parent, in a forked child. They are never closed there: the parent uses them."""


class KeptConnection:
    """A connection that is taken out of its pool, so that nobody else gets it, and is used by one thread at a time.

    Arguments:
        database: makes the connections.
        watch: called with each new connection, before it is used; makes what tells that something has changed.
    """

    def __init__(self, database: Database, watch: Callable[[Connection, Any], Watch | None]) -> None:  # Any: as above
        self._database = database
        self._watch = watch
        self._open: Open | None = None
        self._closing = False
        self.keeping = False
        """Whether it stays open after it has been used."""
        self._mine = threading.local()
        # A fork waits a moment for it: the library of SQLite has locks of its own, which would stay locked in the child.
        self.lock = copied_whole(threading.Lock(), __name__.rpartition(".")[0])
        """Held while the connection is used."""

    @property
    def open(self) -> Open | None:
        """The connection that is open, or None."""
        return self._open

    def use(self, work: Callable[[Open], _T]) -> _T:
        """Do something with the connection. If it has been closed meanwhile, with another one.

        Raises:
            DBAPIError: the database could not be reached, or refused.
        """
        if getattr(self._mine, "using", False):
            # A signal handler struck while its thread was reading, and would wait for itself.
            return self._used_once(work)
        self._mine.using = True
        try:
            with self.lock:
                return self._use(work)
        finally:
            self._mine.using = False
            if self._closing:
                self.close()

    def _use(self, work: Callable[[Open], _T]) -> _T:
        done = False
        try:
            if self._open is not None and self._open.watch is not None and self._open.watch.is_over:
                self.drop()
            if self._open is not None:
                try:
                    found = _worked(self._open, work)
                except DBAPIError:
                    # The server may have been restarted since. Whatever it was, a new one tells.
                    self.drop()
                else:
                    done = True
                    return found
            self._open = self._opened()
            found = _worked(self._open, work)
            done = True
            return found
        finally:
            if not done or not self.keeping:
                # After an error it may be in the middle of anything.
                self.drop()

    def _used_once(self, work: Callable[[Open], _T]) -> _T:
        made = self._opened()
        try:
            return _worked(made, work)
        finally:
            _close(made.driver)

    def _opened(self) -> Open:
        connection = self._database.engine().connect()
        driver = connection.connection.driver_connection
        try:
            options = _ISOLATION.get(connection.dialect.name)
            if options:
                connection.execution_options(**options)
            connection.detach()
            with answering(driver):
                return Open(connection, driver, self._watch(connection, driver))
        except BaseException:
            _close(driver)
            raise

    def drop(self) -> None:
        """Close the connection. The caller has the lock."""
        made, self._open = self._open, None
        if made is not None:
            _close(made.driver)

    def close(self) -> None:
        """Close the connection, or leave that to the thread that uses it. Never waits."""
        self.keeping, self._closing = False, True
        if self.lock.acquire(blocking=False):
            try:
                self._closing = False
                self.drop()
            finally:
                self.lock.release()

    def forked(self) -> None:
        """Forget the connection, in a forked child."""
        if self._open is not None:
            _inherited.append(self._open)
        self._open, self.keeping, self._closing = None, False, False


def _worked(made: Open, work: Callable[[Open], _T]) -> _T:
    with answering(made.driver):
        found = work(made)
        # Nothing was written. An open transaction would keep the server from cleaning up.
        made.connection.rollback()
        return found


def _close(driver: Any) -> None:  # Any: as above
    # By the driver: SQLAlchemy would end the transaction first, and wait for a server that hangs.
    with suppress(Exception):
        driver.close()
