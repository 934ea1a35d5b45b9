"""The storage on a Redis cluster, sync and asyncio, on clusters of real servers.

What it decides is in test_storage_properties.py, as for every backend; here is how it gets to the servers.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from hypothesis import given, strategies as st
from limits._storage_scheme import SCHEMES
from limits.storage import RedisClusterStorage as StockStorage, storage_from_string

from cluster_servers import Both, Cluster, cluster_servers, wait_for
from limiting import LIMITERS
from proxy import Proxy
from ratelimited_notify import Limiter, Rule
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.storage.redis import failures, routing, scripts, spread
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.cluster import RedisClusterStorage
from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage
from ratelimited_notify.storage.redis.slots import SLOTS, Claim, Slots, slot_of
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, Mode, Reading, Request, Verdict, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster_servers import Member
    from ratelimited_notify.windows.strategies import StrategyName
    from servers import Valkey

MINUTE = 60 * MICROSECONDS
STRATEGIES: tuple[StrategyName, ...] = ("moving-window", "fixed-window", "sliding-window-counter")
PATIENT = 30.0
"""Seconds for tests in which much happens at once, on machines with little to run it on."""

_numbers = itertools.count()


def someone() -> str:
    """A recipient that no other test has."""
    return f"recipient-{os.getpid()}-{next(_numbers)}"


def key(recipient: str, window: Window, name: str = "news") -> str:
    return f"test:{{{recipient}}}:{name}:{window.strategy[0]}"


def one(strategy: StrategyName = "moving-window", amount: int = 10, **options: Any) -> Window:
    return Window(strategy, amount, MINUTE, rule="news", **options)


@pytest.fixture(params=[RedisClusterStorage, AsyncRedisClusterStorage], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def storage(cluster: Cluster, kind: Any) -> Iterator[Both]:
    """A storage of either world on the cluster that all tests share."""
    with Both(kind(cluster.url, timeout=PATIENT)) as both:
        yield both


@pytest.fixture
def own_cluster() -> Iterator[Callable[..., Cluster]]:
    """Start a cluster for one test, to move its slots, stop it, hang it."""
    running: list[Cluster] = []

    def start(*arguments: Any, **options: Any) -> Cluster:
        running.append(cluster_servers(*arguments, **options))
        return running[-1]

    yield start
    for started in running:
        started.remove()


@pytest.fixture(scope="module")
def _three_masters() -> Iterator[Cluster]:
    made = cluster_servers(3, 0)
    yield made
    made.remove()


@pytest.fixture
def three_masters(_three_masters: Cluster) -> Cluster:
    """An empty cluster without replicas. A test may stop its servers, move its slots and configure it, and undoes that at its end.

    The tests of this file share it, because the masters of a new cluster serve nobody for two seconds.
    """
    _three_masters.settle()
    for member in _three_masters.members:
        member.command_line("FLUSHALL")
    return _three_masters


class Proxied:
    """A proxy before each server of a cluster, and what leads there instead of to the servers."""

    def __init__(self, cluster: Cluster) -> None:
        self.proxies = {member.port: Proxy(member.port) for member in cluster.members}
        self.uri = "redis+cluster://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies.values())

    def remap(self, address: tuple[str, int]) -> tuple[str, int]:
        return address[0], self.proxies[address[1]].port

    @property
    def requests(self) -> dict[int, int]:
        """How often something was sent, by the port of the server."""
        return {port: proxy.requests for port, proxy in self.proxies.items() if proxy.requests}

    def reset(self) -> None:
        for proxy in self.proxies.values():
            proxy.requests = 0


@pytest.fixture
def proxied(cluster: Cluster) -> Iterator[Proxied]:
    """Proxies before the servers of the cluster that all tests share."""
    made = Proxied(cluster)
    yield made
    for proxy in made.proxies.values():
        proxy.close()


# --- Where windows lie ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a:{b}:c", "a:{}:c", "{", "}{", "a{b}{c}", "a:{b", "äöü:{ß}", "{}}{b}"])
def test_the_slot_is_the_servers(cluster: Cluster, name: str) -> None:
    """A key's slot is computed here as the servers compute it."""
    with cluster.members[0].client() as client:
        assert slot_of(name) == client.execute_command("CLUSTER KEYSLOT", name)


def test_a_map_is_read_whole_or_not_at_all() -> None:
    """Servers without a name of their own are where they were asked; addresses are mapped; who is gone is forgotten."""
    slots = Slots([("seed", 1)], lambda address: (address[0] + "!", address[1]))
    assert slots.owner(0) is None
    slots.learn([[0, 9, [b"a", 7, b"id", []], [None, 8, b"id"]], [10, 20, [b"?", 9, b"id"]]], ("asked", 1), 0.0)

    assert (slots.owner(0), slots.owner(9), slots.owner(10), slots.owner(21)) == (("a!", 7),) * 2 + (
        ("asked!", 9),
        None,
    )
    assert slots.masters == (("a!", 7), ("asked!", 9))
    assert slots.known(("asked!", 8))
    assert slots.known(("seed", 1))
    slots.troubles["asked!", 8] = StorageError("It hangs.")
    assert slots.informants()[-1] == ("asked!", 8)
    slots.moved(5, ("", 99), ("b", 3))
    assert slots.owner(5) == ("b!", 99)
    assert slots.doubtful
    slots.learn([[0, SLOTS - 1, [b"c", 1, b"id"]]], ("asked", 1), 1.0)

    assert not slots.known(("a!", 7))
    assert slots.troubles == {}


# --- Round trips ----------------------------------------------------------------------------------------------------


MAP = [[0, 16383, [b"master", 1]]]


def test_one_caller_asks_for_a_map_and_the_others_wait() -> None:
    """A thousand callers that doubt the map at once send one CLUSTER SLOTS, not a thousand."""
    slots, now = Slots([("seed", 1)]), 0.0
    asking = routing.learn(slots, lambda: now, 1.0)
    waiting = [routing.learn(slots, lambda: now, 1.0) for _ in range(1000)]
    sent = next(asking)
    pauses = [next(each) for each in waiting]
    assert isinstance(sent, routing.Send)
    assert all(isinstance(pause, routing.Pause) for pause in pauses)
    with pytest.raises(StopIteration):
        asking.send({("seed", 1): [MAP]})
    for each in waiting:
        with pytest.raises(StopIteration):
            each.send(None)

    assert slots.owner(5) == ("master", 1)
    assert (slots.doubtful, slots.pausing) == (False, set())


def test_callers_that_wait_try_less_often_the_more_they_are() -> None:
    """One comes back after 20 ms, a thousand come back some five thousand times a second in all."""
    slots = Slots([("seed", 1)])
    pauses = [routing.pause(slots, 1.0) for _ in range(1000)]
    seconds = [next(each).seconds for each in pauses]  # type: ignore[union-attr]  # nothing else is yielded

    assert seconds[0] == pytest.approx(0.02, abs=0.001)
    assert seconds[-1] == pytest.approx(0.2)
    for each in pauses:
        each.close()
    assert slots.pausing == set()


def test_a_caller_that_is_interrupted_while_it_asks_for_a_map_stops_nobody() -> None:
    """Somebody else asks at once; and where even that went wrong, when its time is over."""
    slots, now = Slots([("seed", 1)]), 0.0
    interrupted = routing.learn(slots, lambda: now, 1.0)
    next(interrupted)
    interrupted.close()
    assert isinstance(next(routing.learn(slots, lambda: now, 1.0)), routing.Send)

    claim = Claim(1.0)
    slots.learner = ref(claim)
    assert isinstance(next(routing.learn(slots, lambda: now, 2.0)), routing.Pause)
    now = 1.0
    assert isinstance(next(routing.learn(slots, lambda: now, 2.0)), routing.Send)

    claim = Claim(2.0)
    slots.learner = ref(claim)
    del claim
    assert isinstance(next(routing.learn(slots, lambda: now, 2.0)), routing.Send)


def test_nobody_waits_for_a_map_who_has_one() -> None:
    """While somebody asks whether the map still holds, decisions go to where it says."""
    slots, now = Slots([("seed", 1)]), 0.0
    slots.learn(MAP, ("seed", 1), -100.0)
    slots.doubtful = True
    asking = routing.learn(slots, lambda: now, 1.0)
    next(asking)
    call = spread.ScriptCall(5, scripts.Scripts().forget([Window("fixed-window", 1, 1)]), ["n:{ana}:news:f"], int)
    sent = next(routing.ask(slots, [call], lambda: now, 1.0, 1.0))

    assert isinstance(sent, routing.Send)
    assert list(sent.parcels) == [("master", 1)]


def test_an_open_circuit_fails_at_once_while_somebody_asks_for_a_map() -> None:
    """A server that was found unreachable just now is worth waiting for a new map; one that is left alone is not."""
    for error, kind in (
        (failures.not_asked("master:1"), None),
        (failures.NothingSent("refused"), routing.Pause),
    ):
        slots, now = Slots([("seed", 1)]), 100.0
        slots.learn(MAP, ("seed", 1), 0.0)
        slots.doubtful = True
        asking = routing.learn(slots, lambda now=now: now, now + 1)
        next(asking)
        call = spread.ScriptCall(5, scripts.Scripts().forget([Window("fixed-window", 1, 1)]), ["n:{ana}:news:f"], int)
        asked = routing.ask(slots, [call], lambda now=now: now, now + 1, 1.0)
        next(asked)
        if kind is None:
            with pytest.raises(StopIteration) as done:
                asked.send({("master", 1): error})
            assert done.value.value == [error]
        else:
            assert isinstance(asked.send({("master", 1): error}), kind)


def test_with_no_time_to_wait_every_caller_asks_for_the_map() -> None:
    """A time-out of 50 ms is shorter than the pause between two looks."""
    slots, now = Slots([("seed", 1)]), 0.0
    asking = routing.learn(slots, lambda: now, 0.05)
    next(asking)

    assert isinstance(next(routing.learn(slots, lambda: now, 0.05)), routing.Send)


def test_a_silent_cluster_is_not_asked_for_its_map_again_at_once() -> None:
    """When no server answered, the next callers do not pay for asking all of them for a moment."""
    slots = Slots([("seed", number) for number in range(3)])
    instants = itertools.count()
    asking = routing.learn(slots, lambda: next(instants) / 1000, 10.0)
    answer = None
    with suppress(StopIteration):
        while True:
            step = asking.send(answer)
            answer = dict.fromkeys(step.parcels, StorageError("silent"))  # type: ignore[union-attr]  # it asks
    again = next(instants) / 1000

    assert slots.fresh(again)
    assert not slots.fresh(again + 0.2)


def test_a_process_with_too_few_connections_does_not_doubt_the_map() -> None:
    """That says nothing about the servers, and to ask them for a map would take connections from those that wait."""
    slots = Slots([("seed", 1)])
    slots.learn(MAP, ("seed", 1), 0.0)
    call = spread.ScriptCall(5, scripts.Scripts().forget([Window("fixed-window", 1, 1)]), ["n:{ana}:news:f"], int)
    for error in (
        failures.no_free_connection("master:1", 50),
        failures.out_of_time("master:1", 0.5, TimeoutError()),
    ):
        asked = routing.ask(slots, [call], lambda: 100.0, 101.0, 1.0)
        next(asked)
        with pytest.raises(StopIteration) as done:
            asked.send({("master", 1): error})

        assert done.value.value == [error]
        assert (slots.doubtful, slots.troubles) == (False, {})


def test_a_decision_is_one_round_trip_to_one_server(proxied: Proxied, kind: Any) -> None:
    """Three windows of three strategies, a hit, a look, a release: one request, and only to the recipient's server."""
    windows, person = [one(strategy) for strategy in STRATEGIES], someone()
    keys = [key(person, window) for window in windows]
    with Both(kind(proxied.uri, timeout=PATIENT, address_remap=proxied.remap)) as storage:

        def trips(verb: Callable[..., Any], *arguments: Any) -> list[int]:
            proxied.reset()
            verb(*arguments)
            return list(proxied.requests.values())

        tokens = [reading.token for reading in storage.acquire(windows, keys, 1).readings]
        storage.peek(windows, keys, 1)
        storage.release(windows, keys, 1, tokens)
        storage.forget(windows, keys)

        assert trips(storage.acquire, windows, keys, 1) == [1]
        assert trips(storage.peek, windows, keys, 1) == [1]
        assert trips(storage.release, windows, keys, 1, tokens) == [1]
        assert trips(storage.forget, windows, keys) == [1]


def test_a_batch_is_one_round_trip_to_each_server(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, kind: Any) -> None:
    """90 recipients lie on three servers, each of which is asked once; a shared window costs one more trip to one."""
    asked: list[str] = []
    server = sys.modules[kind.__module__]._Server
    exchange = server._exchange

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(self._where)
        return exchange(self, *arguments, **options)

    own, shared = one(), one("fixed-window", amount=10**6, shared=True)
    people = [someone() for _ in range(90)]
    alone = [Request([own], [key(person, own)], 1) for person in people]
    everybody = key(someone(), shared)
    together = [Request([own, shared], [key(person, own), everybody], 1) for person in people]
    with Both(kind(cluster.url, timeout=PATIENT)) as storage:
        # Every server knows the scripts.
        storage.acquire_many(alone)
        storage.acquire_many(together)
        monkeypatch.setattr(server, "_exchange", counted)

        assert all(verdict.granted for verdict in storage.acquire_many(alone))
        assert (len(asked), len(set(asked))) == (3, 3)
        asked.clear()
        assert all(verdict.granted for verdict in storage.acquire_many(together))
        assert (len(asked), len(set(asked))) == (4, 3)


def test_answers_belong_to_their_requests(storage: Both) -> None:
    """Hundreds of requests over all servers, some recipients three times: each answer is its own, in the order given."""
    windows = [one(strategy, amount=2) for strategy in STRATEGIES]
    people = [someone() for _ in range(150)]
    requests = [Request(windows, [key(person, window) for window in windows], 1) for person in people * 3]
    verdicts = storage.acquire_many(requests)

    assert [verdict.granted for verdict in verdicts] == [True] * 300 + [False] * 150
    assert [verdict.readings[1].count for verdict in verdicts] == [1] * 150 + [2] * 300
    assert storage.acquire_many([]) == []
    assert storage.acquire([], [], 1).granted
    assert storage.forget([], []) == 0
    assert storage.release([], [], 1, []) is False


# --- Shared windows -------------------------------------------------------------------------------------------------


def apart(window: Window) -> tuple[str, str]:
    """A recipient and the key of a shared window that do not lie in one slot."""
    person, shared = someone(), key(someone(), window, "everybody")
    while slot_of(key(person, window)) == slot_of(shared):
        person = someone()
    return person, shared


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_shared_window_refuses_is_given_back(storage: Both, strategy: StrategyName) -> None:
    """The recipient's own windows are as before, no token is left, and the refusal tells of both."""
    own, other, shared = one(strategy), one("fixed-window"), one(strategy, amount=1, shared=True)
    person, everybody = apart(own)
    windows, keys = [shared, own, other], [everybody, key(person, own), key(person, other, "other")]
    first = storage.acquire(windows, keys, 1)
    refused = storage.acquire(windows, keys, 1)

    assert first.granted
    assert [reading.count for reading in first.readings] == [1, 1, 1]
    assert not refused.granted
    assert [reading.count for reading in refused.readings] == [1, 1, 1]
    assert [reading.token for reading in refused.readings] == [None] * 3
    assert refused.readings[0].retry_at >= first.now
    assert [reading.retry_at for reading in refused.readings[1:]] == [FITS, FITS]
    assert storage.release(windows, keys, 1, [reading.token for reading in first.readings])
    assert [reading.count for reading in storage.peek(windows, keys, 1).readings] == [0, 0, 0]


def test_what_the_recipients_window_refuses_is_looked_at_in_the_shared_one(storage: Both) -> None:
    """A refusal by the recipient's own window takes nothing from the shared one, and tells when that one has room."""
    own, shared = one(amount=0), one("fixed-window", amount=1, shared=True)
    person, everybody = apart(own)
    storage.acquire([shared], [everybody], 1)
    refused = storage.acquire([own, shared], [key(person, own), everybody], 1)

    assert [reading.count for reading in refused.readings] == [0, 1]
    assert refused.readings[1].retry_at > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_threads_that_share_a_window_never_get_too_many(cluster: Cluster, strategy: StrategyName) -> None:
    """Many recipients race for a shared window: its amount and no more are admitted, and each of these counts once."""
    storage = RedisClusterStorage(cluster.url, timeout=PATIENT)
    own, shared = one(strategy, amount=3), one(strategy, amount=7, shared=True)
    for _ in range(10):
        everybody = key(someone(), shared, "everybody")
        people = [someone() for _ in range(6)]

        def hit(person: str, everybody: str = everybody) -> bool:
            return storage.acquire([own, shared], [key(person, own), everybody], 1).granted

        with ThreadPoolExecutor(8) as threads:
            admitted = sum(threads.map(hit, people * 4))
        counts = [storage.peek([own], [key(person, own)], 1).readings[0].count for person in people]

        assert admitted <= 7
        # False refusals are possible while others give back; what is left over goes to who asks again.
        admitted += sum(hit(person) for person in people for _ in range(3))
        assert admitted == 7
        assert sum(counts) <= 7
        assert storage.peek([shared], [everybody], 1).readings[0].count == 7
    storage.close()


SHARED = ("nobody", "everybody", "all of them")


@st.composite
def requests_of_all_kinds(draw: st.DrawFn) -> list[tuple[list[tuple[str, Window]], int]]:
    """Requests of two recipients over windows of their own and some that lie elsewhere, in any order."""
    modes = st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.FORCE, Mode.SHADOW])
    made = [
        (n, Window(draw(st.sampled_from(STRATEGIES)), draw(st.integers(0, 5)), MINUTE, draw(modes), shared=n > 1))
        for n in range(5)
    ]
    asked = []
    for _ in range(draw(st.integers(1, 9))):
        person = draw(st.sampled_from(["ana", "bo"]))
        picked = draw(st.lists(st.sampled_from(made), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
        named = [(SHARED[n - 2] if one_of_them.shared else f"{person}:{n}", one_of_them) for n, one_of_them in picked]
        asked.append((named, draw(st.integers(1, 3))))
    return asked


@given(asked=requests_of_all_kinds())
def test_a_batch_is_the_same_as_one_by_one(cluster: Cluster, kind: Any, asked: list) -> None:
    """Whatever gives back what it took in one slot because of another: the next in the batch are told what they would be
    told alone, also where a request lies in four slots.
    """
    together, alone = someone(), someone()

    def of(world: str) -> list[Request]:
        return [
            Request(
                [window for _, window in named],
                [key(world + name.partition(":")[0], window, name.partition(":")[2]) for name, window in named],
                cost,
            )
            for named, cost in asked
        ]

    def told(verdict: Any) -> Any:
        return verdict.granted, [(*reading[:3], reading.token and reading.token[0]) for reading in verdict.readings]

    with Both(kind(cluster.url, timeout=PATIENT)) as storage:
        storage.storage._scripts = scripts.Scripts("local now = 1800000000000000")
        batch = storage.acquire_many(of(together))
        one_by_one = [storage.acquire(*request) for request in of(alone)]

        assert list(map(told, batch)) == list(map(told, one_by_one))
        assert [told(storage.peek(*request)) for request in of(together)] == [
            told(storage.peek(*request)) for request in of(alone)
        ]


# --- Redirections ---------------------------------------------------------------------------------------------------


def test_a_wrong_map_is_put_right(storage: Both) -> None:
    """Sent to the wrong server, a hit is counted once, at the right one; a batch as well."""
    window, people = one(), [someone() for _ in range(30)]
    requests = [Request([window], [key(person, window)], 1) for person in people]
    storage.acquire_many(requests)
    slots = storage.storage._slots
    slots._owners = [slots.masters[0]] * SLOTS

    assert storage.acquire(*requests[0]).readings[0].count == 2
    slots._owners = [slots.masters[1]] * SLOTS
    assert {verdict.readings[0].count for verdict in storage.acquire_many(requests[1:])} == {2}
    assert len({slots.owner(slot_of(request.keys[0])) for request in requests}) == 3


def test_scripts_that_a_server_has_forgotten(storage: Both, cluster: Cluster) -> None:
    """After SCRIPT FLUSH on every server all of a batch is counted once, in order."""
    window, people = one(amount=3), [someone() for _ in range(20)]
    requests = [Request([window], [key(person, window)], 2) for person in people for _ in range(2)]
    for member in cluster.members:
        member.command_line("SCRIPT", "FLUSH")
    verdicts = storage.acquire_many(requests)

    assert [verdict.granted for verdict in verdicts] == [True, False] * 20


def migrate(cluster: Cluster, slot: int) -> tuple[Member, Member]:
    """Begin to move a slot from its server to another one."""
    source = cluster.master_of(slot)
    target = next(member for member in cluster.members if member is not source)
    target.command_line("CLUSTER", "SETSLOT", slot, "IMPORTING", source.command_line("CLUSTER", "MYID"))
    source.command_line("CLUSTER", "SETSLOT", slot, "MIGRATING", target.command_line("CLUSTER", "MYID"))
    return source, target


def finish(cluster: Cluster, slot: int, target: Member) -> None:
    """The slot belongs to the new server."""
    name = target.command_line("CLUSTER", "MYID")
    for member in (target, *cluster.members):
        member.command_line("CLUSTER", "SETSLOT", slot, "NODE", name)


def test_a_slot_on_its_way(three_masters: Cluster, kind: Any) -> None:
    """ASK is followed and counts once. Several windows of which some are not there yet have to wait, and count nothing."""
    cluster, window, person = three_masters, one(), someone()
    keys = [key(person, window)]
    windows = [window, one("fixed-window")]
    slot = slot_of(keys[0])
    with Both(kind(cluster.url, timeout=PATIENT)) as storage, Both(kind(cluster.url, timeout=0.3)) as hasty:
        hasty.peek([window], keys, 1)
        _, target = migrate(cluster, slot)
        assert storage.acquire([window], keys, 1).readings[0].count == 1
        assert storage.acquire([window], keys, 1).readings[0].count == 2
        with pytest.raises(StorageError, match=r"on its way to another server.*nothing was counted"):
            hasty.acquire(windows, [*keys, key(person, windows[1])], 1)
        finishing = threading.Timer(0.3, finish, [cluster, slot, target])
        finishing.start()
        verdict = storage.acquire(windows, [*keys, key(person, windows[1])], 1)
        finishing.join()

        assert [reading.count for reading in verdict.readings] == [3, 1]
        assert hasty.peek([window], keys, 1).readings[0].count == 3


def test_slots_move_under_load(three_masters: Cluster, kind: Any) -> None:
    """While slots go back and forth between servers, with all of their keys, every recipient gets exactly the limit."""
    cluster, window = three_masters, one(amount=25)
    people = [someone() for _ in range(4)]
    slots = [slot_of(key(person, window)) for person in people]
    stop = threading.Event()
    moves = 0

    def move() -> None:
        nonlocal moves
        for slot in itertools.cycle(slots):
            if stop.is_set():
                return
            source, target = migrate(cluster, slot)
            found = source.command_line("CLUSTER", "GETKEYSINSLOT", slot, 100)
            for name in found:
                source.command_line("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
            # A key that came in between went to the target at once, by ASK.
            finish(cluster, slot, target)
            moves += 1

    admitted = dict.fromkeys(people, 0)
    mover = threading.Thread(target=move)
    mover.start()
    try:
        with Both(kind(cluster.url, timeout=PATIENT)) as storage:
            while moves < 12 or set(admitted.values()) != {25}:
                requests = [Request([window], [key(person, window)], 1) for person in people]
                for person, verdict in zip(people, storage.acquire_many(requests), strict=True):
                    admitted[person] += verdict.granted
            for _ in range(5):
                for person in people:
                    assert not storage.acquire([window], [key(person, window)], 1).granted
    finally:
        stop.set()
        mover.join()


def test_a_cluster_that_is_not_complete(three_masters: Cluster, kind: Any) -> None:
    """A slot that nobody has is an error after the time-out, and nothing before it is served again."""
    cluster, window, person = three_masters, one(), someone()
    keys = [key(person, window)]
    slot = slot_of(keys[0])
    with Both(kind(cluster.url, timeout=0.3)) as hasty, Both(kind(cluster.url, timeout=PATIENT)) as storage:
        storage.peek([window], keys, 1)
        for member in cluster.members:
            member.command_line("CLUSTER", "DELSLOTS", slot)
        with pytest.raises(StorageError, match=r"nothing was (counted|sent)"):
            hasty.acquire([window], keys, 1)

        def serve() -> None:
            cluster.members[1].command_line("CLUSTER", "ADDSLOTS", slot)

        serving = threading.Timer(0.3, serve)
        serving.start()
        assert storage.acquire([window], keys, 1).readings[0].count == 1
        serving.join()


def test_servers_at_odds_are_not_followed_for_ever(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, kind: Any
) -> None:
    """A question that is sent round in circles ends as an error."""
    window, keys = one(), [key(someone(), one())]
    with Both(kind(cluster.url, timeout=PATIENT)) as storage:
        storage.peek([window], keys, 1)
        slots = storage.storage._slots
        wrong = next(master for master in slots.masters if master != slots.owner(slot_of(keys[0])))
        monkeypatch.setattr(slots, "owner", lambda slot: wrong)
        with pytest.raises(StorageError, match="redirect in circles"):
            storage.acquire([window], keys, 1)
        monkeypatch.undo()

        assert storage.peek([window], keys, 1).readings[0].count == 0


@pytest.mark.parametrize("single", [RedisStorage, AsyncRedisStorage], ids=["sync", "async"])
def test_a_plain_uri_at_a_cluster_is_told_to_name_the_cluster(cluster: Cluster, single: Any) -> None:
    """Who names one server of a cluster as if it were alone is told what to write, and the servers are not blamed."""
    with Both(single(f"redis://{cluster.members[0].address}", timeout=PATIENT)) as storage:
        windows = one(), one()
        elsewhere = next(
            name
            for name in iter(someone, "")
            if cluster.master_of(slot_of(key(name, windows[0]))) != cluster.members[0]
        )
        for keys in ([key(elsewhere, windows[0])], [key(elsewhere, windows[0]), key(elsewhere + "x", windows[0])]):
            with pytest.raises(StorageError, match=r"part of a cluster.*Use redis\+cluster://"):
                storage.acquire(windows[: len(keys)], keys, 1)


# --- Lost answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_lost_answer_neither_counts_nor_gives_twice(
    storage: Both, proxied: Proxied, kind: Any, strategy: StrategyName
) -> None:
    """The script ran and its reply was cut off: the hit is counted once, and given back once."""
    window = one(strategy)
    keys = [key(someone(), window)]

    def used() -> int:
        return storage.peek([window], keys, 1).readings[0].count

    with Both(kind(proxied.uri, address_remap=proxied.remap)) as through:
        tokens = [reading.token for reading in through.acquire([window], keys, 1).readings]
        assert through.release([window], keys, 1, tokens)
        tokens = [reading.token for reading in through.acquire([window], keys, 1).readings]
        through.acquire([window], keys, 1)
        for proxy in proxied.proxies.values():
            proxy.losing = "all"
        with pytest.raises(StorageError, match="not known whether this took effect"):
            through.acquire([window], keys, 1)
        assert used() == 3
        with pytest.raises(StorageError, match="not known whether this took effect"):
            through.release([window], keys, 1, tokens)
        assert used() == 2
        for proxy in proxied.proxies.values():
            proxy.losing = "nothing"

        assert through.acquire([window], keys, 1).readings[0].count == 3


def test_a_batch_that_fails_in_part_is_given_back(storage: Both, proxied: Proxied, cluster: Cluster, kind: Any) -> None:
    """One of three servers gives no answer: what the others granted is given back; there each hit is counted once."""
    window, people = one(), [someone() for _ in range(30)]
    requests = [Request([window], [key(person, window)], 1) for person in people]
    lost = cluster.master_of(slot_of(requests[0].keys[0]))
    with Both(kind(proxied.uri, address_remap=proxied.remap)) as through:
        through.acquire_many(requests)
        for verdict, request in zip(through.acquire_many(requests), requests, strict=True):
            through.release(request.windows, request.keys, 1, [reading.token for reading in verdict.readings])
        proxied.proxies[lost.port].losing = "all"
        with pytest.raises(StorageError, match="not known"):
            through.acquire_many(requests)
        proxied.proxies[lost.port].losing = "nothing"
    counts = {request.keys[0]: storage.peek([window], request.keys, 1).readings[0].count for request in requests}

    assert {counts[name] for name in counts if cluster.master_of(slot_of(name)) is lost} == {2}
    assert {counts[name] for name in counts if cluster.master_of(slot_of(name)) is not lost} == {1}


def test_a_shared_window_that_fails_costs_the_recipient_nothing(
    storage: Both, proxied: Proxied, cluster: Cluster, kind: Any
) -> None:
    """The shared window's server gives no answer after the recipient's has granted: that hit is given back."""
    own, shared = one(), one("fixed-window", shared=True)
    person, everybody = someone(), key(someone(), shared)
    while cluster.master_of(slot_of(key(person, own))) is cluster.master_of(slot_of(everybody)):
        person = someone()
    windows, keys = [own, shared], [key(person, own), everybody]
    with Both(kind(proxied.uri, address_remap=proxied.remap)) as through:
        tokens = [reading.token for reading in through.acquire(windows, keys, 1).readings]
        through.release(windows, keys, 1, tokens)
        proxied.proxies[cluster.master_of(slot_of(everybody)).port].losing = "all"
        with pytest.raises(StorageError, match="not known"):
            through.acquire(windows, keys, 1)

    assert [reading.count for reading in storage.peek(windows, keys, 1).readings] == [0, 1]


def test_a_batch_that_cannot_undo_a_refusal_is_given_back() -> None:
    """A shared window refuses the last, whose own hit cannot be given back: the batch fails, and the others' hits are undone."""
    own, shared = one("fixed-window"), one("fixed-window", shared=True)
    made, everybody = scripts.Scripts(), key("all", shared)
    requests = [Request([own, shared], [key(person, own), everybody], 1) for person in ("ana", "bo", "cy", "di")]
    undone: set[str] = set()

    def answer(question: spread.Question) -> object:
        if question.call.script is made._release:
            undone.update(question.keys)
            lost = requests[-1].keys[0] in question.keys
            return StorageError("The server is gone.") if lost else len(question.keys)
        fits = [name != everybody or place < 3 for place, name in enumerate(question.keys)]
        return [Verdict(ok, 1, [Reading(1, FITS if ok else 99, 99, (99, 0) if ok else None)]) for ok in fits]

    def answered(rounds: spread.Rounds[Any]) -> None:
        questions = next(rounds)
        while True:
            questions = rounds.send([answer(question) for question in questions])

    with pytest.raises(StorageError, match="The server is gone"):
        answered(spread.acquire_many(made, requests))

    assert undone == {request.keys[0] for request in requests} | {everybody}


@contextmanager
def configured(cluster: Cluster, setting: str, value: str, *, before: str) -> Iterator[None]:
    """Every server has this setting, until the end."""
    with ExitStack() as clients:
        # A server that asks new clients for a password still knows these.
        members = [clients.enter_context(member.client()) for member in cluster.members]
        for one_of_them in members:
            one_of_them.config_set(setting, value)
        try:
            yield
        finally:
            for one_of_them in members:
                one_of_them.config_set(setting, before)


# --- Servers in trouble ---------------------------------------------------------------------------------------------


def test_a_master_that_is_killed(own_cluster: Callable[..., Cluster], kind: Any) -> None:
    """SIGKILL in mid-load: its recipients' decisions fail as StorageErrors until its replica has taken over, and then go on
    by themselves.

    Nobody is counted more often than he was told of or left in doubt.
    """
    cluster, window = own_cluster(3, 1, node_timeout=1000), one(amount=10**6)
    people = [someone() for _ in range(12)]
    told, doubted = dict.fromkeys(people, 0), dict.fromkeys(people, 0)
    with Both(kind(cluster.url)) as storage:

        def hit(person: str) -> bool:
            try:
                told[person] += storage.acquire([window], [key(person, window)], 1).granted
            except StorageError:
                doubted[person] += 1
                return False
            return True

        def everybody() -> bool:
            return all([hit(person) for person in people])  # noqa: C419  # each is to hit, also after one who failed

        assert everybody()
        victim = cluster.master_of(slot_of(key(people[0], window)))
        killing = threading.Timer(0.5, victim.stop)
        killing.start()
        wait_for("decisions fail", lambda: not everybody())
        killing.join()
        wait_for("everybody is served", everybody, 60)
        counts = {person: storage.peek([window], [key(person, window)], 1).readings[0].count for person in people}

    for person in people:
        assert counts[person] <= told[person] + doubted[person]
        # A replica on the same machine is next to nothing behind.
        assert counts[person] >= told[person] - 5


def test_too_few_replicas(three_masters: Cluster, kind: Any) -> None:
    """With min-replicas-to-write, a master whose replicas are gone grants nothing and counts nothing, and says why."""
    window = one()
    keys = [key(someone(), window)]
    with configured(three_masters, "min-replicas-to-write", "1", before="0"), Both(kind(three_masters.url)) as storage:
        with pytest.raises(StorageError, match=r"min-replicas-to-write asks for, so nothing was counted"):
            storage.acquire([window], keys, 1)
        assert storage.peek([window], keys, 1).readings[0].count == 0


def test_a_master_that_hangs(own_cluster: Callable[..., Cluster], kind: Any) -> None:
    """A server that does not answer is an error after the time-out; the others are asked as ever."""
    cluster, window, person = own_cluster(3, 1, node_timeout=1500), one(), someone()
    keys = [key(person, window)]
    with Both(kind(cluster.url, timeout=0.4)) as storage:
        storage.acquire([window], keys, 1)
        victim = cluster.master_of(slot_of(keys[0]))
        other = next(
            name for name in map(str, range(1000)) if cluster.master_of(slot_of(key(name, window))) is not victim
        )
        storage.acquire([window], [key(other, window)], 1)
        victim.pause()
        try:
            with pytest.raises(StorageError, match=r"no answer within 0\.4 seconds"):
                storage.acquire([window], keys, 1)
            assert storage.acquire([window], [key(other, window)], 1).granted

            def served() -> bool:
                return storage.acquire([window], keys, 1).granted

            wait_for("decisions flow again", served, 30)
        finally:
            victim.resume()


def test_a_cluster_that_is_restarted(three_masters: Cluster, kind: Any) -> None:
    """With every server stopped, an error that names where it was looked for; started again, all is well."""
    cluster, window = three_masters, one()
    keys = [key(someone(), window)]
    with Both(kind(cluster.url)) as storage:
        storage.acquire([window], keys, 1)
        for member in cluster.members:
            member.stop()
        for _ in range(3):
            with pytest.raises(StorageError, match=r"127\.0\.0\.1:\d+"):
                storage.acquire([window], keys, 1)
        assert not storage.check()
        cluster.restart()

        assert storage.acquire([window], keys, 1).granted
        assert storage.check()


def test_nobody_there(kind: Any) -> None:
    """Addresses where nothing listens are named, and what to look at; the password is not."""
    with Both(kind("redis+cluster://ana:hunter2@127.0.0.1:1,127.0.0.1:2")) as storage:
        with pytest.raises(StorageError, match=r"No server of the Redis cluster answers.*127\.0\.0\.1:2") as raised:
            storage.acquire([one()], ["test:{a}:x:m"], 1)

        assert "hunter2" not in f"{raised.value} {raised.value.__cause__} {storage.storage!r}"
        assert not storage.check()
        with pytest.raises(StorageError, match="No server of the Redis cluster answers"):
            storage.reset()


def test_a_server_that_is_no_cluster(valkey: Valkey, kind: Any) -> None:
    """One server of its own is told apart, with the URI to use."""
    with (
        Both(kind(f"redis+cluster://{valkey.address}")) as storage,
        pytest.raises(StorageError, match="not part of a cluster; use redis://"),
    ):
        storage.acquire([one()], ["test:{a}:x:m"], 1)


def test_one_known_server_is_enough(cluster: Cluster, kind: Any) -> None:
    """A URI may name any one server, a replica too, and some that are not there."""
    window, people = one(), [someone() for _ in range(10)]
    for uri in (
        f"redis+cluster://{cluster.members[-1].address}",
        f"valkey+cluster://127.0.0.1:1,{cluster.members[0].address}",
    ):
        with Both(kind(uri, timeout=PATIENT)) as storage:
            verdicts = storage.acquire_many([Request([window], [key(person, window)], 1) for person in people])
            assert all(verdict.granted for verdict in verdicts)


def test_credentials(three_masters: Cluster, kind: Any) -> None:
    """User and password go to every server; a wrong one is said, and not shown."""
    window, hosts = one(), three_masters.url.partition("://")[2]
    requests = [Request([window], [key(someone(), window)], 1) for _ in range(10)]
    with configured(three_masters, "requirepass", "s3cret/word", before=""):
        with Both(kind(f"redis+cluster://default:s3cret%2Fword@{hosts}")) as storage:
            assert all(verdict.granted for verdict in storage.acquire_many(requests))
            assert "s3cret" not in repr(storage.storage)
        with Both(kind(f"redis+cluster://:hunter2@{hosts}")) as storage:
            with pytest.raises(StorageError, match="refused the user or password") as raised:
                storage.acquire_many(requests)
            assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


def test_a_user_who_may_not_ask_for_the_map(three_masters: Cluster, kind: Any) -> None:
    """A user whose ACL lacks CLUSTER SLOTS is told so."""
    for member in three_masters.members:
        member.command_line("ACL", "SETUSER", "ana", "on", ">s3cret", "~*", "+eval", "+evalsha")
    hosts = three_masters.url.partition("://")[2]
    with (
        Both(kind(f"redis+cluster://ana:s3cret@{hosts}")) as storage,
        pytest.raises(
            StorageError,
            match=r"may not run CLUSTER SLOTS\. Its ACL has to allow .* CLUSTER SLOTS and ASKING on a cluster",
        ),
    ):
        storage.acquire([one()], [key(someone(), one())], 1)
    for member in three_masters.members:
        member.command_line("ACL", "DELUSER", "ana")


# --- Options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "redis+cluster://ana:hunter2@host",
        "redis+cluster://ana:hunter2@host:7000,other",
        "redis+cluster://ana:hunter2@host:port",
        "redis+cluster://ana:hunter2@[host:7000",
        "redis+cluster://",
        "redis+cluster://hunter2",
    ],
)
def test_an_unreadable_uri_is_not_shown(kind: Any, uri: str) -> None:
    """A URI that cannot be used is a NotifyError at once; it may hold a password, so it is not quoted."""
    with pytest.raises(NotifyError, match=r"Write redis\+cluster://") as raised:
        kind(uri)

    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_options_reach_every_server(kind: Any) -> None:
    """Time-out, TLS and others are taken from the URI or the options; a misspelt one is an error at construction."""
    assert kind("redis+cluster://h:1?timeout=4", timeout=2.0).timeout == 4
    assert kind("redis+cluster://h:1", timeout=2.0).timeout == 2
    for storage in (
        kind("redis+cluster://h:1", ssl=True),
        kind("redis+cluster://h:1?ssl=true"),
        kind("rediss+cluster://h:1"),
    ):
        assert storage._settings["connection_class"].__name__ == "SSLConnection"
    assert kind("redis+cluster://[::1]:7000,h:1")._slots.seeds == (("::1", 7000), ("h", 1))
    with pytest.raises(NotifyError, match="sokket_timeout"):
        kind("redis+cluster://h:1", sokket_timeout=1)


def test_reset_drops_our_keys_on_every_server(three_masters: Cluster, kind: Any) -> None:
    """Every window of ours goes, wherever it lies, and what is not ours stays."""
    cluster, window = three_masters, one()
    with Both(kind(cluster.url, timeout=PATIENT)) as storage:
        storage.acquire_many([Request([window], [key(str(n), window)], 1) for n in range(300)])
        for member in cluster.members:
            name = next(f"else{n}" for n in range(1000) if cluster.master_of(slot_of(f"else{n}")) is member)
            member.command_line("SET", name, "kept")

        assert storage.reset() == 300
        assert storage.reset() == 0
        assert [member.command_line("DBSIZE") for member in cluster.members] == [1, 1, 1]


def test_several_event_loops(cluster: Cluster) -> None:
    """One storage serves loops one after another and at once, and each closes its connections when it ends."""
    storage = AsyncRedisClusterStorage(cluster.url, timeout=PATIENT)
    window = one(amount=10**6)
    keys = [key(someone(), window)]

    async def some() -> int:
        verdicts = await asyncio.gather(*(storage.acquire([window], keys, 1) for _ in range(20)))
        return sum(verdict.granted for verdict in verdicts)

    for _ in range(3):
        assert asyncio.run(some()) == 20
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: asyncio.run(some()), range(12))) == [20] * 12


def test_a_server_that_left_is_forgotten(storage: Both) -> None:
    """Connections to servers that no longer belong to the cluster are let go of."""
    window = one()
    storage.acquire([window], [key(someone(), window)], 1)
    made = storage.storage
    made._servers["127.0.0.1", 1] = next(iter(made._servers.values()))
    master = made._slots.masters[0]
    made._servers.pop(master, None)
    made._server(master)

    assert ("127.0.0.1", 1) not in made._servers


def test_forced_hits_are_given_back_too(storage: Both) -> None:
    """An exempt hit in the recipient's window goes when the shared window, which exempts nobody, refuses."""
    own, shared = one(amount=1, mode=Mode.FORCE), one("fixed-window", amount=1, shared=True)
    person, everybody = apart(own)
    windows, keys = [own, shared], [key(person, own), everybody]
    storage.acquire(windows, keys, 1)

    assert not storage.acquire(windows, keys, 1).granted
    assert storage.peek(windows, keys, 1).readings[0].count == 1


@pytest.mark.parametrize("limiter", list(LIMITERS))
def test_a_limiter_on_a_cluster(cluster: Cluster, limiter: str) -> None:
    """A URI of `limits` is all it takes: rules of the recipient's and rules over everybody, single hits and batches."""
    rules = [Rule("news", "2/day"), Rule("*", "6/day", by=())]
    ana, bo = someone(), someone()
    namespace = f"cluster-{limiter}-{os.getpid()}"
    with closing(LIMITERS[limiter](rules, cluster.url, namespace=namespace, timeout=PATIENT)) as made:
        decisions = made.hit_many("news", [ana, bo, ana, ana, *(someone() for _ in range(3))])

        assert made.storage.exact
        assert [bool(decision) for decision in decisions] == [True] * 3 + [False] + [True] * 3
        assert decisions[3].blocked_by.rule == "news"
        assert made.hit("news", bo).blocked_by.rule == "* by all"
        assert made.release(decisions[0])
        assert made.hit("news", bo)
        assert made.clear("news", bo) == 1


def test_a_stock_storage_goes_behind_the_adapter(cluster: Cluster) -> None:
    """A cluster storage of `limits` itself works as any other of its storages, with the weaker promise."""
    stock = StockStorage(cluster.url)
    limiter, person = Limiter({"news": "1/day"}, stock), someone()

    assert not limiter.storage.exact
    assert [bool(limiter.hit("news", person)) for _ in range(2)] == [True, False]
    stock.storage.close()


def test_schemes_of_our_own(cluster: Cluster) -> None:
    """`limits` opens these by schemes of their own, and its own schemes still open its own."""
    ours = storage_from_string(cluster.url.replace("redis+", "notify+redis+"))
    theirs = storage_from_string(cluster.url.replace("redis+", "async+notify+redis+"))

    assert (type(ours), type(theirs)) == (RedisClusterStorage, AsyncRedisClusterStorage)
    assert ours.check()
    assert SCHEMES["redis+cluster"] is SCHEMES["valkey+cluster"] is StockStorage
    assert SCHEMES["async+redis+cluster"].__module__.startswith("limits.")
    assert isinstance(ours, StockStorage | Storage)
    assert isinstance(theirs, AsyncStorage)
    assert RedisClusterStorage.exact is AsyncRedisClusterStorage.exact is True
    assert routing.where(("h", 1)) == "h:1"
    ours.close()
