"""Servers that answer and refuse: a password, a command, keys, TLS. What is said, what is tried again, what opens a circuit."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import trustme

from cluster_servers import Both, Watcher, cluster_servers, wait_for
from proxy import Proxy
from ratelimited_notify import Circuit, StorageError
from ratelimited_notify.storage import open_async_storage, open_storage
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.failures import AccessRefused
from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage
from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage
from ratelimited_notify.windows.strategies import MICROSECONDS, Request, Window
from servers import HOST, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster_servers import Cluster
    from servers import Valkey

PATIENT = 10.0
WINDOW = Window("moving-window", 10, 60 * MICROSECONDS, rule="news")
numbers = itertools.count()

OPENED = [open_storage, open_async_storage]
both = pytest.mark.parametrize("opened", OPENED, ids=["sync", "async"])


def rarely(failures: int) -> Circuit:
    """A circuit that no other test has, and that does not close by itself."""
    return Circuit(failures, 60 + next(numbers))


def refusal(storage: Both, ask: str = "acquire") -> StorageError:
    """The error of a decision. It shows neither the recipient nor a user or password."""
    keys = [f"notify:{{ana@example.com-{next(numbers)}}}:news:m"]
    arguments: tuple[Any, ...] = {
        "acquire": ([WINDOW], keys, 1),
        "acquire_many": ([Request([WINDOW], keys, 1)] * 600,),
        "probe": (),
    }[ask]
    with pytest.raises(StorageError) as caught:
        getattr(storage, ask)(*arguments)
    text = "".join(traceback.format_exception(caught.value)) + repr(storage.storage)
    assert [word for word in ("ana@example.com", "kestrel", "s3cret", "hunter2") if word in text] == []
    return caught.value


def closed(storage: Both) -> bool:
    """Whether no circuit is open, and nothing speaks for opening one."""
    made = storage.storage
    breakers = [made.breaker] if hasattr(made, "breaker") else list(made._breakers.values())
    return all(one.failures == 0 and one.state == "closed" for one in breakers)


# --- Passwords and ACLs of one server -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Valkey]:
    """A server with a password, and users who may do little."""
    server = valkey_server()
    with server.client() as client:
        users = {
            "kestrel-evalsha": ["+@all", "-evalsha", "~*"],
            "kestrel-eval": ["+@all", "-eval", "~*"],
            "kestrel-keys": ["+@all", "~other:*"],
            "kestrel-reading": ["+@all", "%R~*"],
            "kestrel-time": ["+@all", "-time", "~*"],
            "kestrel-lpush": ["+@all", "-lpush", "~*"],
            "kestrel-ping": ["+@all", "-ping", "~*"],
            "kestrel-select": ["+@all", "-select", "~*"],
            "kestrel-client": ["+@all", "-client|setname", "~*"],
            "kestrel-load": ["+@all", "-script", "~*"],
        }
        for name, rights in users.items():
            client.execute_command("ACL", "SETUSER", name, "on", ">s3cret", *rights)
        client.execute_command("ACL", "SETUSER", "kestrel-off", "off", ">s3cret", "+@all", "~*")
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">s3cret")
    yield server
    server.remove()


@both
@pytest.mark.parametrize(
    ("login", "database", "said"),
    [
        ("", 0, "requires a password, and the storage's URI has none. Write redis://:password@host"),
        (
            ":hunter2@",
            0,
            "refused the user or password, so nothing was counted: they are wrong, or the user is disabled",
        ),
        ("nobody:hunter2@", 0, "they are wrong, or the user is disabled"),
        ("kestrel-off:s3cret@", 0, "they are wrong, or the user is disabled"),
        ("kestrel-evalsha:s3cret@", 0, "may not run EVALSHA. Its ACL has to allow EVAL, EVALSHA, TIME"),
        ("kestrel-eval:s3cret@", 0, "may not run EVAL. Its ACL has to allow EVAL, EVALSHA, TIME"),
        (
            "kestrel-keys:s3cret@",
            0,
            "may not use the keys of the limits. Its ACL has to allow to read and write them: ~notify:*",
        ),
        ("kestrel-reading:s3cret@", 0, "may not use the keys of the limits"),
        ("kestrel-time:s3cret@", 0, "(refused is TIME). Its ACL has to allow"),
        ("kestrel-lpush:s3cret@", 0, "(refused is LPUSH). Its ACL has to allow"),
        ("kestrel-select:s3cret@", 3, "may not run SELECT. Its ACL has to allow"),
    ],
)
def test_which_refusal_it_is(guarded: Valkey, opened: Callable[..., Any], login: str, database: int, said: str) -> None:
    """The error says which, and what to do; one attempt is made; each decision says the same, and no circuit opens."""
    with guarded.client(password="s3cret") as client:
        client.script_flush()
    with Proxy(guarded.port) as proxy:
        uri = f"redis://{login}{HOST}:{proxy.port}/{database}"
        with Both(opened(uri, timeout=PATIENT, circuit=rarely(1))) as storage:
            for ask in ("acquire", "acquire", "acquire_many"):
                if ask == "acquire_many" and "EVALSHA." in said:
                    # The first scripts of a batch are sent by their text.
                    continue
                proxy.requests = 0
                text = str(refusal(storage, ask))
                if login or ask == "acquire":
                    assert said in text
                else:
                    # The server closes the connection, and its reason may be lost.
                    assert "requires a password" in text
                    continue
                # AUTH, SELECT, the script by its name, and once by its text; a batch sends two scripts at once.
                assert proxy.requests <= 4
                assert closed(storage)


@both
def test_what_is_not_needed_may_be_forbidden(guarded: Valkey, opened: Callable[..., Any]) -> None:
    """A user without SCRIPT LOAD or PING decides; only who asks for a PING is told of it."""
    for user in ("kestrel-load", "kestrel-ping"):
        with Both(opened(f"redis://{user}:s3cret@{guarded.address}", timeout=PATIENT)) as storage:
            assert storage.acquire([WINDOW], [f"notify:{{{user}{opened.__name__}}}:news:m"], 1).granted
            assert storage.check() is (user == "kestrel-load")
            if user == "kestrel-ping" and opened is open_storage:
                assert "may not run PING" in str(refusal(storage, "probe"))
            assert closed(storage)


@both
def test_a_forbidden_ping_closes_a_circuit(guarded: Valkey, opened: Callable[..., Any]) -> None:
    """It is an answer: the server is there."""
    with Both(opened(f"redis://kestrel-ping:s3cret@{guarded.address}/0?timeout=5", circuit=Circuit(1, 2.0))) as storage:
        storage.storage.breaker.failed(time.monotonic(), timed_out=False)
        assert storage.storage.breaker.is_open

        assert storage.acquire([WINDOW], [f"notify:{{closing{opened.__name__}}}:news:m"], 1).granted
        assert closed(storage)


@both
def test_a_password_where_none_is_wanted(valkey: Valkey, opened: Callable[..., Any]) -> None:
    """Leave it out."""
    with Both(opened(f"redis://:hunter2@{valkey.address}", timeout=PATIENT)) as storage:
        error = refusal(storage)

    assert "it has no password for this user, and the storage's URI has one. Leave it out." in str(error)
    assert isinstance(error, AccessRefused)


# --- Sentinel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinels() -> Iterator[tuple[Valkey, Watcher, Watcher]]:
    """A master, a Sentinel with a password that watches it, and one without a password that knows nobody."""
    with ExitStack() as stack:
        server = valkey_server()
        stack.callback(server.remove)
        watcher, idle = Watcher(), Watcher()
        stack.callback(watcher.remove)
        stack.callback(idle.remove)
        with watcher.client() as client:
            client.sentinel_monitor("notices", HOST, server.port, 1)
            wait_for(
                "the Sentinel watches", lambda: not client.execute_command("SENTINEL MASTER", "notices")["is_sdown"]
            )
            client.execute_command("ACL", "SETUSER", "kestrel", "on", ">s3cret", "+@all", "-sentinel|master", "~*")
            client.execute_command("ACL", "SETUSER", "default", "resetpass", ">s3cret")
        yield server, watcher, idle


of_sentinel = pytest.mark.parametrize("kind", [RedisSentinelStorage, AsyncRedisSentinelStorage], ids=["sync", "async"])


@of_sentinel
@pytest.mark.parametrize(
    ("uri", "options", "said"),
    [
        ("{w}/notices", {}, "A Sentinel refused the user or password"),
        ("{w}/notices", {}, "{w} requires a password). The user and password of the URI are for the master and for"),
        (":hunter2@{w}/notices", {}, "{w} refuses the user or password). The user and password"),
        (":hunter2@{i}/notices", {}, "{i} has no password for this user, and is given one"),
        ("{i},{w}/notices", {}, "({i} does not know the name, {w} requires a password)"),
        ("127.0.0.1:1,{w}/notices", {}, "(127.0.0.1:1 cannot be reached, {w} requires a password)"),
        (
            "{w}/notices",
            {"sentinel_kwargs": {"username": "kestrel", "password": "s3cret"}},
            "has to allow SENTINEL MASTER",
        ),
        ("{i}/notices", {}, "knows a running master named 'notices' ({i} does not know the name)"),
        ("{m}/notices", {}, "({m} is no Sentinel)"),
        ("{m}/notices", {"sentinel_kwargs": {"ssl": True}}, "does not begin TLS"),
    ],
)
def test_which_sentinel_refuses(
    sentinels: tuple[Valkey, Watcher, Watcher], kind: Any, uri: str, options: dict[str, Any], said: str
) -> None:
    """The error says that it was a Sentinel, which one, and what it wants; a Sentinel that refuses opens no circuit."""
    server, watcher, idle = sentinels
    names = {"w": watcher.address, "i": idle.address, "m": server.address}
    timeout = 0.5 if "TLS" in said else PATIENT
    full = "redis+sentinel://" + uri.format(**names)
    with Both(kind(full, timeout=timeout, circuit=rarely(5), **options)) as storage:
        for _ in range(2):
            assert said.format(**names) in str(refusal(storage))
        assert closed(storage) is ("TLS" not in said)


@of_sentinel
def test_the_master_refuses(sentinels: tuple[Valkey, Watcher, Watcher], kind: Any) -> None:
    """Then it is not the Sentinel; each of them can have a password of its own."""
    server, watcher, _ = sentinels
    known, uri = {"password": "s3cret"}, f"redis+sentinel://:hunter2@{watcher.address}/notices"
    with Both(kind(uri, timeout=PATIENT, sentinel_kwargs=known)) as storage:
        error = refusal(storage)
        assert str(error).startswith("Redis refused the user or password, so nothing was counted: it has no password")
        assert closed(storage)
    with Both(kind(uri.replace(":hunter2@", ""), timeout=PATIENT, sentinel_kwargs=known)) as storage:
        assert storage.acquire([WINDOW], [f"notify:{{{kind.__name__}}}:news:m"], 1).granted
    assert server


@of_sentinel
def test_silent_sentinels_open_the_circuit(kind: Any) -> None:
    """As before: nobody answers, so asking again and again costs time."""
    with Both(kind("redis+sentinel://127.0.0.1:1/notices", circuit=rarely(1))) as storage:
        assert "127.0.0.1:1 cannot be reached" in str(refusal(storage))
        assert not closed(storage)


# --- Cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded_cluster() -> Iterator[Cluster]:
    """A cluster of two servers, with users who may do little."""
    made = cluster_servers(2, 0, node_timeout=30_000)
    for member in made.members:
        for name, *rights in (
            ("kestrel-slots", "+@all", "-cluster|slots", "~*"),
            ("kestrel-evalsha", "+@all", "-evalsha", "~*"),
            ("kestrel-keys", "+@all", "~other:*"),
        ):
            member.command_line("ACL", "SETUSER", name, "on", ">s3cret", *rights)
        member.command_line("ACL", "SETUSER", "default", "resetpass", ">s3cret")
    yield made
    made.remove()


@both
@pytest.mark.parametrize(
    ("login", "said"),
    [
        ("", "requires a password, and the storage's URI has none"),
        (":hunter2@", "they are wrong, or the user is disabled"),
        ("kestrel-slots:s3cret@", "may not run CLUSTER SLOTS. Its ACL has to allow"),
        ("kestrel-evalsha:s3cret@", "may not run EVALSHA"),
        ("kestrel-keys:s3cret@", "may not use the keys of the limits"),
    ],
)
def test_a_cluster_that_refuses(guarded_cluster: Cluster, opened: Callable[..., Any], login: str, said: str) -> None:
    """Every server is asked once, not again and again until the time-out, and the refusal is what is said."""
    uri = guarded_cluster.url.replace("://", f"://{login}")
    with Both(opened(uri, timeout=PATIENT, circuit=rarely(1))) as storage:
        for ask in ("acquire", "acquire_many"):
            began = time.monotonic()
            error = refusal(storage, ask)
            assert str(error).startswith(("Redis refused", "The Redis user may not"))
            assert said in str(error)
            assert isinstance(error, AccessRefused)
            # It would be the whole time-out.
            assert time.monotonic() - began < PATIENT / 2
        assert closed(storage)
        assert storage.check() is (login.startswith(("kestrel-evalsha", "kestrel-keys")))


@both
def test_of_servers_that_refuse_and_that_are_gone(guarded_cluster: Cluster, opened: Callable[..., Any]) -> None:
    """The refusal is what can be mended, so it is what is said."""
    uri = f"{guarded_cluster.url.replace('://', '://:hunter2@')},127.0.0.1:1"
    with Both(opened(uri, timeout=0.5)) as storage:
        assert "The last error was: Redis refused the user or password" in str(refusal(storage))


@both
def test_rights_that_are_granted_later(guarded_cluster: Cluster, opened: Callable[..., Any]) -> None:
    """Nothing has to be opened anew."""
    name = f"later-{opened.__name__}"
    uri = guarded_cluster.url.replace("://", f"://{name}:s3cret@")
    with Both(opened(uri, timeout=PATIENT)) as storage:
        with pytest.raises(AccessRefused):
            storage.acquire([WINDOW], [f"notify:{{{name}}}:news:m"], 1)
        for member in guarded_cluster.members:
            with member.client(password="s3cret") as client:
                client.execute_command("ACL", "SETUSER", name, "on", ">s3cret", "+@all", "~*")

        def granted() -> bool:
            return bool(storage.acquire([WINDOW], [f"notify:{{{name}}}:news:m"], 1).granted)

        wait_for("it is granted", granted)


# --- TLS ------------------------------------------------------------------------------------------------------------


class Front:
    """A port with TLS in front of a server."""

    def __init__(self, server: Valkey, context: ssl.SSLContext) -> None:
        self._behind, self._context = server.port, context
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), self._context.wrap_socket(client, server_side=True) as inside:
            self._sockets.append(inside)
            with socket.create_connection((HOST, self._behind)) as behind:
                self._sockets.append(behind)
                answers = threading.Thread(target=self._pass_on, args=(behind, inside))
                answers.start()
                self._pass_on(inside, behind)
                answers.join()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the authority."""
    path: Path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    """TLS as the server uses it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(made)
    return made


@both
def test_tls_to_a_port_without(valkey: Valkey, opened: Callable[..., Any]) -> None:
    """It is said that the port may speak none, also when the circuit is open; one without TLS is not kept from it."""
    circuit = rarely(2)
    with Both(opened(f"rediss://{valkey.address}", timeout=0.3, circuit=circuit)) as storage:
        for number in range(3):
            error = refusal(storage)
            assert "Does this port speak TLS? If not, use redis://" in str(error)
            assert ("did not begin TLS in time" in str(error)) is (number < 2)
    with Both(opened(valkey.url, timeout=PATIENT, circuit=circuit)) as storage:
        assert storage.acquire([WINDOW], [f"notify:{{plain{opened.__name__}}}:news:m"], 1).granted


@pytest.mark.parametrize("sentinel", [False, True], ids=["direct", "sentinel"])
def test_no_tls_is_told_by_a_loop_that_is_late(valkey: Valkey, sentinel: bool) -> None:
    """The same where a busy event loop looks at all its time-outs at once."""
    made: Any = (
        AsyncRedisSentinelStorage(
            f"redis+sentinel://{valkey.address}/notices", timeout=0.6, circuit=rarely(9), sentinel_kwargs={"ssl": True}
        )
        if sentinel
        else AsyncRedisStorage(f"rediss://{valkey.address}", timeout=0.3, circuit=rarely(9))
    )
    with Both(made) as storage:
        # Each attempt to begin TLS ends after 0.3 seconds.
        storage._loop.call_later(0.25, time.sleep, 0.2)  # type: ignore[union-attr]  # it is asynchronous
        assert ("does not begin TLS" if sentinel else "did not begin TLS in time") in str(refusal(storage))


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_connection_that_is_not_opened_in_time_counts_once(scheme: str) -> None:
    """Both the caller and the connection have a time-out; it is one failure."""
    with socket.create_server((HOST, 0)) as silent:
        uri = f"{scheme}://{HOST}:{silent.getsockname()[1]}?protocol=3"
        made = AsyncRedisStorage(uri, timeout=0.3, circuit=rarely(9))
        with Both(made) as storage:
            for number in (1, 2, 3):
                refusal(storage)
                storage._loop.run_until_complete(asyncio.sleep(0.05))  # type: ignore[union-attr]  # as above
                # None at all if the event loop was late.
                assert made.breaker.failures <= number


@both
def test_no_tls_to_a_port_with(valkey: Valkey, context: ssl.SSLContext, opened: Callable[..., Any]) -> None:
    """A connection that breaks before the first answer may have met TLS; the outcome stays unknown."""
    with (
        Front(valkey, context) as front,
        Both(opened(f"redis://{HOST}:{front.port}", timeout=PATIENT, circuit=rarely(2))) as storage,
    ):
        for number in range(4):
            error = refusal(storage)
            assert "If this port expects TLS, use rediss://" in str(error)
            assert ("it is not known whether this took effect" in str(error)) is (number < 2)


@both
def test_a_connection_that_has_answered_needs_no_tls(valkey: Valkey, opened: Callable[..., Any]) -> None:
    """Nothing is said about TLS where it cannot be the reason."""
    with Proxy(valkey.port) as proxy, Both(opened(proxy.url, timeout=PATIENT)) as storage:
        key = f"notify:{{answered{opened.__name__}}}:news:m"
        storage.acquire([WINDOW], [key], 1)
        proxy.losing = "all"
        with pytest.raises(StorageError, match="it is not known whether this took effect") as caught:
            storage.acquire([WINDOW], [key], 1)

    assert "TLS" not in str(caught.value)


@both
def test_tls_that_works(valkey: Valkey, context: ssl.SSLContext, trusted: Path, opened: Callable[..., Any]) -> None:
    """With the authority's file in the URI."""
    with Front(valkey, context) as front:
        uri = f"rediss://{HOST}:{front.port}/0?ssl_ca_certs={trusted}"
        with Both(opened(uri, timeout=PATIENT)) as storage:
            assert storage.acquire([WINDOW], [f"notify:{{tls{opened.__name__}}}:news:m"], 1).granted


@both
def test_a_certificate_that_is_not_trusted(valkey: Valkey, context: ssl.SSLContext, opened: Callable[..., Any]) -> None:
    """It is an answer, and sent is nothing."""
    with (
        Front(valkey, context) as front,
        Both(opened(f"rediss://{HOST}:{front.port}", timeout=PATIENT, circuit=rarely(1))) as storage,
    ):
        for _ in range(2):
            error = refusal(storage)
            assert "The certificate of the Redis server is not trusted (" in str(error)
            assert "?ssl_ca_certs=/path/to/ca.pem" in str(error)
            assert isinstance(error, AccessRefused)
            assert closed(storage)


@both
def test_a_server_that_wants_a_certificate(
    valkey: Valkey, context: ssl.SSLContext, authority: trustme.CA, trusted: Path, opened: Callable[..., Any]
) -> None:
    """Redis wants one by default."""
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with Front(valkey, context) as front:
        uri = f"rediss://{HOST}:{front.port}/0?ssl_ca_certs={trusted}"
        with Both(opened(uri, timeout=PATIENT, circuit=None)) as storage:
            # The first bytes may be written before the server's refusal has come.
            wait_for("it is said", lambda: "requires a certificate of the client" in str(refusal(storage)))
    text = authority.issue_cert("ana.example").private_key_and_cert_chain_pem
    text.write_to_path(str(trusted.with_name("client.pem")))
    with Front(valkey, context) as front:
        both_files = f"ssl_certfile={trusted.with_name('client.pem')}&ssl_keyfile={trusted.with_name('client.pem')}"
        uri = f"rediss://{HOST}:{front.port}/0?ssl_ca_certs={trusted}&{both_files}"
        with Both(opened(uri, timeout=PATIENT)) as storage:
            assert storage.acquire([WINDOW], [f"notify:{{client{opened.__name__}}}:news:m"], 1).granted


@both
def test_tls_to_a_cluster_without(guarded_cluster: Cluster, opened: Callable[..., Any]) -> None:
    """What the last server did is said."""
    uri = guarded_cluster.url.replace("redis+cluster://", "rediss+cluster://")
    with Both(opened(uri, timeout=0.5)) as storage:
        assert "Does this port speak TLS? If not, use redis://, redis+cluster://" in str(refusal(storage))


# --- The guide ------------------------------------------------------------------------------------------------------


def documented_acl() -> list[str]:
    """The command of the guide that makes a user."""
    guide = Path(__file__).parent.parent / "docs" / "how-to" / "redis.md"
    (line,) = [line for line in guide.read_text("utf-8").splitlines() if line.startswith("ACL SETUSER limits ")]
    return line.split()


@both
def test_the_acl_of_the_guide_suffices(start_valkey: Callable[..., Valkey], opened: Callable[..., Any]) -> None:
    """For decisions, releases, `clear`, `check` and `reset`, on the keys of the default namespace; with SELECT, elsewhere."""
    server = start_valkey()
    with server.client() as client:
        client.execute_command(*documented_acl())
    windows = [
        Window(strategy, 10, 60 * MICROSECONDS, rule="news")
        for strategy in ("moving-window", "fixed-window", "sliding-window-counter")
    ]
    keys = [f"notify:{{ana}}:news:{window.strategy[0]}" for window in windows]
    with Both(opened(f"redis://limits:password@{server.address}", timeout=PATIENT)) as storage:
        verdict = storage.acquire(windows, keys, 1)
        storage.acquire_many([Request(windows, keys, 1)] * 300)
        storage.peek(windows, keys, 1)
        assert storage.release(windows, keys, 1, [reading.token for reading in verdict.readings])
        assert storage.forget(windows, keys) == 3
        assert storage.check()
        assert storage.reset() is not None
    with Both(opened(f"redis://limits:password@{server.address}/3", timeout=PATIENT)) as storage:
        assert "may not run SELECT" in str(refusal(storage))
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "limits", "+select")
        assert storage.acquire(windows, keys, 1).granted


@both
def test_the_acl_of_the_guide_suffices_on_a_cluster(guarded_cluster: Cluster, opened: Callable[..., Any]) -> None:
    """With the two commands that a cluster needs besides."""
    for member in guarded_cluster.members:
        with member.client(password="s3cret") as client:
            client.execute_command(*documented_acl(), "+cluster|slots", "+asking")
    uri = guarded_cluster.url.replace("://", "://limits:password@")
    with Both(opened(uri, timeout=PATIENT)) as storage:
        assert storage.acquire([WINDOW], [f"notify:{{guide{opened.__name__}}}:news:m"], 1).granted
        assert storage.check()
