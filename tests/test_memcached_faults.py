"""What a memcached that stumbles costs: one deadline for a decision, and a circuit that opens and closes again."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from memcached_storages import PATIENT, fixed, hang, item_of, key, moving, opened as opened, someone, statistics
from proxy import HOST, Proxy
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.circuit import Circuit
from ratelimited_notify.storage.memcached import decide, failures
from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage
from ratelimited_notify.storage.memcached.hosts import choose, hosts_of
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.windows.strategies import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Memcached

WINDOW, SHARED = fixed(10**6), fixed(10**6, shared=True)

MANY = 10.0
"""Seconds: far more than a time-out or two, on a machine with little to run tests on, and far less than what many would be."""


def hit(storage: Any, name: str) -> int:
    """Count a hit; how many there are."""
    return storage.acquire([WINDOW], [key(name, WINDOW)], 1).readings[0].count


def seconds_of(call: Callable[[], object]) -> tuple[float, str]:
    """How long a call takes that fails, and what it says."""
    began = time.monotonic()
    with pytest.raises(StorageError) as raised:
        call()
    return time.monotonic() - began, str(raised.value)


# --- One deadline -------------------------------------------------------------------------------------------------


def test_a_server_that_drips(opened: Callable[..., Any], memcached: Memcached) -> None:
    """An answer that comes a byte at a time is given up at the deadline, which does not begin anew with each byte."""
    name = someone()
    with Proxy(memcached.port) as proxy:
        storage = opened(f"memcached://{HOST}:{proxy.port}", timeout=0.4)
        hit(storage, name)
        proxy.drip = 0.3
        elapsed, said = seconds_of(lambda: hit(storage, name))

    assert elapsed < MANY
    assert re.search(r"gave no answer within 0\.4 seconds\. Nothing was counted\.", said)


def test_two_items_have_one_deadline(opened: Callable[..., Any], memcached: Memcached) -> None:
    """A decision over two items has one deadline for both; where there is no time left to give back, the hit stays counted,
    and the error says so.
    """
    name, everybody = someone(), someone()
    windows, keys = [WINDOW, SHARED], [key(name, WINDOW), key(everybody, SHARED)]
    with Proxy(memcached.port) as proxy:
        storage = opened(f"memcached://{HOST}:{proxy.port}", timeout=1.0)
        proxy.delay = lambda: 0.4
        _, said = seconds_of(lambda: storage.acquire(windows, keys, 1))
        proxy.delay = None
    counts = [opened(memcached.url, timeout=PATIENT).peek([each], [at], 1).readings[0].count for each, at in zip(windows, keys, strict=True)]  # fmt: skip

    # On a busy machine the first item may have taken all of the time, with its outcome unknown.
    assert counts == [1, 0] or failures.UNKNOWN in said
    assert failures.KEPT in said or failures.UNKNOWN in said
    assert failures.NOTHING not in said


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port at which connecting takes for ever: the backlog is full, on 127.0.0.2 and 127.0.0.3."""
    waiting: list[socket.socket] = []
    first = socket.create_server(("127.0.0.2", 0), backlog=0)
    port = first.getsockname()[1]
    listeners = [first, socket.create_server(("127.0.0.3", port), backlog=0)]
    for listener in listeners:
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
    time.sleep(0.1)
    yield port
    for one in (*waiting, *listeners):
        one.close()


def test_silent_addresses_leave_time_for_the_others(
    opened: Callable[..., Any], memcached: Memcached, deaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host name whose first addresses are silent is reached at the next, all within one deadline."""
    resolve = socket.getaddrinfo

    def several(host: Any, port: Any, *rest: Any, flags: int = 0, **named: Any) -> Any:
        if host != "cache.example":
            return resolve(host, port, *rest, flags=flags, **named)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        addresses = [("127.0.0.2", deaf), ("127.0.0.3", deaf), *[(HOST, memcached.port)] * reachable]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

    reachable = 1
    monkeypatch.setattr(socket, "getaddrinfo", several)
    storage, name = opened(f"memcached://cache.example:{memcached.port}", timeout=3), someone()

    assert hit(storage, name) == 1

    reachable = 0
    storage = opened("memcached://cache.example:1", timeout=0.4)
    elapsed, said = seconds_of(lambda: hit(storage, name))

    assert elapsed < MANY
    assert "Nothing was counted." in said


def test_waiting_for_a_lane_counts(start_memcached: Callable[..., Memcached]) -> None:
    """Threads that wait for one another at a server that hangs all end by their own deadline."""
    server = start_memcached()
    storage, name = MemcachedStorage(server.url, timeout=0.4, circuit=None), someone()
    hit(storage, name)
    hang(server)
    ended: list[tuple[float, str]] = []
    threads = [threading.Thread(target=lambda: ended.append(seconds_of(lambda: hit(storage, name)))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT)

    assert len(ended) == 40
    assert max(seconds for seconds, _ in ended) < MANY
    assert all("Nothing was counted." in said for _, said in ended)
    storage.close()


# --- Batches ------------------------------------------------------------------------------------------------------


def test_a_batch_has_one_deadline(opened: Callable[..., Any], memcached: Memcached) -> None:
    """A batch on a slow server is given up after one time-out, and giving it back takes one more at most; the error says how
    many stay counted.
    """
    names = [someone() for _ in range(100)]
    with Proxy(memcached.port) as proxy:
        storage = opened(f"memcached://{HOST}:{proxy.port}", timeout=0.5)
        hit(storage, someone())
        proxy.delay = lambda: 0.03
        elapsed, said = seconds_of(
            lambda: storage.acquire_many([Request([WINDOW], [key(name, WINDOW)], 1) for name in names])
        )
        proxy.delay = None
    straight = opened(memcached.url, timeout=PATIENT)
    counted = sum(straight.peek([WINDOW], [key(name, WINDOW)], 1).readings[0].count for name in names)
    kept = re.search(r"(\d+) earlier requests of the batch could not be given back", said)

    assert elapsed < MANY
    # What was on its way when the time was over may have been counted, or given back, all the same.
    assert abs(counted - (int(kept[1]) if kept else 0)) <= 2


def test_each_group_of_a_batch_has_a_deadline(
    opened: Callable[..., Any], memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that takes longer than the time-out goes through, group by group."""
    monkeypatch.setattr(decide, "GROUP", 3)
    names = [someone() for _ in range(30)]
    with Proxy(memcached.port) as proxy:
        proxy.delay = lambda: 0.05
        storage = opened(f"memcached://{HOST}:{proxy.port}", timeout=1.5)
        verdicts = storage.acquire_many([Request([WINDOW], [key(name, WINDOW)], 1) for name in names])

    assert [verdict.readings[0].count for verdict in verdicts] == [1] * 30


def test_a_batch_at_a_server_that_hangs(opened: Callable[..., Any], start_memcached: Callable[..., Memcached]) -> None:
    """A batch of thousands at a server that hangs is given up after a time-out or two."""
    server = start_memcached()
    storage = opened(server.url, timeout=0.3)
    hit(storage, someone())
    hang(server)
    requests = [Request([WINDOW], [key(someone(), WINDOW)], 1) for _ in range(2500)]
    elapsed, said = seconds_of(lambda: storage.acquire_many(requests))

    assert elapsed < MANY
    assert "Nothing was counted." in said


# --- The circuit --------------------------------------------------------------------------------------------------


def test_a_circuit_opens_and_closes(opened: Callable[..., Any], start_memcached: Callable[..., Memcached]) -> None:
    """After three time-outs in a row a host is not asked any more, which an error says at once; when it is back, a PING
    finds out, and the decision that sent it is counted.
    """
    server, name = start_memcached(), someone()
    storage = opened(server.url, timeout=0.3, circuit=Circuit(pause=1.0))
    hit(storage, name)
    states = storage.storage.circuits if hasattr(storage, "storage") else storage.circuits
    seen = [dict(states)]
    hang(server)
    said = [seconds_of(lambda: hit(storage, name))[1] for _ in range(4)]
    seen.append(dict(states))
    server.resume()
    deadline, count = time.monotonic() + PATIENT, 0
    while not count and time.monotonic() < deadline:
        with suppress(StorageError):
            count = hit(storage, name)

    assert seen == [{server.address: "closed"}, {server.address: "open"}]
    assert all("gave no answer within 0.3 seconds. Nothing was counted." in each for each in said[:3])
    assert "was not asked, because it gave no answer 3 times in a row. Nothing was counted." in said[3]
    assert count == 2
    assert dict(states) == {server.address: "closed"}


def test_an_open_circuit_asks_nothing_but_a_ping(
    opened: Callable[..., Any], start_memcached: Callable[..., Memcached]
) -> None:
    """While a host does not answer no hit is sent to it: when it goes on it has none to count."""
    server, names = start_memcached(), [someone() for _ in range(50)]
    storage = opened(server.url, timeout=0.2, circuit=Circuit(pause=0.7))
    hit(storage, someone())
    hang(server)
    for name in [*names, *names]:
        with suppress(StorageError):
            hit(storage, name)
        time.sleep(0.02)
    server.resume()
    time.sleep(0.2)
    asked = statistics(server)

    assert asked["cmd_set"] == 1
    # The first that failed before it opened; behind it none but PINGs.
    assert asked["cmd_get"] <= 1 + 4


def test_a_server_that_is_gone(opened: Callable[..., Any], start_memcached: Callable[..., Memcached]) -> None:
    """Refused connections open the circuit too; started anew, the server is asked again at once or after the pause."""
    server, name = start_memcached(), someone()
    storage = opened(server.url, timeout=0.5)
    hit(storage, name)
    server.stop()
    said = [seconds_of(lambda: hit(storage, name))[1] for _ in range(5)]
    server.start()
    deadline, count = time.monotonic() + PATIENT, 0
    while not count and time.monotonic() < deadline:
        with suppress(StorageError):
            count = hit(storage, name)

    assert all("could not be reached" in each or "was not asked" in each for each in said)
    assert all("Nothing was counted." in each for each in said)
    assert count == 1


def test_a_circuit_belongs_to_the_server(start_memcached: Callable[..., Memcached]) -> None:
    """Storages of both kinds share the circuit of a host; other settings, or none, are another matter; an explicit check
    asks whatever the circuit says.
    """
    server, name = start_memcached(), someone()
    slow, other = MemcachedStorage(server.url, timeout=0.1), AsyncMemcachedStorage(server.url, timeout=0.1)
    never = MemcachedStorage(server.url, timeout=0.1, circuit=None)
    hang(server)
    for _ in range(4):
        with suppress(StorageError):
            hit(slow, name)
        with pytest.raises(StorageError, match="gave no answer"):
            hit(never, name)
    states = [each.circuits[server.address] for each in (slow, other, never)]
    with pytest.raises(StorageError, match="was not asked"):
        asyncio.run(other.acquire([WINDOW], [key(name, WINDOW)], 1))
    server.resume()
    slow.timeout = PATIENT

    assert states == ["open", "open", "closed"]
    assert slow.check() is True
    assert other.circuits[server.address] == "closed"
    slow.close()
    never.close()


def test_answers_do_not_open_a_circuit(opened: Callable[..., Any], memcached: Memcached) -> None:
    """What a server answers, whatever it is, is no reason not to ask it."""

    class Refusing(Proxy):
        def _answer(self, server: socket.socket, client: socket.socket, *_: object) -> None:
            with suppress(OSError):
                while server.recv(1 << 20):
                    client.sendall(b"SERVER_ERROR out of memory storing object\r\n")
            self._leave(client, server)

    with Refusing(memcached.port) as proxy:
        storage, name = opened(f"memcached://{HOST}:{proxy.port}", timeout=PATIENT), someone()
        for _ in range(5):
            _, said = seconds_of(lambda: hit(storage, name))

            assert "refused: out of memory storing object. Nothing was counted." in said


def test_a_blocked_event_loop_is_not_the_servers_fault(memcached: Memcached) -> None:
    """Decisions that were on their way while something blocked the event loop may be too late, and open no circuit."""

    async def main() -> tuple[int, dict[str, str]]:
        with Proxy(memcached.port) as proxy:
            storage = AsyncMemcachedStorage(f"memcached://{HOST}:{proxy.port}", timeout=0.4)
            proxy.delay = lambda: 0.1
            hits = [storage.acquire([WINDOW], [key(someone(), WINDOW)], 1) for _ in range(20)]
            tasks = [asyncio.ensure_future(each) for each in hits]
            await asyncio.sleep(0.05)
            time.sleep(1)  # noqa: ASYNC251  # what blocks it
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await storage.close()
            return sum(isinstance(each, StorageError) for each in outcomes), dict(storage.circuits)

    late, states = asyncio.run(main())

    assert late >= 3
    assert set(states.values()) == {"closed"}


def test_one_host_of_several(opened: Callable[..., Any], start_memcached: Callable[..., Memcached]) -> None:
    """Each host has a circuit of its own: those whose recipients live on another are served."""
    servers = [start_memcached(), start_memcached()]
    url = "memcached://" + ",".join(server.address for server in servers)
    storage = opened(url, timeout=0.3)
    names = [someone() for _ in range(30)]
    alive = [name for name in names if choose(hosts_of(url), item_of(name)).name == servers[1].address]
    hang(servers[0])
    counted = []
    for name in names:
        with suppress(StorageError):
            counted += [name] * hit(storage, name)

    assert counted == alive
    assert len(alive) in range(1, 30)


# --- Under load ---------------------------------------------------------------------------------------------------


def stumble(server: Memcached, fault: str) -> None:
    """Away for 1.2 seconds, in one way or the other."""
    if fault == "hangs":
        hang(server)
        time.sleep(1.1)
        server.resume()
    else:
        server.stop()
        time.sleep(1.2)
        server.start()


@pytest.mark.parametrize("fault", ["hangs", "dies"])
def test_eighty_threads(start_memcached: Callable[..., Memcached], fault: str) -> None:
    """80 threads that ask all the time while the server is away: each has a counted decision soon after it is back, and
    nobody is stuck.
    """
    server, stop, back = start_memcached(), threading.Event(), threading.Event()
    storage = MemcachedStorage(server.url)
    counted = dict.fromkeys((someone() for _ in range(80)), 0)

    def ask(name: str) -> None:
        while not stop.is_set():
            is_back = back.is_set()
            with suppress(StorageError):
                hit(storage, name)
                counted[name] += is_back

    threads = [threading.Thread(target=ask, args=(name,)) for name in counted]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    stumble(server, fault)
    back.set()
    deadline = time.monotonic() + PATIENT
    while min(counted.values()) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(PATIENT)

    assert not any(thread.is_alive() for thread in threads)
    assert min(counted.values()) > 0
    assert set(getattr(storage, "storage", storage).circuits.values()) == {"closed"}
    storage.close()


@pytest.mark.parametrize("fault", ["hangs", "dies"])
def test_two_hundred_tasks(start_memcached: Callable[..., Memcached], fault: str) -> None:
    """The same with 200 tasks of one event loop."""
    server = start_memcached()
    counted = dict.fromkeys((someone() for _ in range(200)), 0)

    async def main() -> set[str]:
        storage, state = AsyncMemcachedStorage(server.url), {"back": False, "stop": False}

        async def ask(name: str) -> None:
            while not state["stop"]:
                is_back = state["back"]
                with suppress(StorageError):
                    await storage.acquire([WINDOW], [key(name, WINDOW)], 1)
                    counted[name] += is_back

        tasks = [asyncio.create_task(ask(name)) for name in counted]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(stumble, server, fault)
        state["back"] = True
        deadline = time.monotonic() + PATIENT
        while min(counted.values()) == 0 and time.monotonic() < deadline:  # noqa: ASYNC110  # waits for what 200 tasks have counted
            await asyncio.sleep(0.02)
        state["stop"] = True
        done, _ = await asyncio.wait(tasks, timeout=PATIENT)

        assert len(done) == 200
        await storage.close()
        return set(storage.circuits.values())

    assert asyncio.run(main()) == {"closed"}
    assert min(counted.values()) > 0


def test_stumbling_is_no_reason_to_count_too_few(start_memcached: Callable[..., Memcached]) -> None:
    """Threads that go on through a stop of the server never get more than the rule allows."""
    server, window, name = start_memcached(), moving(500), someone()
    storage, granted, stop = MemcachedStorage(server.url), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with suppress(StorageError):
                if storage.acquire([window], [key(name, window)], 1).granted:
                    granted.append(1)

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    stumble(server, "hangs")
    deadline = time.monotonic() + PATIENT
    full = MemcachedStorage(server.url, timeout=PATIENT, circuit=None)
    while full.peek([window], [key(name, window)], 1).granted and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(PATIENT)

    assert 0 < len(granted) <= 500
    storage.close()
    full.close()


def test_a_server_that_wants_a_login(
    opened: Callable[..., Any], start_memcached: Callable[..., Memcached], tmp_path: Path
) -> None:
    """It is said that this storage does not log in; it is an answer, and opens no circuit."""
    users = tmp_path / "users"
    users.write_text("ana:s3cret\n")
    server = start_memcached()
    server.stop()
    server.options = ("-Y", str(users))
    server.answering_pid = lambda: server.pid if b"unauthenticated" in server.ask(b"version\r\n", b"\r\n") else None  # type: ignore[method-assign]  # it tells its process to nobody
    server.start()
    storage, name = opened(server.url, timeout=PATIENT, circuit=Circuit(failures=1)), someone()
    for _ in range(3):
        _, said = seconds_of(lambda: hit(storage, name))
        assert "requires a login (-Y or -S), and this storage does not log in. Nothing was counted." in said
    assert set(getattr(storage, "storage", storage).circuits.values()) == {"closed"}
