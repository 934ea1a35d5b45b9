"""What an attack on the connections to Redis found: each case is one of a kind, and would come back unnoticed."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from asked import RULES as KNOWN, People
from proxy import Proxy
from ratelimited_notify import AsyncLimiter, Circuit, Limiter, NotifyError, StorageError
from ratelimited_notify.storage.breaker import Breaker, breaker_for
from ratelimited_notify.storage.interrupts import raised_by_caller
from ratelimited_notify.storage.redis import spread
from ratelimited_notify.storage.redis.failures import NothingSent
from ratelimited_notify.storage.redis.multiplexed import MultiplexedConnection
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Valkey

PATIENT = 30.0
RULES = {"news": "1000000/day"}
MINUTE = 60_000_000


# --- The circuit ----------------------------------------------------------------------------------------------------


def test_an_interrupt_while_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever an exception strikes while the circuit closes, the next answer closes it after all."""
    breaker = Breaker(Circuit(failures=1))
    breaker.failed(time.monotonic(), timed_out=True)
    with monkeypatch.context() as patch:
        patch.setattr("ratelimited_notify.storage.breaker.time.monotonic", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            breaker.answered()

    # What a storage does behind each reply.
    if breaker.failures:
        breaker.answered()
    assert breaker.state == "closed"


def _interrupted(*_: object, **__: object) -> float:
    raise KeyboardInterrupt


def test_what_we_close_ourselves_opens_no_circuit(valkey: Valkey) -> None:
    """Closing a storage, or an event loop that ends, with a hundred replies to come is no failure of the server."""
    with Proxy(valkey.port) as proxy:
        proxy.delay = lambda: 0.3

        async def main() -> str:
            limiter = AsyncLimiter(RULES, proxy.url, timeout=PATIENT)
            tasks = [asyncio.create_task(limiter.hit("news", f"{n}@example.com")) for n in range(100)]
            await asyncio.sleep(0.5)
            await limiter.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            (state,) = limiter.storage.circuits.values()  # type: ignore[attr-defined]  # a storage on Redis has them
            return str(state)

        assert asyncio.run(main()) == "closed"


def test_one_lost_connection_is_one_failure(valkey: Valkey) -> None:
    """However many tasks shared it: a hundred of them are told, and the circuit stays closed."""
    with Proxy(valkey.port) as proxy:

        async def main() -> tuple[int, str]:
            async with AsyncLimiter(RULES, proxy.url, timeout=PATIENT) as limiter:
                await limiter.hit("news", "ana@example.com")
                proxy.delay = lambda: 0.3
                tasks = [asyncio.create_task(limiter.hit("news", f"{n}@example.com")) for n in range(100)]
                await asyncio.sleep(0.1)
                proxy.cut()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                (state,) = limiter.storage.circuits.values()  # type: ignore[attr-defined]  # as above
                return sum(isinstance(each, StorageError) for each in found), str(state)

        assert asyncio.run(main()) == (100, "closed")


def test_time_that_others_used_up_is_no_failure(valkey: Valkey) -> None:
    """A thread that waited for a place until next to nothing was left does not hold that against the server."""
    with Proxy(valkey.port) as proxy:
        storage = RedisStorage(proxy.url, timeout=0.4, max_connections=1, circuit=Circuit(failures=1))
        storage.probe()
        places = storage._connections.places
        taken = places.take(time.monotonic() + PATIENT, None)
        proxy.delay = lambda: 0.2
        threading.Timer(0.35, places.give, [taken]).start()
        with pytest.raises(StorageError):
            storage.probe()

        assert dict(storage.circuits) == {f"127.0.0.1:{proxy.port}": "closed"}
        storage.close()


def test_idle_connections_that_lead_nowhere_go_at_once(valkey: Valkey) -> None:
    """When the circuit opens, what lies idle is closed: otherwise each PING would find out about one of many."""
    storage = RedisStorage(valkey.url, timeout=PATIENT, circuit=Circuit(failures=1))
    places = storage._connections.places
    taken = [places.take(time.monotonic() + PATIENT, None) for _ in range(10)]
    for each in taken:
        assert each is not None
        each.begin(time.monotonic() + PATIENT)
        places.give(each)
    assert len(places._idle) == 10
    storage._unanswered(ConnectionResetError(), time.monotonic(), time.monotonic(), sent=True)

    assert storage.breaker.is_open
    assert not places._idle
    storage.close()


# --- Replies --------------------------------------------------------------------------------------------------------


class Doubling(Proxy):
    """A proxy that sends one answer to a script twice, in one piece."""

    doubled = False

    def _answer(
        self, server: socket.socket, client: socket.socket, script: threading.Event, begun: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if script.is_set() and not self.doubled:
                    self.doubled = True
                    data += data
                client.sendall(data)
        self._leave(client, server)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_reply_too_many(valkey: Valkey, asynchronous: bool) -> None:
    """A surplus reply in the parser's buffer is not taken for the answer to the next question."""
    people = People(f"doubled-{asynchronous}", 12)
    people.begin(valkey.url)
    with Doubling(valkey.port) as proxy:

        async def main() -> None:
            async with AsyncLimiter(KNOWN, proxy.url, timeout=PATIENT) as limiter:
                for number in range(12):
                    proxy.doubled = number != 5
                    await people.await_answer(limiter, number)

        def threads() -> None:
            with Limiter(KNOWN, proxy.url, timeout=PATIENT) as limiter:
                for number in range(12):
                    proxy.doubled = number != 5
                    people.ask(limiter, number)

        asyncio.run(main()) if asynchronous else threads()

    assert people.wrong == []


def test_a_queue_of_slow_replies_takes_one_time_out(valkey: Valkey) -> None:
    """Many tasks behind a server that answers one every few milliseconds wait for one time-out, not for each other's."""
    with Proxy(valkey.port) as proxy:

        async def main() -> float:
            async with AsyncLimiter(RULES, proxy.url, timeout=0.5, circuit=None) as limiter:
                await limiter.hit("news", "ana@example.com")
                proxy.drip = 0.0005
                began = time.monotonic()
                await asyncio.gather(
                    *(limiter.hit("news", f"{n}@example.com") for n in range(1000)), return_exceptions=True
                )
                return time.monotonic() - began

        # It was one grace for each of them.
        assert asyncio.run(main()) < 2.5


def test_an_interrupt_while_everybody_is_told() -> None:
    """A connection that is dropped, and an exception in the middle of it: the rest is told by the next attempt."""

    async def main() -> int:
        told = 0

        def failed(error: Exception, _: bool) -> StorageError:
            nonlocal told
            told += 1
            if told == 2:
                raise KeyboardInterrupt
            return StorageError(str(error))

        class Silent:
            """A connection that never answers."""

            class _writer:  # noqa: N801  # the name in redis-py
                class transport:  # noqa: N801  # as above
                    abort = staticmethod(lambda: None)
                    set_protocol = staticmethod(lambda _: None)

                write = staticmethod(lambda _: None)

            class _reader:  # noqa: N801  # as above
                _buffer = b""
                at_eof = staticmethod(lambda: False)
                exception = staticmethod(lambda: None)

            _parser = None

            async def read_response(self, **_: object) -> None:
                await asyncio.sleep(PATIENT)

        async def reach(_: float) -> Any:
            return Silent()

        loop = asyncio.get_running_loop()
        connection = MultiplexedConnection(loop, reach, PATIENT, breaker_for("silent", None), failed)
        asked = [asyncio.create_task(connection.ask(b"", [len], loop.time() + PATIENT)) for _ in range(5)]
        await asyncio.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            connection.drop(ConnectionResetError())
        connection.drop(ConnectionResetError())
        done, _ = await asyncio.wait(asked, timeout=5)
        return len(done)

    assert asyncio.run(main()) == 5


def test_what_stays_counted_is_not_called_unsent() -> None:
    """A decision over two servers, the second of which was never reached: if the first cannot give back, the error says so."""
    own = Window("fixed-window", 10, MINUTE, rule="own")
    shared = Window("fixed-window", 10, MINUTE, rule="shared", shared=True)
    request = spread.Request([own, shared], ["n:{ana}:own:f", "n:{everybody}:shared:f"], 1)
    made = spread.scripts.Scripts()
    rounds = spread.acquire(made, request)
    (first,) = next(rounds)
    assert first.keys == ["n:{ana}:own:f"]
    from ratelimited_notify.windows.strategies import FITS, Reading, Verdict

    taken = Verdict(True, 1, [Reading(1, FITS, MINUTE, (MINUTE, 0))])
    rounds.send([[taken]])
    rounds.send([NothingSent("The second cannot be reached.")])
    with pytest.raises(StorageError, match=r"cannot be reached.*could not all be given back") as raised:
        rounds.send([NothingSent("No time is left.")])

    assert not isinstance(raised.value, NothingSent)


# --- The caller's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TimeoutError, ConnectionResetError, ValueError, LookupError, OSError])
def test_an_alarm_that_looks_like_a_failure(valkey: Valkey, kind: type[Exception]) -> None:
    """What a signal handler raises reaches the caller, whatever class it has, also where failures are decisions."""
    with Proxy(valkey.port) as proxy, Limiter(RULES, proxy.url, timeout=10, on_storage_error="allow") as limiter:
        limiter.hit("news", "ana@example.com")
        proxy.delay = lambda: 1.0

        def ring(*_: object) -> None:
            raise kind("the caller's own alarm")

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(kind, match="the caller's own alarm"):
                limiter.hit("news", "ana@example.com")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_what_the_caller_deals_with_is_not_ours() -> None:
    """An error of ours while the caller handles one of its own is still ours."""
    try:
        raise KeyError("the caller's")
    except KeyError:
        try:
            socket.create_connection(("127.0.0.1", 1), timeout=1)
        except OSError as error:
            from_a_library = error
    # As if it had been raised inside the library: its own frames are all there are.
    from_a_library.__traceback__ = from_a_library.__traceback__.tb_next  # type: ignore[union-attr]  # it has one

    assert raised_by_caller(from_a_library) is None


def test_a_pool_of_sentinels_is_refused() -> None:
    """It would ask its Sentinels in its own time; the error says what to write."""
    from redis.sentinel import Sentinel, SentinelConnectionPool

    pool = SentinelConnectionPool("service", Sentinel([("127.0.0.1", 1)]), socket_timeout=1)
    with pytest.raises(NotifyError, match=r"redis\+sentinel://"):
        RedisStorage(connection_pool=pool)


def test_loops_with_clocks_of_their_own(cluster: Any) -> None:
    """The map of a cluster's slots is shared by event loops, whatever their clocks say."""
    from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage

    storage = AsyncRedisClusterStorage(cluster.url, timeout=PATIENT)
    window = Window("moving-window", 10**6, MINUTE, rule="news")
    learned: list[float] = []

    async def decide() -> None:
        await storage.acquire([window], ["n:{ana}:news:m"], 1)
        learned.append(storage._slots._learned)

    for offset in (1_000_000.0, 0.0):
        loop = asyncio.new_event_loop()
        clock = loop.time
        loop.time = lambda clock=clock, offset=offset: clock() + offset  # type: ignore[method-assign, misc]  # on purpose
        storage._slots.doubtful = True
        storage._slots._learned = float("-inf")
        loop.run_until_complete(decide())
        loop.run_until_complete(storage.close())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    assert abs(learned[1] - learned[0]) < 1000


@pytest.fixture
def eager() -> Callable[..., Any]:
    """Runs a coroutine on a loop whose tasks begin at once, from Python 3.12 on."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("Tasks begin at once from Python 3.12 on")

    def run(made: Callable[[], Any]) -> Any:
        async def main() -> Any:
            asyncio.get_running_loop().set_task_factory(factory)
            return await made()

        return asyncio.run(main())

    return run


def test_tasks_that_begin_at_once(valkey: Valkey, eager: Callable[..., Any]) -> None:
    """A connect that fails before it has waited for anything is not remembered as the one under way."""

    async def main() -> bool:
        async with AsyncLimiter(RULES, "redis+unix:///nowhere.sock", circuit=None) as limiter:
            for _ in range(2):
                with pytest.raises(StorageError):
                    await limiter.hit("news", "ana@example.com")
            (lanes,) = limiter.storage._lanes.values()  # type: ignore[attr-defined]  # a storage on Redis has them
            return lanes.decisions._opening is None

    assert eager(main)
