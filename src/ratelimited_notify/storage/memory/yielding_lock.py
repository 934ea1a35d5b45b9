"""One lock that covers a whole decision. Threads yield to other threads that have waited for long."""

from __future__ import annotations

import os
import threading
import time
from weakref import WeakValueDictionary

_YIELD = 1e-4
"""Seconds: long enough for another thread to run, which a pause of 0 does not guarantee."""


class YieldingLock:
    """The lock of the windows in memory.

    Arguments:
        timeout: the longest wait for another thread's decision, in seconds.
    """

    __slots__ = ("contended", "lock", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.lock = threading.Lock()
        self.contended = False
        """Whether a thread has waited so long that the others have to yield after each decision."""
        _locks[id(self.lock)] = self.lock

    def wait_until_open(self) -> bool:
        """Wait until the lock is free; False if it is not free within the timeout.

        The thread polls instead of acquiring the lock: threads that queue for a lock hand it over once per switch interval,
        which costs nine tenths of the throughput; yielding and polling does not. A thread that has polled in vain for long
        asks the others to yield while the lock is free: otherwise they are most likely suspended while they hold it.
        """
        began = time.monotonic()
        long = False
        try:
            while self.lock.locked():
                waited = time.monotonic() - began
                if waited > self.timeout:
                    return False
                if waited > self.timeout / 8:
                    long = self.contended = True
                time.sleep(0)
        finally:
            # However the wait ends. Other threads that still wait set it again at their next look.
            if long:
                self.contended = False
        return True

    def yield_to_others(self) -> None:
        """Let another thread take the lock, which must be free."""
        time.sleep(_YIELD)


_locks: WeakValueDictionary[int, threading.Lock] = WeakValueDictionary()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    # A child has only the thread that forked. A decision that another thread was making would be copied half done, with a
    # lock that no thread releases.
    for reference in _locks.valuerefs():
        lock = reference()
        if lock is not None and lock.acquire(timeout=0.5):
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
