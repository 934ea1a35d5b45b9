"""The source that reads rules from the tables of a database."""

from __future__ import annotations

import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, finalize

from sqlalchemy.exc import SQLAlchemyError

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.forking import in_children
from ratelimited_notify.log import warning
from ratelimited_notify.sources.base import Loaded, RuleSource
from ratelimited_notify.sources.formats.notation import noted
from ratelimited_notify.sources.sql import postgresql, sqlite
from ratelimited_notify.sources.sql.database import Database
from ratelimited_notify.sources.sql.failures import failure_of
from ratelimited_notify.sources.sql.kept import KeptConnection
from ratelimited_notify.sources.sql.reading import rows_of
from ratelimited_notify.sources.sql.rows import Places, document_of
from ratelimited_notify.sources.writing import Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.sources.annotations import FixedRules
    from ratelimited_notify.sources.sql.database import Given
    from ratelimited_notify.sources.sql.kept import Open, Watch

_MISSED = 2
"""So many changes in a row that were not announced are no coincidence."""


class SQLRules(RuleSource):
    """Rules from the tables of a database, by SQLAlchemy 2. It needs the extra `sql`.

    The tables are `notify_rules`, `notify_overrides`, `notify_tiers` and `notify_rules_version`. The command
    `ratelimited-notify rules init URL` makes them. They are read once per interval, by a connection of their own. On PostgreSQL with
    psycopg a change is announced and read at once. On SQLite nothing is read as long as nothing changed.

    Arguments:
        engine: the URL of the database, an `Engine`, or a function that returns one. Of an `AsyncEngine`, or of a URL for
            asyncio, the URL is used with a driver for threads: psycopg instead of asyncpg.
        interval: seconds between two looks, 5 by default.
        fallback: the rules that hold until the tables can be read, in any form that `Limiter` takes except a source.
        wait: False starts without rules if the tables cannot be read at first.
        allow_empty: True accepts that the tables have no rules any more.

    Raises:
        NotifyError: an argument cannot be used, or the driver of the database is not installed.
    """

    portable = False

    def __init__(
        self,
        engine: Given,
        *,
        interval: float = 5.0,
        fallback: FixedRules | None = None,
        wait: bool = True,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(interval=interval, fallback=fallback, wait=wait, allow_empty=allow_empty)
        self._database = Database(engine)
        self.place = self._database.place
        self._kept = KeptConnection(self._database, _watch)
        self._places = Places()
        self._lost = -inf
        self._announced = False
        self._missed = 0
        self._said = False
        _all.add(self)
        # Who forgets a limiter instead of closing it leaves no connection behind either.
        finalize(self, self._kept.close)

    def load(self, known: str | None) -> Loaded | None:
        try:
            return self._kept.use(partial(self._load, known))
        except NotifyError:
            raise
        except (SQLAlchemyError, UnicodeError) as error:
            failure = failure_of(error, self._database)
        finally:
            # A function was called for the engine.
            self.place = self._database.place
        # Outside of the block, so that nothing is chained to it: the error of SQLAlchemy may contain a password.
        raise failure

    def _load(self, known: str | None, made: Open) -> Loaded | None:
        connection, watch = made.connection, made.watch
        version = None
        if isinstance(watch, sqlite.DataVersion):
            sqlite.begin(connection)
            if watch.look(connection, known):
                return None
        elif connection.dialect.name == "postgresql":
            if isinstance(watch, postgresql.Listener) and watch.heard():
                self._announced = True
            version = postgresql.version_of(connection)
            if version is not None and version == known:
                return None
        rows = rows_of(connection)
        if connection.dialect.name == "postgresql" and known is not None:
            self._notice(announced=watch is not None and version is not None)
        if version is None:
            version = rows.digest
            if isinstance(watch, sqlite.DataVersion):
                watch.read(version)
            if version == known:
                return None
        problems: list[Problem] = []
        document, self._places = document_of(rows, problems)
        if problems:
            raise Unusable(problems, version=version)
        return Loaded(version, document)

    def _notice(self, *, announced: bool) -> None:
        """Say once that the change that is being read was not announced.

        Arguments:
            announced: whether it should have been.
        """
        heard, self._announced = self._announced, False
        if not announced:
            self._say(
                "They are not announced here, which needs psycopg 3, the triggers and a server that is no standby."
            )
        elif heard:
            self._missed = 0
        else:
            self._missed += 1
            if self._missed >= _MISSED:
                self._say("They were not announced; a pooler such as PgBouncer does not pass on what is announced.")

    def _say(self, why: str) -> None:
        if not self._said and self._kept.keeping:
            self._said = True
            warning("Changes in %r are noticed once per interval. %s", self, why)

    def wait(self, timeout: float) -> bool:
        kept = self._kept
        made = kept.open
        if made is None:
            now = time.monotonic()
            if now - self._lost < self.options.interval:
                raise ConnectionError
            # The thread has just started, or the connection has ended. What has changed meanwhile was not announced.
            self._lost, kept.keeping = now, True
            return True
        watch = made.watch
        if not isinstance(watch, postgresql.Listener):
            # Nothing tells about changes.
            return super().wait(timeout)
        until = time.monotonic() + timeout
        if self._hears(watch):
            return True
        watch.wait(max(0.0, until - time.monotonic()))
        return self._hears(watch)

    def _hears(self, watch: postgresql.Listener) -> bool:
        """Whether something has been announced, or the connection has ended."""
        if not self._kept.lock.acquire(blocking=False):
            # It is being read just now.
            time.sleep(_SHORT)
            return False
        try:
            if self._kept.open is None or self._kept.open.watch is not watch:
                return False
            heard = watch.heard()
        except Exception:  # noqa: BLE001  # whatever the driver raises for a connection that the server has closed
            self._kept.drop()
            if time.monotonic() - self._lost < self.options.interval:
                self._say("The connection that listens for them has ended again and again.")
            return self.wait(0)
        finally:
            self._kept.lock.release()
        self._announced = self._announced or heard
        return heard

    def explained(self, problem: Problem) -> Problem:
        """The same problem with its place in the tables."""
        # What is more than a text is JSON, in the columns extra and settings.
        return noted(self._places.explained(problem), "JSON")

    def write(self, document: Mapping[str, object], *, if_version: str | None = None) -> str:
        """Replace the rules in the tables by those of a document, in one transaction.

        Arguments:
            document: what a rules file has.
            if_version: the version that the tables must still have.

        Returns:
            The new version.

        Raises:
            RuleError: the document cannot be used.
            VersionConflict: the tables have another version.
            NotifyError: the tables cannot be written.
        """
        from ratelimited_notify.sources.sql.writing import write

        try:
            return write(self._database, document, self.options, if_version)
        except NotifyError:
            raise
        except (SQLAlchemyError, UnicodeError) as error:
            failure = failure_of(error, self._database)
        # As above.
        raise failure

    def close(self) -> None:
        self._lost = -inf
        self._kept.close()

    def forked(self) -> None:
        """Leave the connections of the parent alone, in a forked child."""
        self._lost = -inf
        self._kept.forked()
        self._database.forked()


_SHORT = 0.05
"""Seconds."""


def _watch(connection: Connection, driver: Any) -> Watch | None:  # Any: the connection of any driver
    name = connection.dialect.name
    if name == "postgresql":
        return postgresql.listener_on(connection, driver)
    return sqlite.DataVersion(connection) if name == "sqlite" else None


_all: WeakSet[SQLRules] = WeakSet()


def _forked() -> None:
    for source in list(_all):
        source.forked()


in_children(_forked)
