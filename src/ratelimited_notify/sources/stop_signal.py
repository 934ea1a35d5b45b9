"""A signal that tells a thread to stop."""

from __future__ import annotations

import threading
from contextlib import suppress


class StopSignal:
    """Tells threads to stop, once. Unlike a `threading.Event`, it has nothing that an exception of a signal handler leaves locked."""

    __slots__ = ("_lock", "_stopped")

    def __init__(self) -> None:
        # A lock used as a signal: it is released to wake a thread that waits.
        self._lock = threading.Lock()
        self._lock.acquire()
        self._stopped = False

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._stopped

    def set(self) -> None:
        """Tell all threads to stop."""
        self._stopped = True
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, for `timeout` seconds at the longest. Returns whether it is."""
        if not self._stopped and self._lock.acquire(timeout=max(0.0, timeout)):
            # Another thread may wait, too.
            with suppress(RuntimeError):
                self._lock.release()
        return self._stopped
