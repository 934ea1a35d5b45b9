"""Cancellations that got lost: in Python 3.11 `asyncio.wait_for` swallows one that comes together with what is waited for.

See python/cpython#86296. The clients of servers stand on it; so who calls them looks whether there was one.
"""

from __future__ import annotations

import asyncio


def cancellation_count() -> int:
    """How often the running task has been asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def raise_if_cancelled(before: int) -> None:
    """End the task if it has been asked to since there were so many `cancellation_count`.

    Raises:
        CancelledError: it has.
    """
    if cancellation_count() > before:
        raise asyncio.CancelledError


def is_cancelled(task: asyncio.Task[object] | None) -> bool:
    """Whether somebody cancelled the task; otherwise the `CancelledError` in it is its own."""
    return task is not None and task.cancelling() > 0
