"""What must not be left behind: threads, descriptors, and objects of the library, of redis-py and of asyncio."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from ratelimited_notify.limiter import failures

_DESCRIPTORS = Path("/proc/self/fd")
_OURS = ("ratelimited_notify", "redis", "asyncio")


def census() -> Counter[str]:
    """How much of it there is now."""
    # Log lines outlive a limiter on purpose, for the next one with the same storage. Their number is bounded.
    failures._known.clear()
    gc.collect()
    found: Counter[str] = Counter(
        f"{type(one).__module__}.{type(one).__qualname__}"
        for one in gc.get_objects()
        if str(type(one).__module__).startswith(_OURS) or isinstance(one, BaseException | TracebackType)
    )
    found["threads"] = threading.active_count()
    found["descriptors"] = sum(1 for _ in _DESCRIPTORS.iterdir()) if _DESCRIPTORS.is_dir() else 0
    return found


def left_since(before: Counter[str]) -> dict[str, int]:
    """What there is more of than before. What is just ending, such as the threads of a proxy, gets a moment."""
    deadline = time.monotonic() + 5
    while (left := census() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return dict(left)
