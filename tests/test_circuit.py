"""The circuit of a server: when it is left alone, when it is tried again, and what callers notice of it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify import AsyncLimiter, Circuit, Limiter, NotifyError, StorageError
from ratelimited_notify.storage import breaker as module
from ratelimited_notify.storage.breaker import Breaker, Circuits, breaker_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Valkey

RULES = {"news": "1000000/day"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("ratelimited_notify.storage.breaker.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the breakers of a test take for the time."""
    return Clock(monkeypatch)


def eventually(check: Callable[[], object]) -> bool:
    """Whether it comes true within some seconds."""
    for _ in range(500):
        if check():
            return True
        time.sleep(0.01)
    return False


# --- The breaker ----------------------------------------------------------------------------------------------------


def test_one_caller_never_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks alone goes on at once, however often."""
    slept: list[float] = []
    monkeypatch.setattr("ratelimited_notify.storage.breaker.time.sleep", slept.append)
    breaker = Breaker(Circuit())
    breaker.refused(1.0)
    slept.clear()
    for _ in range(100):
        breaker.refused(1.0)

    assert slept == []


def test_a_crowd_gives_way_the_longer_the_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are refused come back some four thousand times a second in all, so that the PING of one of them gets on."""
    number = 100
    breaker, together, slept = Breaker(Circuit()), threading.Barrier(number), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        together.wait(60)

    monkeypatch.setattr("ratelimited_notify.storage.breaker.time.sleep", sleep)
    threads = [threading.Thread(target=breaker.refused, args=(1.0,)) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(slept) == number
    assert min(slept) >= 2.5e-4
    assert max(slept) == pytest.approx(number * 2.5e-4)
    assert not breaker._yielding


def test_nobody_gives_way_for_longer_than_a_call_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a short time-out and a thousand callers, a refusal still keeps to the deadline of its decision."""
    slept: list[float] = []
    monkeypatch.setattr("ratelimited_notify.storage.breaker.time.sleep", slept.append)
    breaker = Breaker(Circuit())
    breaker._yielding = set(range(-1000, 0))
    for left in (0.01, 0.0, -1.0):
        breaker.refused(left)

    assert slept == [0.01]
    assert len(breaker._yielding) == 1000


def test_tasks_give_way_too() -> None:
    """A hundred tasks at once: each is back later than one alone, and nobody is left over, cancelled ones neither."""

    async def main() -> None:
        breaker = Breaker(Circuit())
        begun = time.monotonic()
        tasks = [asyncio.create_task(breaker.refused_task(1.0)) for _ in range(100)]
        await asyncio.sleep(0)
        tasks[-1].cancel()
        await asyncio.wait(tasks)

        assert tasks[-1].cancelled()
        assert time.monotonic() - begun >= 0.005
        assert not breaker._yielding

    asyncio.run(main())


def test_it_opens_after_some_failures_in_a_row(clock: Clock) -> None:
    """Only failures with no answer between them count; the first answer closes it."""
    breaker = Breaker(Circuit(failures=3))
    for _ in range(5):
        breaker.failed(clock.now, timed_out=True)
        breaker.failed(clock.now, timed_out=True)
        breaker.answered()

    assert breaker.state == "closed"
    for _ in range(3):
        breaker.failed(clock.now, timed_out=True)
    assert (breaker.state, breaker.is_open) == ("open", True)
    breaker.answered()
    assert (breaker.state, breaker.is_open, breaker.failures) == ("closed", False, 0)


def test_one_ping_each_pause(clock: Clock) -> None:
    """After time-outs the first PING is due in a pause, the next one a pause after it began, however long it takes."""
    breaker = Breaker(Circuit(failures=1, pause=0.5))
    breaker.failed(clock.now, timed_out=True)

    assert not breaker.may_probe()
    clock.now += 0.5
    assert [breaker.may_probe() for _ in range(3)] == [True, False, False]
    assert breaker.state == "half-open"
    clock.now += 0.499
    breaker.failed(clock.now, timed_out=True)
    assert (breaker.state, breaker.may_probe()) == ("open", False)
    clock.now += 0.001
    assert breaker.may_probe()


def test_a_ping_leaves_time_before_the_next(clock: Clock) -> None:
    """A caller on its own is answered at once most of the time; a link on which a PING takes long is tried with patience."""
    breaker = Breaker(Circuit(pause=0.5))

    assert [breaker.ping_time(0.5) for _ in range(8)] == [0.25, 0.25, 0.25, 0.5] * 2
    assert Breaker(Circuit(pause=10)).ping_time(0.5) == 0.25
    assert Breaker(Circuit(pause=0.1)).ping_time(3) == 0.05


def test_lost_connections_are_tried_again_at_once(clock: Clock) -> None:
    """Connections that a healthy server closed cost no pause: the first PING may go at once."""
    breaker = Breaker(Circuit(failures=1, pause=0.5))
    breaker.failed(clock.now, timed_out=False)

    assert [breaker.may_probe(), breaker.may_probe()] == [True, False]


def test_what_began_before_it_closed_does_not_count(clock: Clock) -> None:
    """A call that was on its way when the server came back says nothing about the server as it is now."""
    breaker = Breaker(Circuit(failures=1))
    began = clock.now
    breaker.failed(began, timed_out=True)
    clock.now += 1
    breaker.answered()
    breaker.failed(began, timed_out=True)

    assert breaker.state == "closed"
    breaker.failed(clock.now, timed_out=True)
    assert breaker.state == "open"


def test_threads_send_one_ping(clock: Clock) -> None:
    """Of many threads that ask at once, one is let through."""
    breaker = Breaker(Circuit(failures=1))
    breaker.failed(clock.now, timed_out=False)
    with ThreadPoolExecutor(16) as threads:
        let = list(threads.map(lambda _: breaker.may_probe(), range(200)))

    assert sum(let) == 1


def test_without_a_circuit_it_never_opens(clock: Clock) -> None:
    """`circuit=None` asks the server each time."""
    breaker = breaker_for("server", None)
    for _ in range(100):
        breaker.failed(clock.now, timed_out=True)

    assert (breaker.state, breaker.may_probe()) == ("closed", False)


def test_one_breaker_for_a_server() -> None:
    """Limiters with the same settings share it as long as one of them is there; other settings have one of their own."""
    first, same, other = (breaker_for("server", Circuit(failures=each)) for each in (3, 3, 4))
    assert first is same
    assert first is not other
    assert breaker_for("another", Circuit()) is not first
    first.failed(time.monotonic(), timed_out=True)
    del first, same
    gc.collect()

    again = breaker_for("server", Circuit())
    assert again.failures == 0
    assert all(reference() is not None for key, reference in module._breakers.items() if key[0] == "server")


def test_states_are_those_of_the_moment() -> None:
    """`circuits` shows each server as it is when you look."""
    breakers = {"a": Breaker(Circuit(failures=1))}
    circuits = Circuits(breakers)
    breakers["b"] = Breaker(None)
    breakers["a"].failed(time.monotonic(), timed_out=True)

    assert dict(circuits) == {"a": "open", "b": "closed"}
    assert repr(circuits) == "{'a': 'open', 'b': 'closed'}"
    assert len(circuits) == 2


@pytest.mark.parametrize(
    "settings", [{"failures": 0}, {"failures": True}, {"failures": 2.5}, {"pause": 0}, {"pause": -1}, {"pause": "1"}]
)
def test_settings_that_cannot_be_used(settings: dict[str, Any]) -> None:
    """Each is an error that says what to write."""
    with pytest.raises(NotifyError, match=r"such as (3|0\.5)"):
        Circuit(**settings)
    with pytest.raises(NotifyError, match=r"circuit= must be a Circuit.*not a dict"):
        Limiter(RULES, circuit=settings)  # type: ignore[arg-type]  # on purpose


def test_a_claim_that_nobody_redeems(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that was interrupted when it was to send the PING does not keep the others from it for longer than a pause."""
    breaker = Breaker(Circuit(failures=1, pause=0.5))
    breaker.failed(clock.now, timed_out=False)
    breaker._claims.setdefault(breaker._probe_at, module._Claim(clock.now))

    assert not breaker.may_probe()
    clock.now += 0.6
    assert [breaker.may_probe() for _ in range(3)] == [False, True, False]


def test_many_pings_leave_nothing_behind(clock: Clock) -> None:
    """A server that is silent for days costs no memory."""
    breaker = Breaker(Circuit(failures=1))
    breaker.failed(clock.now, timed_out=False)
    for _ in range(1000):
        assert breaker.may_probe()
        clock.now += 1

    assert len(breaker._claims) < 20


# --- What callers notice --------------------------------------------------------------------------------------------


class Subject:
    """A limiter for threads or for asyncio, called in one way."""

    def __init__(self, asynchronous: bool, uri: str, **options: Any) -> None:
        self.limiter: Any = (AsyncLimiter if asynchronous else Limiter)(RULES, uri, **options)
        self._loop = asyncio.new_event_loop() if asynchronous else None

    def hit(self) -> Any:
        return self._run(self.limiter.hit("news", "ana@example.com"))

    def failure(self) -> str:
        """What a hit raises."""
        with pytest.raises(StorageError) as raised:
            self.hit()
        return str(raised.value)

    @property
    def state(self) -> str:
        (state,) = self.limiter.storage.circuits.values()
        return state

    def close(self) -> None:
        self._run(self.limiter.close())
        if self._loop is not None:
            self._loop.close()

    def _run(self, made: Any) -> Any:
        return made if self._loop is None else self._loop.run_until_complete(made)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asked(request: pytest.FixtureRequest) -> Iterator[Callable[..., Subject]]:
    """Makes limiters for both worlds."""
    made: list[Subject] = []

    def make(uri: str, **options: Any) -> Subject:
        made.append(Subject(request.param, uri, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def scripts_run(server: Valkey) -> int:
    """How many scripts the server has run."""
    with server.client() as client:
        said = client.info("commandstats")
    return sum(said.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


def test_a_stopped_server_is_left_alone(start_valkey: Callable[..., Valkey], asked: Callable[..., Subject]) -> None:
    """After three time-outs callers are answered at once; all that is sent meanwhile are PINGs; the first answer ends it."""
    server = start_valkey()
    first, second = asked(server.url, timeout=0.1), asked(server.url, timeout=0.1)
    first.hit()
    second.hit()
    before = scripts_run(server)
    server.pause()
    try:
        for _ in range(3):
            assert "no answer within 0.1 seconds" in first.failure()
        # It is one server, so the other limiter need not find out by itself.
        said = [second.failure() for _ in range(20)]
        assert all("is not asked" in each and "nothing was sent" in each for each in said)
        assert (first.state, second.state) == ("open", "open")
        assert eventually(lambda: "did not answer a PING within" in first.failure())
    finally:
        server.resume()

    assert eventually(lambda: _is_counted(first))
    assert (first.state, second.state) == ("closed", "closed")
    second.hit()
    # The three that timed out ran late, and the two or more since.
    assert before + 3 <= scripts_run(server) <= before + 3 + 4


def _is_counted(asked: Subject) -> bool:
    try:
        asked.hit()
    except StorageError:
        return False
    return True


def test_a_single_caller_is_answered_at_once(
    start_valkey: Callable[..., Valkey], asked: Callable[..., Subject]
) -> None:
    """Somebody who asks alone for seconds at a server that hangs waits now and then for a PING, and mostly not at all."""
    server = start_valkey()
    alone = asked(server.url, on_storage_error="deny")
    alone.hit()
    server.pause()
    try:
        for _ in range(3):
            alone.hit()
        durations, until = [], time.monotonic() + 2.5
        while time.monotonic() < until:
            began = time.monotonic()
            alone.hit()
            durations.append(time.monotonic() - began)
            time.sleep(0.01)
    finally:
        server.resume()

    assert len(durations) > 25
    assert sum(each > 0.1 for each in durations) <= 10


def test_a_refusal_is_an_answer(start_valkey: Callable[..., Valkey], asked: Callable[..., Subject]) -> None:
    """A wrong password, a full memory and a replica are answers: they open no circuit, however often they come."""
    server = start_valkey()
    with server.client() as client:
        client.config_set("maxmemory", "1")
        full = asked(server.url)
        assert all("no memory left" in full.failure() for _ in range(5))
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", 1)
        client.config_set("replica-serve-stale-data", "yes")
        assert all("read-only replica" in full.failure() for _ in range(5))
        client.replicaof("NO", "ONE")
        client.config_set("requirepass", "s3cret")
        wrong = asked(server.url.replace("://", "://:wrong@"))
        assert all("refused the user or password" in wrong.failure() for _ in range(5))

    assert (full.state, wrong.state) == ("closed", "closed")


def test_a_crowd_waits_once(start_valkey: Callable[..., Valkey]) -> None:
    """100 threads with 20 calls each at a server that hangs: next to nobody waits for it a second time."""
    server = start_valkey()
    slow: list[int] = []
    with Limiter(RULES, server.url, on_storage_error="deny") as limiter:
        limiter.hit("news", "ana@example.com")
        server.pause()
        try:

            def call(_: int) -> None:
                durations = []
                for _ in range(20):
                    began = time.monotonic()
                    limiter.hit("news", "ana@example.com")
                    durations.append(time.monotonic() - began)
                slow.append(sum(each > 0.4 for each in durations))

            with ThreadPoolExecutor(100) as threads:
                list(threads.map(call, range(100)))
        finally:
            server.resume()

    # Without the circuit it is 20 for each of them. Who sends the PING may wait for its answer.
    assert sum(each > 1 for each in slow) <= 2


def test_a_busy_event_loop_notices_the_return(start_valkey: Callable[..., Valkey]) -> None:
    """Tasks that go on asking without a pause leave the loop time to read the answer to the PING."""
    server = start_valkey()

    async def main() -> bool:
        async with AsyncLimiter(RULES, server.url, timeout=0.2, on_storage_error="deny") as limiter:
            await limiter.hit("news", "ana@example.com")
            server.pause()
            for _ in range(3):
                await limiter.hit("news", "ana@example.com")
            deadline = time.monotonic() + 20
            asyncio.get_running_loop().call_later(0.3, server.resume)

            async def ask() -> bool:
                while time.monotonic() < deadline:
                    if (await limiter.hit("news", "ana@example.com")).error is None:
                        return True
                return False

            return all(await asyncio.gather(*(ask() for _ in range(100))))

    assert asyncio.run(main())


def test_storages_without_a_server_have_no_circuit() -> None:
    """The option is taken by every limiter, and memory has no server that could be silent."""
    with Limiter(RULES, circuit=None) as limiter:
        assert limiter.hit("news", "ana@example.com")
