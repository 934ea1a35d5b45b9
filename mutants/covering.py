"""Which tests should see a fault in a file: the quick ones among those that are about it."""

from __future__ import annotations

from typing import NamedTuple


class Tests(NamedTuple):
    """Arguments for pytest."""

    files: tuple[str, ...]
    keyword: str = ""
    """For `-k`."""
    slow: bool = False
    """Whether tests marked `slow` are needed to see the faults: processes, forks and kills."""


_LIMITER = (
    "test_limiter.py", "test_limiter_options.py", "test_limiter_properties.py", "test_decision.py", "test_given_back.py",
    "test_clocks.py", "test_plan.py", "test_refusals.py", "test_insurance.py", "test_insurance_model.py", "test_exceeded.py", "test_headers.py", "test_log.py",
)  # fmt: skip
_LIMITER_TESTS = Tests(_LIMITER, "not leads_to_another or as_handler")
_EVENTS = Tests(
    ("test_events.py", "test_watchers.py", "test_delivered.py", "test_event_properties.py", "test_event_servers.py"),
    # Not what is about stopped servers.
    "not redis and not cluster and not sentinel and not memcached and (not event_servers or rules or source)",
)
_TURNS = Tests(("test_turns.py", "test_pauses.py"), "not redis and not cluster and not sentinel and not memcached")
_MEMORY = Tests(
    ("test_windows.py", "test_memory.py", "test_memory_shortcut.py", "test_yielding_lock.py", "test_clocks.py", "test_storage_properties.py",
     "test_limiter_properties.py", "test_interop.py"),
    "not redis and not cluster and not sentinel and not memcached",
)  # fmt: skip
_MEMCACHED = Tests(
    ("test_memcached_contents.py", "test_memcached.py", "test_storage_properties.py", "test_interop.py", "test_clocks.py"),
    "memcached and not sync-memcached",
)  # fmt: skip
_REDIS = Tests(
    ("test_redis_costs.py", "test_redis.py", "test_redis_odd_keys.py", "test_storage_properties.py", "test_batches.py"),
    # Not what is about connections and stopped servers.
    "(test_redis.py and (arithmetic or division or drops or looks or only_hit or empty_again or one_instant or clock_is or "
    "very_instant or without_an_end or equal_hits or old_server or new_enough)) or (test_redis_odd_keys and not cluster) or "
    "(test_redis_costs and not full) or (test_storage_properties and redis and not async) or one_by_one or few_numbers",
)
_PAUSES_IN_REDIS = Tests(
    ("test_pauses.py", "test_redis_odd_keys.py", "test_storage_properties.py"),
    "(redis and not async and not odd_keys) or highest_numbers or another_value or expires_with_it",
)
_SQLITE = Tests(
    ("test_sqlite.py", "test_sqlite_asyncio.py", "test_storage_properties.py", "test_interop.py", "test_pauses.py"),
    "sqlite and not async-sqlite and not sql_rules",
)
_SHARED_SQLITE = Tests(("test_sqlite.py", "test_sqlite_asyncio.py", "test_sqlite_shared.py"), slow=True)
_RULES = Tests((
    "test_rules.py", "test_plan.py", "test_rules_file.py", "test_doubts.py", "test_other_limits.py", "test_limiter_properties.py",
    "test_limiter_options.py", "test_large_rule_sets.py",
), "not redis and not cluster and not sentinel and not memcached")  # fmt: skip

COVERING: dict[str, Tests] = {
    "windows/strategies.py": _MEMORY,
    "windows/hits.py": Tests(("test_hits.py", *_MEMORY.files), _MEMORY.keyword),
    "windows/keys.py": Tests(
        ("test_keys.py", "test_limiter.py", "test_interop.py", "test_limiter_properties.py"), _MEMORY.keyword
    ),
    "windows/lazy_verdicts.py": Tests(("test_batches.py", "test_redis_replies.py")),
    "storage/memory/sync.py": _MEMORY,
    "storage/memory/packed.py": _MEMORY,
    "storage/memory/shards.py": _MEMORY,
    "storage/memory/shortcut.py": _MEMORY,
    "storage/memory/clock.py": _MEMORY,
    "storage/memory/yielding_lock.py": _MEMORY,
    "storage/memcached/record.py": _MEMCACHED,
    "storage/memcached/decide.py": _MEMCACHED,
    "storage/redis/decided.py": Tests(("test_redis_replies.py", "test_batches.py")),
    "storage/redis/incoming.py": Tests(("test_incoming.py",)),
    **{
        f"storage/sqlite/{name}.py": _SQLITE
        for name in ("decide", "item", "large", "numbers", "place", "quick", "rows", "schema", "stored_hits", "sync")
    },
    **{f"storage/sqlite/{name}.py": _SHARED_SQLITE for name in ("aio", "connection", "forking", "lock", "worker")},
    "limiter/decision.py": _LIMITER_TESTS,
    "limiter/window_state.py": _LIMITER_TESTS,
    "limiter/headers.py": Tests(("test_headers.py", "test_exceeded.py")),
    "limiter/refusals.py": Tests(("test_refusals.py",)),
    "limiter/refund.py": Tests(
        ("test_refund.py", "test_limiter.py", "test_given_back.py", "test_notifier.py", "test_log.py"),
        "not redis and not leads_to_another",
    ),
    "limiter/base.py": _LIMITER_TESTS,
    "limiter/batch.py": Tests(("test_uniform_batches.py", *_LIMITER, "test_batches.py", "test_events.py"), _LIMITER_TESTS.keyword),
    "limiter/lookup.py": Tests(
        ("test_other_limits.py", "test_doubts.py", "test_events.py", *_LIMITER, "test_sources.py"),
        f"not redis and not cluster and not sentinel and ({_LIMITER_TESTS.keyword})",
    ),
    **{f"limiter/{name}.py": _EVENTS for name in ("watched", "watching", "judgement")},
    "limiter/answers.py": Tests(
        ("test_limiter.py", "test_limiter_options.py", "test_given_back.py", "test_events.py", "test_log.py", "test_refusals.py"),
        f"not cluster and not sentinel and ({_LIMITER_TESTS.keyword})",
    ),
    **dict.fromkeys(("limiter/places.py", "limiter/waiters.py", "notifier/turns.py"), _TURNS),
    "limiter/tiers.py": Tests(
        ("test_other_limits.py", "test_limiter.py", "test_plan.py", "test_callables.py"),
        f"{_MEMORY.keyword} and (not test_callables or tier_of)",
    ),
    "notifier/policy.py": Tests(("test_policy.py", "test_notifier.py", "test_async_notifier.py")),
    "rules/plan.py": _RULES,
    "rules/rule.py": _RULES,
    "rules/ruleset.py": _RULES,
    "rules/limit.py": _RULES,
    "rules/glob.py": _RULES,
    "rules/overrides.py": _RULES,
    "rules/index.py": _RULES,
    "rules/plans.py": Tests(("test_plan.py", "test_large_rule_sets.py", "test_other_limits.py", "test_limiter.py"), _MEMORY.keyword),
    "limiter/shortcuts.py": Tests(
        ("test_large_rule_sets.py", "test_memory_shortcut.py", "test_limiter_properties.py"), _MEMORY.keyword
    ),
    **{
        f"storage/redis/{name}.lua": _PAUSES_IN_REDIS
        for name in ("pause", "extend")
    },
    **{
        f"storage/redis/{name}.lua": _REDIS
        for name in ("clock", "begin", "moving", "fixed", "sliding", "decide", "give", "one", "many", "release", "forget", "undo")
    },
}  # fmt: skip
"""By path below `src/ratelimited_notify`."""
