"""Who asks a source: one thread at a time, and no thread waits for one that waits for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ratelimited_notify.forking import holds

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from threading import RLock


def asking(refreshing: RLock, editing: RLock) -> AbstractContextManager[bool]:
    """Hold `refreshing`. The value is whether it is held.

    Who holds it may wait for `editing`. So a thread that has `editing` does not wait for it: a signal handler, or code that is
    called while rules change.
    """
    return _tried(refreshing) if holds(editing) else refreshing


@contextmanager
def _tried(lock: RLock) -> Generator[bool]:
    held = False
    try:
        held = lock.acquire(blocking=False)
        yield held
    finally:
        if held:
            lock.release()
