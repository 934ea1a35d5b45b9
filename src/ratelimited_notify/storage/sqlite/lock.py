"""Whose turn it is among processes: a lock on a file beside the database.

SQLite's own waiting is unfair: it sleeps longer and longer, so one process may wait for seconds while another goes on. And
if processes just try again, the log grows, because nobody ever finds time to empty it. So whoever wants to write first takes
this lock, and empties the log while it has it. The lock only makes turns fair: that no hit is lost or counted twice is
SQLite's doing, even if somebody deletes the lock's file.

The lock's file also says whether the database beside it was made. An empty database that was made before has been emptied by
somebody else; SQLite would take it for a new one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows
    import msvcrt

    def _try(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # there on Windows

    def _freeing(descriptor: int) -> Callable[[], object]:
        def free() -> None:
            # It is an error if it is not held.
            with suppress(OSError):
                os.lseek(descriptor, 0, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # as above

        return free

else:

    def _try(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _freeing(descriptor: int) -> Callable[[], object]:
        return partial(fcntl.flock, descriptor, fcntl.LOCK_UN)


_CLOSED = -1

_nothing: Callable[[], object] = partial(bool)


class FileLock:
    """A lock that one holder at a time has, among all processes of this machine. A process that ends gives it up.

    Arguments:
        path: the file of the lock. It is made if it is not there, and stays.
    """

    __slots__ = ("_descriptor", "_path", "free")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _CLOSED
        self.free = _nothing
        """Gives up the lock. Does nothing if this object does not have it.

        It is no function of Python, which a signal handler could interrupt before it begins.
        """

    def take(self) -> bool:
        """Take the lock, without waiting. False if another process, or another lock of this one, has it.

        Raises:
            OSError: the file cannot be opened, or not be locked.
        """
        descriptor = self._opened()
        try:
            _try(descriptor)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def says_made(self) -> bool:
        """Whether the database beside the lock was made.

        Raises:
            OSError: the file cannot be opened.
        """
        return os.fstat(self._opened()).st_size > 0

    def say_made(self, *, made: bool) -> None:
        """Write down whether the database beside the lock was made. The holder says that it was not.

        Raises:
            OSError: the file cannot be opened or written.
        """
        if made != self.says_made():
            os.ftruncate(self._opened(), int(made))

    def _opened(self) -> int:
        if self._descriptor == _CLOSED:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            # In this order: what is locked can be freed.
            self.free = _freeing(descriptor)
            self._descriptor = descriptor
        return self._descriptor

    def close(self) -> None:
        """Give up the lock, and close the file."""
        # First, because a signal handler may raise in between, and then nothing must stay locked.
        self.free()
        self.close_copy()

    def close_copy(self) -> None:
        """Close the file in a forked child. The parent keeps the lock."""
        # In this order: what is locked later can be freed.
        descriptor, self._descriptor = self._descriptor, _CLOSED
        self.free = _nothing
        if descriptor != _CLOSED:
            os.close(descriptor)
