"""The connection of one process to the file, and the transactions that its threads run on it, one at a time."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from ratelimited_notify.forking import forkable, holds
from ratelimited_notify.storage.sqlite import failures, schema
from ratelimited_notify.storage.sqlite.forking import close_before_forks
from ratelimited_notify.storage.sqlite.lock import FileLock
from ratelimited_notify.storage.sqlite.place import identity, identity_unless_empty, network_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.storage.sqlite.place import Identity

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_WAIT = 0.001
_WAIT = 0.004
"""The longest pauses after the first attempt to take the lock, and after the fourth and later ones, in seconds. They grow no
further: who has waited longer would get it less often. If they were shorter, processes would take more turns and decide less in
each, and each turn begins with reading what the others wrote.
"""

_PATIENCE = 0.002
"""Seconds after which a thread that waits asks the others to let it in."""

_YIELD = 1e-4
"""Seconds: long enough for another thread to run, which a pause of 0 does not guarantee."""

_CLOSING = 0.1
"""Seconds that closing waits for other processes."""

_PAGES = 2500
"""How many pages the log has when it is written into the database: 10 MB. Each time, two or three writes wait for the disk, and
each page is copied once, however often it is in the log: so the longer the log, the more decisions a second."""

_LARGEST_VALUE = 64 * 2**20
"""Bytes. A row of this library's is far smaller; one that another program wrote must not fill the memory."""

_inherited: list[sqlite3.Connection] = []
_unusable: set[Identity] = set()
"""The files of which this process has a connection of its parent."""


class _Busy(Exception):
    """Another process has the lock."""


class Database:
    """A file, and at most one connection to it.

    Arguments:
        path: absolute.
        timeout: the longest time of a call, for messages, in seconds.
        full: whether each transaction waits until the disk has it.
    """

    def __init__(self, path: Path, timeout: float, *, full: bool) -> None:
        self.path = path
        self.timeout = timeout
        self._full = full
        self._uri: Final = f"{path.as_uri()}?mode=rw"
        self._name: Final = str(path)
        self._log_name: Final = f"{path}-wal"
        self._memory_name: Final = f"{path}-shm"
        # The thread whose turn it is. It may wait for other processes meanwhile.
        self._turn = forkable(threading.RLock())
        self._contended = False
        # Held in a transaction only. A fork takes it, so what it protects needs no care in a child. It is an RLock because that
        # knows who has it, also if a signal handler raises at once; it is never taken twice.
        self._using = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._log: tuple[Identity | None, Identity | None] = None, None
        self._lock = FileLock(path.with_name(f"{path.name}-lock"))
        close_before_forks(self)

    def write(
        self, deadline: float, function: Callable[Concatenate[sqlite3.Cursor, P], T], *args: P.args, **options: P.kwargs
    ) -> T:
        """Run a function in a transaction that changes something, and return its result.

        Arguments:
            deadline: the latest instant at which the transaction may begin, by `time.monotonic`.
            function: takes a cursor that is in the transaction. If it raises, nothing is changed.

        Raises:
            StorageError: the file cannot be used, or was locked until the deadline. Nothing was changed.
        """
        return self._in_turn(deadline, "BEGIN IMMEDIATE", lambda cursor: function(cursor, *args, **options))

    def read(
        self, deadline: float, function: Callable[Concatenate[sqlite3.Cursor, P], T], *args: P.args, **options: P.kwargs
    ) -> T:
        """`write` for a function that changes nothing. It waits for no other process."""
        return self._in_turn(deadline, "BEGIN", lambda cursor: function(cursor, *args, **options))

    def close(self) -> None:
        """Close the connection. The next call opens another one."""
        using = self._using
        if holds(using):
            # A signal handler closes in the middle of a transaction.
            return
        try:
            if using.acquire(timeout=max(self.timeout, 1.0)):
                self._disconnect()
        finally:
            # As in `_in_turn`.
            try:  # noqa: SIM105  # as there
                using.release()
            except RuntimeError:
                pass

    def is_used_here(self) -> bool:
        return holds(self._turn) or holds(self._using)

    def before_fork(self, seconds: float) -> None:
        if self._using.acquire(timeout=seconds):
            self._disconnect()

    def after_fork(self) -> None:
        if holds(self._using):
            # If a signal handler has raised in `before_fork`, it is still held.
            self._lock.free()
            self._using.release()

    def in_child(self) -> None:
        self._lock.close_copy()
        self._using = threading.RLock()
        if self._identity is None:
            return
        # A transaction of the parent is half done. Nothing of it is touched, and the connection is never freed, which would
        # close it. In this process, SQLite would take the parent's locks for those of any other connection to the file.
        _unusable.add(self._identity)
        self._identity = None
        if self._connection is not None:
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            _inherited.append(self._connection)
            self._connection = None

    def _in_turn(self, deadline: float, begin: str, work: Callable[[sqlite3.Cursor], T]) -> T:
        turn = self._turn
        if holds(turn):
            raise failures.reentered(self.path)
        try:
            if not turn.acquire(blocking=False):
                self._wait_for_turn(deadline)
            return self._when_free(deadline, begin, work)
        finally:
            # Signal handlers run after calls, and the release is the first call here: none can run before it is done.
            try:  # noqa: SIM105  # `suppress` would be a call before the release
                turn.release()
            except RuntimeError:
                # It never was this thread's turn.
                pass
            if self._contended:
                self._contended = False
                time.sleep(_YIELD)

    def _wait_for_turn(self, deadline: float) -> None:
        while True:
            left = deadline - time.monotonic()
            if self._turn.acquire(timeout=max(0.0, min(left, _PATIENCE))):
                return
            if left <= 0:
                raise failures.busy(self.path, self.timeout)
            # The thread that has its turn would have it again at once: it runs, and this one has to wake up first.
            self._contended = True

    def _when_free(self, deadline: float, begin: str, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Run a transaction as soon as no other process has the lock."""
        longest = _FIRST_WAIT
        while True:
            try:
                with self._using:
                    return self._transaction(begin, work)
            except _Busy:
                pass
            except sqlite3.Error as error:
                if not failures.is_busy(error):
                    self.close()
                    raise failures.of(self.path, error) from None
            except OverflowError:
                raise failures.too_large() from None
            left = deadline - time.monotonic()
            if left <= 0:
                raise failures.locked(self.path, self.timeout)
            time.sleep(min(left, random.uniform(0, longest)))  # noqa: S311  # spreads load, no secret
            longest = min(2 * longest, _WAIT)

    def _transaction(self, begin: str, work: Callable[[sqlite3.Cursor], T]) -> T:
        try:
            connection = self._usable()
        except OSError as error:
            raise failures.no_access(self.path, error) from None
        is_read = begin == "BEGIN"
        try:
            if not (is_read or self._taken()):
                raise _Busy
            cursor = connection.cursor()
            try:
                cursor.execute(begin)
                answer = work(cursor)
                if self._connection is not connection:
                    # A signal handler has forked, and this is the child.
                    raise failures.inherited(self.path)
                cursor.execute("COMMIT")
            except BaseException as error:
                failures.forget_variables(error)
                raise
            else:
                return answer
            finally:
                if connection.in_transaction and self._connection is connection:
                    connection.rollback()
        finally:
            if not is_read:
                self._lock.free()

    def _usable(self) -> sqlite3.Connection:
        """The connection, if the file and its log are still those that it was made for; a new one if there is none."""
        if self._connection is None:
            self._connect()
        elif identity_unless_empty(self._name) != self._identity:
            was_emptied = identity(self._name) == self._identity
            self._disconnect()
            if was_emptied:
                raise failures.emptied(self.path)
            if identity(self._log_name) == self._log[0]:
                # It is the log of the file that was replaced. SQLite would write it into the one that is there now.
                self._remove_log()
            raise failures.replaced(self.path)
        elif self._log_there() != self._log:
            # What is written to the log from now on, nobody else would see.
            self._disconnect()
            raise failures.log_deleted(self.path)
        connection = self._connection
        if connection is None:  # pragma: no cover  # for the type checker
            raise _Busy
        return connection

    def _taken(self) -> bool:
        try:
            return self._lock.take()
        except OSError as error:
            raise failures.no_access(self.path, error) from None

    def _connect(self) -> None:
        """Open the file, and make it if it is not there.

        Raises:
            StorageError: the file cannot be used.
            sqlite3.Error: SQLite failed, perhaps because another process has the lock.
            _Busy: another process has the lock.
        """
        network = network_of(self.path.parent)
        if network is not None:
            raise failures.on_network(self.path, network)
        seen = identity(self._name)
        if seen is None:
            self._make()
            seen = identity(self._name)
        if seen in _unusable:
            raise failures.inherited(self.path)
        if identity_unless_empty(self._name) is None:
            self._check_empty()
        # For forks, from here until it is closed.
        self._identity = seen
        try:
            connection = self._ready(seen)
            self._connection, self._log = connection, self._log_there()
        except BaseException:
            self._identity = None
            raise

    def _ready(self, seen: Identity | None) -> sqlite3.Connection:
        """A new connection to the file, with its tables and its log."""
        connection = self._opened()
        try:
            if not schema.is_ready(connection, self.path):
                # It is empty: made by somebody else, or this library was killed before it could make the tables.
                self._make_tables(connection)
            schema.use_log(connection, self.path)
            # The first read opens the log. Before that, there may be none.
            connection.execute("SELECT version FROM schema_of_windows").fetchall()
            self._say_made(made=True)
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES}")
            if seen != identity(self._name):
                # Another file has taken its place since.
                raise _Busy
        except BaseException:
            connection.close()
            raise
        return connection

    def _log_there(self) -> tuple[Identity | None, Identity | None]:
        """The log and the memory that processes share beside it. SQLite deletes them with the last connection, no earlier."""
        return identity(self._log_name), identity(self._memory_name)

    def _make(self) -> None:
        try:
            if not self._taken():
                raise _Busy
            self._say_made(made=False)
            self._make_file()
        finally:
            self._lock.free()

    def _check_empty(self) -> None:
        """Raise an error if the file is empty and was not before."""
        try:
            if not self._taken():
                # Perhaps somebody is about to make it.
                raise _Busy
            if identity_unless_empty(self._name) is None and (
                self._lock.says_made() or identity_unless_empty(self._log_name) is not None
            ):
                raise failures.emptied(self.path)
        finally:
            self._lock.free()

    def _say_made(self, *, made: bool) -> None:
        # Who cannot write to the lock's file can only read.
        with suppress(OSError):
            self._lock.say_made(made=made)

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        try:
            if not self._taken():
                raise _Busy
            schema.create(connection, self.path)
        finally:
            self._lock.free()

    def _make_file(self) -> None:
        """Make the file for this user alone, unless it is there."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise failures.no_access(self.path, error) from None
        # Nobody has a lock on a file that was just made, so closing it loses none.
        os.close(descriptor)
        # What is left of a file that was deleted.
        self._remove_log()

    def _remove_log(self) -> None:
        for name in (self._log_name, self._memory_name):
            with suppress(FileNotFoundError):
                Path(name).unlink()

    def _opened(self) -> sqlite3.Connection:
        # Without a time-out, and without transactions of Python's own.
        connection = sqlite3.connect(self._uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        # What another program wrote need not be UTF-8, and the error of the module would quote it.
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
        return connection

    def _wait_to_close(self) -> None:
        """Take the lock. If two processes closed at once, each would take the other for the last one that uses the log, and
        leave it behind. Nothing is lost then, so this does not wait long.
        """
        until = time.monotonic() + _CLOSING
        with suppress(OSError):
            while not self._lock.take() and time.monotonic() < until:
                time.sleep(random.uniform(0, _FIRST_WAIT))  # noqa: S311  # as above

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            self._identity = None
            self._lock.close()
            return
        try:
            self._wait_to_close()
        finally:
            # A signal handler may raise in each of these calls.
            try:
                connection.close()
            finally:
                self._identity = None
                self._lock.close()
