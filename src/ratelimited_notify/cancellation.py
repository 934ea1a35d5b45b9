"""Detect cancellations that got lost.

In Python 3.11 `asyncio.wait_for` swallows a cancellation that arrives at the same time as the result (see
python/cpython#86296). Clients of servers use `wait_for`, so the code that awaits them checks for a lost cancellation.
"""

from __future__ import annotations

import asyncio


def cancellation_count() -> int:
    """How many cancellation requests the running task has received."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def raise_if_cancelled(before: int) -> None:
    """Raise if the running task has been cancelled since `cancellation_count()` returned `before`.

    Raises:
        CancelledError: the task has been cancelled.
    """
    if cancellation_count() > before:
        raise asyncio.CancelledError


def is_cancelled(task: asyncio.Task[object] | None) -> bool:
    """Whether the task was cancelled from outside. If not, a `CancelledError` in it comes from its own code."""
    return task is not None and task.cancelling() > 0
