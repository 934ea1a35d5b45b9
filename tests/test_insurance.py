"""The insurance: windows of the limiter's own decide while the storage fails, and what they allow is added to it later."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from limiting import LIMITERS, MINUTE, Clock
from processes import unconfigured
from proxy import Proxy
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Circuit,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    Rule,
    Status,
    StorageError,
    configure,
    rate_limited,
)
from ratelimited_notify.instrumentation import Decided, Released, StorageFailed
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.testing import isolated_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Memcached, Server, Valkey

WHO = "ana@example.com"
ALWAYS_ASK: dict[str, Any] = {"circuit": None}


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes limiters of one kind, with an insurance in memory."""
    made: list[Any] = []

    def one(rules: Any, storage: Any, **options: Any) -> Any:
        made.append(
            LIMITERS[request.param](rules, storage, **{"on_storage_error": "memory://", **ALWAYS_ASK, **options})
        )
        return made[-1]

    yield one
    for limiter in made:
        limiter.close()


@pytest.fixture(params=["redis", "memcached"])
def server(request: pytest.FixtureRequest) -> Any:
    """A server that the test may stop and start."""
    return request.getfixturevalue("start_valkey" if request.param == "redis" else "start_memcached")()


@pytest.fixture
def kept(start_valkey: Callable[..., Valkey]) -> Valkey:
    """A server that has all its data when it is started again."""
    return start_valkey("--appendonly", "yes", "--appendfsync", "no")


def stop(server: Server, limiter: Any) -> None:
    """Stop a server, and let the limiter find out by a question that counts nothing: the next hit is not in doubt."""
    server.stop()
    assert limiter.test("news", "nobody").degraded


def left(limiter: Any, type: str = "news", who: str = WHO) -> list[int]:
    """How many hits are left in each window of the storage."""
    return [state.remaining for state in limiter.windows(type, who)]


# Decisions while the storage is down.


def test_the_insurance_decides_by_windows_that_know_what_was_allowed(make: Any, server: Server) -> None:
    """Three of five are used when the server is killed: two are left, and each decision says who made it."""
    limiter = make({"news": "5/hour"}, server.url)
    before = [limiter.hit("news", WHO) for _ in range(3)]
    server.stop()
    during = [limiter.hit("news", WHO) for _ in range(4)]

    assert [decision.allowed for decision in before + during] == [True] * 5 + [False] * 2
    assert [decision.degraded for decision in before + during] == [False] * 3 + [True] * 4
    assert [decision.remaining for decision in during] == [1, 0, 0, 0]
    assert all(decision.error for decision in during)
    assert during[-1].blocked_by.rule == "news"
    assert 3590 < during[-1].retry_after <= 3600


def test_a_decision_says_that_it_is_degraded(make: Any, server: Server) -> None:
    """In its text, its repr and its JSON; headers are those of the windows that decided."""
    limiter = make({"news": "1/hour"}, server.url)
    server.stop()
    allowed, refused = (limiter.hit("news", WHO) for _ in range(2))

    assert str(allowed).startswith("'news' allowed, 0 left; the insurance decided, because the storage failed: ")
    assert "refused by rule 'news' (1 per hour), try again in 1 h; the insurance decided" in repr(refused)
    assert WHO not in repr(refused)
    said = json.loads(json.dumps(refused.to_dict()))
    assert (said["degraded"], said["allowed"], said["rule"]) == (True, False, "news")
    assert server.address not in json.dumps(said)
    assert refused.headers(ratelimit=True)["RateLimit"].startswith('"news"')


def test_a_test_is_decided_too_and_takes_nothing(make: Any, server: Server) -> None:
    """It asks the insurance, which stays as it was."""
    limiter = make({"news": "1/hour"}, server.url)
    server.stop()
    tested = [limiter.test("news", WHO) for _ in range(3)]

    assert [(decision.allowed, decision.degraded) for decision in tested] == [(True, True)] * 3
    assert limiter.hit("news", WHO).allowed
    assert not limiter.test("news", WHO).allowed


def test_batches_and_what_no_rule_limits(make: Any, server: Server) -> None:
    """Each recipient of a batch is decided; what no rule limits asks nobody and is not degraded."""
    limiter = make({"news": "2/hour"}, server.url)
    limiter.hit_many("news", ["a", "b", "b"])
    server.stop()
    decisions = limiter.hit_many("news", ["a", "a", "b", "c", "c", "c"])

    assert [decision.allowed for decision in decisions] == [True, False, False, True, True, False]
    assert all(decision.degraded for decision in decisions)
    mixed = limiter.decide([Notification("other", "a"), Notification("news", "d"), Notification("news", None)])  # type: ignore[arg-type]  # it cannot be used
    assert [(decision.allowed, decision.degraded) for decision in mixed[:2]] == [(True, False), (True, True)]
    assert isinstance(mixed[2], TypeError)
    assert limiter.hit_many("other", ["a", "b"])[1].degraded is False


def test_windows_clear_and_release_raise(make: Any, kept: Valkey) -> None:
    """They are about the storage, which cannot be asked; a pause that cannot be kept there holds in the insurance."""
    limiter = make([Rule("news", "5/hour", name="n"), Rule("*", "100/hour", by=(), name="cap")], kept.url)
    decision = limiter.hit("news", WHO)
    kept.stop()

    for act in (
        lambda: limiter.windows("news", WHO),
        lambda: limiter.clear("news", WHO),
        lambda: limiter.release(decision),
        lambda: limiter.resume("cap"),
    ):
        with pytest.raises(StorageError):
            act()
    assert limiter.hit("news", WHO).allowed
    with pytest.raises(StorageError):
        limiter.pause("cap", 60)
    paused = limiter.hit("news", WHO)
    assert (paused.allowed, paused.degraded, paused.blocked_by.paused) == (False, True, True)


def test_the_circuit_only_saves_the_asking(make: Any, kept: Valkey) -> None:
    """While it is open, the server is not asked, the decisions are the same, and the first one after its return is its own."""
    limiter = make({"news": "5/hour"}, kept.url, circuit=Circuit(failures=2, pause=0.001))
    kept.stop()
    assert [limiter.hit("news", WHO).allowed for _ in range(7)] == [True] * 5 + [False] * 2
    assert limiter.storage.circuits[kept.address] != "closed"
    kept.start()
    while (decision := limiter.hit("news", WHO)).degraded:
        pass

    assert not decision.allowed
    assert left(limiter) == [0]


# What is copied while the storage works.


def test_what_was_given_back_is_given_back_in_the_insurance(make: Any, server: Server) -> None:
    """Also hits of a batch, of dear notifications, and of windows that count everybody."""
    limiter = make([Rule("news", "1/hour"), Rule("big", "9/hour"), Rule("*", "20/hour", by=())], server.url)
    for decision in (limiter.hit("news", WHO), limiter.hit("big", WHO, cost=9), *limiter.hit_many("news", ["x", "y"])):
        assert decision.allowed
        assert limiter.release(decision)
        assert not limiter.release(decision)
    server.stop()

    again = [limiter.hit("news", who) for who in (WHO, "x", "y")]
    assert all(decision.allowed and decision.degraded for decision in again)
    assert limiter.hit("big", WHO, cost=9).allowed
    assert not limiter.hit("big", "x", cost=9).allowed


def test_a_pause_and_a_clear_reach_the_insurance(make: Any, kept: Valkey) -> None:
    """What was cleared or resumed is free there too; what is paused is paused."""
    rules = [Rule("news", "1/hour"), Rule("sms", "1/hour"), *(Rule(type, None, by="type", name=type) for type in "ab")]
    limiter = make(rules, kept.url)
    limiter.hit("news", WHO)
    limiter.clear("news", WHO)
    limiter.hit("sms", WHO)
    for rule in "ab":
        limiter.pause(rule, 60)
    assert limiter.resume("b")
    kept.stop()

    assert limiter.hit("news", WHO).allowed
    assert not limiter.hit("sms", WHO).allowed
    assert not limiter.hit("a", WHO).allowed
    assert limiter.hit("b", WHO).allowed


def test_what_is_exempt_or_in_shadow_mode_counts_as_on_the_storage(make: Any, kept: Valkey) -> None:
    """Exempt hits count and are allowed; shadow rules refuse nothing, and count what fits."""
    rules = [
        Rule("news", "2/hour", exempt="high"),
        Rule("*", "3/hour", by="recipient", name="shadow", enforce=False),
    ]
    limiter = make(rules, kept.url)
    for _ in range(4):
        assert limiter.hit("news", WHO, priority="high").allowed
    kept.stop()

    refused = limiter.hit("news", WHO)
    assert (refused.allowed, refused.blocked_by.rule) == (False, "news")
    exempt = limiter.hit("news", WHO, priority="high")
    assert exempt.allowed
    assert [state.remaining for state in exempt.windows] == [0, 0]
    other = limiter.hit("other", "bo")
    assert [state.remaining for state in other.windows] == [2]


@pytest.mark.parametrize("strategy", ["moving-window", "fixed-window", "sliding-window-counter"])
def test_every_strategy_with_tiers_and_overrides(make: Any, kept: Valkey, strategy: Any) -> None:
    """The insurance goes by the limit of the recipient, in windows of the same strategy, and so does the replay."""
    rule = Rule("news", "4/hour", strategy=strategy, overrides={"o": "6/hour"}, tiers={"gold": "5/hour"})
    limiter = make([rule], kept.url, tier_of=lambda who: "gold" if who == "g" else None, normalize=str.lower)
    people = {"P": 4, "O": 6, "g": 5}
    for who in people:
        limiter.hit("news", who, cost=2)
    stop(kept, limiter)
    for who, amount in people.items():
        assert sum(limiter.hit("news", who).allowed for _ in range(8)) == amount - 2
    kept.start()
    for who in people:
        assert not limiter.hit("news", who).allowed
        assert left(limiter, "news", who) == [0]


def test_further_fields(make: Any, kept: Valkey) -> None:
    """Windows by tenant or key are copied, decided and replayed as the others."""
    limiter = make(
        [Rule("alert", "1/hour", by=("recipient", "dedupe_key")), Rule("alert", "3/hour", by="tenant")], kept.url
    )
    ask = limiter.hit
    assert ask("alert", WHO, dedupe_key="k", tenant="t")
    kept.stop()
    assert not ask("alert", WHO, dedupe_key="k", tenant="t")
    assert ask("alert", WHO, dedupe_key="l", tenant="t")
    assert ask("alert", "bo", dedupe_key="k", tenant="t")
    assert not ask("alert", "bo", dedupe_key="m", tenant="t")
    kept.start()
    refused = ask("alert", "cy", dedupe_key="k", tenant="t")
    assert (refused.allowed, refused.degraded) == (False, False)


# Shares.


def test_a_share_divides_the_amounts(make: Any, kept: Valkey) -> None:
    """Rounded up, in all windows, and decisions say so; what the storage allowed counts in full."""
    limiter = make({"news": "5/hour", "one": "1/hour", "many": "9/hour"}, kept.url, insurance_share=4)
    limiter.hit("many", WHO, cost=2)
    kept.stop()

    decisions = [limiter.hit("news", WHO) for _ in range(3)]
    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert [decision.remaining for decision in decisions] == [1, 0, 0]
    assert "(2 per hour)" in str(decisions[2])
    assert [bool(limiter.hit("one", WHO)) for _ in range(2)] == [True, False]
    assert [bool(limiter.hit("many", WHO)) for _ in range(2)] == [True, False]


def test_a_cost_above_the_share_can_be_tried_again(make: Any, kept: Valkey) -> None:
    """The storage has room for it, so it is not refused for ever; a cost above the whole amount is."""
    limiter = make({"news": "5/hour"}, kept.url, insurance_share=4)
    kept.stop()

    assert 0 < limiter.hit("news", WHO, cost=5).retry_after <= 3600
    assert limiter.hit("news", WHO, cost=6).retry_after == inf


# The return of the storage.


def test_what_the_insurance_allowed_is_added_once(make: Any, kept: Valkey) -> None:
    """Exactly, with the next hit in the same windows, also the dear ones and those of a batch; never again."""
    limiter = make([Rule("news", "20/hour"), Rule("*", "100/hour", by="recipient", name="cap")], kept.url)
    limiter.hit("news", WHO)
    stop(kept, limiter)
    limiter.hit("news", WHO, cost=3)
    limiter.hit_many("news", [WHO, "bo", WHO])
    limiter.hit("other", WHO)
    kept.start()

    assert left(limiter) == [19, 99]
    decision = limiter.hit("news", WHO)
    assert (decision.degraded, decision.remaining) == (False, 13)
    assert left(limiter) == [13, 92]
    limiter.hit("news", WHO)
    assert left(limiter) == [12, 91]
    assert left(limiter, "news", "bo") == [20, 100]
    assert [decision.remaining for decision in limiter.hit_many("news", ["cy", "bo", "bo"])] == [19, 18, 17]
    assert left(limiter, "news", "bo") == [17, 97]


def test_it_is_added_even_if_the_storage_is_full(make: Any, kept: Valkey) -> None:
    """Two processes used all of it while it was away: the next one is refused until their hits have ended."""
    one, other = (make({"news": "3/hour"}, kept.url) for _ in range(2))
    kept.stop()
    for limiter in (one, other):
        assert [bool(limiter.hit("news", WHO)) for _ in range(4)] == [True, True, True, False]
    kept.start()

    assert not one.hit("news", WHO).allowed
    assert not other.hit("news", WHO).allowed
    assert left(one) == [0]


def test_exempt_hits_are_added_up_to_twice_the_amount(make: Any, kept: Valkey) -> None:
    """As many of them as the storage itself would have forced, also if it has no room for all."""
    limiter, other = (make([Rule("news", "8/hour", exempt="high")], kept.url) for _ in range(2))
    for _ in range(4):
        other.hit("news", WHO)
    stop(kept, limiter)
    for _ in range(16):
        assert limiter.hit("news", WHO, priority="high").allowed
    kept.start()
    assert left(limiter) == [4]
    limiter.hit("news", WHO)

    assert left(limiter) == [0]


def test_what_has_ended_meanwhile_is_not_added(start_memcached: Callable[..., Memcached]) -> None:
    """Each window on its own: a minute later only the hour has hits to add."""
    clock, server = Clock(), start_memcached()
    limiter = Limiter({"news": "5/minute; 9/hour"}, server.url, on_storage_error="memory://", clock=clock, circuit=None)
    server.stop()
    limiter.hit("news", WHO)
    clock.advance(MINUTE // 2)
    limiter.hit("news", WHO)
    clock.advance(MINUTE * 3 // 4)
    server.start()
    limiter.hit("news", WHO)

    assert left(limiter) == [3, 6]
    limiter.close()


def test_a_hit_that_was_given_back_is_not_added(make: Any, kept: Valkey) -> None:
    """It is given back where it was granted, once, and leaves no debt."""
    limiter = make({"news": "2/hour"}, kept.url)
    stop(kept, limiter)
    decisions = [limiter.hit("news", WHO) for _ in range(2)]
    assert limiter.release(decisions[0])
    assert not limiter.release(decisions[0])
    assert (decisions[0].released, decisions[0].remaining) == (True, 2)
    assert limiter.hit("news", WHO).allowed
    assert limiter.release(decisions[1])
    kept.start()

    assert limiter.hit("news", WHO).remaining == 0
    assert left(limiter) == [0]


def test_a_hit_in_doubt_is_not_added(make: Any, valkey: Valkey) -> None:
    """The server has run the script and the answer is lost: it is counted there already, and nobody can know."""
    with Proxy(valkey.port) as proxy:
        limiter = make({"doubt": "9/hour"}, proxy.url, namespace=f"doubt.{proxy.port}", timeout=2)
        limiter.hit("doubt", "scripts")
        limiter.hit_many("doubt", ["scripts", "scripts"])
        proxy.losing = "all"
        decisions = [limiter.hit("doubt", WHO), *limiter.hit_many("doubt", [WHO, WHO])]
        proxy.losing = "nothing"

        assert all(decision.allowed and decision.degraded for decision in decisions)
        assert limiter.hit("doubt", WHO).remaining == 9 - 3 - 1
        assert left(limiter, "doubt") == [5]


def test_a_return_that_fails_again(make: Any, kept: Valkey) -> None:
    """What is about to be added when the server goes away again stays a debt; when the answer is lost, it does not."""
    with Proxy(kept.port) as proxy:
        limiter = make({"news": "9/hour"}, proxy.url, timeout=2)
        proxy.refuse()
        proxy.cut()
        limiter.hit("news", WHO)
        assert limiter.hit("news", WHO).degraded
        proxy.listen()
        assert limiter.hit("news", WHO).remaining == 6
        proxy.refuse()
        proxy.cut()
        limiter.hit("news", WHO)
        proxy.listen()
        proxy.losing = "all"
        assert limiter.hit("news", WHO).degraded
        proxy.losing = "nothing"

        assert limiter.hit("news", WHO).remaining == 9 - 3 - 2 - 1
        assert left(limiter) == [3]


def test_what_was_cleared_is_not_added(make: Any, kept: Valkey) -> None:
    """A recipient whose windows are cleared after the return owes nothing."""
    limiter = make({"news": "5/hour"}, kept.url)
    kept.stop()
    limiter.hit("news", WHO)
    kept.start()
    limiter.clear("news", WHO)

    assert limiter.hit("news", WHO).remaining == 4


def test_a_server_that_refuses_is_a_failure_too(make: Any, start_valkey: Callable[..., Valkey]) -> None:
    """Out of memory: nothing was counted there, so it is added when there is room again."""
    server = start_valkey("--maxmemory-policy", "noeviction")
    limiter = make({"news": "5/hour"}, server.url)
    limiter.hit("news", WHO)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        assert [limiter.hit("news", WHO).degraded for _ in range(2)] == [True, True]
        client.config_set("maxmemory", 0)

    assert limiter.hit("news", WHO).remaining == 1
    assert left(limiter) == [1]


# Events and the log.


def test_events(make: Any, kept: Valkey) -> None:
    """A degraded decision has the verdict of the insurance; the failure names the policy and no URI."""
    secret = f"redis://user:secret@127.0.0.1:{kept.port}/0"
    limiter = make([Rule("news", "1/hour", exempt="high"), Rule("s", "0/hour", enforce=False)], kept.url)
    told: list[Any] = []
    limiter.watch(told.append)
    kept.stop()
    decision = limiter.hit("news", WHO)
    limiter.hit("news", WHO)
    limiter.hit("news", WHO, priority="high")
    limiter.hit_many("s", [WHO])
    limiter.hit("free", WHO)
    limiter.test("news", WHO)
    limiter.release(decision)

    decided = [event for event in told if isinstance(event, Decided)]
    assert [(event.verdict, event.degraded, event.rule, event.backend) for event in decided] == [
        ("allowed", True, None, "redis"),
        ("refused", True, "news", "redis"),
        ("exempt", True, None, "redis"),
        ("would_refuse", True, "s", "redis"),
        ("unlimited", False, None, "redis"),
    ]
    failed = [event for event in told if isinstance(event, StorageFailed)]
    assert [(event.policy, event.number) for event in failed] == [("insurance", 1)] * 5
    assert [event for event in told if isinstance(event, Released)]
    assert secret not in repr(told)


def test_a_credential_of_the_insurance_is_shown_nowhere(make: Any, kept: Valkey) -> None:
    """Not in a repr, an event, an error or the log."""
    limiter = make({"news": "1/hour"}, kept.url, on_storage_error="redis://user:secret@127.0.0.1:1/0")
    told: list[Any] = []
    limiter.watch(told.append)
    kept.stop()
    with pytest.raises(StorageError) as caught:
        limiter.hit("news", WHO)

    assert "insured by" in limiter.summary()
    assert "secret" not in repr([limiter.summary(), told, caught.value, vars(caught.value)])


def test_the_log_says_it_once(make: Any, kept: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """That the insurance decides, and that the storage decides again."""
    limiter = make({"news": "5/hour"}, kept.url)
    kept.stop()
    for _ in range(20):
        limiter.hit("news", WHO)
    kept.start()
    limiter.hit("news", WHO)

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("The insurance decided about notifications (1), because the storage failed: ")
    assert said[1].startswith(
        "The storage decides again. Before that, the insurance decided about 20 notifications, in "
    )
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


# An insurance that fails, and other storages as insurance.


def test_both_fail(make: Any, kept: Valkey, tmp_path: Path) -> None:
    """That is an error that tells of both; in a batch it is the result of each that has windows."""
    limiter = make({"news": "5/hour"}, kept.url, on_storage_error=f"sqlite:///{tmp_path}/missing/windows.db")
    kept.stop()

    with pytest.raises(
        StorageError, match=r"(?s)Redis.*The insurance failed too: The folder .* is not there"
    ) as caught:
        limiter.hit("news", WHO)
    assert caught.value.nothing_counted
    for act in (limiter.test, lambda type, who: limiter.hit_many(type, [who])):
        with pytest.raises(StorageError, match="The insurance failed too"):
            act("news", WHO)
    error, free = limiter.decide([Notification("news", WHO), Notification("free", WHO)])
    assert isinstance(error, StorageError)
    assert free.allowed


def test_an_insurance_that_fails_changes_no_decision_of_the_storage(
    make: Any, valkey: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and asked again after a second at the earliest."""
    folder = tmp_path / "missing"
    limiter = make(
        {"failing": "3/hour"}, valkey.url, namespace=f"n{os.getpid()}", on_storage_error=f"sqlite:///{folder}/w.db"
    )
    limiter.clear("failing", WHO)
    decisions = [*(limiter.hit("failing", WHO) for _ in range(2)), *limiter.hit_many("failing", [WHO, WHO])]

    assert [decision.allowed for decision in decisions] == [True, True, True, False]
    assert not any(decision.degraded for decision in decisions)
    assert limiter.release(decisions[0])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("The insurance failed and does not know of what the storage allowed (1): The folder ")


def test_a_file_as_insurance_is_shared_by_processes(make: Any, kept: Valkey, tmp_path: Path) -> None:
    """Two limiters on one file decide together while the server is away."""
    uri = f"sqlite:///{tmp_path}/windows.db"
    one, other = (make({"news": "3/hour"}, kept.url, on_storage_error=uri) for _ in range(2))
    one.hit("news", WHO)
    kept.stop()

    assert [bool(limiter.hit("news", WHO)) for limiter in (one, other, one, other)] == [True, True, False, False]
    decision = one.hit("news", "bo")
    assert one.release(decision)


def test_a_storage_object_is_shared_and_stays_open(kept: Valkey) -> None:
    """Sync and async limiters share it; closing them does not empty it. A URI is closed with its limiter."""
    shared = MemoryStorage()
    one = Limiter({"news": "2/hour"}, kept.url, on_storage_error=shared, circuit=None)
    assert one.insurance is shared
    one.hit("news", WHO)

    async def ask() -> list[bool]:
        async with AsyncLimiter({"news": "2/hour"}, kept.url, on_storage_error=shared, circuit=None) as other:
            assert isinstance(other.insurance, AsyncMemoryStorage)
            kept.stop()
            return [bool(await other.hit("news", WHO)) for _ in range(2)]

    assert asyncio.run(ask()) == [True, False]
    one.close()
    assert len(shared) == 1
    kept.start()
    own = Limiter({"news": "2/hour"}, kept.url, on_storage_error="memory://")
    own.hit("news", WHO)
    windows: Any = own.insurance
    assert len(windows) == 1
    own.close()
    assert len(windows) == 0


def test_a_stock_storage_of_limits(make: Any, kept: Valkey) -> None:
    """It decides, by its weaker promise, and keeps no pauses."""
    from limits.aio.storage import MemoryStorage as AsyncStock
    from limits.storage import MemoryStorage as Stock

    rules = [Rule("news", "3/hour"), Rule("*", "9/hour", by=(), name="cap")]
    try:
        limiter = make(rules, kept.url, on_storage_error=Stock())
    except NotifyError:
        limiter = make(rules, kept.url, on_storage_error=AsyncStock())
    limiter.hit("news", WHO)
    limiter.pause("cap", 1)
    limiter.resume("cap")
    kept.stop()
    decisions = [limiter.hit("news", WHO) for _ in range(3)]
    assert [bool(decision) for decision in decisions] == [True, True, False]
    assert not limiter.release(decisions[0])
    kept.start()
    assert limiter.hit("news", WHO).degraded is False


def test_a_storage_of_limits_under_the_insurance(kept: Valkey) -> None:
    """It cannot say whether a hit was counted, so none is added; the copy makes the insurance warm."""
    from limits.storage import RedisStorage as Stock

    stock = Stock(kept.url)
    limiter = Limiter({"news": "3/hour"}, stock, on_storage_error="memory://")  # type: ignore[arg-type]  # as users write it
    limiter.hit("news", WHO)
    kept.stop()
    assert [bool(limiter.hit("news", WHO)) for _ in range(3)] == [True, True, False]
    kept.start()
    assert limiter.hit("news", WHO).remaining == 1
    limiter.close()
    stock.storage.close()


def test_the_storage_cannot_insure_itself(make: Any, valkey: Valkey, tmp_path: Path) -> None:
    """The same object, server or file is an error; two times windows in memory are two."""
    for storage, insurance in (
        (valkey.url, valkey.url),
        (valkey.url, f"redis://127.0.0.1:{valkey.port}/1"),
        (
            f"sqlite:///{tmp_path}/w.db",
            f"sqlite:///{tmp_path}/../{tmp_path.name}/w.db".replace("/../" + tmp_path.name, ""),
        ),
        (own := MemoryStorage(), own),
    ):
        with pytest.raises(NotifyError, match="fails together with it"):
            make({"news": "1/hour"}, storage, on_storage_error=insurance)
    with pytest.raises(NotifyError, match="cannot be the storage"):
        make({"news": "1/hour"}, "memory://", on_storage_error=type("Odd", (), {"acquire": None})())


def test_windows_in_memory_need_none(make: Any) -> None:
    """The option can stay where the storage is only a stand-in; nothing is counted twice."""
    limiter = make({"news": "2/hour"}, "memory://", insurance_share=2)

    assert [bool(limiter.hit("news", WHO)) for _ in range(3)] == [True, True, False]
    assert len(getattr(limiter.insurance, "windows", limiter.insurance)) == 0


def test_nothing_is_opened_while_limiting_is_off(make: Any) -> None:
    """Also no insurance."""
    limiter = make(
        {"news": "1/hour"}, "redis://nowhere.invalid:1", on_storage_error="redis://nowhere.invalid:2", enabled=False
    )

    assert limiter.hit("news", WHO).allowed
    assert limiter.insurance is None


def test_refusals_are_remembered_beside_it(make: Any, kept: Valkey) -> None:
    """A refusal of the storage lasts as ever; one of the insurance is not remembered."""
    limiter = make({"news": "1/hour"}, kept.url, remember_refusals=True)
    limiter.hit("news", WHO)
    assert limiter.hit("news", WHO).degraded is False
    stop(kept, limiter)
    assert limiter.hit("news", WHO).degraded is False
    assert [bool(limiter.hit("news", "bo")) for _ in range(2)] == [True, False]
    kept.start()
    again = limiter.hit("news", "bo")
    assert (again.degraded, again.allowed) == (False, False)


def test_other_rules_from_now_on(make: Any, kept: Valkey) -> None:
    """New amounts hold in the insurance at once, for the hits that it knows, and for debts."""
    limiter = make({"news": "2/hour"}, kept.url)
    limiter.hit("news", WHO)
    limiter.rules = {"news": "4/hour"}
    stop(kept, limiter)
    assert [bool(limiter.hit("news", WHO)) for _ in range(4)] == [True, True, True, False]
    limiter.rules = {"news": "6/hour"}
    kept.start()
    assert limiter.hit("news", WHO).remaining == 1


# Around the limiter.


def test_a_copy_of_a_decision(make: Any, kept: Valkey) -> None:
    """It explains itself elsewhere, and cannot be given back there."""
    limiter = make({"news": "2/hour"}, kept.url)
    kept.stop()
    decision = limiter.hit("news", WHO)
    copy = pickle.loads(pickle.dumps(decision))

    assert (copy.degraded, copy.allowed, copy.remaining, str(copy)) == (True, True, 1, str(decision))
    assert not limiter.release(copy)
    assert limiter.release(decision)


def test_another_limiter_cannot_give_it_back(make: Any, kept: Valkey) -> None:
    """Each limiter has an insurance of its own."""
    one, other = (make({"news": "2/hour"}, kept.url) for _ in range(2))
    kept.stop()
    decision = one.hit("news", WHO)

    with pytest.raises(NotifyError, match="another storage"):
        other.release(decision)
    assert one.release(decision)


def test_a_failed_send_while_the_server_is_away(kept: Valkey) -> None:
    """Notifiers send what the insurance allows, and give back what was not sent."""
    sent: list[str] = []

    def send(to: str) -> None:
        if to == "bad":
            raise ValueError
        sent.append(to)

    with Notifier(send, {"news": "1/hour"}, kept.url, on_storage_error="memory://", circuit=None) as notifier:
        kept.stop()
        with pytest.raises(ValueError, match=r"^$"):
            notifier.send("news", "bad")
        assert notifier.limiter.test("news", "bad").allowed
        deliveries = notifier.send_many("news", ["a", "b", "a", "bad"])
        assert [delivery.status for delivery in deliveries] == [
            Status.SENT,
            Status.SENT,
            Status.SUPPRESSED,
            Status.FAILED,
        ]
        assert all(delivery.decision.degraded for delivery in deliveries)
        assert sent == ["a", "b"]


def test_a_refusal_of_the_insurance_can_be_waited_for(start_memcached: Callable[..., Memcached]) -> None:
    """It says when there is room again, as any refusal, and the wait ends with the storage or the insurance."""
    server = start_memcached()
    sent: list[str] = []
    notifier = Notifier(
        sent.append,
        {"news": "1/second"},
        server.url,
        on_storage_error="memory://",
        on_limit="wait",
        max_wait=5,
        circuit=None,
    )
    server.stop()
    deliveries = [notifier.send("news", WHO) for _ in range(2)]

    assert all(delivery.status is Status.SENT and delivery.decision.degraded for delivery in deliveries)
    assert len(sent) == 2
    notifier.close()


def test_a_long_batch_while_the_server_is_away(kept: Valkey) -> None:
    """After two groups the server is not asked any more; the insurance decides about all the same."""
    sent: list[str] = []

    async def send(to: str) -> None:
        sent.append(to)

    async def main() -> list[bool]:
        async with AsyncNotifier(send, {"news": "1/hour"}, kept.url, on_storage_error="memory://") as notifier:
            kept.stop()
            people = [f"p{number % 700}" for number in range(1400)]
            return [bool(delivery) for delivery in await notifier.send_many("news", people)]

    assert asyncio.run(main()) == [True] * 700 + [False] * 700
    assert len(sent) == 700


def test_configured_functions_share_it(kept: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync and async functions have one insurance; a test that isolates limits needs none."""
    with unconfigured(monkeypatch):
        configured = configure(
            {"news": "2/hour"}, kept.url, on_storage_error="memory://", insurance_share=1, circuit=None
        )

        @rate_limited("news", on_limit="drop")
        def send(to: str) -> bool:
            return True

        @rate_limited("news", on_limit="drop")
        async def send_async(to: str) -> bool:
            return True

        with isolated_limits():
            assert [send(to=WHO) for _ in range(3)] == [True, True, None]
        kept.stop()
        assert send(to=WHO)
        assert asyncio.run(send_async(to=WHO))
        assert send(to=WHO) is None
        assert asyncio.run(send_async(to=WHO)) is None
        assert configured.limiter.insurance is configured.async_limiter.insurance.windows  # type: ignore[union-attr]  # it is in memory


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_a_forked_child_adds_nothing_for_its_parent(kept: Valkey) -> None:
    """The parent adds what it allowed; the child only what it allowed itself, by a copy of the windows."""
    limiter = Limiter({"news": "9/hour"}, kept.url, on_storage_error="memory://", circuit=None)
    kept.stop()
    limiter.hit("news", WHO)
    limiter.hit("news", WHO)
    child = os.fork()
    if child == 0:
        os._exit(0 if limiter.hit("news", WHO).remaining == 6 else 1)
    assert os.waitpid(child, 0)[1] == 0
    kept.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if limiter.hit("news", WHO).remaining == 8 else 1)
    assert os.waitpid(child, 0)[1] == 0

    assert limiter.hit("news", WHO).remaining == 9 - 1 - 2 - 1
    limiter.close()


def test_debts_do_not_grow_with_recipients_who_have_gone(start_memcached: Callable[..., Memcached]) -> None:
    """Those of windows that have ended are dropped, a few with each change."""
    clock, server = Clock(), start_memcached()
    limiter = Limiter({"news": "5/minute"}, server.url, on_storage_error="memory://", clock=clock)
    server.stop()
    for number in range(300):
        limiter.hit("news", f"r{number}")
    insurance: Any = limiter._insurance
    assert len(insurance.debts) == 300
    clock.advance(2 * MINUTE)
    for _ in range(300):
        limiter.hit("news", WHO)
    clock.advance(2 * MINUTE)

    assert len(insurance.debts) <= 1
    limiter.close()


def test_a_redis_storage_object_as_insurance(make: Any, kept: Valkey, start_valkey: Callable[..., Valkey]) -> None:
    """A second server decides for all processes together, and is asked as often as the first."""
    second = start_valkey()
    one, other = (make({"news": "3/hour"}, kept.url, on_storage_error=second.url) for _ in range(2))
    one.hit("news", WHO)
    kept.stop()
    assert [bool(limiter.hit("news", WHO)) for limiter in (other, one, other)] == [True, True, False]
    second.stop()
    with pytest.raises(StorageError, match="The insurance failed too"):
        one.hit("news", WHO)
    second.start()
    kept.start()
    assert RedisStorage(kept.url).check()
    assert one.hit("news", WHO).degraded is False
