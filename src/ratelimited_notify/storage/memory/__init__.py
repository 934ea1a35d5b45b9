"""Windows in this process: exact under threads, no thread of its own, one set for sync and async callers."""

from ratelimited_notify.storage.memory.aio import AsyncMemoryStorage
from ratelimited_notify.storage.memory.sync import MemoryStorage

__all__ = ["AsyncMemoryStorage", "MemoryStorage"]
