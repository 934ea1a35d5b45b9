"""The rows of the benchmarks and their goals. This is the only place where goals are defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One line of a table.

    If the sense is "at most", measurements return a ratio of times; if it is "at least", a ratio of speeds. The page shows
    both as speeds, so that more is better in every comparison.
    """

    name: str
    work: str
    """What this library does, with moving windows unless the text says otherwise."""
    against: str
    """What this is compared with; empty if the figure is an amount."""
    bound: float | None
    """The goal; None if the figure is only shown."""
    sense: Literal["at most", "at least"] = "at most"
    unit: str = ""
    """The unit of an amount; empty if the figure is a ratio."""

    def reached(self, value: float) -> bool | None:
        """Whether this figure reaches the goal; None if there is no goal."""
        if self.bound is None:
            return None
        return value <= self.bound if self.sense == "at most" else value >= self.bound

    @property
    def compares(self) -> bool:
        """Whether the figure compares two speeds. If not, it is an amount with a unit."""
        return not self.unit

    def speed(self, ratio: float) -> float:
        """Convert a measured ratio to how many times as fast this library is."""
        return ratio if self.sense == "at least" else 1 / ratio


BARE = "`limits`, one fixed-window `hit`"
BARE_REFUSED = "`limits`, one refused fixed-window `hit`"
MOVING = "`limits`, one moving-window `hit`"
MOVING_REFUSED = "`limits`, one refused moving-window `hit`"
THREE = "`limits`, three moving-window `hit`s"
LOOP = "`limits`, three moving-window `hit`s for each recipient, in a loop"
ASYNC_THREE = "`limits.aio` with redis-py, three moving-window `hit`s"
CALL = "a decorated call"
UNWATCHED = "the same call, unwatched"
SAME_THREE = "the same call, three rules without overrides or tiers"

ROWS = (
    Row("import", "`import ratelimited_notify`", "`import limits`", 0.3),
    Row("import-use", "import, and decorate a function with a limit in memory", "`import limits`", None),
    Row("memory-one", f"memory: {CALL}, one rule, allowed", BARE, 0.5),
    Row("memory-one-moving", f"memory: {CALL}, one rule, allowed", MOVING, None),
    Row("memory-three", f"memory: {CALL}, three rules, allowed", BARE, 0.8),
    Row("memory-refused", f"memory: {CALL}, one rule, refused (dropped)", "the same call, allowed", 1.0),
    Row("memory-refused-three", f"memory: {CALL}, three rules, refused (dropped)", "the same call, allowed", 1.0),
    Row("memory-refused-bare", f"memory: {CALL}, one rule, refused (dropped)", BARE_REFUSED, None),
    Row("memory-raised", f"memory: {CALL}, one rule, refused (raised and caught)", BARE_REFUSED, None),
    Row("memory-million", f"memory: {CALL}, one rule, {{people}} recipients in random order", BARE, 0.5),
    Row("memory-hit", "memory: `Limiter.hit`, one rule, {people} recipients in random order", BARE, 0.5),
    Row("memory-filling", f"memory: {CALL}, one rule, each of {{people}} recipients' first hit", BARE, None),
    Row("memory-pause", "memory: 99.99% of calls take no longer, three rules, {people} recipients who come and go", "", 1.0, unit="ms"),
    Row("memory-pause-worst", "memory: the longest of all these calls", "", 5.0, unit="ms"),
    Row("memory-bytes", "memory: one moving window with one hit, of three rules", "", 300, unit="bytes"),
    Row("memory-bytes-fixed", "memory: one fixed window with one hit, of three rules", "", None, unit="bytes"),
    Row("memory-threads", "memory: 8 threads together", "one thread", 0.8, "at least"),
    Row("watch-nobody", f"memory: {CALL} that nobody watches", "the same call without the lines that tell those who watch", 1.02),
    Row("watch-counters", f"memory: {CALL}, counted by `instrumentation.prometheus`", UNWATCHED, 1.7),
    Row("watch-callback", f"memory: {CALL}, watched by a callback that does nothing", UNWATCHED, None),
    Row("large-override", f"memory: {CALL}, three rules, one with 100,000 overrides, for recipients who have one", SAME_THREE, 1.3),
    Row("large-no-override", f"memory: {CALL}, three rules, one with 100,000 overrides, for other recipients", SAME_THREE, 1.3),
    Row("large-tier", f"memory: {CALL}, three rules, one with tiers", SAME_THREE, 1.3),
    Row("large-new-type", "memory: the first `Limiter.hit` of a new type among 10,000 rules, median", "", 100, unit="µs"),
    Row("large-construction", "10,000 rules with 100,000 overrides, from texts to a limiter", "", 0.4, unit="s"),
    Row("large-swap", "memory: the longest `Limiter.hit` while another thread makes and assigns such a rule set", "", 20, unit="ms"),
    Row("redis-one", "Redis: `Limiter.hit`, one rule, allowed", MOVING, 1.05),
    Row("redis-one-refused", "Redis: `Limiter.hit`, one rule, refused", MOVING_REFUSED, 1.05),
    Row("redis-three", "Redis: `Limiter.hit`, three rules, allowed", THREE, 0.45),
    Row("redis-three-refused", "Redis: `Limiter.hit`, three rules, refused by the last", f"{THREE}, refused by the last", 0.45),
    Row("watch-redis", f"Redis: {CALL}, one rule, counted by `instrumentation.prometheus`", UNWATCHED, 1.03),
    Row("redis-commands", "Redis: one decision by three rules", "", 1, unit="command"),
    Row("redis-hit-many", "Redis: `hit_many`, three rules, {people} recipients", LOOP, 20, "at least"),
    Row("redis-send-many", "Redis: `send_many`, three rules, {people} recipients", LOOP, 20, "at least"),
    Row(
        "redis-ceiling",
        "Redis: `hit_many`, one fixed-window rule, {people} recipients",
        "the most the server can do: a script with one key, 64 in a pipeline",
        0.5,
        "at least",
    ),
    Row("redis-speed", "Redis: `hit_many`, three rules, one caller", "", None, "at least", "decisions a second"),
    Row("redis-remembered", f"Redis: {CALL}, three rules, refused again within seconds, with `remember_refusals=True`", MOVING_REFUSED, 50, "at least"),
    Row("redis-remembered-hit", "Redis: `Limiter.hit`, three rules, refused again within seconds, with `remember_refusals=True`", MOVING_REFUSED, None, "at least"),
    Row("redis-bytes-moving", "Valkey: one moving window with one hit, {people} recipients", "", None, unit="bytes"),
    Row("redis-bytes-further", "Valkey: each further hit of such a window, of five", "", None, unit="bytes"),
    Row("redis-bytes-fixed", "Valkey: one fixed window with one hit, {people} recipients", "", None, unit="bytes"),
    Row("redis-bytes-sliding", "Valkey: one sliding-window counter with one hit, {people} recipients", "", None, unit="bytes"),
    Row("asyncio-three", "Redis, asyncio: 1,000 tasks at once, three rules", ASYNC_THREE, 8, "at least"),
    Row("asyncio-alone", "Redis, asyncio: one task, three rules", ASYNC_THREE, 0.45),
    Row("memcached-trips", "memcached: one decision by three rules, no other caller", "", 2, unit="round trips"),
    Row("stopped-call", "Redis hangs: a call after three time-outs in a row, median", "", 0.05, unit="ms"),
    Row("stopped-threads", "Redis hung for 1.2 s: from its return until one of 80 threads is counted again", "", 1000, unit="ms"),
    Row("stopped-tasks", "Redis hung for 1.2 s: from its return until one of 1,000 tasks is counted again", "", 1000, unit="ms"),
    Row("memcached-three", "memcached: `Limiter.hit`, three rules, allowed", "`limits`, three fixed-window `hit`s (it has no moving ones there)", None),
    Row("sqlite-one", "SQLite: one process, three rules", "", 10_000, "at least", "decisions a second"),
    Row("sqlite-four", "SQLite: four processes together, three rules", "", 10_000, "at least", "decisions a second"),
    Row("sqlite-four-fair", "SQLite: the slowest of four processes", "the fastest of them", 1 / 3, "at least"),
    Row("sqlite-four-wait", "SQLite: 99.9% of decisions take no longer, four processes", "", 500, unit="ms"),
    Row("sqlite-four-log", "SQLite: the log's largest size, four processes", "", 16, unit="megabytes"),
    Row("sqlite-batch", "SQLite: batches of 250, three moving windows", "", 50_000, "at least", "decisions a second"),
    Row("sqlite-once", "SQLite: open the file, decide, close it, median", "", 5, unit="ms"),
)  # fmt: skip
