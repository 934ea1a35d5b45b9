"""The connections to Redis: what a place is, who waits for one, what is dropped, what a first decision costs."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from proxy import Proxy
from ratelimited_notify import AsyncLimiter, Limiter, NotifyError, StorageError
from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.redis.connection import Connections, Places, _Waiting
from ratelimited_notify.storage.redis.multiplexed import MultiplexedConnection
from ratelimited_notify.storage.redis.options import connection
from ratelimited_notify.storage.redis.sync import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Valkey

PATIENT = 30.0
RULES = {"news": "1000000/day"}


def never(_: float) -> Any:
    """Connects to nothing."""
    raise AssertionError("Nobody was to connect.")


def soon(seconds: float = PATIENT) -> float:
    """A deadline."""
    return time.monotonic() + seconds


# --- Places ---------------------------------------------------------------------------------------------------------


def test_a_place_that_got_lost_is_free_again() -> None:
    """Whoever is interrupted between taking and giving loses an object, and with it no place."""
    places = Places(never, 2)
    for _ in range(1000):
        assert places.take(soon(0), None) is not None
        gc.collect(0)

    assert len([reference for reference in places._known.values() if reference() is not None]) <= 2


def test_a_place_in_a_kept_traceback_is_free_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that somebody keeps, frames and all, holds a place no longer than its deadline and a grace."""
    now = 100.0
    monkeypatch.setattr("ratelimited_notify.storage.redis.connection.time.monotonic", lambda: now)
    places = Places(never, 2)
    kept = [places.take(now + 0.5, None), places.take(now + 0.5, None)]
    assert places.take(now - 1, None) is None
    now += 2

    assert places.take(now + 0.5, None) is not None
    assert all(kept)


def test_a_dropped_connection_holds_no_place() -> None:
    """What was dropped does not count, whoever still has the object."""
    places = Places(never, 1)
    kept = []
    for _ in range(10):
        taken = places.take(soon(0), None)
        assert taken is not None
        taken.drop()
        kept.append(taken)


def test_places_are_never_more_than_there_may_be() -> None:
    """Threads that take and give at once never hold more than the number of places, and all of them are served."""
    places, held, most, lock = Places(never, 3), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal held, most
        for _ in range(100):
            taken = places.take(soon(), None)
            assert taken is not None
            with lock:
                held += 1
                most = max(most, held)
            time.sleep(0)
            with lock:
                held -= 1
            places.give(taken)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (most, held) == (3, 0)
    assert not places._waiting


def test_first_come_first_served() -> None:
    """Who waits longest gets the next free place; who comes later does not overtake."""
    places = Places(never, 1)
    taken = places.take(soon(), None)
    served: list[int] = []

    def wait(number: int) -> None:
        found = places.take(soon(), None)
        served.append(number)
        places.give(found)  # type: ignore[arg-type]  # there is time enough

    threads = []
    for number in range(10):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(places._waiting) <= number:
            time.sleep(0.001)
    places.give(taken)  # type: ignore[arg-type]  # as above
    for thread in threads:
        thread.join()

    assert served == list(range(10))


def test_who_has_no_time_left_is_passed_over() -> None:
    """Of too many callers those are served who have time to be: one about to give up would waste the connection."""
    places = Places(never, 1)
    taken = places.take(soon(), None)
    late, fresh = _Waiting(soon()), _Waiting(soon())
    late.late_at = time.monotonic()
    places._waiting.extend((late, fresh))
    places.give(taken)  # type: ignore[arg-type]  # there is time enough

    assert (late.woken, fresh.woken) == (False, True)


def test_where_all_are_late_the_newest_is_served() -> None:
    """It has the best chance; and no place lies idle while somebody waits."""
    places = Places(never, 1)
    taken = places.take(soon(), None)
    callers = [_Waiting(soon()) for _ in range(3)]
    for waiting in callers:
        waiting.late_at = time.monotonic()
    places._waiting.extend(callers)
    places.give(taken)  # type: ignore[arg-type]  # there is time enough

    assert [waiting.woken for waiting in callers] == [False, False, True]


def test_the_last_quarter_of_the_time_is_late() -> None:
    """However long the time-out is."""
    begun = time.monotonic()
    waiting = _Waiting(begun + 100)

    assert begun + 74.9 < waiting.late_at < time.monotonic() + 75.1


def test_one_who_left_without_a_word_keeps_nobody_waiting() -> None:
    """A waiting thread that was interrupted before it could leave the queue does not stop those behind it."""
    places = Places(never, 1)
    taken = places.take(soon(), None)
    gone = threading.Thread(target=places.take, args=(soon(0.05), None))
    gone.start()
    while not places._waiting:
        time.sleep(0.001)
    left_behind = places._waiting[0]
    gone.join()
    places._waiting.appendleft(left_behind)
    places.give(taken)  # type: ignore[arg-type]  # there is time enough

    assert places.take(soon(), None) is not None


@pytest.fixture
def collecting() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Has the garbage collector run as often as it can, and call what it is given each time: another thread could run then."""
    before = gc.get_threshold()
    called: list[Callable[[str, dict[str, int]], None]] = []

    def start(call: Callable[[], object]) -> None:
        called.append(lambda _phase, _info: call() and None)
        gc.callbacks.append(called[0])
        gc.set_threshold(1)

    yield start
    gc.set_threshold(*before)
    for one in called:
        gc.callbacks.remove(one)


def test_the_queue_may_change_while_the_collector_runs(collecting: Callable[[Callable[[], object]], None]) -> None:
    """Whoever looks for the next in the queue is not disturbed by who joins or leaves, whenever another thread may run."""
    places = Places(never, 1)
    changes = 0

    def change() -> None:
        nonlocal changes
        changes += 1
        places._waiting.append(places._waiting.popleft())

    places._waiting.extend(_Waiting(soon()) for _ in range(100))
    collecting(change)
    for _ in range(100):
        places.freed()

    assert changes > 0
    assert sum(waiting.woken for waiting in list(places._waiting)) == 100


def test_servers_may_be_added_while_the_collector_runs(collecting: Callable[[Callable[[], object]], None]) -> None:
    """Whoever reads the states of a cluster's servers is not disturbed by one that another thread has just met."""
    breakers = {f"server-{number}": breaker_for(f"server-{number}", None) for number in range(20)}
    new = [(f"new-{number}", breaker_for("new", None)) for number in range(1000)]
    circuits = Circuits(breakers)
    collecting(lambda: breakers.update([new.pop()]) if new else None)
    for _ in range(100):
        assert len(list(circuits)) >= 20

    assert len(breakers) > 20


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_nothing_is_read_from_disk_to_connect(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """redis-py looks for its own version on disk with each connection: ten times what it takes to connect, while others wait."""
    found: list[str] = []
    monkeypatch.setattr("importlib.metadata.version", lambda name: found.append(name) or "0")
    if asynchronous:
        asyncio.run(_hit(valkey.url))
    else:
        with Limiter(RULES, valkey.url) as limiter:
            limiter.hit("news", "ana@example.com")

    assert found == []


def test_a_connection_class_of_your_own_gets_only_what_it_takes(valkey: Valkey) -> None:
    """A class that passes on what it does not know works as those of redis-py; one with fixed arguments is given no other."""
    from redis import ConnectionPool
    from redis.connection import Connection as RedisConnection

    class Open(RedisConnection):
        def __init__(self, **options: Any) -> None:  # Any: whatever redis-py takes
            super().__init__(**options)

    class Strict(RedisConnection):
        def __init__(self, host: str = "", port: int = 0) -> None:
            super().__init__(host=host, port=port)

    class Named(RedisConnection):
        def __init__(self, **options: Any) -> None:  # Any: as above
            super().__init__(driver_info=None, **options)

    pool = ConnectionPool(connection_class=Open, host="127.0.0.1", port=valkey.port, socket_timeout=1)
    named = ConnectionPool(connection_class=Named, host="127.0.0.1", port=valkey.port, socket_timeout=1)

    assert RedisStorage(connection_pool=pool).check()
    assert RedisStorage(connection_pool=named).check()
    assert connection(Strict, {"host": "127.0.0.1"}).host == "127.0.0.1"


def test_who_waits_hears_of_an_open_circuit() -> None:
    """Threads that wait for a place when the server turns out to be silent are not kept until their deadline."""
    from ratelimited_notify import Circuit

    places, breaker = Places(never, 1), breaker_for("waiting", Circuit(failures=1))
    taken = places.take(soon(), breaker)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(places.take(soon(), breaker))) for _ in range(20)]
    for thread in threads:
        thread.start()
    while len(places._waiting) < 20:
        time.sleep(0.001)
    began = time.monotonic()
    breaker.failed(time.monotonic(), timed_out=True)
    taken.drop()  # type: ignore[union-attr]  # there was a place
    places.freed()
    for thread in threads:
        thread.join()

    assert found == [None] * 20
    assert time.monotonic() - began < PATIENT / 3


def test_connections_that_are_slow_to_open_are_opened_one_by_one(valkey: Valkey) -> None:
    """Opened all at once, no connection would be ready in time; everybody would begin anew, and nobody would ever be served."""
    limiter = Limiter(RULES, valkey.url, timeout=0.5, on_storage_error="deny", circuit=None)
    storage: Any = limiter.storage
    reach, most, opening = storage._connections.places._reach, storage._connections.places.most, [0]
    served: set[int] = set()

    def contended(deadline: float) -> Any:
        """Takes 20 ms of a processor that all share which are connecting."""
        opening[0] += 1
        try:
            left = 0.02
            while left > 0 and time.monotonic() < deadline:
                time.sleep(0.005)
                left -= 0.005 / opening[0]
            return reach(deadline)
        finally:
            opening[0] -= 1

    storage._connections = Connections(contended, most)
    ending = soon()

    def call(number: int) -> None:
        while len(served) < 4 * most and time.monotonic() < ending:
            if limiter.hit("news", f"recipient-{number}").error is None:
                served.add(number)
                time.sleep(0.05)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4 * most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    limiter.close()

    assert most * 0.02 > 0.5
    assert len(served) == 4 * most


def test_after_failures_the_places_fill_up_again() -> None:
    """Each exchange that succeeds makes room for one more connection, and wakes a thread for it."""
    places = Places(never, 8)
    for _ in range(10):
        places.slow_down()
    first = places.take(soon(), None)
    assert first is not None
    assert places.take(soon(0), None) is None

    served: list[Any] = []
    threads = [threading.Thread(target=lambda: served.append(places.take(soon(), None))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(places._waiting) < 2:
        time.sleep(0.001)
    places.give(first)
    for thread in threads:
        thread.join()
    assert len({id(one) for one in served} - {id(None)}) == 2

    held = [*served]
    while len(held) < 8:
        places.give(held.pop())
        held += [one for one in (places.take(soon(0), None), places.take(soon(0), None)) if one is not None]
    assert places.take(soon(0), None) is None


def test_a_forked_child_has_none_of_its_parents() -> None:
    """Idle connections and those in use are left to the parent."""
    connections = Connections(never, 1)
    parents = connections.places
    assert parents.take(soon(), None) is not None
    connections.forked()

    assert connections.places is not parents
    assert connections.places.take(soon(0), None) is not None


# --- First decisions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("login", "database", "trips"), [("", 0, 2), ("", 3, 3), (":s3cret@", 3, 4)])
def test_round_trips_of_a_first_decision(
    start_valkey: Callable[..., Valkey], asynchronous: bool, login: str, database: int, trips: int
) -> None:
    """On a new connection: AUTH and SELECT where they are needed, the script by its name, and once by its text; then one."""
    server = start_valkey()
    if login:
        with server.client() as client:
            client.config_set("requirepass", "s3cret")
    with Proxy(server.port) as proxy:
        uri = f"redis://{login}127.0.0.1:{proxy.port}/{database}"

        async def main() -> list[int]:
            found = []
            async with AsyncLimiter(RULES, uri, timeout=PATIENT) as limiter:
                for _ in range(2):
                    proxy.requests = 0
                    await limiter.hit("news", "ana@example.com")
                    found.append(proxy.requests)
            return found

        def threads() -> list[int]:
            found = []
            with Limiter(RULES, uri, timeout=PATIENT) as limiter:
                for _ in range(2):
                    proxy.requests = 0
                    limiter.hit("news", "ana@example.com")
                    found.append(proxy.requests)
            return found

        assert (asyncio.run(main()) if asynchronous else threads()) == [trips, 1]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_server_that_takes_no_more_connections(start_valkey: Callable[..., Valkey], asynchronous: bool) -> None:
    """`maxclients` is said in words, with what to do, and opens no circuit: the server answered."""
    server = start_valkey()
    with server.client(single_connection_client=True) as first:
        first.config_set("maxclients", "1")
        with pytest.raises(StorageError) as raised:
            asyncio.run(_hit(server.url)) if asynchronous else Limiter(RULES, server.url).hit("news", "ana@example.com")

    assert "maxclients" in str(raised.value) or "broke before the answer" in str(raised.value)
    assert "UNKNOWN" not in str(raised.value)


async def _hit(uri: str) -> None:
    async with AsyncLimiter(RULES, uri) as limiter:
        await limiter.hit("news", "ana@example.com")


def test_a_closed_storage_can_be_used_again(valkey: Valkey) -> None:
    """`close` lets go of the connections, also of one that is in use at that moment, which comes back to nobody."""
    storage = RedisStorage(valkey.url, timeout=PATIENT)
    assert storage.check()
    taken = storage._connections.places.take(soon(), None)
    former = storage._connections.places
    storage.close()

    assert storage.check()
    assert storage._connections.places is not former
    assert taken is not None
    storage.close()


# --- Many tasks on one connection -----------------------------------------------------------------------------------


def test_tasks_that_come_together_go_out_together(valkey: Valkey) -> None:
    """A thousand decisions share one connection, and need no more than a few writes."""
    with Proxy(valkey.port) as proxy:

        async def main() -> int:
            async with AsyncLimiter(RULES, proxy.url, timeout=PATIENT, namespace="together") as limiter:
                await limiter.hit("news", "ana@example.com")
                proxy.requests = 0
                decisions = await asyncio.gather(*(limiter.hit("news", f"{n}@example.com") for n in range(1000)))
                assert all(decision.remaining == 999_999 for decision in decisions)
                (lanes,) = limiter.storage._lanes.values()  # type: ignore[attr-defined]  # a storage on Redis has them
                assert len(lanes.opened) == 1
            return proxy.requests

        assert asyncio.run(main()) < 50


def test_a_task_that_left_is_not_waited_for(valkey: Valkey) -> None:
    """The replies of cancelled tasks are thrown away; those behind them get their own."""
    with Proxy(valkey.port) as proxy:
        proxy.delay = lambda: 0.05

        async def main() -> list[Any]:
            async with AsyncLimiter(
                {f"t{n}": f"{n + 1}/day" for n in range(40)}, proxy.url, timeout=PATIENT
            ) as limiter:
                await limiter.hit("t0", "ana@example.com")
                tasks = [asyncio.create_task(limiter.hit(f"t{n}", "bob@example.com")) for n in range(40)]
                await asyncio.sleep(0.01)
                for task in tasks[::2]:
                    task.cancel()
                return await asyncio.gather(*tasks, return_exceptions=True)

        found = asyncio.run(main())

    assert all(isinstance(one, asyncio.CancelledError) for one in found[::2])
    assert [decision.remaining for decision in found[1::2]] == list(range(1, 40, 2))


def test_a_reply_that_never_comes_ends_the_connection(valkey: Valkey) -> None:
    """All whose replies are behind it are told that the outcome is unknown; the next decision has a new connection."""
    with Proxy(valkey.port) as proxy:

        async def main() -> list[Any]:
            async with AsyncLimiter(RULES, proxy.url, timeout=0.5, circuit=None) as limiter:
                await limiter.hit("news", "carla@example.com")
                proxy.losing, proxy.hanging = "all", True
                tasks = [asyncio.create_task(limiter.hit("news", "carla@example.com")) for n in range(10)]
                found = await asyncio.gather(*tasks, return_exceptions=True)
                proxy.losing = "nothing"
                return [*found, await limiter.hit("news", "carla@example.com")]

        *lost, decision = asyncio.run(main())

    assert all("not known whether this took effect" in str(each) for each in lost)
    # All of them ran, and were counted once.
    assert decision.remaining == 1_000_000 - 12


def test_an_interrupted_write_ends_the_connection() -> None:
    """A slot whose command may not have been sent would give each later task the answer of another."""

    class Broken:
        """A connection whose socket cannot be written to."""

        class _writer:  # noqa: N801  # the name in redis-py
            class transport:  # noqa: N801  # as above
                abort = staticmethod(lambda: None)
                set_protocol = staticmethod(lambda _: None)

            @staticmethod
            def write(_: bytes) -> None:
                raise KeyboardInterrupt

        class _reader:  # noqa: N801  # as above
            _buffer = b""
            at_eof = staticmethod(lambda: False)
            exception = staticmethod(lambda: None)

        _parser = None

    async def main() -> bool:
        async def reach(_: float) -> Any:
            return Broken()

        connection = MultiplexedConnection(
            asyncio.get_running_loop(),
            reach,
            PATIENT,
            breaker_for("broken", None),
            lambda error, _: StorageError(error),
        )
        with pytest.raises(KeyboardInterrupt):
            await connection.ask(b"", [len], asyncio.get_running_loop().time() + PATIENT)
        return connection._inner is None and not connection.waiting

    assert asyncio.run(main())


def test_batches_do_not_hold_up_decisions(valkey: Valkey) -> None:
    """A batch goes over a connection of its own, unless there may be only one."""

    async def main(most: int) -> int:
        async with AsyncLimiter(RULES, f"{valkey.url}?max_connections={most}", timeout=PATIENT) as limiter:
            await asyncio.gather(
                limiter.hit("news", "ana@example.com"),
                limiter.hit_many("news", [f"{n}@example.com" for n in range(600)]),
                limiter.hit_many("news", [f"{n}@example.org" for n in range(200)]),
            )
            (lanes,) = limiter.storage._lanes.values()  # type: ignore[attr-defined]  # a storage on Redis has them
            return len(lanes.opened)

    assert asyncio.run(main(1)) == 1
    assert asyncio.run(main(2)) == 2
    assert asyncio.run(main(50)) == 3


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel", "memcached"])
def test_under_trio_it_says_what_works(scheme: str) -> None:
    """Where no event loop of asyncio runs, the error names the two ways out, instead of the missing loop alone."""
    import trio

    uri = f"{scheme}://127.0.0.1:1{'/service' if 'sentinel' in scheme else ''}"

    async def main() -> None:
        await AsyncLimiter(RULES, uri).hit("news", "ana@example.com")

    with pytest.raises(NotifyError, match=r"trio\.to_thread\.run_sync.*anyio"):
        trio.run(main)
