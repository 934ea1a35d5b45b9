"""Windows in this process's memory: exact under threads, without a background thread, shared by sync and async callers."""

from ratelimited_notify.storage.memory.aio import AsyncMemoryStorage
from ratelimited_notify.storage.memory.sync import MemoryStorage

__all__ = ["AsyncMemoryStorage", "MemoryStorage"]
