"""The records of `windows.py`, directly: tiny periods and huge ones, a clock that begins at 0 and one that steps back."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings, strategies as st

from backends import DAY, HOUR, MINUTE, STRATEGIES, window
from model import KINDS, NEVER, Model, plain
from ratelimited_notify.windows.strategies import FITS, RECORDS, Mode, SlidingWindowCounter, look, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.windows.strategies import Record, StrategyName, Verdict, Window

periods = st.one_of(st.integers(1, 12), st.sampled_from([MINUTE, HOUR, 10_000 * DAY]))
amounts = st.one_of(st.integers(0, 8), st.integers(0, 10**9))
strategies = st.sampled_from(STRATEGIES)


class Bare:
    """The smallest storage there can be: records in a dictionary, and a clock that the test sets."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows
        self.records: list[Record] = [RECORDS[one.strategy]() for one in windows]
        self.model = Model()
        self.keys = [str(number) for number in range(len(windows))]
        self._marks = count()

    def both(self, verb: str, now: int, cost: int) -> Verdict:
        """The answer of `look` or `take`, after it was held against the model's."""
        self.model.now = now
        if verb == "look":
            expected, got = self.model.peek(self.windows, self.keys, cost), look(self.windows, self.records, now, cost)
        else:
            expected = self.model.acquire(self.windows, self.keys, cost)
            got = take(self.windows, self.records, now, cost, next(self._marks))
        self.tickets = [said.ticket for said in expected.said]

        assert plain(expected) == plain(got)
        return got

    def give(self, number: int, now: int, cost: int, verdict: Verdict, ticket: object) -> bool:
        """Give back what a grant took from one window, to both."""
        self.model.now = now
        token = verdict.readings[number].token
        if token is None:
            return False
        expected = self.model.release(self.windows[number : number + 1], self.keys[number : number + 1], cost, [ticket])
        got = self.records[number].give(now, self.windows[number].period, cost, token)

        assert expected == got
        return got


# Cheap examples, and many corners: ten times as many as elsewhere.
@settings(max_examples=10 * settings.default.max_examples)
@given(
    drawn=st.lists(st.tuples(strategies, amounts, periods, st.sampled_from(list(Mode))), min_size=1, max_size=3),
    start=st.sampled_from([0, 1, 10**15, 4 * 10**15]),
    data=st.data(),
)
def test_records_say_what_the_model_says(drawn: list, start: int, data: st.DataObject) -> None:
    """Hits, looks and releases at any instants, also when the clock begins at 0 or steps back."""
    bare = Bare([window(strategy, amount, period, mode=mode) for strategy, amount, period, mode in drawn])
    now = start
    hits: list[tuple[int, Verdict, list]] = []
    longest = max(one.period for one in bare.windows)
    # Where a window begins is where edges are: whole and half periods away from now, and right beside them.
    away = st.one_of(
        st.integers(0, 3),
        st.builds(
            lambda one, times, beside: max(0, one.period * times // 2 + beside),
            st.sampled_from(bare.windows),
            st.integers(0, 5),
            st.integers(-1, 1),
        ),
        st.integers(0, 3 * longest),
    )
    for verb in data.draw(st.lists(st.sampled_from(["take", "take", "take", "look", "give", "back"]), max_size=25)):
        if verb == "back":
            now = max(0, now - data.draw(away))
            continue
        now += data.draw(away)
        if verb == "give":
            if hits:
                cost, verdict, tickets = data.draw(st.sampled_from(hits))
                number = data.draw(st.integers(0, len(drawn) - 1))
                bare.give(number, now, cost, verdict, tickets[number])
        else:
            cost = data.draw(
                st.one_of(st.integers(1, 4), st.sampled_from([max(1, one.amount) for one in bare.windows]))
            )
            verdict = bare.both(verb, now, cost)
            if verb == "take" and verdict.granted:
                hits.append((cost, verdict, bare.tickets))


@given(
    strategy=strategies,
    amount=st.integers(1, 10**9),
    period=st.one_of(st.integers(1, 10), st.integers(1, 10_000 * DAY)),
    hits=st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 2)), min_size=1, max_size=8),
    cost=st.integers(1, 10**9),
)
@example(strategy="sliding-window-counter", amount=10**9, period=10_000 * DAY, hits=[(10**9, 0.0)], cost=1)
@example(strategy="sliding-window-counter", amount=1, period=1, hits=[(1, 0.0)], cost=1)
def test_retry_at_is_exact(strategy: StrategyName, amount: int, period: int, hits: list, cost: int) -> None:
    """Whatever the sizes: refused a microsecond before `retry_at`, allowed at it, and refused all the way there."""
    record = RECORDS[strategy]()
    now = 0
    for mark, (taken, periods_later) in enumerate(hits):
        now += int(period * periods_later)
        wanted = 1 + taken % amount
        if record.read(now, period, amount, wanted)[1] == FITS:
            record.take(now, period, wanted, mark)
    _, retry_at, reset_at = record.read(now, period, amount, cost)

    assert (retry_at == NEVER) == (cost > amount)
    if now < retry_at < NEVER:
        assert retry_at <= reset_at
        for earlier in {now, (now + retry_at) // 2, retry_at - 1}:
            assert record.read(earlier, period, amount, cost)[1] == retry_at
        assert record.read(retry_at, period, amount, cost)[1] == FITS
    assert record.read(reset_at, period, amount, min(cost, amount))[1] == FITS


@given(
    amount=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.integers(0, 12), st.one_of(st.just(0), st.integers(0, 30)), st.integers(1, 3)), max_size=40
    ),
)
def test_a_clock_that_steps_back_lets_nothing_through(amount: int, steps: list) -> None:
    """Moving window: in no true period more than the amount, however often the clock is set back meanwhile.

    A hit is dropped once the clock says that a period has gone by. A clock that only ever loses time says so too late,
    never too early. (One that jumps forward does lose hits; that is the clock's promise to keep.)
    """
    period = 10
    record = RECORDS["moving-window"]()
    true, lost = 10**6, 0
    admitted: list[tuple[int, int]] = []
    for mark, (passed, back, cost) in enumerate(steps):
        true += passed
        lost += back
        if record.read(true - lost, period, amount, cost)[1] == FITS:
            record.take(true - lost, period, cost, mark)
            admitted.append((true, cost))

    for begin, _ in admitted:
        assert sum(cost for instant, cost in admitted if begin <= instant < begin + period) <= amount


@given(
    strategy=strategies,
    hits=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), min_size=1, max_size=10),
    back=st.integers(0, 60),
)
def test_a_step_back_frees_nothing(strategy: StrategyName, hits: list, back: int) -> None:
    """When the clock steps back, no window says that it holds less than before."""
    period, amount = 10, 6
    record = RECORDS[strategy]()
    now = 100
    for mark, (passed, cost) in enumerate(hits):
        now += passed
        if record.read(now, period, amount, cost)[1] == FITS:
            record.take(now, period, cost, mark)
    before = record.read(now, period, amount, 1)[0]

    assert record.read(now - back, period, amount, 1)[0] >= before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hit_is_over_exactly_a_period_later(strategy: StrategyName) -> None:
    """Nothing is given back at the very instant at which it no longer counts, with no look at the record between."""
    record = RECORDS[strategy]()
    period = 10
    lasts = 2 * period if strategy == "sliding-window-counter" else period
    token = record.take(100, period, 1, 0)

    assert not record.give(100 + lasts, period, 1, token)
    assert record.give(100 + lasts - 1, period, 1, token)


@given(
    hits=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 3)), min_size=1, max_size=8), later=st.integers(0, 25)
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ends_is_when_a_record_may_be_dropped(strategy: StrategyName, hits: list, later: int) -> None:
    """From `ends` on a record says the same as a fresh one, and before it does not."""
    record = RECORDS[strategy]()
    now, period = 50, 10
    for mark, (passed, cost) in enumerate(hits):
        now += passed
        record.take(now, period, cost, mark)
    ends = record.ends(now, period)

    assert record.read(ends - 1, period, 100, 1) != RECORDS[strategy]().read(ends - 1, period, 100, 1)
    assert record.read(ends + later, period, 100, 1) == RECORDS[strategy]().read(ends + later, period, 100, 1)


def test_equal_instants_are_told_apart() -> None:
    """Two hits of one microsecond: giving one back twice leaves the other."""
    record = RECORDS["moving-window"]()
    first, second = record.take(100, 10, 1, 0), record.take(100, 10, 1, 1)

    assert first != second
    assert [record.give(100, 10, 1, first) for _ in range(2)] == [True, False]
    assert record.read(100, 10, 5, 1)[0] == 1


@pytest.mark.parametrize(
    ("strategy", "later"), [*((strategy, 0) for strategy in STRATEGIES), ("sliding-window-counter", 10)]
)
def test_a_hit_given_back_twice_takes_no_other(strategy: StrategyName, later: int) -> None:
    """However often a hit of three is given back, also after its window has shifted: the hit of one stays."""
    record = RECORDS[strategy]()
    token = record.take(100, 10, 3, 0)
    record.take(100, 10, 1, 1)

    assert [record.give(100 + later, 10, 3, token) for _ in range(3)] == [True, False, False]
    assert record.read(100 + later, 10, 5, 1)[0] == 1


def test_the_weight_of_the_previous_window() -> None:
    """The picture in the documentation: 80 in the previous window, 30 % into this one, 12 here: floor(56) + 12."""
    record = SlidingWindowCounter()
    record.take(0, 100, 80, 0)
    record.take(100, 100, 12, 1)

    assert record.read(130, 100, 100, 1)[0] == 68


def test_model_and_records_cover_the_same_strategies() -> None:
    """A strategy added to one has to be added to the other."""
    assert list(KINDS) == list(RECORDS) == [*STRATEGIES, "pause"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_windows_of_one_instant_are_told_apart(strategy: StrategyName) -> None:
    """A hit given back, and another at the same microsecond: giving the first back again leaves the second."""
    record = RECORDS[strategy]()
    first = record.take(100, 10, 1, 0)
    assert record.give(100, 10, 1, first)
    record.take(100, 10, 1, 1)

    assert not record.give(100, 10, 1, first)
    assert record.read(100, 10, 5, 1)[0] == 1


def test_stamps_never_run_backwards() -> None:
    """After a step back, a hit bears the newest stamp there is, and counts until that is a period old."""
    record = RECORDS["moving-window"]()
    record.take(100, 10, 1, 0)

    assert record.take(90, 10, 1, 1) == (100, 1)
    assert record.read(109, 10, 5, 1) == (2, FITS, 110)


def test_a_previous_window_weighs_no_more_than_its_whole() -> None:
    """After a step back to before the window at hand, the previous one counts fully, and not more than that."""
    record = SlidingWindowCounter()
    record.take(100, 10, 8, 0)
    record.take(110, 10, 1, 1)

    assert record.read(105, 10, 20, 1)[0] == 9
    assert record.read(105, 10, 9, 1)[1] == 111
