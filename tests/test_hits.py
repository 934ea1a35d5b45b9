"""The hits of a moving window: the same as a plain list of them, and as quick with a million as with a few."""

from __future__ import annotations

import time
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

import ratelimited_notify.windows.hits as module
from backends import DAY, SECOND, window
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.windows.hits import Hits
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, MovingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimited_notify.windows.hits import Hit
    from ratelimited_notify.windows.strategies import Token


@contextmanager
def short_blocks() -> Iterator[None]:
    """So few hits make a block full that a test fills many of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_FULL", 8 * 3)
        yield


# Also numbers that do not fit into an array.
numbers = st.one_of(st.integers(1, 3), st.just(2**62), st.just(2**63), st.just(2**70))
steps = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 5), numbers),
    st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 5), st.just(1)),
    st.tuples(st.just("many"), st.integers(0, 1), st.integers(1, 30), st.just(1)),
    st.tuples(st.just("remove"), st.integers(0, 200), st.just(0), st.just(0)),
    st.tuples(st.just("fewer"), st.integers(1, 20), st.just(0), st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, 40), st.just(0), st.just(0)),
)


@given(script=st.lists(steps, max_size=40), start=st.sampled_from([-(2**64), -5, 0, 10**15, 2**63 - 20]))
@short_blocks()
def test_they_are_what_a_list_of_them_is(script: list[tuple[str, int, int, int]], start: int) -> None:
    """Put in, taken out, dropped, counted and looked up in any order, at any instants and costs."""
    hits, plain = Hits(), list[tuple[int, int, int]]()
    now = start
    for verb, one, other, cost in script:
        if verb == "add":
            now += one
            hits.add(now, other, cost)
            plain.append((now, other, cost))
        elif verb == "many":
            for number in range(other):
                now += one
                hits.add(now, number % 4, cost)
                plain.append((now, number % 4, cost))
        elif verb == "remove" and plain:
            hit = plain.pop(one % len(plain))
            assert hits.remove(*hit)
            assert hits.remove(*hit) == (hit in plain)
            if hit in plain:
                plain.remove(hit)
        elif verb == "fewer":
            # All but some, so that blocks become small.
            for hit in plain[one:]:
                assert hits.remove(*hit)
            del plain[one:]
        elif verb == "drop":
            hits.drop_until(now - one)
            plain = [hit for hit in plain if hit[0] > now - one]
        assert_same(hits, plain, now)


def assert_same(hits: Hits, plain: list[Hit], now: int) -> None:
    """Everything that can be asked of the hits, held against the list."""
    ordered = sorted(plain, key=lambda hit: hit[:2])
    assert sorted(hits) == sorted(plain)
    assert [hit[:2] for hit in hits] == [hit[:2] for hit in ordered]
    assert (len(hits), bool(hits), hits.total) == (len(plain), bool(plain), sum(cost for *_, cost in plain))
    assert not hits.remove(now + 1, 0, 1)
    assert not hits.remove(now, 99, 1)
    assert list(Hits(ordered)) == ordered
    if not plain:
        return
    assert (hits.oldest, hits.newest) == (ordered[0][0], ordered[-1][0])
    for stamp in {now - 5, now - 1, now, hits.oldest, hits.oldest - 1}:
        assert hits.cost_until(stamp) == sum(cost for one, _, cost in plain if one <= stamp)
    for cost in {1, min(2, hits.total), hits.total // 2, hits.total} - {0}:
        reached = next(stamp for stamp, *_ in ordered if sum(cost for one, _, cost in plain if one <= stamp) >= cost)
        assert hits.reached(cost) == reached


@short_blocks()
def test_a_window_out_of_which_much_is_taken_shrinks() -> None:
    """Of ten thousand hits every hundredth stays: they share blocks."""
    hits = Hits((number, 0, 1) for number in range(10_000))
    for number in range(10_000):
        if number % 100:
            assert hits.remove(number, 0, 1)

    assert list(hits) == [(number, 0, 1) for number in range(0, 10_000, 100)]
    assert len(hits._blocks) <= 60


def test_reading_drops_nothing() -> None:
    """What is over at one instant still counts at an earlier one: a clock may run backwards."""
    record = MovingWindow((number, 0, 1) for number in range(100, 110))

    assert record.read(200, 50, 20, 1) == (0, FITS, 200)
    assert record.read(155, 50, 20, 1)[0] == 4
    assert record.read(120, 50, 20, 11)[:2] == (10, 150)


MANY = 1_000_000


class Running:
    """A clock that goes on by three microseconds each time."""

    def __init__(self) -> None:
        self.now = 1_764_000_000 * SECOND

    def __call__(self) -> float:
        self.now += 3
        return self.now / MICROSECONDS


@pytest.fixture(scope="module", params=[1, 2], ids=["cost 1", "costs 1 and 2"])
def full(request: pytest.FixtureRequest) -> tuple[MemoryStorage, Running, list[tuple[int, Token]]]:
    """A window of a million hits in memory, and what each left."""
    clock = Running()
    storage = MemoryStorage(clock=clock)
    record = MovingWindow()
    tokens: list[tuple[int, Token]] = []
    for number in range(MANY):
        clock.now += 3
        cost = 1 + number % request.param
        tokens.append((cost, record.take(clock.now, DAY, cost, number % 1000)))
    from ratelimited_notify.storage.memory.packed import packed

    storage.shards.of("cap")["cap"] = packed(record, DAY)
    return storage, clock, tokens


def typical(call: Callable[[], object], times: int = 25) -> float:
    """Seconds of this thread for one call, as half of them take."""
    taken = []
    for _ in range(times):
        began = time.thread_time()
        call()
        taken.append(time.thread_time() - began)
    return median(taken)


# A walk over a million hits takes 10 ms at the least, and took up to 100. What is wanted is 50 microseconds for the newest,
# and never more than a millisecond; a machine that is busy with other things still tells these from a walk.
WALK = 0.005


def test_giving_back_looks_at_few_hits(full: tuple[MemoryStorage, Running, list[tuple[int, Token]]]) -> None:
    """The newest of a million, any other, and one that was given back before."""
    storage, _, tokens = full
    one = window("moving-window", 10 * MANY, DAY)
    before = storage.peek([one], ["cap"], 1).readings[0].count

    def give(place: int) -> tuple[int, Token]:
        cost, token = tokens.pop(place)
        assert storage.release([one], ["cap"], cost, [token])
        return cost, token

    assert typical(lambda: give(-1)) < WALK
    assert typical(lambda: give(len(tokens) // 3)) < WALK
    assert typical(lambda: give(0)) < WALK
    cost, token = give(MANY // 2)
    assert typical(lambda: storage.release([one], ["cap"], cost, [token])) < WALK
    assert storage.peek([one], ["cap"], 1).readings[0].count < before


@pytest.mark.parametrize("verb", ["peek", "acquire"])
def test_a_large_cost_looks_at_few_hits(
    full: tuple[MemoryStorage, Running, list[tuple[int, Token]]], verb: str
) -> None:
    """When half a million or a million more would fit is told without counting up to it."""
    storage, _, tokens = full
    held = storage.peek([window("moving-window", 1, DAY)], ["cap"], 1).readings[0].count
    one = window("moving-window", held, DAY)
    ask = getattr(storage, verb)

    assert typical(lambda: ask([one], ["cap"], held // 2)) < WALK
    assert typical(lambda: ask([one], ["cap"], held)) < WALK
    assert ask([one], ["cap"], held).readings[0].retry_at == tokens[-1][1][0] + DAY


def test_many_hits_are_over_at_once(full: tuple[MemoryStorage, Running, list[tuple[int, Token]]]) -> None:
    """Half a million, and then the rest: neither reading nor deciding takes them one by one."""
    storage, clock, tokens = full
    one = window("moving-window", 10 * MANY, DAY)
    middle = len(tokens) // 2
    clock.now = tokens[middle][1][0] + DAY
    left = sum(cost for cost, token in tokens[middle + 1 :] if token[0] + DAY > clock.now)
    took = typical(lambda: storage.peek([one], ["cap"], 1), 3), typical(lambda: storage.acquire([one], ["cap"], 1), 1)

    assert max(took) < WALK
    assert left - 20 < storage.peek([one], ["cap"], 1).readings[0].count <= left + 1
    clock.now += DAY + DAY // 2
    assert typical(lambda: storage.acquire([one], ["cap"], 1), 1) < WALK
    assert storage.peek([one], ["cap"], 1).readings[0].count == 1
