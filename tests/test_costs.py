"""What a decision costs, as far as noise cannot blur it: commands, round trips, threads, modules, memory.

How long things take is measured by `make bench`.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from proxy import HOST, Proxy
from ratelimited_notify import AsyncLimiter, Limiter, Notifier, Rule, rate_limited
from ratelimited_notify.pytest_plugin import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Memcached, Valkey

pytestmark = pytest.mark.slow

DAY = 24 * 60 * 60

ONE = [Rule("news", "5/day")]
THREE = [Rule("news", "5/day"), Rule("new*", "10 per 7 days"), Rule("*", "20/month", by="recipient")]
MIXED = [
    Rule("news", "5/day", strategy="fixed-window"),
    Rule("new*", "10 per 7 days", strategy="sliding-window-counter"),
    Rule("*", "20/month", by=()),
]

each_rules = pytest.mark.parametrize("rules", [ONE, THREE, MIXED], ids=["one rule", "three rules", "mixed strategies"])

STEADY = 4096
"""Bytes that may be left over by thousands of calls: caches of the interpreter, not something that each call leaves."""


@pytest.fixture
def database(valkey: Valkey) -> Iterator[str]:
    """The URL of an empty database that nobody else uses."""
    client = valkey.client(db=9)
    yield f"redis://{valkey.address}/9"
    client.flushdb()
    client.close()


@pytest.fixture
def proxied(memcached: Memcached) -> Iterator[Proxy]:
    """A way to memcached that counts how often it is used."""
    with Proxy(memcached.port) as proxy:
        yield proxy


def _sent(valkey: Valkey, act: Callable[[], object]) -> int:
    """How many commands clients send to that database meanwhile, by what the server saw; a script's own do not count."""
    client = valkey.client(db=9)
    with client.monitor() as monitor:
        act()
        client.echo("done")
        sent = 0
        for seen in monitor.listen():
            if seen["command"] == "ECHO done":
                client.close()
                return sent
            sent += seen["client_type"] != "lua" and str(seen["db"]) == "9" and "SELECT" not in seen["command"]
    raise AssertionError("The server stopped telling.")


@each_rules
def test_a_decision_on_redis_is_one_command(valkey: Valkey, database: str, rules: list[Rule]) -> None:
    """Allowed or refused, by however many rules: one command, counted by the server."""
    with Limiter(rules, database, timeout=20) as limiter:
        limiter.hit("news", "before@example.com")
        verdicts: list[bool] = []

        sent = _sent(valkey, lambda: verdicts.extend(bool(limiter.hit("news", "ana@example.com")) for _ in range(8)))

    assert (verdicts.count(True), verdicts.count(False), sent) == (5, 3, 8)


@each_rules
def test_a_decision_on_redis_is_one_command_for_asyncio(valkey: Valkey, database: str, rules: list[Rule]) -> None:
    """The same with tasks that ask at once."""

    async def ask() -> tuple[int, int]:
        async with AsyncLimiter(rules, database, timeout=20) as limiter:
            await limiter.hit("news", "before@example.com")

            async def hits() -> int:
                return sum([bool(one) for one in await asyncio.gather(*(limiter.hit("news", "ana") for _ in range(8)))])

            loop = asyncio.get_running_loop()
            allowed: list[int] = []

            def act() -> None:
                allowed.append(asyncio.run_coroutine_threadsafe(hits(), loop).result(30))

            return await asyncio.to_thread(_sent, valkey, act), allowed[0]

    assert asyncio.run(ask()) == (8, 5)


def test_a_release_on_redis_is_one_command(valkey: Valkey, database: str) -> None:
    """A hit is given back in all of its windows by one command."""
    with Limiter(THREE, database, timeout=20) as limiter:
        limiter.release(limiter.hit("news", "before@example.com"))
        decision = limiter.hit("news", "ana@example.com")

        assert _sent(valkey, lambda: limiter.release(decision)) == 1


def test_a_batch_on_redis_is_a_command_for_hundreds(valkey: Valkey, database: str) -> None:
    """`hit_many` asks the server about hundreds of recipients at once."""
    people = [f"person.{number}@example.com" for number in range(1000)]
    with Limiter(THREE, database, timeout=20) as limiter:
        limiter.hit_many("news", ["before@example.com"])

        assert _sent(valkey, lambda: limiter.hit_many("news", people)) <= 10


@each_rules
def test_a_decision_on_memcached_is_two_round_trips(proxied: Proxy, rules: list[Rule]) -> None:
    """Uncontended, one record is read and written; a refusal only reads."""
    own = [rule for rule in rules if rule.by]
    with Limiter(own, f"memcached://{HOST}:{proxied.port}", namespace="costs", timeout=20) as limiter:
        recipient = f"{len(own)}.{own[0].strategy}@example.com"
        limiter.hit("news", "before@example.com")
        proxied.requests = 0

        for _ in range(5):
            assert limiter.hit("news", recipient)
        allowed, proxied.requests = proxied.requests, 0
        assert not limiter.hit("news", recipient)

    assert (allowed, proxied.requests) == (10, 1)


def test_a_decision_on_memcached_is_two_round_trips_for_asyncio(proxied: Proxy) -> None:
    """The same, awaited."""

    async def ask() -> int:
        async with AsyncLimiter(THREE, f"memcached://{HOST}:{proxied.port}", namespace="acosts", timeout=20) as limiter:
            await limiter.hit("news", "ana@example.com")
            proxied.requests = 0
            for _ in range(4):
                assert await limiter.hit("news", "ana@example.com")
            return proxied.requests

    assert asyncio.run(ask()) == 8


@pytest.mark.parametrize("backend", ["memory", "redis", "memcached"])
def test_no_thread_is_started(backend: str, valkey: Valkey, memcached: Memcached) -> None:
    """Deciding, sending, giving back and closing start no thread, on any backend."""
    uri = {"memory": "memory://", "redis": valkey.url, "memcached": memcached.url}[backend]
    before = set(threading.enumerate())
    started: list[threading.Thread] = []

    limiter = Limiter(THREE, uri, namespace="threads", timeout=20)
    notifier = Notifier(lambda recipient: started.extend(set(threading.enumerate()) - before), limiter=limiter)
    for number in range(200):
        notifier.send("news", f"person.{number % 20}@example.com")
        limiter.release(limiter.hit("news", "ana@example.com"))
    notifier.send_many("news", [f"person.{number}@example.com" for number in range(50)])
    started.extend(set(threading.enumerate()) - before)
    limiter.close()

    assert (started, set(threading.enumerate()) - before) == ([], set())


def _loaded(statement: str) -> set[str]:
    program = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*(sys.modules.keys() - before))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def _code_of(statement: str) -> int:
    """The bytes of compiled code that it loads."""
    program = (
        "import marshal, sys\n"
        "from importlib.machinery import SourceFileLoader\n"
        "before = set(sys.modules)\n"
        f"{statement}\n"
        "loaders = [(getattr(sys.modules[name], '__loader__', None), name) for name in sys.modules.keys() - before]\n"
        "codes = [one.get_code(name) for one, name in loaders if isinstance(one, SourceFileLoader)]\n"
        "print(sum(map(len, map(marshal.dumps, codes))))\n"
    )
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def test_the_import_loads_nothing_but_itself() -> None:
    """What an import costs is what it loads: of this package three modules, and of the standard library what typing needs."""
    loaded = _loaded("import ratelimited_notify")

    assert {name for name in loaded if name.startswith("ratelimited")} == {
        "ratelimited_notify",
        "ratelimited_notify._lazy",
        "ratelimited_notify._version",
    }
    other = {name for name in loaded if not name.startswith("ratelimited")}
    assert other - _loaded("import typing") <= {"__future__"}


def test_what_is_used_loads_less_than_two_thirds_of_what_limits_loads() -> None:
    """Also when a decorator and a limiter are taken from it. Code is what takes time to load, in however many files it is."""
    assert _code_of("from ratelimited_notify import Limiter, rate_limited") < _code_of("import limits") * 2 / 3


def test_windows_in_memory_load_no_client_of_a_server() -> None:
    """Who counts in memory does not pay for Redis, memcached, SMTP or a command line."""
    statement = "from ratelimited_notify import Limiter; Limiter({'news': '1/day'}).hit('news', 'ana')"
    clients = {"redis", "pymemcache", "memcachio", "aiosmtplib", "aiosmtpd", "typer", "rich", "coredis", "valkey"}

    assert _loaded(statement) & clients == set()


def _held(act: Callable[[], object]) -> int:
    """Bytes that are still held afterwards, of those that were allocated meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def _many(call: Callable[[str], object], *, recipients: int = 1, times: int = 3000) -> Callable[[], None]:
    names = [f"person.{number}@example.com" for number in range(recipients)]

    def act() -> None:
        for number in range(times):
            call(names[number % recipients])

    return act


def _asking(limiter: Limiter) -> Callable[[str], object]:
    return lambda recipient: limiter.hit("news", recipient)


def test_refusals_keep_nothing() -> None:
    """A recipient refused thousands of times costs no memory, whether by a decision, by dropping or by an exception."""
    limiter = Limiter(THREE, clock=Clock())
    for _ in range(5):
        limiter.hit("news", "person.0@example.com")

    @rate_limited("news", limiter=limiter, on_limit="drop")
    def drop(recipient: str) -> None:
        raise AssertionError("Sent.")

    @rate_limited("news", limiter=limiter)
    def refuse(recipient: str) -> None:
        raise AssertionError("Sent.")

    def refused(recipient: str) -> None:
        with pytest.raises(Exception, match="news"):
            refuse(recipient)

    for call in (_asking(limiter), drop, refused):
        _many(call, times=50)()
        assert _held(_many(call, times=1000)) < STEADY


def test_recipients_who_are_never_allowed_are_not_remembered() -> None:
    """Nobody fills the memory by asking for what is refused at the first hit."""
    limiter = Limiter({"news": "0/day"}, clock=Clock())
    ask = _many(_asking(limiter), recipients=3000)
    ask()

    assert _held(ask) < STEADY


def test_looking_keeps_nothing() -> None:
    """`test` and `windows` remember nobody."""
    limiter = Limiter(THREE, clock=Clock())
    look = _many(
        lambda recipient: (limiter.test("news", recipient), limiter.windows("news", recipient)), recipients=3000
    )
    look()

    assert _held(look) < STEADY


@pytest.mark.parametrize("strategy", ["moving-window", "fixed-window", "sliding-window-counter"])
def test_a_recipient_of_long_standing_grows_no_further(strategy: str) -> None:
    """However often somebody is notified, only what still counts is held."""
    clock = Clock()
    limiter = Limiter([Rule("news", "10/day", strategy=strategy)], clock=clock)

    def hit(recipient: str) -> None:
        clock.advance(DAY / 9)
        assert limiter.hit("news", recipient)

    _many(hit, times=100)()

    assert _held(_many(hit)) < STEADY


def test_memory_comes_back_when_recipients_have_gone() -> None:
    """What windows took is free again once they are over and others were decided about."""
    clock = Clock()
    limiter = Limiter(THREE, clock=clock)
    come = _many(_asking(limiter), recipients=4000, times=4000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        come()
        held = tracemalloc.get_traced_memory()[0] - before
        clock.advance(100 * DAY)
        _many(_asking(limiter), recipients=3, times=4000)()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    # The table of a dict keeps its size until it grows.
    assert left < held / 4


def _at_once(call: Callable[[], object]) -> int:
    """Bytes that one call holds at its peak, beyond what it leaves."""
    peaks = []
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(50):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            call()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
        gc.enable()
    return min(peaks)


def test_a_decision_in_memory_allocates_little() -> None:
    """A decorated call by three rules holds less than four kilobytes at its peak, allowed or refused; so also when it is traced."""
    limiter = Limiter(THREE, clock=Clock())
    moving, fixed = (
        Limiter([Rule(each, "100000/day", strategy=strategy) for each in ("news", "new*", "n*")])
        for strategy in ("moving-window", "fixed-window")
    )

    def send(recipient: str) -> None:
        """Send nothing."""

    calls = [rate_limited("news", limiter=each, on_limit="drop")(send) for each in (limiter, moving, fixed)]
    for call in calls:
        for _ in range(10):
            call("ana@example.com")

    assert max(_at_once(lambda call=call: call("ana@example.com")) for call in calls) < 4096


def test_decisions_on_redis_keep_nothing(database: str) -> None:
    """What a decision on Redis took in this process is free when the caller drops it."""
    with Limiter(THREE, database, timeout=20) as limiter:
        _many(_asking(limiter), recipients=20, times=100)()

        assert _held(_many(_asking(limiter), recipients=20, times=1000)) < STEADY


def test_many_costs_on_redis_are_not_kept_forever(database: str) -> None:
    """Calls that never come again do not pile up: what is prepared for them is bounded."""
    with Limiter({"news": "100000/day"}, database, timeout=20) as limiter:
        costs = iter(range(1, 5000))
        for _ in range(1500):
            limiter.test("news", "ana@example.com", cost=next(costs))
        held = _held(lambda: [limiter.test("news", "ana@example.com", cost=next(costs)) for _ in range(3000)] and None)

    assert held < 1_000_000
