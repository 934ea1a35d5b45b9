"""The Redis storage, sync and asyncio, on real servers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import example, given, settings, strategies as st
from limits import parse
from limits._storage_scheme import SCHEMES
from limits.storage import RedisStorage as StockStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from outcomes import ends_when_cancelled
from proxy import Proxy
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.storage.redis import scripts
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import (
    FITS,
    MICROSECONDS,
    NEVER,
    RECORDS,
    Mode,
    Request,
    Verdict,
    Window,
    look,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ratelimited_notify.windows.strategies import Record, StrategyName, Token
    from servers import Valkey

SECOND, MINUTE, DAY = MICROSECONDS, 60 * MICROSECONDS, 24 * 3600 * MICROSECONDS
STRATEGIES: tuple[StrategyName, ...] = ("moving-window", "fixed-window", "sliding-window-counter")
PATIENT = 30.0
"""Seconds for tests in which much happens at once, on machines with little to run it on."""
SOON = 3.0
"""Seconds within which a time-out of half a second has to show, on such machines."""

_numbers = itertools.count()


def someone() -> str:
    """A recipient that no other test has."""
    return f"recipient-{os.getpid()}-{next(_numbers)}"


def key(recipient: str, window: Window, number: int = 0) -> str:
    return f"test:{{{recipient}}}:rule{number}:{window.strategy[0]}"


def one(strategy: StrategyName = "moving-window", amount: int = 10, period: int = MINUTE, **options: Any) -> Window:
    return Window(strategy, amount, period, rule="news", **options)


def eventually(check: Callable[[], object]) -> bool:
    """Whether it comes true within some seconds."""
    for _ in range(500):
        if check():
            return True
        time.sleep(0.01)
    return False


class Both:
    """A sync or an asyncio storage, called in one way."""

    def __init__(self, asynchronous: bool, uri: str, **options: Any) -> None:
        self.storage: Any = (AsyncRedisStorage if asynchronous else RedisStorage)(uri, **options)
        self._loop = asyncio.new_event_loop() if asynchronous else None

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.storage, name)
        if self._loop is None:
            return verb
        return lambda *arguments: self._loop.run_until_complete(verb(*arguments))

    def close(self) -> None:
        if self._loop is None:
            self.storage.close()
        else:
            self._loop.run_until_complete(self.storage.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


@contextmanager
def opened(asynchronous: bool, uri: str, **options: Any) -> Iterator[Both]:
    both = Both(asynchronous, uri, **options)
    try:
        yield both
    finally:
        both.close()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def storage(valkey: Valkey, asynchronous: bool) -> Iterator[Both]:
    """A storage of either world on the server that all tests share."""
    with opened(asynchronous, valkey.url, timeout=PATIENT) as both:
        yield both


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A client of redis-py's own, to look behind the storage."""
    with valkey.client() as made:
        yield made


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    """A proxy before the server that all tests share."""
    with Proxy(valkey.port) as made:
        yield made


# --- The script is windows.py ---------------------------------------------------------------------------------------


class ClockedStorage(RedisStorage):
    _CLOCK_LUA = "local now = tonumber(call('GET', 'test:clock'))"


class Reference:
    """The decisions of `windows.py`, on records in a dictionary."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.marks = itertools.count()
        self.now = 0

    def found(self, windows: list[Window], keys: list[str]) -> list[Record]:
        return [self.records.get(key) or RECORDS[one.strategy]() for one, key in zip(windows, keys, strict=True)]

    def acquire(self, windows: list[Window], keys: list[str], cost: int) -> Verdict:
        records = self.found(windows, keys)
        verdict = take(windows, records, self.now, cost, next(self.marks))
        if verdict.granted:
            self.records.update(zip(keys, records, strict=True))
        return verdict

    def peek(self, windows: list[Window], keys: list[str], cost: int) -> Verdict:
        return look(windows, self.found(windows, keys), self.now, cost)

    def release(self, windows: list[Window], keys: list[str], cost: int, tokens: list[Token | None]) -> bool:
        given = False
        for one, key, token in zip(windows, keys, tokens, strict=True):
            kept = self.records.get(key)
            if token is not None and kept is not None:
                given = kept.give(self.now, one.period, cost, token) or given
        return given

    def forget(self, windows: list[Window], keys: list[str]) -> int:
        kept = [self.records.pop(key, None) for key in keys]
        return sum(
            record is not None and self.now < record.ends(self.now, one.period)
            for one, record in zip(windows, kept, strict=True)
        )


def told(verdict: Verdict) -> tuple[Any, ...]:
    """What a grant says, without the marks, which are a storage's own."""
    return (
        verdict.granted,
        verdict.now,
        [(*reading[:3], reading.token and reading.token[0]) for reading in verdict.readings],
    )


def has_same_token(hit: tuple[Any, ...], later: Iterable[tuple[Any, ...]]) -> bool:
    """Whether a later hit has the token of this one in a moving window.

    In Redis a token is the stamp and a number among hits of that stamp. So this takes a window that was emptied, and a clock
    that ran back to the very microsecond. Then a second release of the first hit gives the other one back.
    """
    windows, keys, _, _, verdict = hit
    tokens = {
        (name, reading.token)
        for one, name, reading in zip(windows, keys, verdict.readings, strict=True)
        if one.strategy == "moving-window" and reading.token is not None
    }
    return any(
        (name, reading.token) in tokens
        for _, names, _, _, other in later
        for name, reading in zip(names, other.readings, strict=True)
    )


LARGE = st.one_of(st.integers(0, 12), st.integers(10**6, 10**9))
PERIODS = st.one_of(st.sampled_from([MINUTE, 61 * SECOND + 7]), st.integers(DAY, 10_000 * DAY))


@st.composite
def windows_of_all_kinds(draw: st.DrawFn) -> list[Window]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        strategy = draw(st.sampled_from(STRATEGIES))
        # Amounts of a moving window on both sides of what is read in one piece.
        moving = st.one_of(st.integers(0, 14), st.integers(60, 70), LARGE)
        amount = draw(moving if strategy == "moving-window" else LARGE)
        made.append(Window(strategy, amount, draw(PERIODS), draw(st.sampled_from(Mode)), rule="news"))
    return made


@given(data=st.data(), windows=windows_of_all_kinds())
@settings(max_examples=150)
def test_the_script_is_the_arithmetic_of_windows(valkey: Valkey, data: st.DataObject, windows: list[Window]) -> None:
    """Any sequence of operations gives, number for number, what `windows.py` gives, also beyond 2^53 on the way."""
    recipients = [someone(), someone()]
    reference, hits = Reference(), []
    reference.now = 1_800_000_000_000_000 + data.draw(st.integers(0, 10**9))
    with valkey.client(db=1) as clock:
        storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)

        def keys(recipient: str) -> list[str]:
            return [key(recipient, one, number) for number, one in enumerate(windows)]

        def cost() -> int:
            # A part of an amount: so several hits fit, which cost more than 1.
            parts = st.sampled_from(windows).flatmap(lambda one: st.integers(1, max(1, one.amount // 2)))
            return data.draw(st.one_of(st.just(1), st.integers(1, 14), st.integers(1, 10**9), parts))

        for _ in range(data.draw(st.integers(1, 25))):
            # What happens at one microsecond happens in one script.
            steps = st.one_of(st.integers(1, 5), *(st.integers(1, 2 * one.period) for one in windows))
            # Now and then the clock runs backwards.
            back = st.one_of(*(st.integers(-one.period, -1) for one in windows))
            reference.now += data.draw(st.one_of(steps, steps, steps, back))
            clock.set("test:clock", reference.now)
            recipient = data.draw(st.sampled_from(recipients))
            match data.draw(st.sampled_from(["acquire", "acquire", "many", "peek", "release", "forget"])):
                case "acquire":
                    wanted = windows, keys(recipient), cost()
                    verdicts = [reference.acquire(*wanted)], [storage.acquire(*wanted)]
                    hits.append((*wanted, *(pair[0] for pair in verdicts)))
                case "many":
                    requests = [
                        Request(windows, keys(data.draw(st.sampled_from(recipients))), cost()) for _ in range(4)
                    ]
                    verdicts = [reference.acquire(*request) for request in requests], storage.acquire_many(requests)
                    hits.extend((*request, *pair) for request, *pair in zip(requests, *verdicts, strict=True))
                case "peek":
                    wanted = windows, keys(recipient), cost()
                    verdicts = [reference.peek(*wanted)], [storage.peek(*wanted)]
                case "release":
                    verdicts = [], []
                    distinct = [hit for number, hit in enumerate(hits) if not has_same_token(hit, hits[number + 1 :])]
                    if distinct:
                        *hit, ours, theirs = data.draw(st.sampled_from(distinct))
                        expected = reference.release(*hit, [reading.token for reading in ours.readings])

                        assert expected == storage.release(*hit, [reading.token for reading in theirs.readings])
                case _:
                    verdicts = [], []

                    assert reference.forget(windows, keys(recipient)) == storage.forget(windows, keys(recipient))
            assert list(map(told, verdicts[0])) == list(map(told, verdicts[1]))
        storage.close()


@example(a=2**27 + 1, c=2**26 + 2, share=Fraction(2**26 + 1, 2**26 + 2))  # An odd product between 2^53 and 2^54.
@example(a=321, c=28_059_810_762_434, share=Fraction(28_059_810_762_433, 28_059_810_762_434))  # 2^53 + 1.
@example(a=2**28 + 1, c=2**26 + 2, share=Fraction(2**26 + 1, 2**26 + 2))
@example(a=3, c=2**50, share=Fraction(2**50 - 1, 2**50))
@example(a=2**48 - 1, c=2**50 - 1, share=Fraction(2**50 - 3, 2**50 - 1))
@example(a=2**50 - 1, c=2**50 - 1, share=Fraction(2**50 - 3, 2**50 - 1))
@example(a=2**48, c=3, share=Fraction(1))
@given(
    a=st.integers(0, 2**48) | st.integers(0, 2**50),
    c=st.one_of(st.integers(1, 2**50), st.integers(1, 10**6)),
    share=st.fractions(0, 1),
)
def test_division_in_lua_is_exact(client: redis.Redis, a: int, c: int, share: Any) -> None:
    """Quotient and remainder of a product are Python's, though Lua's numbers have gaps above 2^53."""
    b = int(c * share)
    text = "local call, format, now = redis.call, string.format, 0\n" + scripts.lua("sliding.lua")
    text += "local q, r = divide(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))\n"
    text += "return {format('%.0f', q), format('%.0f', r)}"

    assert list(divmod(a * b, c)) == [int(number) for number in client.eval(text, 0, a, b, c)]
    # The other way round, as for the instant at which a count has faded.
    if 0 < a <= c:
        assert list(divmod(b * c, c)) == [int(number) for number in client.eval(text, 0, b, c, c)]


def test_moving_window_drops_what_is_over_however_much(valkey: Valkey) -> None:
    """Among thousands of entries those that are over are found, and dropped by the next hit, by age alone."""
    window = one(amount=10_000)
    recipient = someone()
    at = 1_800_000_000_000_000
    storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)
    with valkey.client(db=1) as clock:
        for n in range(3000):
            clock.set("test:clock", at + n * 1000)
            storage.acquire([window], [key(recipient, window)], 1)
        for gone in (0, 1, 2, 3, 17, 1000, 2998, 2999, 3000):
            clock.set("test:clock", at + MINUTE + gone * 1000 - 1)

            assert storage.peek([window], [key(recipient, window)], 1).readings[0].count == 3000 - gone
        clock.set("test:clock", at + MINUTE + 1000 * 1000)
        lowered = one(amount=1)

        assert storage.acquire([lowered], [key(recipient, lowered)], 1).readings[0].retry_at == at + MINUTE + 2_999_000
        assert clock.llen(key(recipient, window)) == 3000
        assert storage.acquire([window], [key(recipient, window)], 1).readings[0].count == 2000
        assert clock.llen(key(recipient, window)) == 2000
    storage.close()


def test_what_is_over_is_found_in_a_few_looks(valkey: Valkey) -> None:
    """When thousands of hits run out at once, the server reads some twenty of them, not all."""
    window, keys, at = one(amount=10_000), [key(someone(), one())], 1_800_000_000_000_000
    storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)
    with valkey.client(db=1) as clock:
        clock.set("test:clock", at)
        storage.acquire_many([Request([window], keys, 1)] * 2999)
        clock.set("test:clock", at + SECOND)
        storage.acquire([window], keys, 1)
        looks = []
        for passed, left in ((MINUTE, 1), (MINUTE - 1, 3000), (MINUTE + SECOND - 1, 1), (MINUTE + SECOND, 0)):
            clock.set("test:clock", at + passed)
            before = clock.info("commandstats").get("cmdstat_lindex", {"calls": 0})["calls"]
            assert storage.peek([window], keys, 1).readings[0].count == left
            looks.append(clock.info("commandstats")["cmdstat_lindex"]["calls"] - before)
    storage.close()

    assert looks[0] <= 30
    assert max(looks) <= 30


def test_giving_back_the_only_hit_of_a_window_keeps_the_one_before(valkey: Valkey) -> None:
    """In a sliding window either count may become empty while the other stays; when both are, so is the key."""
    window, at = one("sliding-window-counter", amount=10), 1_800_000_000_000_000
    keys = [key(someone(), window)]
    storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)
    with valkey.client(db=1) as clock:
        for first in (0, 1):
            clock.set("test:clock", at)
            tokens = [storage.acquire([window], keys, 4).readings[0].token]
            clock.set("test:clock", at + MINUTE)
            tokens.append(storage.acquire([window], keys, 1).readings[0].token)
            costs = [4, 1]
            counts = []
            for place in (1 - first, first):
                assert storage.release([window], keys, costs[place], [tokens[place]])
                counts.append((storage.peek([window], keys, 1).readings[0].count, clock.exists(*keys)))
                if len(counts) == 1:
                    # What the previous window counts is over a minute earlier.
                    assert (first * 60_000) + 55_000 < clock.pttl(*keys) <= (first + 1) * 60_000 + 2000

            assert counts == [([4, 1][first], 1), (0, 0)]
    storage.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_window_that_is_empty_again_is_deleted(valkey: Valkey, strategy: StrategyName) -> None:
    """When its last hit is given back, nothing of it stays on the server; before that, it stays."""
    window, keys = one(strategy, amount=10), [key(someone(), one(strategy))]
    with opened(False, valkey.url, timeout=PATIENT) as storage, valkey.client() as client:
        tokens = [storage.acquire([window], keys, 2).readings[0].token for _ in range(2)]
        held = []
        for token in tokens:
            assert storage.release([window], keys, 2, [token])
            held.append(client.exists(*keys))

    assert held == [1, 0]


def test_hits_of_one_instant_are_told_apart(valkey: Valkey) -> None:
    """Equal stamps get a sequence, and where the clock ran backwards the newest stamp stays the newest."""
    window = one(amount=20)
    keys = [key(someone(), window)]
    at = 1_800_000_000_000_000
    storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)
    with valkey.client(db=1) as clock:
        clock.set("test:clock", at)
        verdicts = [*storage.acquire_many([Request([window], keys, 2)] * 2)]
        clock.set("test:clock", at - SECOND)
        verdicts.append(storage.acquire([window], keys, 2))
        tokens = [verdict.readings[0].token for verdict in verdicts]

        assert len(set(tokens)) == 3
        assert [token[0] for token in tokens] == [at] * 3
        assert verdicts[2].readings[0].reset_at == at + MINUTE
        assert storage.release([window], keys, 2, [tokens[1]])
        assert not storage.release([window], keys, 2, [tokens[1]])
        clock.set("test:clock", at - SECOND + 1)
        again = storage.acquire([window], keys, 2).readings[0].token

        assert again not in tokens
        assert storage.peek([window], keys, 1).readings[0].count == 6
        # A hit that was given back leaves its token to nobody.
        assert storage.release([window], keys, 2, [again])
        clock.set("test:clock", at - SECOND + 2)

        assert storage.acquire([window], keys, 2).readings[0].token not in [*tokens, again]
    storage.close()


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter"])
def test_equal_hits_have_equal_tokens(valkey: Valkey, strategy: StrategyName) -> None:
    """Whether a hit is the first of its window, or one of a batch: its token is the window's instant, and no more."""
    window, at = one(strategy), 1_800_000_000_000_000
    keys = [key(someone(), window)]
    storage = ClockedStorage(f"redis://{valkey.address}/1", timeout=PATIENT)
    with valkey.client(db=1) as clock:
        clock.set("test:clock", at)
        verdicts = [storage.acquire([window], keys, 1), *storage.acquire_many([Request([window], keys, 1)] * 2)]
        clock.set("test:clock", at + SECOND)
        verdicts.append(storage.acquire([window], keys, 1))
    storage.close()

    instant = at + MINUTE if strategy == "fixed-window" else at
    assert [verdict.readings[0].token for verdict in verdicts] == [(instant, 0)] * 4


# --- Round trips ----------------------------------------------------------------------------------------------------


def test_a_decision_is_one_round_trip(proxy: Proxy, asynchronous: bool) -> None:
    """Three windows of three strategies, a hit or a release: one request each; hundreds of requests: one per 250."""
    windows = [one(strategy) for strategy in STRATEGIES]
    with opened(asynchronous, proxy.url, timeout=PATIENT) as storage:

        def trips(verb: Callable[..., Any], *arguments: Any) -> int:
            before = proxy.requests
            verb(*arguments)
            return proxy.requests - before

        keys = [key(someone(), window) for window in windows]
        requests = [Request(windows, [key(someone(), window) for window in windows], 1) for _ in range(600)]
        tokens = [reading.token for reading in storage.acquire(windows, keys, 1).readings]
        storage.peek(windows, keys, 1)
        storage.acquire_many(requests)
        storage.release(windows, keys, 1, tokens)
        storage.forget(windows, keys)

        assert trips(storage.acquire, windows, keys, 1) == 1
        assert trips(storage.peek, windows, keys, 1) == 1
        assert trips(storage.release, windows, keys, 1, tokens) == 1
        assert trips(storage.forget, windows, keys) == 1
        # Requests of this size may arrive in several pieces.
        proxy.requests = 0
        assert len(storage.acquire_many(requests[:100])) == 100
        assert proxy.requests <= 2


def test_hundreds_of_requests_are_few_scripts(valkey: Valkey, asynchronous: bool, client: redis.Redis) -> None:
    """600 requests of three windows run the script three times, and every answer belongs to its request."""
    windows = [one(strategy, amount=3) for strategy in STRATEGIES]
    people = [someone() for _ in range(200)]
    requests = [Request(windows, [key(person, window) for window in windows], 1) for person in people * 3]
    with opened(asynchronous, valkey.url, timeout=PATIENT) as storage:
        storage.acquire_many(requests[:1])
        storage.release(windows, requests[0].keys, 1, [None] * 3)
        storage.forget(windows, requests[0].keys)
        client.config_resetstat()
        verdicts = storage.acquire_many(requests)

        sent = client.info("commandstats")
        assert sum(sent.get(name, {"calls": 0})["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha")) == 3
        assert [verdict.readings[1].count for verdict in verdicts] == [1] * 200 + [2] * 200 + [3] * 200
        assert not any(verdict.granted for verdict in storage.acquire_many(requests[:200]))


def test_first_use_costs_one_more_trip_once(proxy: Proxy, asynchronous: bool, client: redis.Redis) -> None:
    """The script is named by its hash, computed here; only a server that does not know it is sent its text."""
    window, keys = one(), ["test:{first}:use:m"]
    client.script_flush()
    with opened(asynchronous, proxy.url, timeout=PATIENT) as storage:
        client.config_resetstat()
        storage.acquire([window], keys, 1)
        seen = client.info("commandstats")

        assert seen["cmdstat_eval"]["calls"] == 1
        assert "cmdstat_script|load" not in seen
        assert "cmdstat_hello" not in seen
        client.config_resetstat()
        storage.acquire([window], keys, 1)

        assert "cmdstat_eval" not in client.info("commandstats")
    client.delete(*keys)


# --- Lost answers ---------------------------------------------------------------------------------------------------


# A silent server costs a time-out each time, and how an answer is lost is the same to every script.
@pytest.mark.parametrize(
    ("strategy", "hanging"),
    [*((strategy, False) for strategy in STRATEGIES), ("moving-window", True)],
    ids=[*(f"{strategy}-closed" for strategy in STRATEGIES), "moving-window-silent"],
)
def test_a_lost_answer_neither_counts_nor_gives_twice(
    valkey: Valkey, proxy: Proxy, asynchronous: bool, strategy: StrategyName, hanging: bool
) -> None:
    """The script ran and its reply was cut off: the hit is counted once, and given back once."""
    window = one(strategy)
    keys = [key(someone(), window)]
    proxy.hanging = hanging
    with (
        opened(asynchronous, proxy.url, circuit=None) as storage,
        opened(asynchronous, valkey.url, timeout=PATIENT) as beside,
    ):
        tokens = [reading.token for reading in storage.acquire([window], keys, 1).readings]
        # Scripts that the server does not know yet are sent twice, rightly.
        assert storage.release([window], keys, 1, tokens)
        storage.acquire_many([Request([window], keys, 1)] * 2)
        tokens = [reading.token for reading in storage.acquire([window], keys, 1).readings]
        storage.acquire([window], keys, 1)

        def used() -> int:
            return beside.peek([window], keys, 1).readings[0].count

        proxy.losing = "all"
        with pytest.raises(StorageError, match="not known whether this took effect"):
            storage.acquire([window], keys, 1)
        assert used() == 5
        with pytest.raises(StorageError):
            storage.release([window], keys, 1, tokens)
        assert used() == 4
        with pytest.raises(StorageError):
            storage.acquire_many([Request([window], keys, 1)] * 2)
        assert used() == 6
        proxy.losing = "nothing"

        assert storage.peek([window], keys, 1).readings[0].count == 6


def test_where_the_bare_engine_counts_twice(proxy: Proxy, client: redis.Redis, asynchronous: bool) -> None:
    """`limits` on redis-py's defaults sends a script again when its answer is lost, so one hit counts two; here one."""
    item, who = parse("10/minute"), someone()
    with redis.Redis(port=proxy.port) as defaults:
        bare = FixedWindowRateLimiter(StockStorage("redis://", connection_pool=defaults.connection_pool))
        bare.hit(item, who)
        proxy.losing = "one"
        bare.hit(item, who)

        assert bare.get_window_stats(item, who).remaining == 7
    window, keys = one("fixed-window"), [key(someone(), one("fixed-window"))]
    with redis.Redis(port=proxy.port) as defaults:
        storage = RedisStorage(connection_pool=defaults.connection_pool)
        storage.acquire([window], keys, 1)
        proxy.losing = "one"
        with pytest.raises(StorageError):
            storage.acquire([window], keys, 1)

        assert storage.peek([window], keys, 1).readings[0].count == 2
    keys = [key(someone(), window)]
    with opened(asynchronous, f"{proxy.url}?retry_on_timeout=yes", retry=Retry(NoBackoff(), 3)) as storage:
        storage.acquire([window], keys, 1)
        proxy.losing = "one"
        with pytest.raises(StorageError):
            storage.acquire([window], keys, 1)

        assert storage.peek([window], keys, 1).readings[0].count == 2


# --- Servers in trouble ---------------------------------------------------------------------------------------------


def test_a_stopped_server_is_an_error_in_time(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """A server that hangs costs a caller about the time-out, not more, and works again when it goes on."""
    server, window = start_valkey(), one()
    keys = [key(someone(), window)]
    with opened(asynchronous, server.url) as storage:
        storage.acquire([window], keys, 1)
        server.pause()
        try:
            for said in (r"no answer within 0\.5 seconds",) * 3 + (r"is not asked.*nothing was sent",):
                begun = time.monotonic()
                with pytest.raises(StorageError, match=said) as raised:
                    storage.acquire([window], keys, 1)
                assert time.monotonic() - begun < SOON
                assert server.address in str(raised.value)
            assert not storage.check()
        finally:
            server.resume()

        assert eventually(storage.check)
        assert storage.peek([window], keys, 1).readings[0].count <= 4


def test_a_crowd_at_a_stopped_server_does_not_queue_for_ever(start_valkey: Callable[..., Valkey]) -> None:
    """200 threads and 500 tasks at a server that hangs: those that wait for a connection learn it from the others."""
    server, window = start_valkey(), one(amount=10**6)
    keys = [key(someone(), window)]

    def refused(storage: RedisStorage) -> bool:
        with pytest.raises(StorageError):
            storage.acquire([window], keys, 1)
        return True

    async def crowd(storage: AsyncRedisStorage) -> list[Any]:
        return await asyncio.gather(*(storage.acquire([window], keys, 1) for _ in range(500)), return_exceptions=True)

    storage = RedisStorage(server.url, max_connections=10)
    server.pause()
    try:
        begun = time.monotonic()
        with ThreadPoolExecutor(200) as threads:
            assert all(threads.map(refused, [storage] * 200))
        assert time.monotonic() - begun < SOON
        begun = time.monotonic()
        answers = asyncio.run(crowd(AsyncRedisStorage(server.url, max_connections=10)))

        assert all(isinstance(answer, StorageError) for answer in answers)
        assert time.monotonic() - begun < SOON
    finally:
        server.resume()

    assert eventually(storage.check)
    assert storage.acquire([window], keys, 1).granted
    storage.close()


def test_a_restarted_server_is_found_again(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """Scripts and connections are gone with a restart; the next decision succeeds all the same."""
    server, window = start_valkey(), one()
    keys = [key(someone(), window)]
    with opened(asynchronous, server.url, timeout=PATIENT) as storage:
        storage.acquire([window], keys, 1)
        server.stop()
        # An event loop that does not run in between has not heard yet that the connection is closed.
        with pytest.raises(StorageError, match=r"cannot be reached|broke before the answer"):
            storage.acquire([window], keys, 1)
        with pytest.raises(StorageError, match="cannot be reached"):
            storage.acquire([window], keys, 1)
        server.start()

        assert storage.acquire([window], keys, 1).granted
        with server.client() as client:
            client.script_flush()

        assert storage.acquire([window], keys, 1).readings[0].count == 2


def test_nobody_there(asynchronous: bool) -> None:
    """An address where nothing listens is named, with what to look at."""
    with opened(asynchronous, "redis://user:hunter2@127.0.0.1:1/3") as storage:
        with pytest.raises(StorageError, match=r"cannot be reached.*Is it running.*127\.0\.0\.1:1") as raised:
            storage.acquire([one()], ["k"], 1)

        assert "hunter2" not in f"{raised.value} {raised.value.__cause__} {storage.storage!r}"
        assert not storage.check()


def test_credentials_and_database_of_the_uri_count(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """Password and database are taken from the URI; a wrong or missing one is said, and not shown."""
    server, window = start_valkey(), one()
    keys = [key(someone(), window)]
    with server.client() as client:
        client.config_set("requirepass", "s3cret/word")
    with opened(asynchronous, f"valkey://default:s3cret%2Fword@{server.address}/5") as storage:
        storage.acquire([window], keys, 1)
        with server.client(password="s3cret/word", db=5) as client:
            assert client.exists(*keys)
        assert "s3cret" not in repr(storage.storage)
    for uri in (
        f"redis://:hunter2@{server.address}",
        f"redis://ana:hunter2@{server.address}",
        f"redis://{server.address}",
    ):
        with opened(asynchronous, uri) as storage:
            with pytest.raises(StorageError, match="refused the user or password") as raised:
                storage.acquire([window], keys, 1)
            assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


def test_a_user_who_may_not_run_scripts(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """What the server's ACL refuses is said, without the keys, which name recipients."""
    server = start_valkey()
    with server.client() as client:
        client.acl_setuser("ana", enabled=True, passwords=["+pw"], categories=["+@all", "-@scripting"], keys=["*"])
        client.acl_setuser("bo", enabled=True, passwords=["+pw"], commands=["+ping"], keys=["*"])
    with (
        opened(asynchronous, f"redis://ana:pw@{server.address}") as storage,
        pytest.raises(StorageError, match="ACL") as raised,
    ):
        storage.acquire([one()], ["test:{ana@example.com}:x:m"], 1)

    assert "ana@example.com" not in f"{raised.value} {raised.value.__cause__}"


def test_a_command_the_server_does_not_have(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """An error that quotes the command is cut before the keys."""
    server = start_valkey("--rename-command", "EVALSHA", "")
    with (
        opened(asynchronous, server.url) as storage,
        pytest.raises(StorageError, match="unknown command") as raised,
    ):
        storage.acquire([one()], ["test:{ana@example.com}:x:m"], 1)

    assert "ana@example.com" not in f"{raised.value} {raised.value.__cause__}"


def test_a_full_server_counts_nothing(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """Out of memory, a decision over several windows fails as a whole."""
    server, windows = start_valkey(), [one(strategy) for strategy in STRATEGIES]
    keys = [key(someone(), window) for window in windows]
    with opened(asynchronous, server.url, timeout=PATIENT) as storage, server.client() as client:
        storage.acquire(windows, keys, 1)
        client.config_set("maxmemory", "1")
        with pytest.raises(StorageError, match="no memory left"):
            storage.acquire(windows, keys, 1)
        client.config_set("maxmemory", "0")

        assert [reading.count for reading in storage.peek(windows, keys, 1).readings] == [1, 1, 1]


def test_a_replica_is_refused(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """A replica cannot count, and says so."""
    primary = start_valkey()
    replica = start_valkey("--replicaof", "127.0.0.1", str(primary.port))
    with opened(asynchronous, replica.url, timeout=PATIENT) as storage, pytest.raises(StorageError, match="replica"):
        storage.acquire([one()], ["test:{a}:x:m"], 1)


def test_an_old_server_is_refused(valkey: Valkey, asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis before 7 is refused by the script itself, and counts nothing."""
    monkeypatch.setattr(scripts, "_BEGIN", scripts.lua("begin.lua").replace("redis.REDIS_VERSION_NUM", "0x060210"))
    with (
        opened(asynchronous, valkey.url, timeout=PATIENT) as storage,
        pytest.raises(StorageError, match="older than version 7"),
    ):
        storage.acquire([one()], ["test:{a}:x:m"], 1)


def test_the_first_server_that_is_new_enough(
    valkey: Valkey, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 7.0.0 itself is not refused."""
    monkeypatch.setattr(scripts, "_BEGIN", scripts.lua("begin.lua").replace("redis.REDIS_VERSION_NUM", "0x070000"))
    with opened(asynchronous, valkey.url, timeout=PATIENT) as storage:
        assert storage.acquire([one()], [key(someone(), one())], 1).granted


def test_a_key_that_holds_something_else(storage: Both, client: redis.Redis) -> None:
    """A key of another program's is an error that says what to do, and is left alone."""
    keys = [key(someone(), one())]
    client.hset(keys[0], "field", "value")
    with pytest.raises(StorageError, match="holds something that this library did not write"):
        storage.acquire([one()], keys, 1)

    assert client.hgetall(keys[0]) == {b"field": b"value"}
    client.delete(*keys)


# --- Options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "redis://ana:hunter2@host:port/0",
        "http://ana:hunter2@host/0",
        "redis://[hunter2",
        "redis://h?db=hunter2x",
        "redis://h/hunter2",
        "valkeys://h/1/hunter2",
    ],
)
def test_an_unreadable_uri_is_not_shown(asynchronous: bool, uri: str) -> None:
    """A URI that cannot be used is a NotifyError at once; it may hold a password, so it is not quoted."""
    with pytest.raises(NotifyError, match="URI of the Redis storage") as raised:
        Both(asynchronous, uri).close()

    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("database", ["notadb", "1/2", "-1", "1a"])
def test_a_database_is_a_number(asynchronous: bool, database: str) -> None:
    """A database that is no number is an error; redis-py would count in database 0."""
    with pytest.raises(NotifyError, match="it must be a number"):
        Both(asynchronous, f"redis://localhost:6379/{database}").close()


def test_an_option_that_does_not_exist(valkey: Valkey, asynchronous: bool) -> None:
    """A misspelt option is an error at construction, not at the first hit."""
    with pytest.raises(NotifyError, match="sokket_timeout"):
        Both(asynchronous, valkey.url, sokket_timeout=1)


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        ("", {}, 0.5),
        ("", {"timeout": 2.0}, 2.0),
        ("", {"timeout": 2.0, "socket_timeout": 3.0}, 3.0),
        ("?timeout=4", {"timeout": 2.0}, 4.0),
        ("?socket_timeout=5", {"timeout": 2.0, "socket_timeout": 3.0}, 5.0),
    ],
)
def test_where_the_timeout_comes_from(
    valkey: Valkey, asynchronous: bool, query: str, options: dict[str, float], expected: float
) -> None:
    """Half a second, unless an option says otherwise, unless the URI does."""
    with opened(asynchronous, valkey.url + query, **options) as storage:
        assert storage.storage.timeout == expected


def test_a_unix_socket(start_valkey: Callable[..., Valkey], asynchronous: bool, tmp_path_factory: Any) -> None:
    """The schemes for Unix sockets of both names reach the server."""
    path = tmp_path_factory.mktemp("s") / "v.sock"
    server = start_valkey("--unixsocket", str(path))
    for scheme in ("redis+unix", "valkey+unix"):
        with opened(asynchronous, f"{scheme}://{path}?db=2", timeout=PATIENT) as storage:
            assert storage.acquire([one()], [key(scheme, one())], 1).granted
    with server.client(db=2) as client:
        assert client.dbsize() == 2


def test_schemes_with_tls(asynchronous: bool) -> None:
    """rediss:// and valkeys:// connect with TLS."""
    for scheme in ("rediss", "valkeys"):
        with opened(asynchronous, f"{scheme}://127.0.0.1:1") as storage:
            made = storage.storage
            reach = made._reach if asynchronous else made._connections._reach
            assert reach.args[0].__name__ == "SSLConnection"


def test_a_pool_that_waits_without_end(valkey: Valkey) -> None:
    """Of a pool whose connections have no time-out it is said how to make one; none in the URI's options is the default."""
    with pytest.raises(NotifyError, match=r"wait without a limit.*socket_timeout=0\.5"):
        RedisStorage(connection_pool=redis.ConnectionPool.from_url(valkey.url, socket_timeout=None))
    assert RedisStorage(valkey.url, timeout=2.0, socket_timeout=None).timeout == 2


def test_a_cancellation_is_never_swallowed(valkey: Valkey) -> None:
    """Whichever step of the loop it comes at, also on connections whose client, on Python 3.11, swallows it."""
    window, keys = one(amount=10**6), [key(someone(), one())]

    async def main() -> None:
        from redis.asyncio import ConnectionPool

        storage = AsyncRedisStorage(connection_pool=ConnectionPool.from_url(valkey.url, socket_timeout=PATIENT))
        await storage.acquire([window], keys, 1)
        for steps in range(40):
            assert await ends_when_cancelled(storage.acquire([window], keys, 1), steps), steps
            assert (await storage.peek([window], keys, 1)).granted
        await storage.close()

    asyncio.run(main())


def test_a_pool_of_the_callers_own(valkey: Valkey, client: redis.Redis) -> None:
    """A pool may be passed: its options are used, not its connections; it may decode."""
    window, keys = one(), [key(someone(), one())]
    pool = redis.ConnectionPool.from_url(valkey.url, decode_responses=True)
    storage = RedisStorage(connection_pool=pool)
    assert storage.acquire([window], keys, 1).granted
    storage.close()

    with redis.Redis(connection_pool=pool) as others:
        assert others.ping()

    async def asynchronously() -> int:
        from redis.asyncio import ConnectionPool

        pool = ConnectionPool.from_url(valkey.url, decode_responses=True)
        storage = AsyncRedisStorage(connection_pool=pool)
        verdict = await storage.acquire([window], keys, 1)
        await storage.close()
        assert (await storage.peek([window], keys, 1)).now > verdict.now
        await pool.disconnect()
        return verdict.readings[0].count

    assert asyncio.run(asynchronously()) == 2


def test_what_lua_could_not_count_exactly_is_refused(storage: Both) -> None:
    """Periods and amounts beyond what doubles hold are errors that name the rule."""
    for window, cost, said in (
        (one(period=2**51), 1, "period of rule 'news'"),
        (one(amount=2**49), 1, "amount of rule 'news'"),
    ):
        with pytest.raises(StorageError, match=said):
            storage.acquire([window], [key(someone(), window)], cost)
    large = one(amount=10**6)

    assert storage.peek([large], [key(someone(), large)], 10**30).readings[0].retry_at == NEVER


def test_a_missing_package_is_named() -> None:
    """Without redis-py the import says what to install."""
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from ratelimited_notify.errors import MissingExtra\n"
        "for name in ('sync', 'aio'):\n"
        "    try:\n"
        "        __import__('ratelimited_notify.storage.redis.' + name)\n"
        "    except MissingExtra as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.count("pip install 'ratelimited-notify[redis]'") == 2


def test_calls_are_kept_within_bounds(storage: Both) -> None:
    """What is packed once is kept, but not without end where costs are all different."""
    window = one("fixed-window", amount=10**9)
    keys = [key(someone(), window)]
    for cost in range(1, 1100):
        storage.peek([window], keys, cost)

    assert len(storage.storage._scripts._calls) <= 1024
    assert storage.acquire([window], keys, 1).readings[0].count == 1


def test_nothing_to_do(storage: Both) -> None:
    """No requests, no windows, no tokens: nothing is asked, or nothing refused."""
    assert list(storage.acquire_many([])) == []
    assert storage.forget([], []) == 0
    assert storage.release([], [], 1, []) is False
    assert storage.acquire([], [], 1).granted


def test_schemes_of_our_own(valkey: Valkey) -> None:
    """`limits` opens these by schemes of their own, and its own schemes still open its own."""
    ours = storage_from_string(valkey.url.replace("redis://", "notify+redis://"))
    theirs = storage_from_string("async+notify+redis://" + valkey.address)

    assert (type(ours), type(theirs)) == (RedisStorage, AsyncRedisStorage)
    assert ours.check()
    assert SCHEMES["redis"] is SCHEMES["valkey"] is StockStorage
    assert SCHEMES["async+redis"].__module__.startswith("limits.")
    ours.close()


def test_protocols() -> None:
    """Both are storages of this library, exact ones."""
    assert isinstance(RedisStorage("redis://h:1"), Storage)
    assert isinstance(AsyncRedisStorage("redis://h:1"), AsyncStorage)
    assert RedisStorage.exact is AsyncRedisStorage.exact is True


# --- Time -----------------------------------------------------------------------------------------------------------


def test_the_clock_is_the_servers(storage: Both, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock is an hour ahead blocks nobody and admits nobody."""
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "time_ns", lambda: 4 * 10**18)
    instants = []
    for _ in range(5):
        instants.append(client.time())
        instants.append(divmod(storage.acquire([one()], [key(someone(), one())], 1).now, SECOND))
    instants.append(client.time())

    # To the microsecond: neither before nor after what the server itself says.
    assert instants == sorted(instants)
    assert instants[-1][0] - instants[0][0] < 10


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_retry_at_is_the_very_instant(storage: Both, strategy: StrategyName) -> None:
    """By the server's real clock: refused at every moment before `retry_at`, allowed at it."""
    window = one(strategy, amount=3, period=SECOND)
    keys = [key(someone(), window)]
    storage.acquire([window], keys, 3)
    refused = storage.acquire([window], keys, 2)
    retry_at = refused.readings[0].retry_at
    asked = [refused]
    while not asked[-1].granted:
        # Ever closer, and without a pause for the last five milliseconds.
        time.sleep(max(0, (retry_at - asked[-1].now) / SECOND / 2 - 0.0025))
        asked.append(storage.peek([window], keys, 2))

    assert len(asked) > 1
    assert all(verdict.now < retry_at and verdict.readings[0].retry_at == retry_at for verdict in asked[:-1])
    assert asked[-1].now >= retry_at


def test_no_key_is_left_without_an_end(storage: Both, client: redis.Redis) -> None:
    """After every kind of write each key expires, a second or more after its content is over, and not much later."""
    windows = [one(strategy, period=(n + 1) * DAY) for n, strategy in enumerate(STRATEGIES)]
    windows += [one(strategy, period=n * DAY, mode=Mode.FORCE) for n, strategy in enumerate(STRATEGIES, 5)]
    keys = [key(someone(), window, n) for n, window in enumerate(windows)]

    def check() -> None:
        verdict = storage.peek(windows, keys, 1)
        for name, reading in zip(keys, verdict.readings, strict=True):
            lives = client.pttl(name) * 1000
            assert reading.reset_at - verdict.now + SECOND * 0.9 < lives < reading.reset_at - verdict.now + 5 * SECOND

    first = storage.acquire(windows, keys, 2)
    check()
    storage.acquire_many([Request(windows, keys, 1)] * 3)
    check()
    assert storage.release(windows, keys, 2, [reading.token for reading in first.readings])
    check()
    assert storage.forget(windows, keys) == 6
    assert not client.exists(*keys)


def test_a_window_that_is_given_back_leaves_nothing(storage: Both, client: redis.Redis) -> None:
    """With its only hit given back, a window takes no space."""
    windows = [one(strategy) for strategy in STRATEGIES]
    keys = [key(someone(), window) for window in windows]
    tokens = [reading.token for reading in storage.acquire(windows, keys, 1).readings]

    assert storage.release(windows, keys, 1, tokens)
    assert not client.exists(*keys)
    assert not storage.release(windows, keys, 1, tokens)
    assert not storage.release(windows, keys, 1, [None] * 3)


def test_reset_drops_our_keys_only(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """Every namespace of ours goes, and what looks like it but is not ours stays."""
    server, window = start_valkey(), one()
    others = ["else", "a:{b}:c", "a:{b}:c:x", "a b:{c}:d:m", "{c}:d:m", "a:{}:d:m"]
    with opened(asynchronous, server.url, timeout=PATIENT) as storage, server.client() as client:
        for name in others:
            client.set(name, "kept")
        requests = [Request([window], [f"n{n % 3}:{{{n}}}:r:m"], 1) for n in range(1500)]
        storage.acquire_many(requests)

        assert storage.reset() == 1500
        assert sorted(name.decode() for name in client.scan_iter()) == sorted(others)
        assert storage.reset() == 0


# --- Many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sixteen_threads_on_a_fresh_key(valkey: Valkey, strategy: StrategyName) -> None:
    """Threads that race for a new window never get more than its amount, nor less."""
    storage = RedisStorage(valkey.url, timeout=PATIENT)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as threads:
            for _ in range(100):
                window = one(strategy, amount=5)
                keys = [key(someone(), window)]
                verdicts = list(threads.map(lambda _: storage.acquire([window], keys, 1), range(16)))  # noqa: B023  # all are waited for here

                assert sum(verdict.granted for verdict in verdicts) == 5
    finally:
        sys.setswitchinterval(before)
        storage.close()


def test_more_threads_than_connections(valkey: Valkey, client: redis.Redis) -> None:
    """Threads wait for a connection in turn: all are served, over no more connections than allowed."""
    window = one(amount=500)
    keys = [key(someone(), window)]
    storage = RedisStorage(valkey.url, timeout=PATIENT, max_connections=3, client_name="crowd")

    def several(_: int) -> int:
        return sum(storage.acquire([window], keys, 1).granted for _ in range(10))

    with ThreadPoolExecutor(100) as threads:
        assert sum(threads.map(several, range(100))) == 500
    assert sum(one["name"] == "crowd" for one in client.client_list()) <= 3
    storage.close()


def test_a_connection_that_never_comes_free(valkey: Valkey) -> None:
    """Who waits too long for a busy connection is told that nothing was sent."""
    storage, window = RedisStorage(valkey.url, timeout=PATIENT, max_connections=1), one()
    keys = [key(someone(), window)]
    storage.acquire([window], keys, 1)
    places = storage._connections.places
    taken = places.take(time.monotonic() + PATIENT, None)
    storage.timeout = 0.01
    with pytest.raises(StorageError, match=r"All 1 connections.*nothing was sent"):
        storage.acquire([window], keys, 1)
    places.give(taken)
    storage.timeout = PATIENT

    assert storage.acquire([window], keys, 1).readings[0].count == 2
    storage.close()


HAMMER = """
import sys
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import Window
storage, window = RedisStorage(sys.argv[1], timeout=30), Window("moving-window", 100, 60_000_000)
print("ready", flush=True)
input()
print(sum(storage.acquire([window], [sys.argv[2]], 1).granted for _ in range(50)))
"""


def test_eight_processes_share_a_limit(valkey: Valkey) -> None:
    """Eight processes that try 400 times are admitted exactly 100 times."""
    command = [sys.executable, "-c", HAMMER, valkey.url, key(someone(), one())]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()

    assert sum(int(process.communicate()[0]) for process in processes) == 100


def test_a_thousand_tasks_at_once(valkey: Valkey, client: redis.Redis) -> None:
    """1,000 tasks share the connections of their loop; exactly the limit is admitted, again and again."""
    storage = AsyncRedisStorage(valkey.url, timeout=PATIENT, client_name="tasks")

    async def main() -> None:
        for strategy in STRATEGIES:
            window = one(strategy, amount=100)
            keys = [key(someone(), window)]
            verdicts = await asyncio.gather(*(storage.acquire([window], keys, 1) for _ in range(1000)))

            assert sum(verdict.granted for verdict in verdicts) == 100
        assert sum(one["name"] == "tasks" for one in client.client_list()) <= 50

    asyncio.run(main())


# --- Event loops ----------------------------------------------------------------------------------------------------


def connected(client: redis.Redis, name: str) -> int:
    """How many connections of this name the server has, once it has noticed those that are gone."""
    for _ in range(100):
        found = sum(one["name"] == name for one in client.client_list())
        if not found:
            break
        time.sleep(0.01)
    return found


def test_several_event_loops(valkey: Valkey, client: redis.Redis) -> None:
    """One storage serves loops one after another and at once, and each loop closes its connections when it ends."""
    name = someone()
    storage = AsyncRedisStorage(valkey.url, timeout=PATIENT, client_name=name)
    window = one(amount=10**6)
    keys = [key(someone(), window)]

    async def some() -> int:
        verdicts = await asyncio.gather(*(storage.acquire([window], keys, 1) for _ in range(20)))
        return sum(verdict.granted for verdict in verdicts)

    for _ in range(3):
        assert asyncio.run(some()) == 20
        assert connected(client, name) == 0
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: asyncio.run(some()), range(12))) == [20] * 12
    assert connected(client, name) == 0
    asyncio.run(some())

    assert len(storage._lanes) == 1
    assert asyncio.run(storage.peek([window], keys, 1)).readings[0].count == 16 * 20
    gc.collect()


def test_a_storage_dropped_without_close(valkey: Valkey, client: redis.Redis) -> None:
    """A storage that is forgotten while its loop runs on leaves no connection behind, its first use included."""
    name = someone()
    client.script_flush()

    async def main() -> None:
        storage = AsyncRedisStorage(valkey.url, timeout=PATIENT, client_name=name)
        await storage.acquire([one()], [key(someone(), one())], 1)
        del storage
        gc.collect()
        for _ in range(500):
            if not connected(client, name):
                break
            await asyncio.sleep(0.01)

        assert connected(client, name) == 0

    asyncio.run(main())


def test_close_and_use_again(valkey: Valkey, client: redis.Redis) -> None:
    """Closing lets go of the loop's connections; closing again does nothing."""
    name = someone()

    async def main() -> None:
        storage = AsyncRedisStorage(valkey.url, timeout=PATIENT, client_name=name)
        await storage.acquire([one()], [key(someone(), one())], 1)
        await storage.close()

        assert connected(client, name) == 0
        await storage.close()

    asyncio.run(main())


# --- Cancellation ---------------------------------------------------------------------------------------------------


def test_a_cancelled_decision_leaves_no_reply_behind(valkey: Valkey, proxy: Proxy) -> None:
    """Tasks cancelled at any moment: every later answer belongs to its question, and no connection is lost."""
    draw = random.Random(7)
    proxy.delay = lambda: draw.choice([0, 0.0002, 0.001])
    windows = [one("fixed-window", amount=1000 + n) for n in range(20)]
    keys = [[key(someone(), window)] for window in windows]

    async def main() -> int:
        direct = AsyncRedisStorage(valkey.url, timeout=PATIENT)
        for n in range(20):
            await direct.acquire([windows[n]], keys[n], 100 + n)
        storage = AsyncRedisStorage(proxy.url, timeout=PATIENT, max_connections=3)
        cancelled = 0
        for _ in range(150):
            asked = [draw.randrange(20) for _ in range(6)]
            tasks = [asyncio.ensure_future(storage.peek([windows[n]], keys[n], 1)) for n in asked]
            for _ in range(draw.randrange(40)):
                await asyncio.sleep(0)
            await asyncio.sleep(draw.choice([0, 0, 0.0003, 0.001]))
            for task in draw.sample(tasks, 3):
                task.cancel()
            for n, answer in zip(asked, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
                if isinstance(answer, asyncio.CancelledError):
                    cancelled += 1
                else:
                    assert answer.readings[0].count == 100 + n
        answers = await asyncio.gather(*(storage.peek([windows[n]], keys[n], 1) for n in range(20)))
        assert [answer.readings[0].count for answer in answers] == [100 + n for n in range(20)]
        return cancelled

    assert asyncio.run(main()) > 100


def test_a_cancelled_hit_counts_at_most_once(valkey: Valkey, proxy: Proxy) -> None:
    """A hit that is cancelled while its script runs is counted or not, but never sent again."""
    proxy.delay = lambda: 0.002
    window = one(amount=10**6)
    keys = [key(someone(), window)]

    async def main() -> tuple[int, int]:
        storage = AsyncRedisStorage(proxy.url, timeout=PATIENT)
        await storage.acquire([window], keys, 1)
        for n in range(60):
            task = asyncio.ensure_future(storage.acquire([window], keys, 1))
            await asyncio.sleep(n * 0.00005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.05)
        return (await storage.peek([window], keys, 1)).readings[0].count, proxy.lost

    count, lost = asyncio.run(main())

    assert 1 <= count <= 61
    assert lost == 0


def test_an_interrupted_thread_leaves_no_reply_behind(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between question and answer costs the connection, not the next caller."""
    storage, window = RedisStorage(proxy.url, timeout=PATIENT, max_connections=1), one()
    first, second = [key(someone(), window)], [key(someone(), window)]
    storage.acquire([window], first, 7)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    places = storage._connections.places
    taken = places.take(time.monotonic() + PATIENT, None)
    monkeypatch.setattr(taken._inner, "read_response", interrupted)
    places.give(taken)
    with pytest.raises(KeyboardInterrupt):
        storage.acquire([window], first, 1)

    assert storage.peek([window], second, 1).readings[0].count == 0
    assert storage.peek([window], first, 1).readings[0].retry_at == FITS
    storage.close()


def test_threads_do_not_mix_answers(valkey: Valkey) -> None:
    """Many threads with keys of their own: every answer is the caller's own."""
    storage = RedisStorage(valkey.url, timeout=PATIENT, max_connections=4)
    wrong: list[int] = []

    def own(n: int) -> None:
        window = one("fixed-window", amount=10**6)
        keys = [key(someone(), window)]
        counts = [storage.acquire([window], keys, n).readings[0].count for _ in range(40)]
        if counts != [n * done for done in range(1, 41)]:
            wrong.append(n)

    threads = [threading.Thread(target=own, args=(n,)) for n in range(1, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    storage.close()
