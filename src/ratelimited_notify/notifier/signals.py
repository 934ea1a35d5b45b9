"""How a waiting thread or task is woken, from any thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class ThreadSignal:
    """Wakes one thread. A signal that comes early is kept."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        # A lock used as a signal. Unlike a condition, it stays usable when a signal handler raises.
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> bool:
        """Wake the thread. Returns True: it is always possible."""
        with suppress(RuntimeError):
            self._lock.release()
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until it is woken, at most this many seconds; whether it was."""
        return self._lock.acquire(timeout=max(0.0, seconds))


class TaskSignal:
    """Wakes one task of an event loop. A signal that comes early is kept."""

    __slots__ = ("_called", "_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._called = False

    def wake(self) -> bool:
        """Wake the task. Returns False if its event loop is closed."""
        self._called = True
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:
            return False
        return True

    def _ring(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Wait until it is woken, at most this many seconds; whether it was."""
        if not self._called:
            self._future = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._ring)
            try:
                await self._future
            finally:
                timer.cancel()
                self._future = None
        called, self._called = self._called, False
        return called
