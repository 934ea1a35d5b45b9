"""One lock that covers a whole decision. Threads yield to other threads that have waited for long."""

from __future__ import annotations

import threading
import time

from ratelimited_notify.forking import copied_whole

_YIELD = 1e-4
"""Seconds: long enough for another thread to run, which a pause of 0 does not guarantee."""


class YieldingLock:
    """The lock of the windows in memory.

    Arguments:
        timeout: the longest wait for one decision of another thread, in seconds.
    """

    __slots__ = ("contended", "lock", "timeout", "yields")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        # A decision of another thread must not be copied half done into a forked child.
        self.lock = copied_whole(threading.Lock(), __name__.rpartition(".")[0])
        self.contended = False
        """Whether a thread has waited so long that the others have to yield after each decision."""
        self.yields = 0
        """How often a thread has yielded: a thread that waits sees by it that others go on deciding."""

    def wait_until_open(self) -> bool:
        """Wait until the lock is free; False if one decision holds it for longer than the timeout.

        The thread polls instead of acquiring the lock: threads that queue for a lock hand it over once per switch interval,
        which costs nine tenths of the throughput; yielding and polling does not. A thread that has polled in vain for long
        asks the others to yield while the lock is free: otherwise they are most likely suspended while they hold it. It goes
        on waiting while they do: on a busy machine the turn may come late, but the lock is not stuck.
        """
        began = latest = time.monotonic()
        yields = self.yields
        asking = False
        try:
            while self.lock.locked():
                now = time.monotonic()
                if yields != self.yields:
                    yields, latest = self.yields, now
                if now - latest > self.timeout:
                    return False
                if now - began > self.timeout / 8:
                    asking = self.contended = True
                time.sleep(0)
        finally:
            # However the wait ends. Other threads that still wait set it again at their next look.
            if asking:
                self.contended = False
        return True

    def yield_if_asked(self) -> None:
        """Let another thread take the lock, which must be free, if one has waited for long."""
        if self.contended:
            self.yield_to_others()

    def yield_to_others(self) -> None:
        """Let another thread take the lock, which must be free."""
        # A thread that still waits asks again. One that gave up, or was interrupted, does not.
        self.contended = False
        self.yields += 1
        time.sleep(_YIELD)
