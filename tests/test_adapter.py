"""The adapter over any other storage of `limits`."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from limits import parse
from limits.aio.storage import MemcachedStorage as AsyncStockMemcached, MemoryStorage as AsyncStockMemory
from limits.limits import GRANULARITIES
from limits.storage import MemcachedStorage as StockMemcached, MemoryStorage as StockMemory, Storage as LimitsStorage
from limits.strategies import STRATEGIES

from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.adapter import Adapter, AsyncAdapter
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, NEVER, Mode, Request, StrategyName, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimited_notify.windows.strategies import Verdict
    from servers import Memcached

STRATEGY_NAMES: list[StrategyName] = ["moving-window", "fixed-window", "sliding-window-counter"]
HOUR = 3600 * MICROSECONDS

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def timers_end() -> Iterator[None]:
    """Wait for the timer threads that the memory storage of limits leaves behind."""
    yield
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


class Waiting:
    """An asyncio adapter as a sync one: each call runs to its end in one event loop."""

    def __init__(self, storage: AsyncAdapter, runner: asyncio.Runner) -> None:
        self.storage = storage
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self.storage, name)

        async def waited(*arguments: Any) -> Any:
            return await call(*arguments)

        return lambda *arguments: self._runner.run(waited(*arguments))


@pytest.fixture(params=["memory", "async memory", "memcached", "async memcached"])
def adapter(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An adapter over each of the stock storages that the tests have a server for."""
    with asyncio.Runner() as runner:
        if request.param == "memory":
            yield Adapter(StockMemory())
        elif request.param == "async memory":
            yield Waiting(AsyncAdapter(AsyncStockMemory()), runner)
        else:
            server: Memcached = request.getfixturevalue("memcached")
            if request.param == "memcached":
                stock = StockMemcached(server.url)
                yield Adapter(stock)
                stock.storage.close()  # type: ignore[attr-defined]  # pymemcache's, which limits keeps
            else:
                asynchronous = AsyncStockMemcached(f"async+{server.url}")
                yield Waiting(AsyncAdapter(asynchronous), runner)
                runner.run(_closed(asynchronous))


async def _closed(storage: AsyncStockMemcached) -> None:
    (await storage.bridge.get_storage()).connection_pool.close()  # type: ignore[attr-defined]  # memcachio's
    await asyncio.sleep(0)


def window(strategy: StrategyName, amount: int, mode: Mode = Mode.ENFORCE, period: int = HOUR) -> Window:
    return Window(strategy, amount, period, mode, rule="news")


def keys_of(windows: list[Window]) -> list[str]:
    number = next(_numbers)
    return [f"test:{{adapter-{number}}}:rule{i}:{window.strategy[0]}" for i, window in enumerate(windows)]


def usable(adapter: Any) -> list[StrategyName]:
    """The strategies that the storage behind this adapter has."""
    stock = adapter.storage.storage if isinstance(adapter, Waiting) else adapter.storage
    return STRATEGY_NAMES[1:] if "Memcached" in type(stock).__name__ else STRATEGY_NAMES


def counts(verdict: Verdict) -> list[int]:
    return [reading.count for reading in verdict.readings]


def test_is_a_storage_that_is_not_exact() -> None:
    """The adapters answer to the protocols, and say that their promise is the weaker one."""
    adapters = Adapter(StockMemory()), AsyncAdapter(AsyncStockMemory())

    assert isinstance(adapters[0], Storage)
    assert isinstance(adapters[1], AsyncStorage)
    assert [adapter.exact for adapter in adapters] == [False, False]


def test_all_are_tested_before_one_is_hit(adapter: Any) -> None:
    """What is refused by one window is counted in none, and each window says when it has room again."""
    windows = [window(strategy, 2 + number) for number, strategy in enumerate(usable(adapter))]
    keys = keys_of(windows)
    verdicts = [adapter.acquire(windows, keys, 1) for _ in range(4)]
    seen = adapter.peek(windows, keys, 1)
    first, *others = verdicts[-1].readings

    assert [verdict.granted for verdict in verdicts] == [True, True, False, False]
    assert [counts(verdict) for verdict in verdicts] == [[n] * len(windows) for n in (1, 2, 2, 2)]
    assert (seen.granted, counts(seen)) == (False, [2] * len(windows))
    assert 0 < first.retry_at - verdicts[-1].now <= HOUR
    assert 0 < first.reset_at - verdicts[-1].now <= HOUR
    assert [reading.retry_at for reading in others] == [FITS] * len(others)
    assert {reading.token for verdict in verdicts for reading in verdict.readings} == {None}


def test_a_batch_in_order(adapter: Any) -> None:
    """A batch is decided in order, and the same recipient twice is counted twice."""
    windows = [window(strategy, 2) for strategy in usable(adapter)]
    keys = keys_of(windows)
    verdicts = adapter.acquire_many([Request(windows, keys, 1)] * 3)

    assert [verdict.granted for verdict in verdicts] == [True, True, False]


def test_peek_changes_nothing(adapter: Any) -> None:
    """Looking counts nothing."""
    windows = [window(strategy, 2) for strategy in usable(adapter)]
    keys = keys_of(windows)
    seen = [adapter.peek(windows, keys, 2) for _ in range(3)]

    assert [(verdict.granted, counts(verdict)) for verdict in seen] == [(True, [0] * len(windows))] * 3


def test_a_cost_above_the_limit_never_fits(adapter: Any) -> None:
    """A cost above the limit is refused for ever, an amount of 0 too, and costs nothing."""
    for strategy in usable(adapter):
        windows = [window(strategy, 3), window(strategy, 0)]
        keys = keys_of(windows)
        verdicts = [adapter.acquire(windows[:1], keys[:1], 4), adapter.acquire(windows[1:], keys[1:], 1)]

        assert [(verdict.granted, counts(verdict), verdict.readings[0].retry_at) for verdict in verdicts] == [
            (False, [0], NEVER)
        ] * 2


def test_forced_hits(adapter: Any) -> None:
    """A forced hit is never refused, and counted up to twice the amount."""
    for strategy in usable(adapter):
        forced, enforced = [window(strategy, 2, Mode.FORCE)], [window(strategy, 2)]
        keys = keys_of(forced)
        verdicts = [adapter.acquire(forced, keys, 1) for _ in range(6)]

        assert [verdict.granted for verdict in verdicts] == [True] * 6
        assert [counts(verdict) for verdict in verdicts] == [[1], [2], [3], [4], [4], [4]]
        assert {verdict.readings[0].retry_at for verdict in verdicts} == {FITS}
        assert adapter.acquire(enforced, keys, 1).granted is False


def test_shadow_hits(adapter: Any) -> None:
    """A window in shadow mode counts what fits, reports what does not, and refuses nothing."""
    for strategy in usable(adapter):
        windows = [window(strategy, 2, Mode.SHADOW)]
        keys = keys_of(windows)
        verdicts = [adapter.acquire(windows, keys, 1) for _ in range(3)]

        assert [verdict.granted for verdict in verdicts] == [True] * 3
        assert [counts(verdict) for verdict in verdicts] == [[1], [2], [2]]
        assert verdicts[-1].readings[0].retry_at > verdicts[-1].now
        assert verdicts[-2].readings[0].retry_at == FITS


def test_forget(adapter: Any) -> None:
    """Forgotten windows are empty; those that held something are counted."""
    windows = [window(strategy, 2) for strategy in usable(adapter)]
    keys = keys_of(windows)
    adapter.acquire(windows[:1], keys[:1], 2)

    assert adapter.forget(windows, keys) == 1
    assert counts(adapter.peek(windows, keys, 1)) == [0] * len(windows)


def test_nothing_is_given_back(adapter: Any) -> None:
    """release says False and changes nothing: limits has no verb for it. close closes nothing that others opened."""
    windows = [window(strategy, 2) for strategy in usable(adapter)]
    keys = keys_of(windows)
    verdict = adapter.acquire(windows, keys, 1)
    released = adapter.release(windows, keys, 1, [reading.token for reading in verdict.readings])
    adapter.close()

    assert released is False
    assert counts(adapter.acquire(windows, keys, 1)) == [2] * len(windows)


def test_waiting_as_told_gets_through() -> None:
    """On a window of a second, coming back at the instants that it names leads to a hit within the period."""
    adapter = Adapter(StockMemory())
    for strategy in STRATEGY_NAMES[:2]:
        windows = [window(strategy, 1, period=MICROSECONDS)]
        keys = keys_of(windows)
        adapter.acquire(windows, keys, 1)
        refused = adapter.acquire(windows, keys, 1)
        time.sleep(max(0.0, refused.readings[0].retry_at / MICROSECONDS - time.time()) + 0.001)

        assert refused.granted is False
        assert adapter.acquire(windows, keys, 1).granted is True


def test_a_lost_race_takes_nothing_more() -> None:
    """Where somebody is quicker between test and hit, the hit is refused; earlier hits stay spent, none is made negative."""

    class Raced(StockMemory):
        """Somebody else takes the moving window's place just before it is hit."""

        def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            super().acquire_entry(key, limit, expiry, limit)
            return super().acquire_entry(key, limit, expiry, amount)

    adapter = Adapter(Raced())
    windows = [window("fixed-window", 5), window("moving-window", 2), window("sliding-window-counter", 5)]
    keys = keys_of(windows)
    verdict = adapter.acquire(windows, keys, 1)

    assert (verdict.granted, counts(verdict)) == (False, [1, 2, 0])
    assert verdict.readings[1].retry_at > verdict.now


def test_counts_are_those_of_limits() -> None:
    """A strategy of limits with the same key, amount and period sees the adapter's hits, and the adapter sees its."""
    stock = StockMemory()
    adapter = Adapter(stock)
    for strategy in STRATEGY_NAMES:

        class Item(type(parse("1/hour"))):  # type: ignore[misc]  # a class that limits chooses
            """A limit under a key of its own."""

            def key_for(self, *identifiers: Any) -> str:
                return str(identifiers[0])

        windows, limiter, item = [window(strategy, 3)], STRATEGIES[strategy](stock), Item(3)
        keys = keys_of(windows)
        adapter.acquire(windows, keys, 1)
        hits = [limiter.hit(item, keys[0]) for _ in range(2)]

        assert hits == [True, True]
        assert (adapter.acquire(windows, keys, 1).granted, limiter.hit(item, keys[0])) == (False, False)


def test_limits_parses_as_before() -> None:
    """The adapter's own items take over no granularity of limits."""
    Adapter(StockMemory()).acquire([window("fixed-window", 1)], ["test:{a}:b:f"], 1)

    assert {type(parse(f"1/{name}")).__module__ for name in GRANULARITIES} == {"limits.limits"}


def test_a_strategy_that_the_storage_has_not(memcached: Memcached) -> None:
    """A rule with a strategy that the storage cannot do is an error that names both, and the ways out."""
    windows = [window("moving-window", 1)]
    said = r"'news' counts by moving-window, which MemcachedStorage cannot do.*'fixed-window' works on every storage"
    with pytest.raises(NotifyError, match=said):
        Adapter(StockMemcached(memcached.url)).peek(windows, keys_of(windows), 1)
    with pytest.raises(NotifyError, match=said):
        asyncio.run(AsyncAdapter(AsyncStockMemcached(f"async+{memcached.url}")).peek(windows, keys_of(windows), 1))


@pytest.mark.parametrize(("strategy", "days"), [("fixed-window", 31), ("sliding-window-counter", 16)])
def test_a_period_that_stock_memcached_forgets(memcached: Memcached, strategy: StrategyName, days: int) -> None:
    """A period that the stock memcached storage would not limit at all is an error that names the rule."""
    adapter = Adapter(StockMemcached(memcached.url))
    windows = [window(strategy, 1, period=days * 24 * HOUR)]
    with pytest.raises(NotifyError, match="'news' would limit nothing"):
        adapter.acquire(windows, keys_of(windows), 1)


def test_a_backend_that_fails(start_memcached: Callable[[], Memcached]) -> None:
    """What the backend's client raises reaches nobody: it is a StorageError that shows neither address nor recipient."""
    server = start_memcached()
    stock = StockMemcached(server.url)
    server.stop()
    windows = [window("fixed-window", 1)]
    with pytest.raises(StorageError, match=r"^MemcachedStorage failed with ConnectionRefusedError") as raised:
        Adapter(stock).acquire(windows, keys_of(windows), 1)

    assert raised.value.__cause__ is None
    assert server.address not in str(raised.value)


def test_a_third_party_that_fails() -> None:
    """Whatever a storage of others raises is a StorageError, awaited or not."""

    class Broken(AsyncStockMemory):
        """A storage with a defect."""

        async def get(self, key: str) -> int:
            raise KeyError(key)

    class AlsoBroken(StockMemory):
        """The same."""

        def get(self, key: str) -> int:
            raise KeyError(key)

    windows = [window("fixed-window", 1)]
    with pytest.raises(StorageError, match="Broken failed with KeyError"):
        asyncio.run(AsyncAdapter(Broken()).acquire(windows, keys_of(windows), 1))
    with pytest.raises(StorageError, match="AlsoBroken failed with KeyError"):
        Adapter(AlsoBroken()).peek(windows, keys_of(windows), 1)


def test_the_storage_is_at_hand() -> None:
    """The storage of limits itself can be asked for."""
    stock = StockMemory()

    assert isinstance(Adapter(stock).storage, LimitsStorage)
    assert Adapter(stock).storage is stock
