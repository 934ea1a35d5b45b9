"""The interop contract: `limits`' own strategies on the storages of this library, and `limits` itself left as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st
from limits import RateLimitItem, parse
from limits.aio.storage import Storage as AsyncEngineStorage
from limits.storage import Storage as EngineStorage

from backends import STRATEGIES, Backend
from ratelimited_notify.errors import StorageError
from ratelimited_notify.rules.counter import keyed_item
from ratelimited_notify.windows.keys import foreign
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, Mode, Window

if TYPE_CHECKING:
    from ratelimited_notify.windows.strategies import StrategyName

# `limits` says periods in whole seconds; keys on real backends live for real ones, so none is short.
items = st.sampled_from(["3/minute", "5 per 2 minutes", "10/hour", "4/day", "2/month", "1/year", "1/minute"]).map(parse)
identifiers = st.lists(
    st.sampled_from(["ana@example.com", "bo cy", "a/b", "{x}", "é\n", "z" * 300]), min_size=1, max_size=2
)
# Who hits, what it costs, and how many hundredths of the period pass before.
steps = st.lists(
    st.tuples(st.sampled_from(["ours", "engine"]), st.integers(1, 4), st.integers(0, 60)), min_size=1, max_size=15
)


class Side:
    """One window, seen from both sides: this library's verbs and a strategy of `limits`."""

    def __init__(
        self, backend: Backend, name: StrategyName, item: RateLimitItem, of: list[str], *, keyed: bool
    ) -> None:
        self.backend = backend
        self.strategy = backend.strategy(name)
        self.of = [backend.namespace, *of]
        self.item = item
        if keyed:
            by = ("type", "recipient", "tenant")[: len(self.of)]
            self.item = keyed_item(item, backend.namespace, "rule", by, name)
        # The item's own key, and where the storage keeps it: the same for an item of this library.
        self.key = foreign(self.item.key_for(*self.of), name)
        self.windows = [Window(name, item.amount, item.get_expiry() * MICROSECONDS)]

        assert (self.key == self.item.key_for(*self.of)) == keyed

    def peek(self, cost: int = 1) -> tuple[bool, int]:
        seen = self.backend.storage.peek(self.windows, [self.key], cost)
        return seen.granted, seen.readings[0].count

    def acquire(self, cost: int) -> bool:
        return self.backend.storage.acquire(self.windows, [self.key], cost).granted

    def engine(self, verb: str, **options: int) -> object:
        return self.backend.call(getattr(self.strategy, verb), self.item, *self.of, **options)


@pytest.mark.parametrize("keyed", [False, True], ids=["item of limits", "item of ours"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@given(item=items, of=identifiers, hits=steps)
def test_one_verdict_from_equal_counts(
    backend: Backend, strategy: StrategyName, keyed: bool, item: RateLimitItem, of: list[str], hits: list
) -> None:
    """Whoever hits gets the same verdict, and each side counts what the other took."""
    backend.flush()
    side = Side(backend, strategy, item, of, keyed=keyed)
    for who, cost, passed in hits:
        backend.advance(item.get_expiry() * MICROSECONDS * passed // 100)
        fits, before = side.peek(cost)
        tested = side.engine("test", cost=cost)
        granted = side.acquire(cost) if who == "ours" else side.engine("hit", cost=cost)
        after = side.peek()[1]
        # `limits` counts a refused hit in a fixed window; that is its own meaning of `hit`.
        counted = granted or (who == "engine" and strategy == "fixed-window")

        assert granted == fits
        assert tested == fits
        assert after == before + (cost if counted else 0)
        assert side.engine("get_window_stats").remaining == max(0, item.amount - after)


@pytest.mark.parametrize("keyed", [False, True], ids=["item of limits", "item of ours"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clear_empties_the_window_for_both(backend: Backend, strategy: StrategyName, keyed: bool) -> None:
    """`clear` of a strategy forgets what was hit here, and `forget` what was hit there."""
    side = Side(backend, strategy, parse("2/minute"), ["ana"], keyed=keyed)
    assert side.acquire(2)
    assert not side.engine("hit")
    side.engine("clear")

    assert side.peek() == (True, 0)
    backend.advance(1)
    assert side.engine("hit", cost=2)
    assert backend.storage.forget(side.windows, [side.key]) == 1
    assert side.engine("hit", cost=2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_item_under_three_strategies(backend: Backend, strategy: StrategyName) -> None:
    """One plain item under three strategies is three windows, so a changed strategy meets no old counter."""
    others = [name for name in STRATEGIES if name != strategy]
    item = parse("1/minute")
    assert Side(backend, strategy, item, ["ana"], keyed=False).engine("hit")

    assert [Side(backend, name, item, ["ana"], keyed=False).peek() for name in others] == [(True, 0)] * 2
    assert all(Side(backend, name, item, ["ana"], keyed=False).engine("hit") for name in others)


def test_when_a_moving_window_begins(backend: Backend) -> None:
    """`get_window_stats` says when the oldest hit will be over, as `limits` documents it."""
    side = Side(backend, "moving-window", parse("3/minute"), ["ana"], keyed=True)
    first = backend.now()
    side.acquire(1)
    backend.advance(10 * MICROSECONDS)
    side.acquire(1)

    assert side.engine("get_window_stats").reset_time == pytest.approx(first / MICROSECONDS + 60)


def test_when_a_fixed_window_ends(backend: Backend) -> None:
    """`get_window_stats` says when the window ends, to the microsecond as far as a float can."""
    side = Side(backend, "fixed-window", parse("3/minute"), ["ana"], keyed=True)
    first = backend.now()
    side.acquire(1)
    backend.advance(10 * MICROSECONDS)

    assert side.engine("get_window_stats").reset_time == pytest.approx(first / MICROSECONDS + 60)


def test_a_refusal_of_limits_says_no_less_here(backend: Backend) -> None:
    """What `limits` counted above the amount blocks a fixed window here until its end, and not longer."""
    side = Side(backend, "fixed-window", parse("2/minute"), ["ana"], keyed=True)
    assert [side.engine("hit") for _ in range(5)] == [True, True, False, False, False]
    reading = backend.storage.peek(side.windows, [side.key], 1).readings[0]

    assert (reading.count, reading.retry_at) == (5, backend.now() + 60 * MICROSECONDS)
    backend.advance(60 * MICROSECONDS)
    assert backend.storage.peek(side.windows, [side.key], 1).readings[0].retry_at == FITS


def test_forced_hits_are_seen_there(backend: Backend) -> None:
    """An exempt hit takes room from whoever asks `limits`."""
    side = Side(backend, "moving-window", parse("2/minute"), ["ana"], keyed=True)
    forced = [Window("moving-window", 2, 60 * MICROSECONDS, Mode.FORCE)]
    assert all(backend.storage.acquire(forced, [side.key], 1).granted for _ in range(3))

    assert not side.engine("test")
    assert not side.engine("hit")
    assert side.peek() == (False, 3)


def test_it_is_a_storage_of_limits(backend: Backend) -> None:
    """`limits` takes the object for one of its own storages, which answers `check` and names its error."""
    kind = AsyncEngineStorage if backend.asynchronous else EngineStorage

    assert isinstance(backend.bare, kind)
    assert backend.call(backend.bare.check)
    assert backend.bare.base_exceptions is StorageError


_LOOK = """
import json, pkgutil, sys
import limits, limits.limits, limits.storage, limits.aio.storage
from limits.storage import SCHEMES

def look():
    named = lambda thing: f"{thing.__module__}.{thing.__qualname__}"
    return {
        "schemes": {scheme: named(kind) for scheme, kind in SCHEMES.items()},
        "granularities": {name: named(kind) for name, kind in limits.limits.GRANULARITIES.items()},
        "parsed": [
            [named(type(item)), item.amount, item.get_expiry(), item.key_for("a", "b")]
            for item in limits.parse_many("1/second; 2/minute; 3 per 2 hours; 4/day; 5/month; 6/year")
        ],
        "stock": [
            named(type(limits.storage.storage_from_string(uri))) for uri in ("memory://", "async+memory://")
        ],
        "methods": {
            f"{named(kind)}.{name}": str(getattr(method, "__module__", ""))
            for kind in set(SCHEMES.values())
            for name, method in vars(kind).items() if not name.startswith("_abc")
        },
        "strategies": {name: named(kind) for name, kind in limits.strategies.STRATEGIES.items()},
    }

before = look()
import ratelimited_notify.storage
from importlib import import_module
loaded = []
for module in pkgutil.walk_packages(ratelimited_notify.storage.__path__, "ratelimited_notify.storage."):
    import_module(module.name)
    loaded.append(module.name)
from limits import parse
from ratelimited_notify.rules.counter import keyed_item
for text in ("1/second", "2/minute", "3/hour", "4/day", "5/month", "6/year"):
    keyed_item(parse(text), "notify", "rule", ("recipient",), "moving-window")
json.dump({"before": before, "after": look(), "loaded": loaded}, sys.stdout)
"""


def test_limits_is_left_as_it_was() -> None:
    """After the import of every storage and the making of every item: `parse`, schemes, granularities, stock storages.

    All that may be new are schemes of this library's own, with `notify` in their names.
    """
    ran = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    before, after = said["before"], said["after"]
    new = set(after["schemes"]) - set(before["schemes"])

    assert "ratelimited_notify.storage.memory" in said["loaded"]
    assert new >= {"notify+memory", "async+notify+memory"}
    assert all("notify" in scheme for scheme in new)
    assert {scheme: kind for scheme, kind in after["schemes"].items() if scheme not in new} == before["schemes"]
    assert {name: module for name, module in after["methods"].items() if name in before["methods"]} == before["methods"]
    for part in ("granularities", "parsed", "stock", "strategies"):
        assert after[part] == before[part]
