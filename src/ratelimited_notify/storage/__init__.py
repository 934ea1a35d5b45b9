"""Storages: where windows are kept. `open_storage` opens a storage by its URI.

A storage on a server needs its client, which is an extra. Its name raises `MissingExtra` if the client is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify._lazy import lazily

if TYPE_CHECKING:
    from ratelimited_notify.storage.base import AsyncStorage as AsyncStorage, Storage as Storage
    from ratelimited_notify.storage.circuit import Circuit as Circuit
    from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage as AsyncMemcachedStorage
    from ratelimited_notify.storage.memcached.sync import MemcachedStorage as MemcachedStorage
    from ratelimited_notify.storage.memory import (
        AsyncMemoryStorage as AsyncMemoryStorage,
        MemoryStorage as MemoryStorage,
    )
    from ratelimited_notify.storage.open import open_async_storage as open_async_storage, open_storage as open_storage
    from ratelimited_notify.storage.redis.aio import AsyncRedisStorage as AsyncRedisStorage
    from ratelimited_notify.storage.redis.cluster import RedisClusterStorage as RedisClusterStorage
    from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage as AsyncRedisClusterStorage
    from ratelimited_notify.storage.redis.failures import (
        AccessRefused as AccessRefused,
        NothingSent as NothingSent,
        UnexpectedReply as UnexpectedReply,
    )
    from ratelimited_notify.storage.redis.replies import UnreadableWindow as UnreadableWindow
    from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage as RedisSentinelStorage
    from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage as AsyncRedisSentinelStorage
    from ratelimited_notify.storage.redis.sync import RedisStorage as RedisStorage
    from ratelimited_notify.storage.sqlite.aio import AsyncSQLiteStorage as AsyncSQLiteStorage
    from ratelimited_notify.storage.sqlite.sync import SQLiteStorage as SQLiteStorage
else:  # hidden from type checkers, which would accept every misspelt name because of it
    __getattr__ = lazily(
        __name__,
        {
            "base": ("AsyncStorage", "Storage"),
            "circuit": ("Circuit",),
            "memcached.aio": ("AsyncMemcachedStorage",),
            "memcached.sync": ("MemcachedStorage",),
            "memory": ("AsyncMemoryStorage", "MemoryStorage"),
            "open": ("open_async_storage", "open_storage"),
            "redis.aio": ("AsyncRedisStorage",),
            "redis.cluster": ("RedisClusterStorage",),
            "redis.cluster_aio": ("AsyncRedisClusterStorage",),
            "redis.failures": ("AccessRefused", "NothingSent", "UnexpectedReply"),
            "redis.replies": ("UnreadableWindow",),
            "redis.sentinel": ("RedisSentinelStorage",),
            "redis.sentinel_aio": ("AsyncRedisSentinelStorage",),
            "redis.sync": ("RedisStorage",),
            "sqlite.aio": ("AsyncSQLiteStorage",),
            "sqlite.sync": ("SQLiteStorage",),
        },
    )

__all__ = [
    "AccessRefused",
    "AsyncMemcachedStorage",
    "AsyncMemoryStorage",
    "AsyncRedisClusterStorage",
    "AsyncRedisSentinelStorage",
    "AsyncRedisStorage",
    "AsyncSQLiteStorage",
    "AsyncStorage",
    "Circuit",
    "MemcachedStorage",
    "MemoryStorage",
    "NothingSent",
    "RedisClusterStorage",
    "RedisSentinelStorage",
    "RedisStorage",
    "SQLiteStorage",
    "Storage",
    "UnexpectedReply",
    "UnreadableWindow",
    "open_async_storage",
    "open_storage",
]
