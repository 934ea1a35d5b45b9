"""What every exact storage promises, on every backend, sync and asyncio, held against a plain model (`model.py`)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from limits import parse
from limits.storage import MemoryStorage as EngineStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from backends import DAY, HOUR, MINUTE, SECOND, STRATEGIES, Backend, pause_window, window
from model import Model, plain
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Request, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model import Ticket
    from ratelimited_notify.windows.strategies import StrategyName, Token

RECIPIENTS = ("ana@example.com", "bo {x}:\n/%#", "c" * 300)
# Real backends let keys live for real seconds, so no period is shorter than an example takes.
PERIODS = (MINUTE, 61 * SECOND, HOUR)

amounts = st.integers(0, 10)
costs = st.one_of(st.integers(1, 4), st.integers(1, 12))
modes = st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.FORCE, Mode.SHADOW])
strategies = st.sampled_from(STRATEGIES)


class Storages(RuleBasedStateMachine):
    """Anything callers may do to a handful of windows, done to a storage and to the model."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        backend.flush()
        self.backend = backend
        self.model = Model()
        self.windows: list[Window] = []
        self.instants = {backend.now()}
        self.ran_out = 0
        self.hits: list[tuple[list[Window], list[str], int, list[Token | None], list[Ticket | None]]] = []

    @initialize(
        drawn=st.lists(
            st.tuples(strategies, amounts, st.sampled_from(PERIODS), modes, st.booleans()), min_size=1, max_size=5
        )
    )
    def windows_to_use(self, drawn: list[tuple[StrategyName, int, int, Mode, bool]]) -> None:
        self.windows = [
            window(strategy, amount, period, mode=mode, shared=shared)
            for strategy, amount, period, mode, shared in drawn
        ]
        # Rules whose windows are shared can be paused.
        self.windows += [pause_window(one.mode) for one in self.windows if one.shared][:3]

    @property
    def pauses(self) -> list[int]:
        """The numbers of the windows that are pauses."""
        return [number for number, one in enumerate(self.windows) if one.strategy == "pause"]

    def chosen(self, recipient: str, picks: Sequence[bool]) -> tuple[list[Window], list[str]]:
        """Some of the windows, at least one, and their keys for this recipient."""
        numbers = [number for number, picked in zip(range(len(self.windows)), picks, strict=False) if picked] or [0]
        windows = [self.windows[number] for number in numbers]
        keys = [self.key(recipient, number) for number in numbers]
        return windows, keys

    def key(self, recipient: str, number: int) -> str:
        one = self.windows[number]
        return self.backend.key("everybody" if one.shared else recipient, one, f"rule {number}")

    def all_keys(self) -> list[str]:
        return [self.key(recipient, number) for recipient in RECIPIENTS for number in range(len(self.windows))]

    recipients = st.sampled_from(RECIPIENTS)
    picks = st.lists(st.booleans(), min_size=8, max_size=8)

    @rule(recipient=recipients, picks=picks, cost=costs)
    def hit(self, recipient: str, picks: list[bool], cost: int) -> None:
        self.model.now = self.backend.now()
        windows, keys = self.chosen(recipient, picks)
        expected = self.model.acquire(windows, keys, cost)
        got = self.backend.storage.acquire(windows, keys, cost)
        self.remember(windows, keys, cost, expected, got)

    @rule(recipient=recipients, picks=picks, cost=costs)
    def test(self, recipient: str, picks: list[bool], cost: int) -> None:
        self.model.now = self.backend.now()
        windows, keys = self.chosen(recipient, picks)

        assert plain(self.model.peek(windows, keys, cost)) == plain(self.backend.storage.peek(windows, keys, cost))

    @rule(hits=st.lists(st.tuples(recipients, picks, costs), max_size=6))
    def batch(self, hits: list[tuple[str, list[bool], int]]) -> None:
        self.model.now = self.backend.now()
        requests = [Request(*self.chosen(recipient, picks), cost) for recipient, picks, cost in hits]
        expected = self.model.acquire_many(requests)
        got = self.backend.storage.acquire_many(requests)

        assert len(expected) == len(got)
        for request, one, other in zip(requests, expected, got, strict=True):
            self.remember(*request, one, other)

    @precondition(lambda self: self.hits)
    @rule(data=st.data(), forgetful=st.booleans())
    def release(self, data: st.DataObject, forgetful: bool) -> None:
        """The same hit may come again: later, after its window has shifted, was cleared or is over."""
        self.model.now = self.backend.now()
        number = data.draw(st.integers(0, len(self.hits) - 1))
        windows, keys, cost, tokens, tickets = self.hits[number]
        expected = self.model.release(windows, keys, cost, tickets)
        if not forgetful:
            del self.hits[number]

        assert expected == self.backend.storage.release(windows, keys, cost, tokens)
        self.moment()

    @rule(recipient=recipients, picks=picks)
    def clear(self, recipient: str, picks: list[bool]) -> None:
        self.model.now = self.backend.now()
        windows, keys = self.chosen(recipient, picks)

        assert self.model.forget(windows, keys) == self.backend.storage.forget(windows, keys)
        self.moment()

    @rule(passed=st.one_of(st.integers(0, 3), st.integers(0, 2 * MINUTE), st.integers(0, 3 * HOUR)))
    def time_passes(self, passed: int) -> None:
        self.move(passed)

    @rule(passed=st.one_of(st.integers(1, 3), st.integers(1, 2 * MINUTE)))
    def time_runs_backwards(self, passed: int) -> None:
        self.move(-passed)

    @rule(data=st.data(), beside=st.integers(-1, 1))
    def time_passes_to_an_edge(self, data: st.DataObject, beside: int) -> None:
        self.model.now = self.backend.now()
        moments = self.model.moments(self.all_keys())
        if moments:
            self.move(max(0, data.draw(st.sampled_from(moments)) + beside - self.backend.now()))

    @rule(data=st.data(), amount=amounts, mode=modes)
    def edit(self, data: st.DataObject, amount: int, mode: Mode) -> None:
        """A rule's amount or mode is changed: a new window object, the same key."""
        number = data.draw(st.integers(0, len(self.windows) - 1))
        old = self.windows[number]
        paused = old.strategy == "pause"
        self.windows[number] = (
            pause_window(mode) if paused else window(old.strategy, amount, old.period, mode=mode, shared=old.shared)
        )

    @precondition(lambda self: self.pauses)
    @rule(data=st.data(), duration=st.sampled_from([1, MINUTE - 1, MINUTE, 90 * SECOND, DAY]))
    def pause(self, data: st.DataObject, duration: int) -> None:
        """Also while it is paused, for longer and for less."""
        self.model.now = self.backend.now()
        number = data.draw(st.sampled_from(self.pauses))
        one, key = self.windows[number], self.key("everybody", number)

        assert self.model.pause(one, key, duration) == self.backend.storage.pause(one, key, duration)

    @precondition(lambda self: self.pauses)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self.model.now = self.backend.now()
        number = data.draw(st.sampled_from(self.pauses))
        one, key = self.windows[number], self.key("everybody", number)

        assert self.model.forget([one], [key]) == self.backend.storage.forget([one], [key])

    @invariant()
    def every_window_as_the_model_says(self) -> None:
        self.model.now = self.backend.now()
        for recipient in RECIPIENTS if self.windows else ():
            windows, keys = self.chosen(recipient, [True] * 8)

            assert plain(self.model.peek(windows, keys, 1)) == plain(self.backend.storage.peek(windows, keys, 1))

    def moment(self) -> None:
        if not self.backend.marks:
            self.move(1)

    def move(self, passed: int) -> None:
        """Move the clock. Backwards it goes no further than to the last hit that ran out, which a storage may have dropped.

        Without marks no instant comes twice.
        """
        self.model.now = before = self.backend.now()
        target = before + passed
        self.ran_out = max(self.ran_out, self.model.last_end(self.all_keys(), max(before, target)))
        target = max(target, self.ran_out) if passed < 0 else target
        while not self.backend.marks and passed and target in self.instants:
            target += 1
        self.backend.advance(target - before)
        self.instants.add(target)

    def remember(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, expected: object, got: object
    ) -> None:
        assert plain(expected) == plain(got)

        if got.granted:
            tokens = [reading.token for reading in got.readings]
            self.hits.append((windows, keys, cost, tokens, [said.ticket for said in expected.said]))


def test_storage_says_what_the_model_says(backend: Backend) -> None:
    """Hits, tests, batches, releases, clears, edits and time in any order: every answer is the model's."""
    run_state_machine_as_test(lambda: Storages(backend))


windows_drawn = st.lists(
    st.tuples(strategies, st.integers(1, 8), st.sampled_from(PERIODS), modes, st.booleans()), min_size=1, max_size=4
)
history = st.lists(st.tuples(st.integers(0, 40 * SECOND), st.integers(1, 4)), max_size=12)


def arranged(
    backend: Backend, drawn: list[tuple[StrategyName, int, int, Mode, bool]], hits: list[tuple[int, int]]
) -> tuple[list[Window], list[str]]:
    """Fresh windows after these hits; each hit also goes to every window alone, so that they differ."""
    backend.flush()
    windows = [
        window(strategy, amount, period, mode=mode, shared=shared) for strategy, amount, period, mode, shared in drawn
    ]
    keys = [backend.key("all" if one.shared else "ana", one, f"rule {number}") for number, one in enumerate(windows)]
    for number, (passed, cost) in enumerate(hits):
        backend.advance(passed)
        backend.storage.acquire(windows, keys, cost)
        alone = number % len(windows)
        backend.storage.acquire(windows[alone : alone + 1], keys[alone : alone + 1], cost)
    return windows, keys


@given(drawn=windows_drawn, hits=history, cost=st.integers(1, 10))
def test_a_refused_hit_changes_nothing(backend: Backend, drawn: list, hits: list, cost: int) -> None:
    """All or none: after a refusal every window says what it said before."""
    windows, keys = arranged(backend, drawn, hits)
    before = [backend.storage.peek([one], [key], 1) for one, key in zip(windows, keys, strict=True)]
    verdict = backend.storage.acquire(windows, keys, cost)
    after = [backend.storage.peek([one], [key], 1) for one, key in zip(windows, keys, strict=True)]

    if verdict.granted:
        assert all(
            reading.count == seen.readings[0].count + (cost if reading.token else 0)
            for reading, seen in zip(verdict.readings, before, strict=True)
        )
    else:
        assert before == after
        assert [reading.token for reading in verdict.readings] == [None] * len(windows)


@given(drawn=windows_drawn, hits=history, cost=st.integers(1, 10))
def test_a_hit_given_back_was_never_taken(backend: Backend, drawn: list, hits: list, cost: int) -> None:
    """A release restores what every window says of counts and room, in every strategy."""
    windows, keys = arranged(backend, drawn, hits)
    before = backend.storage.peek(windows, keys, cost)
    verdict = backend.storage.acquire(windows, keys, cost)
    tokens = [reading.token for reading in verdict.readings]
    given_back = backend.storage.release(windows, keys, cost, tokens)

    assert given_back == any(token is not None for token in tokens)
    assert before == backend.storage.peek(windows, keys, cost)


@given(drawn=windows_drawn, hits=history, cost=st.integers(1, 10), data=st.data())
def test_retry_at_is_exact(backend: Backend, drawn: list, hits: list, cost: int, data: st.DataObject) -> None:
    """Refused at every moment before `retry_at`, allowed at it: for any strategies together and any cost."""
    windows, keys = arranged(backend, drawn, hits)
    seen = backend.storage.acquire(windows, keys, cost)
    if seen.granted:
        return
    enforced = [
        reading.retry_at for reading, one in zip(seen.readings, windows, strict=True) if one.mode is Mode.ENFORCE
    ]
    if NEVER in enforced:
        assert any(cost > one.amount for one in windows if one.mode is Mode.ENFORCE)
        backend.advance(2 * DAY)
        assert not backend.storage.acquire(windows, keys, cost).granted
        return
    wait = max(enforced) - backend.now()
    probes = sorted({*data.draw(st.lists(st.integers(0, wait - 1), max_size=4)), wait - 1})
    for earlier, later in pairwise([0, *probes]):
        backend.advance(later - earlier)
        assert not backend.storage.acquire(windows, keys, cost).granted
    backend.advance(1)

    assert backend.storage.peek(windows, keys, cost).granted
    assert backend.storage.acquire(windows, keys, cost).granted


@given(drawn=windows_drawn, hits=history)
def test_reset_at_is_when_the_window_is_empty(backend: Backend, drawn: list, hits: list) -> None:
    """At `reset_at` nothing is left; a microsecond before it, what is left would still be there to clear."""
    windows, keys = arranged(backend, drawn, hits)
    for one, key in zip(windows, keys, strict=True):
        reset_at = backend.storage.peek([one], [key], 1).readings[0].reset_at
        if reset_at > backend.now():
            backend.advance(reset_at - 1 - backend.now())
            assert backend.storage.peek([one], [key], 1).readings[0].reset_at == reset_at
            backend.advance(1)
        assert backend.storage.peek([one], [key], 1).readings[0].count == 0
        assert backend.storage.forget([one], [key]) == 0


@given(
    amount=st.integers(1, 6),
    steps=st.lists(st.tuples(st.integers(0, 40 * SECOND), st.integers(1, 3), st.booleans()), max_size=40),
)
def test_never_more_than_the_rule_in_any_true_period(backend: Backend, amount: int, steps: list) -> None:
    """Moving window: what was admitted and not forced never exceeds the amount in any half-open period."""
    backend.flush()
    enforced = window("moving-window", amount)
    forced = window("moving-window", amount, mode=Mode.FORCE)
    key = backend.key("ana", enforced)
    admitted: list[tuple[int, int]] = []
    for passed, cost, force in steps:
        backend.advance(passed)
        verdict = backend.storage.acquire([forced if force else enforced], [key], cost)
        if verdict.granted and not force:
            admitted.append((backend.now(), cost))

    for begin, _ in admitted:
        assert sum(cost for instant, cost in admitted if begin <= instant < begin + MINUTE) <= amount


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_five_attempts_leave_nine(backend: Backend, strategy: StrategyName) -> None:
    """10/hour with 1/minute: five attempts within a minute send one, and nine of the ten are left."""
    windows = [window(strategy, 10, HOUR), window(strategy, 1, MINUTE)]
    keys = [backend.key("ana", one) for one in windows]
    granted = [backend.storage.acquire(windows, keys, 1).granted for _ in range(5)]

    assert granted == [True, False, False, False, False]
    assert 10 - backend.storage.peek(windows[:1], keys[:1], 1).readings[0].count == 9


def test_engine_five_attempts_leave_five() -> None:
    """The bare engine does not hold that: hit one after the other, the refused attempts cost the other rule."""
    strategy = FixedWindowRateLimiter(EngineStorage())
    sent = [strategy.hit(parse("10/hour"), "ana") and strategy.hit(parse("1/minute"), "ana") for _ in range(5)]

    assert sent == [True, False, False, False, False]
    assert strategy.get_window_stats(parse("10/hour"), "ana").remaining == 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_refused_cost_costs_nothing(backend: Backend, strategy: StrategyName) -> None:
    """Limit 10: eight fit, five more do not, and then one does."""
    one = window(strategy, 10)
    key = backend.key("ana", one)

    assert [backend.storage.acquire([one], [key], cost).granted for cost in (8, 5, 1)] == [True, False, True]


def test_engine_counts_a_refused_cost() -> None:
    """The bare engine does not hold that in a fixed window: what it refused is counted, and blocks what would fit."""
    strategy = FixedWindowRateLimiter(EngineStorage())

    assert [strategy.hit(parse("10/minute"), "ana", cost=cost) for cost in (8, 5, 1)] == [True, False, False]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_raising_the_amount_allows_the_difference(backend: Backend, strategy: StrategyName) -> None:
    """2/minute used up and raised to 3/minute in mid-window: exactly one more."""
    two, three = window(strategy, 2), window(strategy, 3)
    key = backend.key("ana", two)
    before = [backend.storage.acquire([two], [key], 1).granted for _ in range(3)]
    backend.advance(20 * SECOND)
    after = [backend.storage.acquire([three], [key], 1).granted for _ in range(3)]

    assert before == [True, True, False]
    assert after == [True, False, False]


def test_engine_raising_the_amount_forgets() -> None:
    """The bare engine does not hold that: its key holds the amount, so an edited limit starts from nothing."""
    strategy = MovingWindowRateLimiter(EngineStorage())
    before = [strategy.hit(parse("2/minute"), "ana") for _ in range(3)]
    after = [strategy.hit(parse("3/minute"), "ana") for _ in range(3)]

    assert before == [True, True, False]
    assert after == [True, True, True]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lowered_and_raised_again_forgets_nothing(backend: Backend, strategy: StrategyName) -> None:
    """Five of 5/minute used, lowered to 1/minute (attempts and a test meanwhile), raised again: still used up."""
    five, one = window(strategy, 5), window(strategy, 1)
    key = backend.key("ana", five)
    assert all(backend.storage.acquire([five], [key], 1).granted for _ in range(5))
    backend.advance(10 * SECOND)

    assert not backend.storage.acquire([one], [key], 1).granted
    assert backend.storage.peek([one], [key], 1).readings[0].count == 5
    assert not backend.storage.acquire([five], [key], 1).granted
    assert backend.storage.peek([five], [key], 1).readings[0].count == 5


def test_engine_keys_collide() -> None:
    """The bare engine counts ("a/b", "c") and ("a", "b/c") in one window."""
    strategy = MovingWindowRateLimiter(EngineStorage())

    assert strategy.hit(parse("1/day"), "a/b", "c")
    assert not strategy.hit(parse("1/day"), "a", "b/c")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_forced_hits_count_up_to_twice_the_amount(backend: Backend, strategy: StrategyName) -> None:
    """Exempt hits always pass, and are counted until the count would exceed twice the amount."""
    forced, enforced = window(strategy, 3, mode=Mode.FORCE), window(strategy, 3)
    key = backend.key("ana", forced)
    verdicts = [backend.storage.acquire([forced], [key], 1) for _ in range(8)]

    assert [verdict.granted for verdict in verdicts] == [True] * 8
    assert [verdict.readings[0].count for verdict in verdicts] == [1, 2, 3, 4, 5, 6, 6, 6]
    assert [verdict.readings[0].retry_at for verdict in verdicts] == [FITS] * 8
    assert not backend.storage.acquire([enforced], [key], 1).granted


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hit_given_back_twice_makes_no_room(backend: Backend, strategy: StrategyName) -> None:
    """A second release of one hit takes no count below what was really taken by a smaller one."""
    one = window(strategy, 4)
    key = backend.key("ana", one)
    first = backend.storage.acquire([one], [key], 3)
    assert backend.storage.acquire([one], [key], 1).granted
    tokens = [reading.token for reading in first.readings]
    given = [backend.storage.release([one], [key], 3, tokens) for _ in range(2)]

    assert given == [True, False]
    assert backend.storage.peek([one], [key], 1).readings[0].count == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_late_release_leaves_the_next_window_alone(backend: Backend, strategy: StrategyName) -> None:
    """A hit is given back in its own window only: after that is over or cleared, release says False."""
    one = window(strategy, 2)
    key = backend.key("ana", one)
    for over in (lambda: backend.advance(3 * MINUTE), lambda: backend.storage.forget([one], [key])):
        tokens = [reading.token for reading in backend.storage.acquire([one], [key], 1).readings]
        over()
        backend.advance(1)
        backend.storage.acquire([one], [key], 1)

        assert not backend.storage.release([one], [key], 1, tokens)
        assert backend.storage.peek([one], [key], 1).readings[0].count == 1
        backend.storage.forget([one], [key])


# After a hit at each of these instants: the count, and when the window would be empty.
EDGES = (0, 10 * SECOND, MINUTE - 1, MINUTE, 2 * MINUTE - 1, 2 * MINUTE)


@pytest.mark.parametrize(
    ("strategy", "amount", "counts", "resets"),
    [
        ("moving-window", 3, [1, 2, 3, 3, 2, 2], [instant + MINUTE for instant in EDGES]),
        # Above eight, the script on Redis looks at a window in another way.
        ("moving-window", 20, [1, 2, 3, 3, 2, 2], [instant + MINUTE for instant in EDGES]),
        ("fixed-window", 3, [1, 2, 3, 1, 2, 1], [MINUTE] * 3 + [2 * MINUTE] * 2 + [3 * MINUTE]),
        ("sliding-window-counter", 20, [1, 2, 3, 4, 2, 3], [2 * MINUTE] * 3 + [3 * MINUTE] * 2 + [4 * MINUTE]),
        # Refused at the edge, where the period before still counts fully.
        ("sliding-window-counter", 3, [1, 2, 3, 3, 1, 2], [2 * MINUTE] * 4 + [3 * MINUTE, 4 * MINUTE]),
    ],
)
def test_an_edge_belongs_to_what_comes_after(
    backend: Backend, strategy: StrategyName, amount: int, counts: list[int], resets: list[int]
) -> None:
    """A period after the first hit, to the microsecond, that hit is over, and what is hit then is in the next window."""
    one = window(strategy, amount)
    key = backend.key("ana", one)
    begin = backend.now()
    seen = []
    for instant in EDGES:
        backend.advance(begin + instant - backend.now())
        reading = backend.storage.acquire([one], [key], 1).readings[0]
        seen.append((reading.count, reading.reset_at - begin))

    assert seen == list(zip(counts, resets, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_given_back_at_the_edge(backend: Backend, strategy: StrategyName) -> None:
    """At the very instant at which a hit no longer counts there is nothing to give back; just before it there is."""
    one = window(strategy, 5)
    lasts = 2 * MINUTE if strategy == "sliding-window-counter" else MINUTE
    given = []
    for beside in (0, -1):
        key = backend.key(f"ana {beside}", one)
        tokens = [reading.token for reading in backend.storage.acquire([one], [key], 1).readings]
        backend.advance(lasts + beside)
        given.append(backend.storage.release([one], [key], 1, tokens))

    assert given == [False, True]


def test_a_batch_counts_the_same_recipient_twice(backend: Backend) -> None:
    """One batch, the same recipient three times and a window over everybody: earlier hits count for later ones."""
    personal, shared = window("moving-window", 2), window("fixed-window", 4, shared=True)
    everybody = backend.key("everybody", shared)
    requests = [
        Request([personal, shared], [backend.key(recipient, personal), everybody], 1)
        for recipient in ("ana", "ana", "bo", "ana", "cy", "di")
    ]
    verdicts = backend.storage.acquire_many(requests)

    assert [verdict.granted for verdict in verdicts] == [True, True, True, False, True, False]
    assert list(backend.storage.acquire_many([])) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("amount", "cost", "hits"), [(9, 1, 2), (9, 2, 2), (9, 9, 1), (600, 1, 520)])
def test_reading_at_a_later_instant_changes_nothing(
    backend: Backend, strategy: StrategyName, amount: int, cost: int, hits: int
) -> None:
    """A test, or a read by `limits`, drops nothing. When the clock goes back, every window says what it said before."""
    backend.flush()
    windows = [window(strategy, amount, HOUR), window(strategy, 10 * amount, DAY)]
    keys = [backend.key("ana", one) for one in windows]
    item, engine = parse(f"{amount}/hour"), backend.strategy(strategy)
    assert all(verdict.granted for verdict in backend.storage.acquire_many([Request(windows, keys, cost)] * hits))
    assert backend.call(engine.hit, item, backend.namespace, cost=cost)
    before = backend.storage.peek(windows, keys, cost)
    left = backend.call(engine.get_window_stats, item, backend.namespace).remaining

    for passed in (HOUR // 2, HOUR, 2 * HOUR, DAY, 3 * DAY):
        backend.advance(passed)
        for asked in (1, cost, amount):
            backend.storage.peek(windows, keys, asked)
            backend.call(engine.test, item, backend.namespace, cost=asked)
            backend.call(engine.get_window_stats, item, backend.namespace)
        backend.advance(-passed)

        assert backend.storage.peek(windows, keys, cost) == before
        assert backend.call(engine.get_window_stats, item, backend.namespace).remaining == left


def test_giving_back_the_only_hit_of_a_sliding_window_keeps_the_one_before(backend: Backend) -> None:
    """What the previous window counts stays, while others are decided, and fades as if there had been no other hit."""
    one = window("sliding-window-counter", 4)
    key = [backend.key("ana", one)]
    backend.storage.acquire([one], key, 3)
    backend.advance(MINUTE)
    tokens = [reading.token for reading in backend.storage.acquire([one], key, 1).readings]
    assert backend.storage.release([one], key, 1, tokens)
    counts = []
    for passed in (0, 20 * SECOND, 40 * SECOND - 1, 1):
        backend.advance(passed)
        # In memory, a decision drops windows that are over.
        backend.storage.acquire([one], [backend.key(f"bo {passed}", one)], 1)
        reading = backend.storage.peek([one], key, 2).readings[0]
        counts.append((reading.count, reading.retry_at == FITS))

    assert counts == [(3, False), (2, True), (0, True), (0, True)]
    assert backend.storage.forget([one], key) == 0


@pytest.mark.parametrize("given_back", [False, True])
def test_a_sliding_window_without_hits_begins_anew(backend: Backend, given_back: bool) -> None:
    """Two periods after the last hit that counts, the next one begins the window, not an earlier one."""
    one = window("sliding-window-counter", 4)
    key = [backend.key("ana", one)]
    backend.storage.acquire([one], key, 1)
    if given_back:
        backend.advance(MINUTE)
        tokens = [reading.token for reading in backend.storage.acquire([one], key, 1).readings]
        assert backend.storage.release([one], key, 1, tokens)
        backend.advance(-MINUTE)
    backend.advance(2 * MINUTE + 10 * SECOND)

    assert backend.storage.acquire([one], key, 1).readings[0].reset_at == backend.now() + 2 * MINUTE


def test_a_single_hit_weighs_one_until_its_period_is_over(backend: Backend) -> None:
    """At the instant at which the next period begins it still counts fully, and a microsecond later it does not."""
    one = window("sliding-window-counter", 1)
    key = [backend.key("ana", one)]
    reset_at = backend.storage.acquire([one], key, 1).readings[0].reset_at
    seen = []
    for passed in (MINUTE - 1, 1, 1):
        backend.advance(passed)
        reading = backend.storage.peek([one], key, 1).readings[0]
        seen.append((reading.count, reading.reset_at == reset_at))

    assert seen == [(1, True), (1, True), (0, True)]


def test_a_previous_window_without_a_current_one_can_be_cleared(backend: Backend) -> None:
    """Also where its only current hit was given back, `clear` says that it held something."""
    one = window("sliding-window-counter", 4)
    key = [backend.key("ana", one)]
    backend.storage.acquire([one], key, 3)
    backend.advance(MINUTE)
    tokens = [reading.token for reading in backend.storage.acquire([one], key, 1).readings]
    assert backend.storage.release([one], key, 1, tokens)

    assert backend.storage.forget([one], key) == 1


def test_after_a_step_back_a_hit_counts_as_the_newest(backend: Backend) -> None:
    """In a moving window it leaves together with the newest hit before it, and not earlier, at any cost."""
    one = window("moving-window", 9)
    key = [backend.key("ana", one)]
    newest = backend.now()
    backend.storage.acquire([one], key, 1)
    for cost in (1, 2):
        backend.advance(-10 * SECOND)
        reading = backend.storage.acquire([one], key, cost).readings[0]
        assert reading.reset_at == newest + MINUTE
    counts = []
    for instant in (newest + MINUTE - 1, newest + MINUTE):
        backend.advance(instant - backend.now())
        counts.append(backend.storage.peek([one], key, 1).readings[0].count)

    assert counts == [4, 0]


def test_after_a_step_back_the_previous_window_weighs_no_more_than_its_whole(backend: Backend) -> None:
    """A sliding window whose clock is set back to before its current window counts every hit once."""
    one = window("sliding-window-counter", 9)
    key = [backend.key("ana", one)]
    backend.storage.acquire([one], key, 4)
    backend.advance(MINUTE)
    backend.storage.acquire([one], key, 1)
    backend.advance(-30 * SECOND)

    assert backend.storage.peek([one], key, 1).readings[0].count == 5
    assert backend.storage.acquire([one], key, 4).granted
    assert not backend.storage.acquire([one], key, 1).granted
