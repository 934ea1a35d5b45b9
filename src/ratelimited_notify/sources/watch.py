"""Changes in a directory, as the operating system tells them, by `watchfiles`."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from ratelimited_notify.errors import MissingExtra
from ratelimited_notify.forking import forkable

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from watchfiles import Change
    from watchfiles.main import FileChange

_STEP = 50
"""Milliseconds between two looks whether something was told, or nobody waits any longer."""

_GATHERED = 200
"""Milliseconds in which changes count as one."""

_inherited: list[Generator[set[FileChange], None, None]] = []


class _Stop:
    """Whether nobody waits any longer. Unlike an `Event`, it has no lock, which a fork may copy locked."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        self.called = False

    def is_set(self) -> bool:
        return self.called


class DirectoryWatch:
    """Waits for changes in a directory. It has a native thread and a few open files, from the first wait until it is closed.

    Arguments:
        directory: what to watch; what is in its directories is left out.
        name: the file in it that matters. If another file is written, nothing is told: it may be the log, in which each change
            could be another line.

    Raises:
        MissingExtra: `watchfiles` is not installed.
    """

    def __init__(self, directory: Path, name: str) -> None:
        try:
            from watchfiles import watch
        except ImportError:
            raise MissingExtra("watch", "FileRules(watch=True)") from None
        self._watch = watch
        self._directory = directory
        self._name = name
        self._using = forkable(threading.RLock())
        self._stopped = _Stop()
        self._changes: Generator[set[FileChange], None, None] | None = None
        self._made_for: tuple[int, int, int] | None = None

    def wait(self, timeout: float) -> bool:
        """Wait for a change, for `timeout` seconds at the longest. Returns whether there was one. A directory that is missing is
        waited for.

        Raises:
            OSError: the directory cannot be watched.
        """
        until = time.monotonic() + timeout
        with self._using:
            self._stopped.called = False
            while time.monotonic() < until and not self._stopped.called:
                try:
                    # In each round: a directory that was replaced tells nothing any more.
                    changes, is_new = self._opened()
                except FileNotFoundError:
                    # It is just being replaced, perhaps.
                    time.sleep(4 * _STEP / 1000)
                    continue
                # Without a change, this takes as long as four steps.
                told = next(changes, None)
                if told is None:
                    # It was closed, or has failed before.
                    self._drop(os.getpid())
                    return False
                if told or is_new:
                    # What changed just before the watch began was not told.
                    return True
        return False

    def close(self) -> None:
        """End the native thread, and a wait in another thread."""
        self._stopped.called = True
        with self._using:
            self._drop(os.getpid())

    def _matters(self, change: Change, path: str) -> bool:
        # Another file that comes or goes may be what a link in the path leads to.
        return change.name != "modified" or os.path.basename(path) == self._name  # noqa: PTH119  # a text, many times

    def _drop(self, process: int) -> None:
        changes, self._changes = self._changes, None
        if changes is not None:
            if self._made_for is not None and self._made_for[0] == process:
                changes.close()
            else:
                # The thread of the parent does not run in a forked child. To end it would be to end that of the parent.
                _inherited.append(changes)

    def _opened(self) -> tuple[Generator[set[FileChange], None, None], bool]:
        """The watch, and whether it is new."""
        found = self._directory.stat()
        wanted = os.getpid(), found.st_dev, found.st_ino
        if self._changes is not None and self._made_for == wanted:
            return self._changes, False
        self._drop(wanted[0])
        changes = self._watch(
            self._directory, watch_filter=self._matters, recursive=False, debounce=_GATHERED, step=_STEP, rust_timeout=4 * _STEP,
            yield_on_timeout=True, stop_event=self._stopped, raise_interrupt=False,
        )  # fmt: skip
        self._changes, self._made_for = changes, wanted
        return changes, True
