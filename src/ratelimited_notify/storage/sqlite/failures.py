"""The errors of a file, with messages for the person who has to fix it. No message ever contains a key."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from ratelimited_notify.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = "Nothing was counted."

_UNUSABLE = "Give the windows a file of their own, such as sqlite:///windows.db."


def _uncounted(message: str) -> StorageError:
    return StorageError(message, nothing_counted=True)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process has the file locked, so that a later attempt may succeed."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def of(path: Path, error: sqlite3.Error) -> StorageError:
    """SQLite failed."""
    code = _code(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _uncounted(
            f"The file {path} is damaged, or is not an SQLite database ({error}). {NOTHING} If it belongs to another "
            "program, name another file. If it is the file of the windows, restore it from a backup, or delete it together "
            "with its -wal and -shm files; then the windows are empty again."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return _not_writable(path, str(error))
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _extended(error) in _WRITING):
        return _uncounted(
            f"The file {path} could not be written ({error}). {NOTHING} Is the disk full, or a quota or the largest allowed "
            "file size reached?"
        )
    if code == sqlite3.SQLITE_IOERR:
        return _uncounted(
            f"Reading or writing the file {path} failed ({error}). {NOTHING} Is the disk all right, and is the file on a disk "
            "of this machine?"
        )
    return _uncounted(f"SQLite failed with the file {path}: {error}. {NOTHING}")


_WRITING = frozenset(
    (
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_FSYNC,
    )
)


def _code(error: sqlite3.Error) -> int:
    return _extended(error) & 0xFF


def _extended(error: sqlite3.Error) -> int:
    # Errors of the module itself have none.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR))


def no_access(path: Path, error: OSError) -> StorageError:
    """The file, or the lock beside it, could not be opened."""
    return _not_writable(path, error.strerror or type(error).__name__)


def _not_writable(path: Path, said: str) -> StorageError:
    # Unlike those of a Path, these are no error where this user may not look.
    if os.path.isdir(path):  # noqa: PTH112  # as above
        return _uncounted(f"{path} is a folder. {NOTHING} Name a file in it: sqlite:///{path}/windows.db.")
    if not os.path.isdir(path.parent):  # noqa: PTH112  # as above
        return _uncounted(
            f"The folder {path.parent} is not there, or this user may not look into it. {NOTHING} Make the folder. The first decision "
            "makes the file."
        )
    return _uncounted(
        f"The file {path} could not be opened for writing: {said}. {NOTHING} The folder must exist, and this user must be "
        "allowed to write to it, to the file and to those beside it, whose names end in -wal, -shm and -lock. Did another user "
        "make them?"
    )


def on_network(path: Path, kind: str) -> StorageError:
    """The file is on a network filesystem."""
    return _uncounted(
        f"The file {path} is on a network filesystem ({kind}), where SQLite cannot coordinate several processes. {NOTHING} "
        "Move it to a disk of this machine, or use Redis if several machines share the windows."
    )


def no_wal(path: Path) -> StorageError:
    """The filesystem has no shared memory."""
    return _uncounted(
        f"SQLite cannot keep a write-ahead log for the file {path}. {NOTHING} Is it on a network filesystem, or open in "
        "another program? Move it to a disk of this machine."
    )


def foreign(path: Path) -> StorageError:
    """The file is another program's."""
    return _uncounted(
        f"The file {path} is a database of another program, or has rules or other tables in it. {NOTHING} {_UNUSABLE}"
    )


def changed(path: Path) -> StorageError:
    """Another program has changed the tables."""
    return StorageError(
        f"The file {path} does not say which version its tables have. {NOTHING} Has another program changed it? Restore it from a "
        "backup, or delete it together with its -wal and -shm files; then the windows are empty again."
    )


def later(path: Path, version: int, known: int) -> StorageError:
    """A later release has written the file."""
    return _uncounted(
        f"The file {path} has version {version} of the tables, and this release knows version {known} at most. {NOTHING} "
        "Update ratelimited-notify in every program that shares the file."
    )


def replaced(path: Path) -> StorageError:
    """The file was deleted or replaced."""
    return _uncounted(
        f"The file {path} was deleted or replaced while it was open. {NOTHING} The next call opens the file that is there "
        "then, or begins a new one. Stop all programs that use the file before you restore it."
    )


def emptied(path: Path) -> StorageError:
    """There is nothing in the file, although there was."""
    return StorageError(
        f"The file {path} had windows and is empty now. {NOTHING} Did another program empty it, or could it not be copied as a "
        "whole? Restore it from a backup, or delete it together with its -wal and -shm files; then the windows are empty again."
    )


def log_deleted(path: Path) -> StorageError:
    """The log beside the file was deleted."""
    return _uncounted(
        f"The -wal or -shm file beside {path} was deleted or replaced while it was open. {NOTHING} The next call opens the file anew. "
        "Leave the -wal and -shm files alone while a program runs, and copy the file with .backup of sqlite3: a program that "
        "opens and closes it in another way gives up its locks."
    )


def locked(path: Path, seconds: float) -> StorageError:
    """Another process did not give up the lock in time."""
    return _uncounted(
        f"The file {path} stayed locked by another process for the {seconds:g} seconds of timeout=. {NOTHING} Is that "
        "process stopped, or the disk very slow? A longer timeout= allows more time."
    )


def busy(path: Path, seconds: float) -> StorageError:
    """Other threads of this process used the connection until the deadline."""
    return _uncounted(
        f"Other threads of this process used the file {path} for the {seconds:g} seconds of timeout=. {NOTHING} Is the disk "
        "very slow? A longer timeout= allows more time."
    )


def late(path: Path, seconds: float) -> StorageError:
    """Under asyncio, the thread was not done in time."""
    return StorageError(
        f"The file {path} gave no answer within {seconds:g} seconds. Whether the hit was counted is unknown; if it was, it is "
        "given back. Is another process stopped, the disk very slow, or do very many tasks decide at once? A longer timeout= "
        "allows more time."
    )


def reentered(path: Path) -> StorageError:
    """A call came from within a call."""
    return _uncounted(
        f"The file {path} is already in use by this thread. {NOTHING} Is the limiter called from a signal handler, or from "
        "its own clock?"
    )


def inherited(path: Path) -> StorageError:
    """A connection was open and in use during a fork."""
    return _uncounted(
        f"This process was forked while its parent was in the middle of a decision in the file {path}, which SQLite does not "
        f"allow. {NOTHING} Fork before the first decision, or let this process begin afresh."
    )


def unreadable(what: str) -> StorageError:
    """A row, or a window in it, cannot be decoded."""
    return _uncounted(
        f"The SQLite file holds {what} that this release cannot read. {NOTHING} Did another program or another release write "
        "it? `clear` empties the windows of a recipient."
    )


def too_large() -> StorageError:
    """A number does not fit into 64 bits."""
    return _uncounted(
        f"A count or an instant does not fit into the 64 bits that SQLite has for a number. {NOTHING} Are the cost and the "
        "time of clock= what they should be?"
    )


def batch_counted(error: StorageError, requests: int) -> StorageError:
    """A batch failed, and this number of its requests could not be given back."""
    return StorageError(f"{error} {requests} earlier requests of the batch could not be given back and stay counted.")


def forget_variables(error: BaseException) -> None:
    """Let go of what the functions of this package had when this was raised in them.

    A SELECT that was not read to its end may be among it. As long as somebody keeps the exception, as a decision does, it would
    keep this process from writing.
    """
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__", "").startswith("ratelimited_notify."):
            # What is still running stays as it is.
            with suppress(RuntimeError):
                step.tb_frame.clear()
        step = step.tb_next
