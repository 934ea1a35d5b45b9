"""Who decides when: one lock that covers a whole decision, and threads that give way to those who waited for long."""

from __future__ import annotations

import os
import threading
import time
from weakref import WeakValueDictionary

_YIELD = 1e-4
"""Seconds: long enough that another thread runs, which a pause of 0 does not see to."""


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
        """Whether somebody has waited so long that the others are to give way after each decision."""
        _locks[id(self.lock)] = self.lock

    def wait_until_open(self) -> bool:
        """Whether the lock, which somebody holds, is open within the timeout.

        Not by waiting for it: threads that queue for a lock pass it round one switch interval at a time, which costs nine
        tenths of the throughput; giving way and looking again does not. Who has looked in vain for long asks the others to
        give way, too, when the lock is open: otherwise they are most likely stopped while they hold it.
        """
        began = time.monotonic()
        long = False
        while self.lock.locked():
            waited = time.monotonic() - began
            if waited > self.timeout:
                return False
            if waited > self.timeout / 8:
                long = self.contended = True
            time.sleep(0)
        if long:
            self.contended = False
        return True

    def yield_to_others(self) -> None:
        """Let somebody else come to the lock, which must be open."""
        time.sleep(_YIELD)


_locks: WeakValueDictionary[int, threading.Lock] = WeakValueDictionary()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    # A child has only the thread that forked: a decision that another was in the middle of would be copied half done, with
    # a lock that nobody opens.
    for reference in _locks.valuerefs():
        lock = reference()
        if lock is not None and lock.acquire(timeout=0.5):
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
