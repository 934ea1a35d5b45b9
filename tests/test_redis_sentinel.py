"""The storage on what Redis Sentinel names the master, sync and asyncio, with real Sentinels.

What it decides is in test_storage_properties.py, as for every backend, and how it talks to one server in test_redis.py;
here is how it finds that server.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from limits._storage_scheme import SCHEMES
from limits.storage import RedisSentinelStorage as StockStorage, storage_from_string

from cluster_servers import Both, Watched, sentinel_servers, wait_for
from limiting import LIMITERS
from outcomes import ends_when_cancelled
from proxy import Proxy
from ratelimited_notify import Limiter, Rule
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.base import AsyncStorage, Storage
from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage
from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage
from ratelimited_notify.windows.strategies import MICROSECONDS, Request, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTE = 60 * MICROSECONDS
PATIENT = 30.0
"""Seconds for tests in which much happens at once, on machines with little to run it on."""

_numbers = itertools.count()


def someone() -> list[str]:
    """The key of a recipient that no other test has, for one window."""
    return [f"test:{{recipient-{os.getpid()}-{next(_numbers)}}}:news:m"]


def one(amount: int = 10) -> Window:
    return Window("moving-window", amount, MINUTE, rule="news")


@pytest.fixture(params=[RedisSentinelStorage, AsyncRedisSentinelStorage], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def own_servers() -> Iterator[Callable[..., Watched]]:
    """Start servers and Sentinels for one test, to stop them and hang them."""
    running: list[Watched] = []

    def start(*arguments: Any, **options: Any) -> Watched:
        running.append(sentinel_servers(*arguments, **options))
        return running[-1]

    yield start
    for started in running:
        started.remove()


# --- Which server ---------------------------------------------------------------------------------------------------


def test_only_the_master_is_asked(watched: Watched, kind: Any) -> None:
    """Hits, looks, releases: all on the master, none on a replica, where a look might be out of date."""
    window, keys = one(), someone()
    replicas = [server for server in watched.servers if server is not watched.master()]
    with Both(kind(watched.url, timeout=PATIENT)) as storage:
        for server in watched.servers:
            with server.client() as client:
                client.config_resetstat()
        tokens = [reading.token for reading in storage.acquire([window], keys, 1).readings]
        storage.acquire_many([Request([window], keys, 1)] * 3)
        storage.peek([window], keys, 1)
        storage.release([window], keys, 1, tokens)
        storage.forget([window], keys)
        assert storage.check()
        assert storage.get("limits/key") == 0

        def scripts_run(server: Any) -> int:
            with server.client() as client:
                return sum(value["calls"] for name, value in client.info("commandstats").items() if "eval" in name)

        assert scripts_run(watched.master()) >= 6
        assert [scripts_run(server) for server in replicas] == [0]


def test_some_sentinels_are_enough(watched: Watched, kind: Any) -> None:
    """Sentinels that are not there are passed over; the service may be named apart from the URI."""
    address = watched.sentinels[-1].address
    for uri, options in (
        (f"redis+sentinel://127.0.0.1:1,{address}/{watched.service}", {}),
        (f"valkey+sentinel://{address}/{watched.service}/", {}),
        (f"redis+sentinel://{address}", {"service_name": watched.service}),
    ):
        with Both(kind(uri, timeout=PATIENT, **options)) as storage:
            assert storage.acquire([one()], someone(), 1).granted


def test_nobody_there(watched: Watched, kind: Any) -> None:
    """No Sentinel, or none that knows the name: an error that names both, and no password."""
    for uri in (
        "redis+sentinel://ana:hunter2@127.0.0.1:1,127.0.0.1:2/notices",
        f"redis+sentinel://{watched.sentinels[0].address}/other",
    ):
        with Both(kind(uri)) as storage:
            with pytest.raises(StorageError, match=r"no Sentinel that replies knows.*'(notices|other)'") as raised:
                storage.acquire([one()], someone(), 1)
            text = f"{raised.value} {raised.value.__cause__} {storage.storage!r}"
            assert "hunter2" not in text
            assert "127.0.0.1:" in text
            assert not storage.check()


def test_sentinels_that_hang(own_servers: Callable[..., Watched], kind: Any) -> None:
    """All Sentinels together are given one time-out, then it is an error; connections that are open need none of them."""
    servers, window, keys = own_servers(replicas=0), one(), someone()
    with Both(kind(servers.url)) as storage, Both(kind(servers.url)) as late:
        storage.acquire([window], keys, 1)
        for sentinel in servers.sentinels:
            sentinel.pause()
        try:
            assert storage.acquire([window], keys, 1).granted
            with pytest.raises(StorageError, match=r"nothing was sent|cannot be reached"):
                late.acquire([window], keys, 1)
        finally:
            for sentinel in servers.sentinels:
                sentinel.resume()

        assert late.acquire([window], keys, 1).readings[0].count == 3


# --- Failover -------------------------------------------------------------------------------------------------------


def test_a_master_that_is_killed(own_servers: Callable[..., Watched], kind: Any) -> None:
    """SIGKILL in mid-load: decisions fail as StorageErrors until a replica is the master, and then go on by themselves.

    Nobody is counted more often than he was told of or left in doubt.
    """
    servers, window = own_servers(), one(10**6)
    people = [someone() for _ in range(5)]
    told, doubted = [0] * 5, [0] * 5
    with Both(kind(servers.url)) as storage:

        def hit(number: int) -> bool:
            try:
                told[number] += storage.acquire([window], people[number], 1).granted
            except StorageError:
                doubted[number] += 1
                return False
            return True

        def everybody() -> bool:
            return all([hit(number) for number in range(5)])  # noqa: C419  # each is to hit, also after one who failed

        assert everybody()
        killing = threading.Timer(0.5, servers.master().stop)
        killing.start()
        wait_for("decisions fail", lambda: not everybody())
        killing.join()
        wait_for("decisions flow again", everybody, 60)
        counts = [storage.peek([window], keys, 1).readings[0].count for keys in people]

    for number in range(5):
        assert counts[number] <= told[number] + doubted[number]
        # A replica on the same machine is next to nothing behind.
        assert counts[number] >= told[number] - 5


def test_a_master_that_hangs(own_servers: Callable[..., Watched], kind: Any) -> None:
    """A master that does not answer is an error after the time-out, until another one is named."""
    servers, window, keys = own_servers(), one(), someone()
    with Both(kind(servers.url, timeout=0.4)) as storage:
        storage.acquire([window], keys, 1)
        victim = servers.master()
        victim.pause()
        try:
            with pytest.raises(StorageError, match=r"no answer within 0\.4 seconds"):
                storage.acquire([window], keys, 1)
            wait_for("decisions flow again", lambda: storage.acquire([window], keys, 1).granted, 60)
        finally:
            victim.resume()
        # Some Sentinels hear of it later than others.
        wait_for("another is the master", lambda: servers.master() is not victim)

        # It is back as a replica by and by, and takes no hit.
        def demoted() -> bool:
            with victim.client() as client:
                return client.info("replication")["role"] == "slave"

        before = storage.peek([window], keys, 1).readings[0].count
        wait_for("the old master is a replica", demoted, 60)
        assert storage.acquire([window], keys, 1).readings[0].count == before + 1


def test_a_planned_failover(own_servers: Callable[..., Watched], kind: Any) -> None:
    """When the Sentinels are told to change the master, open connections do not stay with the old one."""
    servers, window, keys = own_servers(), one(1000), someone()
    with Both(kind(servers.url)) as storage:
        storage.acquire([window], keys, 1)
        before = servers.master()

        def elsewhere() -> bool:
            with suppress(StorageError):
                storage.acquire([window], keys, 1)
            if servers.master() is before:
                # Again and again: on a busy machine the Sentinels may give up an attempt. One that is under way is an error.
                with servers.sentinels[0].client() as client:
                    client.execute_command("SENTINEL", "FAILOVER", servers.service)
            with before.client() as client:
                return servers.master() is not before and client.info("replication")["role"] == "slave"

        wait_for("another is the master", elsewhere, 60)
        seen: list[int] = []

        def served() -> bool:
            # The former master may close a connection yet.
            seen.append(storage.acquire([window], keys, 1).readings[0].count)
            return True

        wait_for("decisions flow", served)
        with servers.master().client() as client:
            assert client.llen(keys[0]) == seen[-1]


# --- Lost answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hanging", [False, True], ids=["closed", "silent"])
def test_a_lost_answer_neither_counts_nor_gives_twice(kind: Any, hanging: bool) -> None:
    """The script ran and its reply was cut off: the hit is counted once, and given back once; no reply is mixed up."""
    from cluster_servers import Watcher
    from servers import valkey_server

    server, window, keys = valkey_server(), one(), someone()
    sentinel = Watcher()
    try:
        with Proxy(server.port) as proxy, sentinel.client() as client:
            # The Sentinel knows the server by the proxy only, and so does who asks it.
            client.sentinel_monitor("notices", "127.0.0.1", proxy.port, 1)
            wait_for(
                "the Sentinel watches", lambda: not client.execute_command("SENTINEL MASTER", "notices")["is_sdown"]
            )
            proxy.hanging = hanging
            uri = f"redis+sentinel://{sentinel.address}/notices"
            with Both(kind(uri)) as storage, Both(kind(uri)) as beside:
                tokens = [reading.token for reading in storage.acquire([window], keys, 1).readings]
                assert storage.release([window], keys, 1, tokens)
                tokens = [reading.token for reading in storage.acquire([window], keys, 1).readings]
                storage.acquire([window], keys, 1)
                proxy.losing = "all"
                with pytest.raises(StorageError, match="not known whether this took effect"):
                    storage.acquire([window], keys, 1)
                with pytest.raises(StorageError, match="not known whether this took effect"):
                    storage.release([window], keys, 1, tokens)
                proxy.losing = "nothing"
                # A connection whose reply was lost is given up a moment after its time-out.
                wait_for("it answers", storage.check)

                assert storage.peek([window], keys, 1).readings[0].count == 2
                assert beside.acquire([window], keys, 1).readings[0].count == 3
    finally:
        sentinel.remove()
        server.remove()


# --- Options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "redis+sentinel://ana:hunter2@host/notices",
        "redis+sentinel://ana:hunter2@host:port/notices",
        "redis+sentinel://ana:hunter2@host:1,other/notices",
        "redis+sentinel:///notices",
    ],
)
def test_an_unreadable_uri_is_not_shown(kind: Any, uri: str) -> None:
    """A URI that cannot be used is a NotifyError at once; it may hold a password, so it is not quoted."""
    with pytest.raises(NotifyError, match=r"Write redis\+sentinel://") as raised:
        kind(uri)

    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def _reach(storage: Any) -> Any:
    return storage._reach if isinstance(storage, AsyncRedisSentinelStorage) else storage._connections._reach


def test_options(kind: Any) -> None:
    """The service has to be named; time-out and TLS come from the URI or the options; a misspelt one is an error."""
    with pytest.raises(NotifyError, match=r"does not name the master.*/service"):
        kind("redis+sentinel://h:1")
    assert kind("redis+sentinel://h:1/s?timeout=4", timeout=2.0).timeout == 4
    assert kind("redis+sentinel://h:1/s", timeout=2.0).timeout == 2
    with pytest.raises(NotifyError, match="sokket_timeout"):
        kind("redis+sentinel://h:1/s", sokket_timeout=1)
    assert kind("redis+sentinel://h:1/s", timeout=2.0, socket_timeout=None).timeout == 2
    for storage in (kind("redis+sentinel://h:1/s", ssl=True), kind("rediss+sentinel://h:1/s")):
        reach = _reach(storage)
        assert reach._kind.__name__ == "SSLConnection"
        assert reach._to_sentinels.connection_class.__name__ == "SSLConnection"
    others = {"ssl": False, "password": None}
    reach = _reach(kind("rediss+sentinel://:s3cret@h:1/s", sentinel_kwargs=others, ssl_ca_certs="ca.pem"))
    assert reach._to_sentinels.connection_class.__name__ == "Connection"
    assert reach._to_sentinels.connection_kwargs["password"] is None


def test_database_and_credentials(own_servers: Callable[..., Watched], kind: Any) -> None:
    """User and password of the URI go to both, unless the Sentinels have others; `db` is the master's."""
    servers, window, keys = own_servers(replicas=0), one(), someone()
    for sentinel in servers.sentinels:
        with sentinel.client() as client:
            client.sentinel_set(servers.service, "auth-pass", "s3cret")
    with servers.master().client() as client:
        client.config_set("requirepass", "s3cret")
    uri = servers.url.replace("://", "://:s3cret@")
    with Both(kind(uri, timeout=PATIENT, sentinel_kwargs={"password": None}, db=3)) as storage:
        assert storage.acquire([window], keys, 1).granted
        assert "s3cret" not in repr(storage.storage)
    with servers.servers[0].client(password="s3cret", db=3) as client:
        assert client.exists(*keys)
    with Both(kind(uri.replace("s3cret", "hunter2"))) as storage:
        with pytest.raises(StorageError) as raised:
            storage.acquire([window], keys, 1)
        assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


def test_a_cancellation_is_never_swallowed(watched: Watched) -> None:
    """Whichever step it comes at, also while a connection is opened, where redis-py on Python 3.11 swallows it."""
    window, keys = one(10**6), someone()

    async def main() -> None:
        for steps in range(40):
            storage = AsyncRedisSentinelStorage(watched.url, timeout=PATIENT)
            assert await ends_when_cancelled(storage.acquire([window], keys, 1), steps), steps
            assert (await storage.acquire([window], keys, 1)).granted
            await storage.close()

    asyncio.run(main())


def test_several_event_loops(watched: Watched) -> None:
    """One storage serves loops one after another and at once; each closes its connections, the Sentinels' too."""
    storage = AsyncRedisSentinelStorage(watched.url, timeout=PATIENT, client_name="loops")
    window, keys = one(10**6), someone()

    async def some() -> int:
        verdicts = await asyncio.gather(*(storage.acquire([window], keys, 1) for _ in range(20)))
        return sum(verdict.granted for verdict in verdicts)

    for _ in range(3):
        assert asyncio.run(some()) == 20
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: asyncio.run(some()), range(8))) == [20] * 8

    def left() -> int:
        with watched.master().client() as client:
            return sum(one["name"] == "loops" for one in client.client_list())

    wait_for("all connections are closed", lambda: left() == 0)


def test_threads_share_a_limit(watched: Watched) -> None:
    """Sixteen threads on a fresh key get exactly its amount."""
    storage = RedisSentinelStorage(watched.url, timeout=PATIENT)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(20):
            window, keys = one(5), someone()
            verdicts = threads.map(lambda _: storage.acquire([window], keys, 1), range(16))  # noqa: B023  # all are waited for here
            assert sum(verdict.granted for verdict in verdicts) == 5
    storage.close()


@pytest.mark.parametrize("limiter", list(LIMITERS))
def test_a_limiter_under_sentinel(watched: Watched, limiter: str) -> None:
    """A URI of `limits` is all it takes: rules of the recipient's and rules over everybody, single hits and batches."""
    rules = [Rule("news", "2/day"), Rule("*", "3/day", by=())]
    namespace = f"sentinel-{limiter}-{os.getpid()}"
    with closing(LIMITERS[limiter](rules, watched.url, namespace=namespace, timeout=PATIENT)) as made:
        decisions = made.hit_many("news", ["ana", "bo", "ana", "ana"])

        assert made.storage.exact
        assert [bool(decision) for decision in decisions] == [True, True, True, False]
        assert made.hit("news", "bo").blocked_by.rule == "* by all"
        assert made.release(decisions[0])
        assert made.hit("news", "bo")


def test_a_stock_storage_goes_behind_the_adapter(watched: Watched) -> None:
    """A Sentinel storage of `limits` itself works as any other of its storages, with the weaker promise."""
    stock, person = StockStorage(watched.url, use_replicas=False), f"stock-{os.getpid()}"
    limiter = Limiter({"news": "1/day"}, stock)

    assert not limiter.storage.exact
    assert [bool(limiter.hit("news", person)) for _ in range(2)] == [True, False]
    stock.storage.close()
    for sentinel in stock.sentinel.sentinels:
        sentinel.close()


def test_schemes_of_our_own(watched: Watched) -> None:
    """`limits` opens these by schemes of their own, and its own schemes still open its own."""
    ours = storage_from_string(watched.url.replace("redis+", "notify+redis+"))
    theirs = storage_from_string(watched.url.replace("redis+", "async+notify+redis+"))

    assert (type(ours), type(theirs)) == (RedisSentinelStorage, AsyncRedisSentinelStorage)
    assert ours.check()
    assert SCHEMES["redis+sentinel"] is SCHEMES["valkey+sentinel"] is StockStorage
    assert isinstance(ours, Storage)
    assert isinstance(theirs, AsyncStorage)
    assert RedisSentinelStorage.exact is AsyncRedisSentinelStorage.exact is True
    ours.close()
