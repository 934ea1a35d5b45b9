"""Storages: where windows are kept. `open_storage` opens a storage by its URI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.storage.base import AsyncStorage as AsyncStorage, Storage as Storage
    from ratelimited_notify.storage.circuit import Circuit as Circuit
    from ratelimited_notify.storage.memory import (
        AsyncMemoryStorage as AsyncMemoryStorage,
        MemoryStorage as MemoryStorage,
    )
    from ratelimited_notify.storage.open import open_async_storage as open_async_storage, open_storage as open_storage
else:  # with `__getattr__` in sight, a type checker would accept every misspelt name
    __getattr__ = lazily(
        __name__,
        {
            "base": ("AsyncStorage", "Storage"),
            "circuit": ("Circuit",),
            "memory": ("AsyncMemoryStorage", "MemoryStorage"),
            "open": ("open_async_storage", "open_storage"),
        },
    )

__all__ = [
    "AsyncMemoryStorage",
    "AsyncStorage",
    "Circuit",
    "MemoryStorage",
    "Storage",
    "open_async_storage",
    "open_storage",
]
