"""Which failures of a storage are certain to have counted nothing: `StorageError.nothing_counted`."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from proxy import Proxy
from ratelimited_notify import AsyncLimiter, Circuit, Limiter, StorageError
from ratelimited_notify.limiter.failure_budget import FailureBudget
from ratelimited_notify.storage.open import open_async_storage, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Memcached, Server, Valkey

RULES = {"news": "100000/day", "sms": "5/day"}


def certain(kind: str, uri: str, *, batch: int = 0, namespace: str = "notify", **options: Any) -> bool:
    """Whether it is certain that a hit, or a batch of so many, was not counted."""
    people = [f"p{number}" for number in range(batch)]

    async def ask_async() -> None:
        async with AsyncLimiter(RULES, open_async_storage(uri, **options), namespace=namespace) as limiter:
            await (limiter.hit_many("news", people) if batch else limiter.hit("news", "ana"))

    def ask() -> None:
        with closing(open_storage(uri, **options)) as storage:
            limiter = Limiter(RULES, storage, namespace=namespace)
            limiter.hit_many("news", people) if batch else limiter.hit("news", "ana")

    with pytest.raises(StorageError) as caught:
        asyncio.run(ask_async()) if kind == "async" else ask()
    assert pickle.loads(pickle.dumps(caught.value)).nothing_counted is caught.value.nothing_counted
    return caught.value.nothing_counted


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Threads or asyncio."""
    return str(request.param)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "memcached"])
def test_a_refused_connection(kind: str, scheme: str) -> None:
    """Nothing was sent, alone and in batches of any size."""
    for batch in (0, 2, 600):
        assert certain(kind, f"{scheme}://127.0.0.1:1", batch=batch)


def test_no_sentinel_answers(kind: str) -> None:
    """Nothing was sent."""
    assert certain(kind, "redis+sentinel://127.0.0.1:1/main")


@pytest.mark.parametrize("backend", ["start_valkey", "start_memcached"])
def test_an_open_circuit(kind: str, backend: str, request: pytest.FixtureRequest) -> None:
    """Nothing was sent. Before, with the server hanging, it was: on Redis the hit itself, on memcached only a question."""
    server: Server = request.getfixturevalue(backend)()
    uri = server.url
    server.pause()
    options: dict[str, Any] = {"timeout": 0.1, "circuit": Circuit(failures=1, pause=60)}
    first = certain(kind, uri, **options)
    assert certain(kind, uri, **options) or backend == "start_valkey"
    server.resume()
    # With a fresh connection, Redis has been sent the hit: the kernel of a stopped server still accepts.
    assert first is (backend == "start_memcached")


def test_a_lost_answer(kind: str, valkey: Valkey) -> None:
    """The script may have run."""
    with Proxy(valkey.port) as proxy:
        proxy.losing = "all"
        for batch in (0, 2, 600):
            assert not certain(kind, proxy.url, batch=batch, timeout=2)


def test_a_garbled_answer(kind: str, valkey: Valkey) -> None:
    """Nobody knows what it was the answer to."""
    with Proxy(valkey.port) as proxy:
        proxy.since = b"EVALSHA"
        proxy.garbage = b"?\r\n"
        assert not certain(kind, proxy.url, timeout=2)


def test_a_lost_answer_of_memcached(kind: str, memcached: Memcached) -> None:
    """It is in doubt as soon as something was to be written, and not while it was only read."""
    with Proxy(memcached.port) as proxy:
        uri = f"memcached://127.0.0.1:{proxy.port}"
        proxy.garbage = b"ERROR\r\n"
        assert certain(kind, uri, timeout=2)
        proxy.since = b"cas "
        proxy.garbage = b"?\r\n"
        namespace = f"{kind}-{proxy.port}"
        with closing(open_storage(memcached.url)) as direct:
            Limiter(RULES, direct, namespace=namespace).hit("news", "ana")
        assert not certain(kind, uri, namespace=namespace, timeout=2)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("maxmemory", 1), ("min-replicas-to-write", 3), ("requirepass", "secret"), ("maxclients", 1)],
)
def test_a_server_that_refuses(kind: str, start_valkey: Callable[..., Valkey], setting: str, value: object) -> None:
    """It says so before the script writes anything."""
    server = start_valkey()
    with server.client() as client:
        client.ping()
        client.config_set(setting, value)
        assert certain(kind, server.url)
        assert certain(kind, server.url, batch=2)


def test_a_replica(kind: str, start_valkey: Callable[..., Valkey]) -> None:
    """It is read-only."""
    server = start_valkey()
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
    assert certain(kind, server.url)


def test_a_server_that_becomes_full_in_the_middle_of_a_batch(kind: str, start_valkey: Callable[..., Valkey]) -> None:
    """What was decided before stays counted, so the batch as a whole is in doubt, and one of a single round trip is not."""
    server = start_valkey()
    with server.client() as client:
        client.config_set("maxmemory", 1)
        assert certain(kind, server.url, batch=100)
        assert not certain(kind, server.url, batch=600)


def test_a_window_that_somebody_else_wrote(kind: str, start_valkey: Callable[..., Valkey]) -> None:
    """None of the requests in the script was counted."""
    server = start_valkey()
    with closing(open_storage(server.url)) as storage, server.client() as client:
        Limiter(RULES, storage).hit("news", "ana")
        client.set(client.keys("*")[0], "something else")
    assert certain(kind, server.url)


def test_one_of_two_servers() -> None:
    """Of several errors of a cluster, one in doubt is the one that is raised."""
    from ratelimited_notify.storage.redis import failures, spread

    refused, unknown = failures.NothingSent("a"), StorageError("b")
    with pytest.raises(StorageError, match=r"^b$"):
        spread._checked([1, refused, unknown])
    with pytest.raises(StorageError, match=r"^a$"):
        spread._checked([refused, 1])


def test_a_file(kind: str, tmp_path: Path) -> None:
    """Whatever is wrong with it, nothing was counted; only a thread that is late is in doubt."""
    path = tmp_path / "w.db"
    assert certain(kind, f"sqlite:///{tmp_path}/missing/w.db")
    with closing(open_storage(f"sqlite:///{path}")) as storage:
        Limiter(RULES, storage).hit("news", "ana")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert certain(kind, f"sqlite:///{path}", timeout=0.05) or kind == "async"
    path.write_bytes(b"no database at all" * 100)
    assert certain(kind, f"sqlite:///{path}")


def test_a_storage_of_limits(kind: str) -> None:
    """It does not tell, so everything is in doubt."""
    from limits.aio.storage import RedisStorage as AsyncStock
    from limits.storage import RedisStorage as Stock

    async def ask_async() -> None:
        await AsyncLimiter(RULES, AsyncStock("async+redis://127.0.0.1:1", implementation="redispy")).hit("news", "ana")

    def ask() -> None:
        Limiter(RULES, Stock("redis://127.0.0.1:1")).hit("news", "ana")  # type: ignore[arg-type]  # as users write it

    with pytest.raises(StorageError) as caught:
        asyncio.run(ask_async()) if kind == "async" else ask()
    assert not caught.value.nothing_counted


def test_a_batch_that_is_given_up() -> None:
    """The storage was not asked at all."""
    patience = FailureBudget()
    patience.failed(StorageError("a"))
    patience.failed(StorageError("b"))
    with pytest.raises(StorageError) as caught:
        patience.check()
    assert caught.value.nothing_counted
