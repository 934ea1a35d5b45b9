"""Rules in Redis or Valkey: one hash with a version and a JSON document."""

from __future__ import annotations

from ratelimited_notify.sources.redis.source import RedisRules

__all__ = ["RedisRules"]
