"""Hits that cost more than 1, in moving windows on Redis: one entry each, found again, given back, and never lost."""

from __future__ import annotations

import itertools
import os
from contextlib import closing, suppress
from random import Random
from typing import TYPE_CHECKING, Self

import pytest
from limits import parse
from limits.strategies import MovingWindowRateLimiter

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import MICROSECONDS, MovingWindow, Reading, Request, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Valkey

MINUTE = 60 * MICROSECONDS
PATIENT = 30.0
"""Seconds for a decision, on machines with little to run it on."""

_numbers = itertools.count()


def one(amount: int) -> Window:
    return Window("moving-window", amount, MINUTE, rule="news")


def fresh() -> list[str]:
    """The key of a window that no other test has."""
    return [f"test:{{recipient-{os.getpid()}-{next(_numbers)}}}:rule:m"]


class ClockedStorage(RedisStorage):
    """A storage on a server whose clock is a key."""

    _CLOCK_LUA = "local now = tonumber(redis.call('GET', 'test:clock'))"


class Costly:
    """A moving window on a clock that moves, and hits of any cost in it."""

    def __init__(self, valkey: Valkey, window: Window) -> None:
        self.storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)
        self.client = valkey.client(db=1)
        self.window, self.keys = window, fresh()
        self.now = 1_800_000_000_000_000
        self.set(self.now)

    def set(self, now: int) -> None:
        self.now = now
        self.client.set("test:clock", now)

    def take(self, cost: int) -> Reading:
        return self.storage.acquire([self.window], self.keys, cost).readings[0]

    def give(self, cost: int, reading: Reading) -> bool:
        return self.storage.release([self.window], self.keys, cost, [reading.token])

    def count(self) -> int:
        return self.storage.peek([self.window], self.keys, 1).readings[0].count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.storage.close()
        self.client.close()


def test_a_hit_is_one_entry_whatever_it_costs(valkey: Valkey) -> None:
    """A hit that costs a million takes as much room on the server as one that costs 1; given back, it leaves nothing."""
    with Costly(valkey, one(3 * 10**6)) as costly:
        readings = [(cost, costly.take(cost)) for cost in (999_999, 1, 1_500, 1, 1)]

        assert [reading.count for _, reading in readings] == [999_999, 1_000_000, 1_001_500, 1_001_501, 1_001_502]
        assert costly.client.llen(costly.keys[0]) == 5
        assert costly.client.memory_usage(costly.keys[0]) < 500
        left = 1_001_502
        for place in (1, 2, 0, 4, 3):
            cost, reading = readings[place]
            assert costly.give(cost, reading)
            left -= cost
            assert costly.count() == left
            assert not costly.give(cost, reading)
        assert not costly.client.exists(*costly.keys)


@pytest.mark.parametrize("entries", [1, 2, 3, 5, 8, 13, 70])
@pytest.mark.parametrize("over", [0, 1, 4])
def test_when_a_cost_fits_is_the_arithmetic_of_windows(valkey: Valkey, entries: int, over: int) -> None:
    """For every cost, in windows of short and long lists, with entries that are over and without: number for number."""
    costs = [(3, 1, 7, 1, 1, 2, 5)[number % 7] for number in range(entries)]
    amount, record = sum(costs), MovingWindow()
    with Costly(valkey, one(amount)) as costly:
        for number, cost in enumerate(costs):
            costly.set(costly.now + 1000)
            costly.take(cost)
            record.take(costly.now, MINUTE, cost, number)
        began = costly.now - 1000 * (entries - 1)
        costly.set(began + MINUTE + 1000 * (min(over, entries - 1) - 1) if over else costly.now)
        for cost in range(1, amount + 2):
            reading = costly.storage.peek([costly.window], costly.keys, cost).readings[0]

            assert tuple(reading[:3]) == record.read(costly.now, MINUTE, amount, cost)


def test_a_plain_strategy_of_limits_takes_any_cost(valkey: Valkey) -> None:
    """Through the storage, a moving window of `limits` takes a cost of 999,999 as it does in its own storages."""
    with closing(RedisStorage(valkey.url, timeout=PATIENT)) as storage:
        strategy, limit, who = MovingWindowRateLimiter(storage), parse("1000000/minute"), fresh()[0]

        assert [strategy.hit(limit, who, cost=cost) for cost in (999_999, 2, 1, 1)] == [True, False, True, False]


def test_giving_back_a_cost_among_thousands_of_hits(valkey: Valkey) -> None:
    """Wherever the hit stands, and however many are newer: the others count as before, and expire when they would have."""
    with Costly(valkey, one(10**6)) as costly:
        readings = []
        for number in range(2_300):
            costly.set(costly.now + 1000)
            readings.append((costly.now, cost := 1 + number % 5, costly.take(cost)))
        left = sum(cost for _, cost, _ in readings)
        # At first the ones behind 1,001 and 1,000 newer ones, which are read and written 1,000 at a time, and behind one.
        for place in [1_298, 1_299, 2_298, 2_299, 0, 1, 1_150, *Random(30).sample(range(2, 1_149), 40)]:
            stamp, cost, reading = readings[place]
            assert not costly.give(cost + 1, reading)
            assert costly.give(cost, reading)
            left -= cost
            readings[place] = stamp, 0, reading
            assert costly.count() == left
            assert costly.client.ttl(costly.keys[0]) > 0
        for gone in (0, 1, 2, 700, 1_149, 1_150, 1_151, 2_298, 2_299):
            costly.set(readings[gone][0] + MINUTE)

            assert costly.count() == sum(cost for _, cost, _ in readings[gone + 1 :])


def test_giving_back_searches_the_list_once(start_valkey: Callable[..., Valkey]) -> None:
    """Looking for an entry that is not there would read the whole list, which blocks the server if it is long."""
    server = start_valkey()
    window, keys = one(10_000), fresh()
    with closing(RedisStorage(server.url, timeout=PATIENT)) as storage, server.client() as client:
        for costs in ([1, 1, 1, 1], [2, 1, 1, 1], [1, 3, 1, 1], [1, 1, 1, 2]):
            tokens = [storage.acquire([window], keys, cost).readings[0].token for cost in costs]
            for place in (2, 3, 0, 1):
                client.config_resetstat()
                assert storage.release([window], keys, costs[place], [tokens[place]])
                calls = client.info("commandstats").get("cmdstat_lrem", {"calls": 0})["calls"]
                assert calls <= 1, (costs, place)


def test_the_running_sum_starts_anew(valkey: Valkey) -> None:
    """A window that is never empty can take hits of any cost for ever: its sums stay numbers that Lua can count exactly."""
    largest = 2**48
    with Costly(valkey, one(largest)) as costly:
        hits: list[tuple[int, int]] = []

        def take(cost: int) -> None:
            hits.append((costly.now, cost))
            counted = sum(cost for stamp, cost in hits if stamp > costly.now - MINUTE)
            assert costly.take(cost).count == counted

        for step in range(40):
            costly.set(costly.now + MINUTE // 2)
            take(largest // 2 - 1_200)
            # In the middle more than fit into one command, while the sum starts anew.
            for _ in range(1_100 if step in (14, 15) else 3):
                costly.set(costly.now + 1)
                take(1)

        assert costly.client.llen(costly.keys[0]) <= 8
        assert b":" in costly.client.lindex(costly.keys[0], 0)
        assert 0 < costly.client.ttl(costly.keys[0]) < 70


@pytest.mark.parametrize("cost", [2, 3])
def test_a_cost_that_is_over_leaves_the_others(valkey: Valkey, cost: int) -> None:
    """When the hit that cost more is over, the later ones count what they cost."""
    with Costly(valkey, one(20)) as costly:
        costly.take(cost)
        costly.set(costly.now + MICROSECONDS)
        costly.take(1)
        costly.set(costly.now + MINUTE - MICROSECONDS)

        assert costly.count() == 1


@pytest.mark.parametrize("cost", [2, 3])
def test_giving_back_twice_leaves_equal_hits(valkey: Valkey, cost: int) -> None:
    """An older hit of the same cost stays, and so does one of cost 1 that was counted at the same instant since then."""
    with Costly(valkey, one(20)) as costly:
        costly.take(cost)
        costly.set(costly.now + 1)
        hit = costly.take(cost)
        assert costly.give(cost, hit)
        assert not costly.give(cost, hit)
        assert costly.count() == cost
        costly.set(costly.now + MINUTE)
        alone = costly.take(cost)
        assert costly.give(cost, alone)
        costly.take(1)

        assert not costly.give(cost, alone)
        assert costly.count() == 1


@pytest.mark.parametrize("live", [1, 2, 999, 1000, 1001, 2000])
def test_sums_of_any_number_of_hits_start_anew(valkey: Valkey, live: int) -> None:
    """However many entries go through a command at a time: all hits still count, for as long as they would have."""
    with Costly(valkey, one(10_000)) as costly:
        key = costly.keys[0]
        costly.client.lpush(key, f"{costly.now}:0:{2**51 - 10}:3")
        costly.set(costly.now + 1)
        costly.storage.acquire_many([Request([costly.window], costly.keys, 1)] * (live - 1))

        assert costly.take(12).count == 3 + (live - 1) + 12
        assert costly.client.lindex(key, 0).endswith(b":13:12")
        assert costly.client.llen(key) == live + 1
        costly.set(costly.now + MINUTE - 1)
        assert costly.count() == (live - 1) + 12


@pytest.mark.parametrize("hits", [1, 3])
def test_an_empty_window_forgets_its_sum(valkey: Valkey, hits: int) -> None:
    """When all hits of any cost are over, the next one takes as little room as in a new window: only its instant."""
    with Costly(valkey, one(20)) as costly:
        for _ in range(hits):
            costly.take(5)
        costly.set(costly.now + MINUTE)
        assert costly.count() == 0
        costly.take(1)

        assert costly.client.lrange(costly.keys[0], 0, -1) == [b"%d" % costly.now]


@pytest.mark.parametrize("cost", [1, 3])
def test_a_full_server_gives_back_or_keeps(start_valkey: Callable[..., Valkey], cost: int) -> None:
    """A server without memory gives a hit back, or keeps it and says so: it never loses other hits."""
    server = start_valkey()
    window, keys = one(100), fresh()
    with closing(RedisStorage(server.url, timeout=PATIENT)) as storage, server.client() as client:
        tokens = [storage.acquire([window], keys, cost).readings[0].token for _ in range(5)]
        client.config_set("maxmemory", 1)
        with suppress(StorageError):
            storage.release([window], keys, cost, [tokens[2]])
        client.config_set("maxmemory", 0)

        assert storage.peek([window], keys, 1).readings[0].count in ({4} if cost == 1 else {4 * cost, 5 * cost})
        storage.release([window], keys, cost, [tokens[2]])
        assert storage.peek([window], keys, 1).readings[0].count == 4 * cost
