"""The same decision with each library: `hit` functions that take a recipient and return whether it was allowed.

Each library is called as its documentation says, without any unnecessary code around the call.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import limits
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from paired import Contender
from pyrate_limiter import (
    BucketFactory,
    InMemoryBucket,
    Limiter as PyrateLimiter,
    Rate,
    RateItem,
    RedisBucket,
    WallClock,
)
from pyrate_limiter.buckets.redis_bucket import LuaScript
from throttled import MemoryStore, RedisStore, Throttled, per_duration

from ratelimited_notify import Limiter, Rule, rate_limited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limits import RateLimitItem

    Hit = Callable[[str], object]

DAY = 24 * 60 * 60

OURS = "ratelimited-notify"
PEERS = {"throttled-py": "throttled-py", "pyrate-limiter": "pyrate-limiter"}


def periods(amount: int) -> list[tuple[int, int]]:
    """Three limits (amount, seconds). The first one is the first to refuse."""
    return [(amount, 60 * 60), (2 * amount, DAY), (3 * amount, 7 * DAY)]


def one_rule(amount: int, strategy: str = "moving-window") -> list[Rule]:
    """One rule with this amount per day."""
    return [Rule("news", f"{amount}/day", strategy=strategy)]


def three_rules(amount: int, strategy: str = "moving-window", *, last: int | None = None) -> list[Rule]:
    """Three rules: for a type, for a family of types and for all types. `last` is the amount of the last rule."""
    first, second, third = (f"{each} per {seconds} second" for each, seconds in periods(amount))
    return [
        Rule("news", first, strategy=strategy),
        Rule("new*", second, strategy=strategy),
        Rule("*", third if last is None else f"{last} per {7 * DAY} second", by="recipient", strategy=strategy),
    ]


def each(hit: Hit, share: float = 1.0, **options: Any) -> Contender:
    """A contender that makes one hit after the other, in a loop that costs almost nothing."""
    return Contender(lambda recipients: list(map(hit, recipients)), share, **options)


def decorated(rules: Sequence[Rule], on_limit: str = "drop", **options: Any) -> Hit:
    """A decorated function that sends nothing."""

    @rate_limited("news", limiter=Limiter(rules, **options), on_limit=on_limit)
    def send(recipient: str) -> bool:  # noqa: ARG001  # the limiter reads it
        return True

    return send


def raising(rules: Sequence[Rule]) -> Hit:
    """The same, but a refusal is an exception that the caller catches."""
    send = decorated(rules, "raise")

    def hit(recipient: str) -> object:
        try:
            return send(recipient)
        except Exception:  # noqa: BLE001  # as short as in the code of a caller
            return False

    return hit


def hitting(rules: Sequence[Rule], storage: str, **options: Any) -> Hit:
    """`Limiter.hit`."""
    return partial(Limiter(rules, storage, timeout=10, **options).hit, "news")


def bare(amount: int, strategy: type = FixedWindowRateLimiter, uri: str = "memory://") -> Hit:
    """A bare `hit` of `limits`."""
    return partial(strategy(storage_from_string(uri)).hit, limits.parse(f"{amount}/day"), "bare")


def bare_three(amount: int, uri: str, strategy: type = MovingWindowRateLimiter, *, last: int | None = None) -> Hit:
    """Three bare hits of `limits`, one after the other."""
    first, second, third = items(amount, last=last)
    hit = strategy(storage_from_string(uri)).hit

    def hits(recipient: str) -> bool:
        return hit(first, "news", recipient) and hit(second, "new*", recipient) and hit(third, "*", recipient)

    return hits


def items(amount: int, *, last: int | None = None) -> list[RateLimitItem]:
    """The limits of the three rules as items of `limits`."""
    found = [limits.parse(f"{each} per {seconds} second") for each, seconds in periods(amount)]
    if last is not None:
        found[2] = limits.parse(f"{last} per {7 * DAY} second")
    return found


def throttled(amounts: Sequence[tuple[int, int]], store: Any, using: str) -> Hit:
    """`Throttled.limit` for each limit, one after the other."""
    limiters = [
        Throttled(
            using=using, quota=per_duration(timedelta(seconds=seconds), amount), store=store, key_prefix=f"t{seconds}"
        ).limit
        for amount, seconds in amounts
    ]
    if len(limiters) == 1:
        (limit,) = limiters
        return lambda recipient: not limit(recipient).limited
    return lambda recipient: not any(limit(recipient).limited for limit in limiters)


def throttled_memory(amounts: Sequence[tuple[int, int]], using: str = "fixed_window") -> Hit:
    """`throttled-py` in memory, with room for all recipients. By default it keeps only 1,024."""
    return throttled(amounts, MemoryStore(options={"MAX_SIZE": 10_000_000}), using)


def throttled_redis(amounts: Sequence[tuple[int, int]], uri: str) -> Hit:
    """`throttled-py` on Redis. It has no moving window; its sliding window is an estimate from two counters."""
    return throttled(amounts, RedisStore(server=uri), "sliding_window")


class Buckets(BucketFactory):
    """One bucket per recipient. Users of `pyrate-limiter` must write such a class."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self.make = make
        self.buckets: dict[str, Any] = {}
        self.clock = WallClock()

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, self.clock.now(), weight=weight)

    def get(self, item: RateItem) -> Any:
        bucket = self.buckets.get(item.name)
        if bucket is None:
            bucket = self.buckets[item.name] = self.make(item.name)
        return bucket


def pyrate(amounts: Sequence[tuple[int, int]], client: Any = None) -> Hit:
    """`Limiter.try_acquire` without waiting. Several limits are rates of one bucket."""
    rates = [Rate(amount, seconds * 1000) for amount, seconds in amounts]
    if client is None:
        buckets = Buckets(lambda _: InMemoryBucket(rates))
    else:
        script = client.script_load(LuaScript.PUT_ITEM)
        buckets = Buckets(lambda name: RedisBucket(rates, client, name, script))
    return partial(PyrateLimiter(buckets).try_acquire, blocking=False)
