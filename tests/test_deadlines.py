"""`timeout=` bounds the whole of a decision, whatever it is that keeps its answer back, and a batch gives up as a whole."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest
from redis.crc import key_slot

from cluster_servers import Cluster, Watched, cluster_servers, sentinel_servers
from limiting import LIMITERS
from proxy import Proxy
from ratelimited_notify import AsyncLimiter, AsyncNotifier, Limiter, Notifier, Rule
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis.cluster import RedisClusterStorage
from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Valkey

TIMEOUT = 0.5
SLACK = 0.35
"""Seconds beyond the time-out that a busy machine may take; 0.05 is what is promised."""
DRIP = 0.2
"""Seconds before each byte: no answer is so short that it comes in time."""
GIVEN_UP = 8 * TIMEOUT
"""Seconds after which the test mends what it broke, so that a call which takes many time-outs ends."""
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
NAME = "several.test"
RULES = {"news": "1000000/day"}

_numbers = itertools.count()

both_kinds = pytest.mark.parametrize("kind", list(LIMITERS))
both_servers = pytest.mark.parametrize("backend", ["redis", "memcached"])


def someone() -> str:
    """A recipient that no other test has."""
    return f"recipient-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> Callable[..., float]:
    """How long a call takes, which goes into the report; what the test broke is mended when it takes many time-outs."""

    def measured(call: Callable[[], object], mend: Callable[[], object]) -> float:
        ended: list[float] = []
        raised: list[BaseException] = []

        def timed() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # raised again below
                raised.append(error)
            ended.append(time.monotonic())

        begun = time.monotonic()
        thread = threading.Thread(target=timed)
        thread.start()
        thread.join(GIVEN_UP)
        mend()
        thread.join()
        took = ended[0] - begun
        request.node.user_properties.append(("seconds", round(took, 3)))
        # What came only because the test gave up says nothing.
        if raised and took < GIVEN_UP:
            raise raised[0]
        return took

    return measured


def at_once(calls: dict[Any, Callable[[], object]], took: dict[Any, float]) -> None:
    """Make these calls at the same time, and say how long each of them took."""

    def timed(name: Any) -> None:
        begun = time.monotonic()
        calls[name]()
        took[name] = time.monotonic() - begun

    with ThreadPoolExecutor(len(calls)) as threads:
        list(threads.map(timed, calls))


@pytest.fixture
def limiter(kind: str) -> Iterator[Callable[..., Any]]:
    """Make a limiter of the kind that the test is about, with a short time-out; it is closed after the test."""
    made: list[Any] = []

    def make(storage: Any, rules: Any = RULES, **options: Any) -> Any:
        made.append(LIMITERS[kind](rules, storage, **{"timeout": TIMEOUT, "on_storage_error": "deny", **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def proxy(request: pytest.FixtureRequest, backend: str) -> Iterator[Proxy]:
    """A proxy before the server that all tests share."""
    with Proxy(request.getfixturevalue("valkey" if backend == "redis" else "memcached").port) as made:
        yield made


def uri_of(backend: str, proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0" if backend == "redis" else f"memcached://127.0.0.1:{proxy.port}"


def mended(proxy: Proxy) -> None:
    """Let everything pass, at once."""
    proxy.delay = proxy.drip = None
    proxy.silent = False
    proxy.cut()


def uncounted(decision: Any) -> None:
    """Nothing was said by the storage."""
    assert decision.error is not None


# --- One answer that does not come ----------------------------------------------------------------------------------

REDIS_PHASES = ("greeting", "AUTH", "SELECT", "EVAL")


@both_kinds
def test_each_step_on_the_way_to_an_answer(
    start_valkey: Callable[..., Valkey], limiter: Any, seconds: Any, kind: str
) -> None:
    """Greeting, password, database and script: however late the server's bytes come, a decision takes one time-out."""
    server, proxies, took = start_valkey(), {}, {}
    with ExitStack() as ending, server.client() as client:
        client.config_set("requirepass", "secret")
        calls = {}
        for phase, how in itertools.product(REDIS_PHASES, ("drips", "silent")):
            # With an address of its own, so that no circuit is shared.
            proxy = proxies[phase, how] = ending.enter_context(Proxy(server.port))
            proxy.since = b"" if phase == "greeting" else phase.encode()
            if how == "drips":
                proxy.drip = DRIP
            else:
                proxy.silent = True
            deciding = limiter(f"redis://:secret@127.0.0.1:{proxy.port}/5")
            calls[phase, how] = lambda deciding=deciding: uncounted(deciding.hit("news", someone()))

        seconds(lambda: at_once(calls, took), lambda: [mended(proxy) for proxy in proxies.values()])

    assert took.keys() == calls.keys()
    assert {step: each for step, each in took.items() if each > TIMEOUT + SLACK} == {}


VERBS = ("hit", "test", "windows", "clear", "release", "hit_many")


@both_kinds
@both_servers
@pytest.mark.parametrize("how", ["drips", "silent"])
def test_each_verb_on_an_open_connection(
    request: pytest.FixtureRequest, limiter: Any, seconds: Any, backend: str, kind: str, how: str
) -> None:
    """Every verb of a limiter gives up after the time-out, also on a connection that worked a moment ago."""
    port, recipient = request.getfixturevalue("valkey" if backend == "redis" else "memcached").port, someone()
    proxies, calls, took = [], {}, {}

    def refused(verb: str, deciding: Any, decision: Any) -> None:
        arguments = {"release": (decision,), "hit_many": ("news", [recipient])}.get(verb, ("news", recipient))
        with pytest.raises(StorageError):
            getattr(deciding, verb)(*arguments)

    with ExitStack() as ending:
        for verb in VERBS:
            # With an address of its own, so that no circuit is shared.
            proxies.append(ending.enter_context(Proxy(port)))
            deciding = limiter(uri_of(backend, proxies[-1]), on_storage_error="raise")
            calls[verb] = partial(refused, verb, deciding, deciding.hit("news", recipient))
        for proxy in proxies:
            if how == "drips":
                proxy.drip = DRIP
            else:
                proxy.silent = True
        seconds(lambda: at_once(calls, took), lambda: [mended(proxy) for proxy in proxies])

    assert took.keys() == calls.keys()
    assert {verb: each for verb, each in took.items() if each > TIMEOUT + SLACK} == {}


@both_kinds
def test_a_script_that_the_server_does_not_know(valkey: Valkey, limiter: Any, seconds: Any, kind: str) -> None:
    """A script that has to be sent again, after NOSCRIPT, is part of the same decision."""
    with Proxy(valkey.port) as proxy, valkey.client() as client:
        deciding = limiter(f"redis://127.0.0.1:{proxy.port}/0")
        assert deciding.hit("news", someone()).error is None
        client.script_flush()
        proxy.delay = lambda: 0.94 * TIMEOUT

        took = seconds(lambda: uncounted(deciding.hit("news", someone())), lambda: mended(proxy))

    assert took <= TIMEOUT + SLACK


@pytest.mark.parametrize("backend", ["memcached"])
@both_kinds
def test_a_batch_has_one_deadline_on_memcached(
    proxy: Proxy, limiter: Any, seconds: Any, backend: str, kind: str
) -> None:
    """100 recipients, asked about one after another on a slow link, take one time-out and not one each,
    and one more at most to be given back.
    """
    deciding = limiter(uri_of(backend, proxy))
    assert deciding.hit("news", someone()).error is None
    proxy.delay = lambda: 0.1

    def call() -> None:
        decisions = deciding.hit_many("news", [someone() for _ in range(100)])
        assert any(decision.error is not None for decision in decisions)

    took = seconds(call, lambda: mended(proxy))

    assert took <= 2 * TIMEOUT + SLACK


# --- Connecting -----------------------------------------------------------------------------------------------------


@contextmanager
def deaf(hosts: tuple[str, ...]) -> Iterator[int]:
    """A port of these addresses where nobody gets through: whoever connects is left waiting."""
    with ExitStack() as ending:
        port = 0
        for host in hosts:
            listener = ending.enter_context(socket.socket())
            listener.bind((host, port))
            listener.listen(0)
            port = listener.getsockname()[1]
            # The kernel completes a connection or two, and drops whatever comes while nobody accepts these.
            for _ in range(4):
                waiting = ending.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((host, port))
        yield port


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name with several addresses."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host not in (NAME, NAME.encode()):
            return resolve(host, *arguments, **options)
        options.pop("flags", None)
        return [one for each in HOSTS for one in resolve(each, *arguments[:4], **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@both_kinds
@both_servers
@pytest.mark.parametrize("hosts", [HOSTS[:1], HOSTS], ids=["one", "several"])
def test_addresses_where_nobody_gets_through(
    named: None, limiter: Any, seconds: Any, kind: str, backend: str, hosts: tuple[str, ...]
) -> None:
    """All addresses of a host name together have one time-out."""
    with deaf(hosts) as port:
        deciding = limiter(f"{backend}://{NAME if len(hosts) > 1 else hosts[0]}:{port}")

        took = seconds(lambda: uncounted(deciding.hit("news", someone())), lambda: None)

    assert took <= TIMEOUT + SLACK


@both_kinds
@both_servers
def test_addresses_that_accept_and_say_nothing(
    request: pytest.FixtureRequest, named: None, limiter: Any, seconds: Any, kind: str, backend: str
) -> None:
    """An address that accepts and says nothing takes its part of the time-out, and leaves none over for the others."""
    server = request.getfixturevalue("valkey" if backend == "redis" else "memcached")
    with Proxy(server.port, HOSTS) as proxy:
        proxy.silent = True
        deciding = limiter(f"{backend}://{NAME}:{proxy.port}")

        took = seconds(lambda: uncounted(deciding.hit("news", someone())), lambda: mended(proxy))

    assert took <= TIMEOUT + SLACK


# --- Waiting for others ---------------------------------------------------------------------------------------------


@both_kinds
@both_servers
def test_waiting_for_a_place(proxy: Proxy, seconds: Any, kind: str, backend: str) -> None:
    """Eight callers and one connection to a slow server: who waits for the others gives up when the time-out is over."""
    uri = uri_of(backend, proxy) + ("?max_connections=1" if backend == "redis" else "")
    options: Any = {"timeout": TIMEOUT, "on_storage_error": "deny"}
    recipient = someone()
    times: list[float] = []

    def with_threads() -> None:
        with Limiter(RULES, uri, **options) as limiter:
            assert limiter.hit("news", recipient).error is None
            proxy.delay = lambda: 0.4

            def call() -> None:
                begun = time.monotonic()
                limiter.hit("news", recipient)
                times.append(time.monotonic() - begun)

            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async def with_tasks() -> None:
        async with AsyncLimiter(RULES, uri, **options) as limiter:
            assert (await limiter.hit("news", recipient)).error is None
            proxy.delay = lambda: 0.4

            async def call() -> None:
                begun = time.monotonic()
                await limiter.hit("news", recipient)
                times.append(time.monotonic() - begun)

            await asyncio.gather(*(call() for _ in range(8)))

    seconds(with_threads if kind == "sync" else lambda: asyncio.run(with_tasks()), lambda: mended(proxy))

    assert max(times) <= TIMEOUT + SLACK


# --- Clusters and Sentinels -----------------------------------------------------------------------------------------


class Tunnelled:
    """A cluster of three masters, with a proxy before each."""

    def __init__(self) -> None:
        self.cluster: Cluster = cluster_servers(3, 0, node_timeout=60_000)
        self.members = self.cluster.members
        self.proxies = {member.port: Proxy(member.port) for member in self.members}

    def storage(self, kind: str) -> Any:
        """A storage that reaches the cluster through the proxies."""
        uri = "redis+cluster://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies.values())
        made = RedisClusterStorage if kind == "sync" else AsyncRedisClusterStorage
        # Without a circuit, which a test before this one would have left open.
        remap = lambda at: (at[0], self.proxies[at[1]].port)  # noqa: E731  # short
        return made(uri, timeout=TIMEOUT, address_remap=remap, circuit=None)

    def mend(self) -> None:
        """Let everything pass, everywhere."""
        for proxy in self.proxies.values():
            mended(proxy)

    def somebody_of(self, port: int, *others: str) -> str:
        """A recipient whose windows lie on this server."""
        while True:
            name = someone()
            if name not in others and self.cluster.master_of(key_slot(name.encode())).port == port:
                return name

    def holders(self, pattern: str) -> list[int]:
        """The ports of the servers that have keys like this."""
        return [member.port for member in self.members if member.command_line("KEYS", pattern)]


@pytest.fixture(scope="module")
def tunnelled_cluster() -> Iterator[Tunnelled]:
    """The cluster of these tests."""
    made = Tunnelled()
    yield made
    for proxy in made.proxies.values():
        proxy.close()
    made.cluster.remove()


@pytest.fixture
def tunnelled(tunnelled_cluster: Tunnelled) -> Iterator[Tunnelled]:
    """The same, with everything passing before and after."""
    tunnelled_cluster.mend()
    yield tunnelled_cluster
    tunnelled_cluster.mend()


@pytest.fixture
def storage(tunnelled: Tunnelled, kind: str) -> Iterator[Any]:
    """A storage on it, of the kind that the test is about."""
    made = tunnelled.storage(kind)
    yield made
    if kind == "sync":
        made.close()


@both_kinds
@pytest.mark.parametrize("how", ["drips", "silent"])
def test_a_cluster_that_says_nothing(
    tunnelled: Tunnelled, storage: Any, limiter: Any, seconds: Any, kind: str, how: str
) -> None:
    """BaseLimiter one server after another who has the slot takes one time-out, for all of them."""
    for proxy in tunnelled.proxies.values():
        if how == "drips":
            proxy.drip = DRIP
        else:
            proxy.silent = True
    deciding = limiter(storage)

    took = seconds(lambda: uncounted(deciding.hit("news", someone())), tunnelled.mend)

    assert took <= TIMEOUT + SLACK


@both_kinds
@pytest.mark.parametrize("how", ["drips", "silent"])
def test_a_master_that_says_nothing(
    tunnelled: Tunnelled, storage: Any, limiter: Any, seconds: Any, kind: str, how: str
) -> None:
    """One master that does not answer any more costs its recipients one time-out, and those of the others nothing."""
    first, second, _ = tunnelled.members
    victim, spared = tunnelled.somebody_of(first.port), tunnelled.somebody_of(second.port)
    deciding = limiter(storage)
    assert deciding.hit("news", victim).error is None
    assert deciding.hit("news", spared).error is None
    if how == "drips":
        tunnelled.proxies[first.port].drip = DRIP
    else:
        tunnelled.proxies[first.port].silent = True

    took = seconds(lambda: uncounted(deciding.hit("news", victim)), lambda: mended(tunnelled.proxies[first.port]))
    assert deciding.hit("news", spared).error is None

    assert took <= TIMEOUT + SLACK


@both_kinds
def test_moved_to_a_server_that_says_nothing(
    tunnelled: Tunnelled, storage: Any, limiter: Any, seconds: Any, kind: str
) -> None:
    """A redirection is part of the same decision: a slow server that sends on to a silent one takes one time-out."""
    old, new, _ = tunnelled.members
    victim = tunnelled.somebody_of(old.port)
    deciding = limiter(storage)
    assert deciding.hit("news", victim).error is None
    deciding.clear("news", victim)
    slot = key_slot(victim.encode())
    for member in (new, old):
        member.command_line("CLUSTER SETSLOT", slot, "NODE", new.command_line("CLUSTER MYID"))
    tunnelled.proxies[old.port].delay = lambda: 0.8 * TIMEOUT
    tunnelled.proxies[new.port].silent = True

    took = seconds(lambda: uncounted(deciding.hit("news", victim)), tunnelled.mend)

    assert took <= TIMEOUT + SLACK


@both_kinds
def test_both_halves_of_a_decision(tunnelled: Tunnelled, storage: Any, limiter: Any, seconds: Any, kind: str) -> None:
    """A recipient's window on a slow master and a shared one on a silent master: one time-out, for both."""
    rules = [Rule("news", "1000000/day"), Rule("news", "1000000/day", by=(), name="everybody")]
    deciding = limiter(storage, rules, namespace=f"halves-{kind}")
    pilot = someone()
    assert deciding.hit("news", pilot).error is None
    (shared,) = set(tunnelled.holders(f"halves-{kind}:*everybody*"))
    own = next(member.port for member in tunnelled.members if member.port != shared)
    recipient = tunnelled.somebody_of(own)
    assert deciding.hit("news", recipient).error is None
    tunnelled.proxies[own].delay = lambda: 0.9 * TIMEOUT
    tunnelled.proxies[shared].silent = True

    took = seconds(lambda: uncounted(deciding.hit("news", recipient)), tunnelled.mend)

    assert took <= TIMEOUT + SLACK


@pytest.fixture(scope="module")
def hanging_watched() -> Iterator[Watched]:
    """The Sentinels of these tests, and what they watch."""
    made = sentinel_servers(down_after=60_000)
    yield made
    made.remove()


@both_kinds
@pytest.mark.parametrize("who", ["sentinels", "master", "two sentinels and master", "all"])
def test_sentinels_and_masters_that_hang(
    hanging_watched: Watched, limiter: Any, seconds: Any, kind: str, who: str
) -> None:
    """Finding the master and asking it take one time-out together."""
    master = hanging_watched.master()
    hanging: list[Any] = [] if who == "master" else hanging_watched.sentinels[: 2 if "two" in who else 3]
    hanging = hanging if who == "sentinels" else [*hanging, master]

    def resume() -> None:
        for server in hanging:
            server.resume()

    deciding = limiter(hanging_watched.url)
    for server in hanging:
        server.pause()
    try:
        took = seconds(lambda: uncounted(deciding.hit("news", someone())), resume)
    finally:
        resume()

    assert took <= TIMEOUT + SLACK


# --- Notifiers ------------------------------------------------------------------------------------------------------


class Sender:
    """A notifier of either world, called in one way."""

    def __init__(self, kind: str, gateway: Callable[[Any], None], uri: str, **options: Any) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None

        async def awaited(recipient: Any) -> None:
            gateway(recipient)

        made: Any = Notifier if self._runner is None else AsyncNotifier
        self._notifier = made(gateway if self._runner is None else awaited, RULES, uri, timeout=TIMEOUT, **options)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._notifier, name)
        runner = self._runner
        return verb if runner is None else lambda *arguments: runner.run(verb(*arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._runner is not None:
            self._runner.close()


@both_kinds
@both_servers
@pytest.mark.parametrize("how", ["drips", "silent"])
def test_giving_back_after_a_failed_send(proxy: Proxy, seconds: Any, kind: str, backend: str, how: str) -> None:
    """A gateway that failed, and a server that does not take the hit back any more: one time-out, and the gateway's error."""

    class Refused(Exception):
        pass

    def gateway(recipient: Any) -> None:
        if how == "drips":
            proxy.drip = DRIP
        else:
            proxy.silent = True
        raise Refused

    with Sender(kind, gateway, uri_of(backend, proxy)) as sender:

        def call() -> None:
            with pytest.raises(Refused):
                sender.send("news", someone())

        took = seconds(call, lambda: mended(proxy))

    assert took <= TIMEOUT + SLACK


CHOICES = ("allow", "deny", "raise")


@both_kinds
@both_servers
def test_a_newsletter_gives_up_as_a_whole(
    request: pytest.FixtureRequest, seconds: Any, kind: str, backend: str
) -> None:
    """2,500 recipients and a server that hangs: after the second group that failed nothing is waited for any more."""
    port = request.getfixturevalue("valkey" if backend == "redis" else "memcached").port
    sent: dict[str, list[Any]] = {choice: [] for choice in CHOICES}
    deliveries: dict[str, list[Any]] = {}
    proxies, calls, took = [], {}, {}

    def send(choice: str, sender: Sender) -> None:
        deliveries[choice] = sender.send_many("news", [someone() for _ in range(2500)])

    with ExitStack() as ending:
        for choice in CHOICES:
            # With an address of its own, so that no circuit is shared.
            proxies.append(ending.enter_context(Proxy(port)))
            uri = uri_of(backend, proxies[-1])
            sender = ending.enter_context(Sender(kind, sent[choice].append, uri, on_storage_error=choice))
            assert sender.send("news", someone())
            calls[choice] = partial(send, choice, sender)
        for proxy in proxies:
            proxy.silent = True

        seconds(lambda: at_once(calls, took), lambda: [mended(proxy) for proxy in proxies])

    # The gateway is called, too, where that is allowed.
    # Ten groups would take ten time-outs.
    assert {choice: each for choice, each in took.items() if each > 2 * TIMEOUT + SLACK + 1.5} == {}
    assert {choice: len(each) for choice, each in deliveries.items()} == dict.fromkeys(CHOICES, 2500)
    assert {choice: len(each) for choice, each in sent.items()} == {"allow": 2501, "deny": 1, "raise": 1}


@both_kinds
@both_servers
def test_many_decisions_give_up_as_a_whole(
    request: pytest.FixtureRequest, limiter: Any, seconds: Any, kind: str, backend: str
) -> None:
    """2,500 decisions at once and a server that hangs: two time-outs at most, and one where the first error is raised."""
    port = request.getfixturevalue("valkey" if backend == "redis" else "memcached").port
    proxies, calls, took = [], {}, {}

    def decide(choice: str, deciding: Any) -> None:
        recipients = [someone() for _ in range(2500)]
        if choice == "raise":
            with pytest.raises(StorageError):
                deciding.hit_many("news", recipients)
        else:
            decisions = deciding.hit_many("news", recipients)
            assert {decision.allowed for decision in decisions} == {choice == "allow"}

    with ExitStack() as ending:
        for choice in CHOICES:
            # With an address of its own, so that no circuit is shared.
            proxies.append(ending.enter_context(Proxy(port)))
            deciding = limiter(uri_of(backend, proxies[-1]), on_storage_error=choice)
            assert deciding.hit("news", someone()).error is None
            calls[choice] = partial(decide, choice, deciding)
        for proxy in proxies:
            proxy.silent = True

        seconds(lambda: at_once(calls, took), lambda: [mended(proxy) for proxy in proxies])

    assert took.keys() == calls.keys()
    assert {
        choice: each for choice, each in took.items() if each > (1 if choice == "raise" else 2) * TIMEOUT + SLACK
    } == {}
