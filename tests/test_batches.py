"""Many decisions at once on Redis: they are what single decisions would have been, also where something fails."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from limiting import DAY, LIMITERS, SECOND
from proxy import Proxy
from ratelimited_notify import Limiter, Notification, Rule
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import scripts
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import Request, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify import Decision
    from servers import Valkey

EACH = scripts.REQUESTS_PER_CALL
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
PATIENT = 30.0
"""Seconds for tests in which much happens at once, on machines with little to run it on."""

_numbers = itertools.count()


def fresh() -> str:
    """A name that no other test has."""
    return f"batch-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    """A proxy before the server that all tests share."""
    with Proxy(valkey.port) as made:
        yield made


@contextmanager
def limiting(kind: str, rules: Any, uri: str, **options: Any) -> Iterator[Any]:
    """A limiter of either world."""
    limiter = LIMITERS[kind](rules, uri, timeout=PATIENT, namespace=fresh(), **options)
    try:
        yield limiter
    finally:
        limiter.close()


# --- As one by one --------------------------------------------------------------------------------------------------


class ClockedStorage(RedisStorage):
    """By a clock that stands in the database, so that decisions of several scripts may be of one instant."""

    _CLOCK_LUA = "local now = tonumber(call('GET', 'test:clock'))"


RECIPIENTS = ("ana@example.com", "bo", 5, "5", "eve {x}:\n/%", "x" * 70, "zoë")

rules = st.lists(
    st.builds(
        dict,
        type=st.sampled_from(["news", "new*", "*"]),
        limit=st.sampled_from(["1/day", "2/day", "3 per 2 days; 5 per 3 days", "0/day", "20/day", "90/day", None]),
        by=st.sampled_from([("type", "recipient"), ("recipient",), (), ("type",), ("recipient", "tenant")]),
        strategy=st.sampled_from(STRATEGIES),
        enforce=st.sampled_from([True, True, False]),
        exempt=st.sampled_from([(), (), ("critical",)]),
        overrides=st.sampled_from([None, None, {"bo": "4/day"}]),
    ).map(lambda drawn: drawn if "recipient" in drawn["by"] else {**drawn, "overrides": None}),
    min_size=1,
    max_size=4,
).map(lambda drawn: [Rule(name=f"rule {number}", **one) for number, one in enumerate(drawn)])
costs = st.sampled_from([1, 1, 1, 2, 5])
priorities = st.sampled_from([None, None, "critical"])
fields = st.sampled_from([{}, {}, {"tenant": "a"}])


def told(decision: Decision) -> tuple[Any, ...]:
    """Everything that a decision says."""
    windows = [
        (one.rule, one.identifiers, one.strategy, one.remaining, one.reset_at, one.retry_after, one.enforced)
        for one in decision.windows
    ]
    return decision.allowed, decision.remaining, decision.retry_after, decision.reset_at, str(decision), windows


@given(
    data=st.data(),
    drawn=rules,
    batches=st.lists(
        st.tuples(st.lists(st.sampled_from(RECIPIENTS), max_size=12), costs, priorities, fields), min_size=1, max_size=4
    ),
)
@settings(max_examples=100)
def test_a_batch_is_its_recipients_one_by_one(
    valkey: Valkey, data: st.DataObject, drawn: list[Rule], batches: list[tuple[Any, ...]]
) -> None:
    """Whatever the rules, the same recipient twice too: each decision says, and gives back, what a single one would."""
    uri = f"redis://{valkey.address}/3"
    with pytest.MonkeyPatch.context() as patch, valkey.client(db=3) as clock:
        # Several scripts, two of them on their way, and more than one turn.
        patch.setattr(scripts, "REQUESTS_PER_CALL", 3)
        patch.setattr(scripts, "CALLS_PER_ROUND_TRIP", 2)
        storage = ClockedStorage(uri, timeout=PATIENT)
        together, singly = (Limiter(drawn, storage, namespace=fresh()) for _ in range(2))
        now = 1_800_000_000 * SECOND
        for recipients, cost, priority, given_fields in batches:
            # Now and then the clock runs backwards.
            now += data.draw(st.integers(1, 2 * DAY) | st.integers(1, 2 * DAY) | st.integers(-DAY, -1))
            clock.set("test:clock", now)
            options = {"cost": cost, "priority": priority, **given_fields}
            several = together.hit_many("news", recipients, **options)
            expected = [singly.hit("news", recipient, **options) for recipient in recipients]

            assert list(map(told, several)) == list(map(told, expected))
            if data.draw(st.booleans()):
                clock.set("test:clock", now := now + 1)

                assert [together.release(one) for one in several] == [singly.release(one) for one in expected]
        for recipient in RECIPIENTS:
            both = [told(limiter.test("news", recipient, tenant="a")) for limiter in (together, singly)]

            assert both[0] == both[1]
        storage.close()


@given(
    drawn=rules,
    asked=st.lists(
        st.tuples(
            st.sampled_from(["news", "news", "newer"]),
            st.sampled_from([*RECIPIENTS, "", None]),
            costs,
            priorities,
            fields,
        ),
        max_size=12,
    ),
    is_uniform=st.booleans(),
)
@settings(max_examples=100)
def test_notifications_are_decided_one_by_one(
    valkey: Valkey, drawn: list[Rule], asked: list[tuple[Any, ...]], is_uniform: bool
) -> None:
    """Notifications that differ, or only in the recipient: each gets its decision, or its own error."""
    with pytest.MonkeyPatch.context() as patch, valkey.client(db=3) as clock:
        patch.setattr(scripts, "REQUESTS_PER_CALL", 3)
        storage = ClockedStorage(f"redis://{valkey.address}/3", timeout=PATIENT)
        together, singly = (Limiter(drawn, storage, namespace=fresh()) for _ in range(2))
        clock.set("test:clock", 1_800_000_000 * SECOND)
        if is_uniform:
            asked = [(asked[0][0], recipient, *asked[0][2:]) for _, recipient, *_ in asked]
        notifications = [
            Notification(type, recipient, priority=priority, cost=cost, fields=given_fields)
            for type, recipient, cost, priority, given_fields in asked
        ]

        for got, (type, recipient, cost, priority, given_fields) in zip(
            together.decide(notifications), asked, strict=True
        ):
            if not recipient:
                assert isinstance(got, Exception)
                with pytest.raises(got.__class__):
                    singly.hit(type, recipient, cost=cost, priority=priority, **given_fields)
            else:
                assert not isinstance(got, Exception)
                expected = singly.hit(type, recipient, cost=cost, priority=priority, **given_fields)
                assert told(got) == told(expected)
        storage.close()


def test_hundreds_in_order(valkey: Valkey, kind: str) -> None:
    """Over many scripts, two of them on their way at a time, hits of one recipient are counted in their order."""
    people = [f"person.{number % 700}@example.com" for number in range(20 * EACH)]
    with limiting(kind, {"news": "3/day"}, valkey.url) as limiter:
        decisions = limiter.hit_many("news", people)

        assert [bool(decision) for decision in decisions] == [number < 3 * 700 for number in range(len(people))]
        assert [decision.remaining for decision in decisions[: 3 * 700]] == [2] * 700 + [1] * 700 + [0] * 700
        assert [decision.recipient for decision in decisions] == people


def test_a_server_that_forgot_the_scripts(valkey: Valkey, kind: str) -> None:
    """Scripts dropped by the server are sent again; nothing is lost, counted twice or taken out of order."""
    with limiting(kind, {"news": "100000/day"}, valkey.url) as limiter, valkey.client() as client:
        for many in (2, EACH, 5 * EACH):
            client.script_flush()
            before = limiter.test("news", "ana").remaining

            assert [one.remaining for one in limiter.hit_many("news", ["ana"] * many)] == [
                before - 1 - number for number in range(many)
            ]


def test_a_decision_of_a_batch_travels_light(valkey: Valkey) -> None:
    """A pickled decision says the same, and does not take the rest of its batch along."""
    with limiting("sync", {"news": "3/day", "new*": "5/day"}, valkey.url) as limiter:
        alone, *_ = limiter.hit_many("news", ["ana", "bo"])
        among, *_ = limiter.hit_many("news", [f"person.{number}" for number in range(EACH)])
        packed = pickle.dumps(among)

        assert told(pickle.loads(packed)) == told(among)
        assert abs(len(packed) - len(pickle.dumps(alone))) < 40


@pytest.mark.parametrize(
    ("strategy", "numbers"), [("moving-window", 2), ("fixed-window", 3), ("sliding-window-counter", 6)]
)
def test_a_batch_is_answered_in_few_numbers(valkey: Valkey, strategy: Any, numbers: int) -> None:
    """The usual answer to hundreds of recipients, a hit that was counted, takes only what the client cannot know."""
    window = Window(strategy, 5, DAY, rule="news")
    requests = [Request([window], [f"test:{{{fresh()}}}:rule:{strategy[0]}"], 1) for _ in range(EACH)]
    command = scripts.Scripts().acquire_many(requests).by_text(scripts.keys_of(requests))
    with valkey.client() as client:
        connection = client.connection_pool.get_connection()
        connection.send_packed_command([command])
        reply = msgspec.msgpack.decode(connection.read_response(disable_decoding=True))
        client.connection_pool.release(connection)

    assert len(reply) == 1 + numbers * EACH


def test_keys_that_are_not_plain_ascii(valkey: Valkey) -> None:
    """A key that came to the storage in another way than through the rules is counted by what it is."""
    window = Window("fixed-window", 3, DAY, rule="news")
    keys = [f"test:{{{fresh()}é✉}}:a", f"test:{{{fresh()}}}:b"]
    storage = RedisStorage(valkey.url, timeout=PATIENT)
    requests = [Request([window], [key], 1) for key in keys * 2]

    assert [verdict.readings[0].count for verdict in storage.acquire_many(requests)] == [1, 1, 2, 2]
    assert [storage.acquire([window], [key], 1).readings[0].count for key in keys] == [3, 3]
    with valkey.client() as client:
        assert client.delete(*keys) == 2
    storage.close()


# --- Failures with two scripts on their way -------------------------------------------------------------------------


def settled(limiter: Any, recipient: str) -> int:
    """How much of a million is used, when the server has done all that it was sent."""
    before, used = -1, 0
    while used != before:
        before = used
        time.sleep(0.1)
        used = 10**6 - limiter.test("news", recipient).remaining
    return used


# A silent server costs a time-out each time, and how an answer is lost is the same to every script.
@pytest.mark.parametrize(
    ("strategy", "hanging"),
    [*((strategy, False) for strategy in STRATEGIES), ("moving-window", True)],
    ids=[*(f"{strategy}-closed" for strategy in STRATEGIES), "moving-window-silent"],
)
def test_answers_that_are_lost_count_once(
    valkey: Valkey, proxy: Proxy, kind: str, strategy: Any, hanging: bool
) -> None:
    """No answer comes: the error says so; what was on its way is counted once or not at all, the rest was never sent."""
    proxy.hanging = hanging
    rules = [Rule("news", f"{10**6}/day", strategy=strategy)]
    limiter = LIMITERS[kind](rules, proxy.url, namespace="lost")
    who = fresh()
    with Limiter(rules, valkey.url, timeout=PATIENT, namespace="lost") as beside:
        assert len(limiter.hit_many("news", [who] * (2 * EACH))) == 2 * EACH
        proxy.losing = "all"
        with pytest.raises(StorageError, match="not known whether this took effect"):
            limiter.hit_many("news", [who] * (10 * EACH))
        proxy.losing = "nothing"
        used = settled(beside, who)

        assert used in (3 * EACH, 4 * EACH)
        # And no answer of before is taken for another's.
        assert limiter.hit("news", who).remaining == 10**6 - used - 1
        assert limiter.hit_many("news", [fresh(), who])[1].remaining == 10**6 - used - 2
        limiter.close()


def test_an_error_in_the_middle(valkey: Valkey, kind: str) -> None:
    """One script fails: that is told, what went before and behind it is counted once at most, and no answer is left."""
    good, bad = fresh(), fresh()
    people = [good] * (2 * EACH) + [bad] + [good] * (7 * EACH)
    with limiting(kind, {"news": f"{10**6}/day"}, valkey.url) as limiter, valkey.client() as client:
        limiter.hit("news", bad)
        (name,) = client.keys(f"*{bad}*")
        client.set(name, "something else")
        with pytest.raises(StorageError, match="holds something that this library did not write"):
            limiter.hit_many("news", people)
        # The script that failed had no other key before this one; the one behind it was on its way.
        used = settled(limiter, good)

        assert used in (2 * EACH, 3 * EACH)
        assert limiter.hit("news", good).remaining == 10**6 - used - 1
        client.delete(name)
        assert limiter.hit("news", bad).remaining == 10**6 - 1


@pytest.mark.parametrize("said", ["allow", "deny"])
def test_the_decision_without_the_storage(proxy: Proxy, kind: str, said: Any) -> None:
    """Where the user chose what a failure means, that is the decision for every one of the batch."""
    proxy.losing = "all"
    limiter = LIMITERS[kind]({"news": "1/day"}, proxy.url, on_storage_error=said)
    decisions = limiter.hit_many("news", [f"person.{number}" for number in range(3 * EACH)])

    assert {decision.allowed for decision in decisions} == {said == "allow"}
    assert all(decision.error and decision.windows == () for decision in decisions)
    assert not limiter.release(decisions[0])
    limiter.close()


def test_an_interrupt_leaves_no_answer_behind(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while answers are on their way, in a thread: the next call gets its own answer."""
    storage = RedisStorage(valkey.url, timeout=PATIENT, max_connections=1)
    limiter = Limiter({"news": f"{10**6}/day"}, storage, namespace=fresh())
    real = scripts.answers

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(scripts, "answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        limiter.hit_many("news", ["ana"] * (5 * EACH))
    monkeypatch.setattr(scripts, "answers", real)

    assert settled(limiter, "ana") in (EACH, 2 * EACH)
    assert limiter.hit("news", "bo").remaining == 10**6 - 1
    storage.close()


def test_cancelled_batches_leave_no_answer_behind(valkey: Valkey, proxy: Proxy) -> None:
    """Tasks cancelled at any moment of a batch: each batch is counted in whole scripts, and later answers are their own."""
    window = Window("fixed-window", 10**9, DAY, rule="news")
    ana, bo = (f"test:{{{fresh()}}}:rule:f" for _ in range(2))
    proxy.delay = lambda: 0.001

    async def main() -> int:
        storage = AsyncRedisStorage(proxy.url, timeout=PATIENT, max_connections=2)
        cancelled = counted = 0
        for pause in range(30):
            task = asyncio.ensure_future(storage.acquire_many([Request([window], [ana], 1)] * (6 * EACH)))
            await asyncio.sleep(pause * 0.001)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            assert (await storage.peek([window], [bo], 1)).readings[0].count == 0
            # Nothing that the task sent runs any more behind this: the server takes one after the other.
            used = (await storage.peek([window], [ana], 1)).readings[0].count - counted
            assert used <= 6 * EACH
            counted += used
        await asyncio.sleep(0.1)
        assert (await storage.peek([window], [ana], 1)).readings[0].count % EACH == 0
        await storage.close()
        return cancelled

    assert asyncio.run(main()) > 0


def test_others_get_their_turn(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large batch gives its connection back again and again, so that another caller does not wait for all of it."""
    storage = RedisStorage(valkey.url, timeout=PATIENT, max_connections=1)
    window = Window("fixed-window", 10**9, DAY, rule="news")
    key = f"test:{{{fresh()}}}:rule:f"
    turns: list[bool] = []
    places = storage._connections.places
    take = places.take

    def taken(*arguments: Any) -> Any:
        found = take(*arguments)
        turns.append(found is not None)
        return found

    monkeypatch.setattr(places, "take", taken)
    storage.acquire_many([Request([window], [key], 1)] * (3 * scripts.CALLS_PER_ROUND_TRIP * EACH + 1))

    assert turns == [True] * 4
    storage.close()
