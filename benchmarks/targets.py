"""What is measured and what must be reached: the one place where the figures to meet are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    work: str
    """What this library does; moving windows unless said."""
    against: str
    """What it is divided by, or what is counted."""
    bound: float | None
    """What must be reached; None where the figure is only told."""
    sense: Literal["at most", "at least"] = "at most"
    unit: Literal["", "bytes", "ms", "a second"] = ""
    """Without a unit the figure is a count, or a ratio: of times where the sense is "at most", of speeds where it is "at least"."""

    def reached(self, value: float) -> bool | None:
        """Whether this figure is good enough; None where nothing was asked."""
        if self.bound is None:
            return None
        return value <= self.bound if self.sense == "at most" else value >= self.bound


BARE = "`limits`, one fixed-window `hit`"
MOVING = "`limits`, one moving-window `hit`"
THREE = "`limits`, three moving-window `hit`s"

ROWS = (
    Row("import", "`import ratelimited_notify`", "`import limits`", 0.3),
    Row("import-use", "import, and decorate a function with a limit on memory", "`import limits`", None),
    Row("memory-one", "memory: decorated call, one rule, allowed", BARE, 0.5),
    Row("memory-one-moving", "memory: the same", MOVING, None),
    Row("memory-three", "memory: decorated call, three rules, allowed", BARE, 0.8),
    Row("memory-refused", "memory: decorated call, one rule, refused (dropped)", "the allowed call", 1.0),
    Row("memory-refused-three", "memory: decorated call, three rules, refused (dropped)", "the allowed call", 1.0),
    Row("memory-refused-bare", "memory: decorated call, one rule, refused (dropped)", f"{BARE}, refused", None),
    Row("memory-raised", "memory: decorated call, one rule, refused (raised and caught)", f"{BARE}, refused", None),
    Row("memory-million", "memory: decorated call, one rule, {people} recipients, random order", BARE, 0.5),
    Row("memory-hit", "memory: `Limiter.hit`, one rule, {people} recipients, random order", BARE, 0.5),
    Row("memory-filling", "memory: the same, while filling, each recipient's first hit", BARE, None),
    Row("memory-pause", "memory: 99.99% of calls, {people} recipients coming and going", "time of one call", 1.0, unit="ms"),
    Row("memory-pause-worst", "memory: the longest of these calls", "time of one call", 5.0, unit="ms"),
    Row("memory-bytes", "memory: one live window with one hit, three rules, moving", "bytes a window", 300, unit="bytes"),
    Row("memory-bytes-fixed", "memory: the same, fixed windows", "bytes a window", None, unit="bytes"),
    Row("memory-threads", "memory: 8 threads, total throughput", "one thread", 0.8, "at least"),
    Row("redis-one", "Redis: `Limiter.hit`, one rule, allowed", MOVING, 1.05),
    Row("redis-one-refused", "Redis: the same, refused", f"{MOVING}, refused", 1.05),
    Row("redis-three", "Redis: `Limiter.hit`, three rules, allowed", THREE, 0.45),
    Row("redis-three-refused", "Redis: the same, refused by the last of the rules", f"{THREE}, the last refused", 0.45),
    Row("redis-commands", "Redis: three rules", "commands a decision", 1),
    Row("redis-hit-many", "Redis: `hit_many`, {people} recipients, three rules", f"a loop of {THREE}", 20, "at least"),
    Row("redis-send-many", "Redis: `send_many`, {people} recipients, three rules", f"a loop of {THREE}", 20, "at least"),
    Row(
        "redis-ceiling",
        "Redis: `hit_many`, {people} recipients, one fixed-window rule",
        "the server's own ceiling: a one-key script, 64 in a pipeline",
        0.5,
        "at least",
    ),
    Row("redis-speed", "Redis: the same, three rules", "decisions, one caller, on this machine", None, "at least", "a second"),
    Row("redis-remembered", "Redis: decorated call, refused a moment ago and remembered", f"{MOVING}, refused", 50, "at least"),
    Row("redis-remembered-hit", "Redis: `Limiter.hit`, likewise", f"{MOVING}, refused", None, "at least"),
    Row("redis-bytes-moving", "Valkey: one window with one hit, moving, {people} recipients", "bytes a window", None, unit="bytes"),
    Row("redis-bytes-further", "Valkey: each further hit of such a window, of five", "bytes a hit", None, unit="bytes"),
    Row("redis-bytes-fixed", "Valkey: one window with one hit, fixed, {people} recipients", "bytes a window", None, unit="bytes"),
    Row("redis-bytes-sliding", "Valkey: one window with one hit, sliding counter, {people} recipients", "bytes a window", None, unit="bytes"),
    Row("asyncio-three", "Redis, asyncio: 1,000 tasks, three rules", "`limits.aio` (redis-py), three moving-window `hit`s", 8, "at least"),
    Row("asyncio-alone", "Redis, asyncio: one task, three rules", "`limits.aio` (redis-py), three moving-window `hit`s", 0.45),
    Row("memcached-trips", "memcached: three rules, uncontended", "round trips a decision", 2),
    Row("stopped-call", "Redis stopped: a call after three in a row waited in vain, median", "time of one call", 0.05, unit="ms"),
    Row("stopped-threads", "Redis stopped for 1.2 s: 80 threads, until one is counted again", "time since it goes on", 1000, unit="ms"),
    Row("stopped-tasks", "Redis stopped for 1.2 s: 1,000 tasks, until one is counted again", "time since it goes on", 1000, unit="ms"),
    Row("memcached-three", "memcached: `Limiter.hit`, three rules, allowed", "`limits`, three fixed-window `hit`s (it has no moving ones)", None),
)  # fmt: skip
