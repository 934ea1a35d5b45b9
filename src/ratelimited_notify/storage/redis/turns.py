"""Threads taking turns at a few connections, first come, first served."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from threading import Lock


class Turns:
    """A semaphore that costs next to nothing while there is no crowd, and is fair when there is one.

    Arguments:
        places: how many may have their turn at once.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._pid = os.getpid()
        # Both are only used by what is atomic in a deque: append, pop, remove, look.
        self._free = deque([None] * places)
        self._waiting: deque[Lock] = deque()

    def try_take(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._pid != os.getpid():
            # Threads of the parent process may have had places, and are not here to give them back.
            self.__init__(self.places)  # type: ignore[misc]  # the same object, as new
        return not self._waiting and self._take()

    def wait(self, timeout: float) -> bool:
        """Take a place when it is this thread's turn; False when it is not within so many seconds."""
        turn = Lock()
        turn.acquire()
        self._waiting.append(turn)
        deadline = time.monotonic() + timeout
        try:
            while not (self._waiting[0] is turn and self._take()):
                if not turn.acquire(timeout=max(0, deadline - time.monotonic())):
                    return False
            return True
        finally:
            self._waiting.remove(turn)
            # There may be a place for the next one, too.
            self._wake()

    def give(self) -> None:
        """Give the place back."""
        self._free.append(None)
        if self._waiting:
            self._wake()

    def _take(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def _wake(self) -> None:
        # Nobody may be left, or he may have been woken already.
        with suppress(IndexError, RuntimeError):
            self._waiting[0].release()
