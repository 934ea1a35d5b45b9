"""Keys that hold what somebody else wrote, and scripts that are stopped half-way: no hit is lost, and none is half counted."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import given, settings, strategies as st

from limiting import LIMITERS
from ratelimited_notify import Rule
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.replies import UnreadableWindow
from ratelimited_notify.storage.redis.stopped import COMMANDS
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.windows.strategies import MICROSECONDS, Mode, Request, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Valkey

MINUTE, DAY = 60 * MICROSECONDS, 24 * 3600 * MICROSECONDS
NOW = 1_800_000_000_000_000
LATEST, LARGEST = 2**53 - 2**51, 2**50
"""The highest instant and count that the library writes."""
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
PATIENT = 30.0

_numbers = itertools.count()


class ClockedStorage(RedisStorage):
    """By a clock that stands still until a test moves it."""

    _CLOCK_LUA = "local now = tonumber(call('GET', 'test:clock'))"


class World:
    """A server's database with a clock, and keys that no other test has."""

    def __init__(self, server: Valkey, database: int = 0, user: str = "") -> None:
        self.client = server.client(db=database)
        self.storage = ClockedStorage(f"redis://{user}{server.address}/{database}", timeout=PATIENT)
        self.at(NOW)
        self.name = f"odd-{os.getpid()}-{next(_numbers)}"

    def at(self, now: int) -> None:
        self.client.set("test:clock", now)

    def keys(self, windows: list[Window], recipient: str = "ana") -> list[str]:
        return [f"test:{{{self.name}-{recipient}}}:{n}:{one.strategy[0]}" for n, one in enumerate(windows)]

    def counts(self, windows: list[Window], keys: list[str]) -> list[int]:
        return [reading.count for reading in self.storage.peek(windows, keys, 1).readings]

    def close(self) -> None:
        self.storage.close()
        self.client.close()


@pytest.fixture
def world(valkey: Valkey) -> Iterator[World]:
    """A world on the server that all tests share."""
    made = World(valkey, 7)
    yield made
    made.close()


def window(strategy: Any, amount: int = 5, mode: Mode = Mode.ENFORCE, rule: str = "news") -> Window:
    return Window(strategy, amount, MINUTE, mode, rule=rule)


def three() -> list[Window]:
    return [window(strategy, rule=strategy) for strategy in STRATEGIES]


# --- What somebody else wrote ---------------------------------------------------------------------------------------

NUMBERS = [
    "",
    "abc",
    "inf",
    "-inf",
    "nan",
    "1e300",
    "-5",
    "-1",
    "1.5",
    "9007199254740993",
    "99999999999999999999",
    "0x",
    "\xff",
]
ELEMENTS = [
    *NUMBERS,
    "5:",
    ":5",
    "5:x",
    "5:-1",
    "5:7:",
    "5:7:x",
    "5:7:0",
    "5:7:-9",
    "5:7:9:",
    "5:7:9:0",
    "5:7:9:1",
    "5:7:9:11",
    "5:7:9:2:3",
    f"5:7:{2**51 + 1}",
    f"5:7:{2**51 + 1}:3",
    f"{NOW}:1e300",
    f"{NOW}:9007199254740993",
    f"{LATEST + 1}",
    f"{NOW}:{LATEST + 1}",
    f"{NOW}:",
    f"{NOW} 1",
]
RECORDS = {
    "fixed-window": [
        *NUMBERS,
        *(
            "5",
            "5:",
            ":5",
            "5:7:9",
            "5:-1",
            "-5:1",
            "5:1.5",
            "5:1e9",
            "inf:1",
            "1:inf",
            "nan:nan",
            " 5:1",
            "0x5:1",
            "5:1\n",
        ),
        *(f"{2**53}:1", f"{NOW}:{2**52}", f"{NOW}:{10**30}", f"{LATEST + 1}:1", f"{NOW}:{LARGEST + 1}"),
    ],
    "sliding-window-counter": [
        *NUMBERS,
        *(
            "5",
            "5:",
            "5:7",
            "5:7:",
            "5::7",
            "5:7:9:1",
            "5:-1:1",
            "5:1:1e9",
            "inf:1:1",
            "nan:nan:nan",
            " 5:1:1",
            "5:1:1\n",
        ),
        *(f"{2**53}:1:1", f"{NOW}:{2**52}:1", f"{NOW}:1:{2**52}", f"{NOW}:{10**30}:1"),
        *(f"{LATEST + 1}:1:1", f"{NOW}:{LARGEST + 1}:1", f"{NOW}:1:{LARGEST + 1}"),
    ],
}


def held(client: redis.Redis, key: str) -> bytes | None:
    return client.dump(key)


def put(client: redis.Redis, key: str, kind: str, text: str = "x") -> None:
    client.delete(key)
    match kind:
        case "string":
            client.set(key, text.encode("latin-1"))
        case "list":
            client.lpush(key, text.encode("latin-1"))
        case "hash":
            client.hset(key, "field", text)
        case "set":
            client.sadd(key, text)
        case "zset":
            client.zadd(key, {text: 1})
        case "stream":
            client.xadd(key, {"field": text})


TYPES = ["string", "list", "hash", "set", "zset", "stream"]
ODD: list[tuple[str, str, str]] = [
    *(("moving-window", "list", element) for element in ELEMENTS),
    *((strategy, "string", record) for strategy, records in RECORDS.items() for record in records),
    *(
        (strategy, kind, "x")
        for strategy in STRATEGIES
        for kind in TYPES
        if kind != ("list" if strategy == "moving-window" else "string")
    ),
]


@pytest.mark.parametrize("amount", [5, 100], ids=["short", "long"])
@pytest.mark.parametrize(("strategy", "kind", "text"), ODD)
def test_an_odd_key_is_an_error_and_clear_mends_it(
    world: World, strategy: str, kind: str, text: str, amount: int
) -> None:
    """Every verb names the rule and shows nothing, nothing is written anywhere; `clear` counts the key and mends it."""
    windows = [window("fixed-window", rule="beside"), window(strategy, amount, rule="odd"), window("moving-window")]
    keys = world.keys(windows)
    world.storage.acquire(windows[::2], keys[::2], 2)
    put(world.client, keys[1], kind, text)
    before = [held(world.client, key) for key in keys]
    several = [Request(windows[::2], keys[::2], 1), Request(windows, keys, 1), Request(windows[::2], keys[::2], 1)]
    for ask in (
        lambda: world.storage.acquire(windows, keys, 1),
        lambda: world.storage.acquire(windows[1:2], keys[1:2], 1),
        lambda: world.storage.peek(windows, keys, 1),
        lambda: world.storage.acquire_many(several),
    ):
        with pytest.raises(UnreadableWindow, match="The window of rule 'odd'") as raised:
            ask()
        assert world.name not in str(raised.value)
        assert [held(world.client, key) for key in keys] == before

    assert world.storage.forget(windows, keys) == 3
    assert world.counts(windows, keys) == [0, 0, 0]
    assert [reading.count for reading in world.storage.acquire(windows, keys, 1).readings] == [1, 1, 1]


@pytest.mark.parametrize("amount", [5, 100], ids=["short", "long"])
@pytest.mark.parametrize(
    ("strategy", "text", "count", "reset_at"),
    [
        ("moving-window", f"{LATEST}", 1, LATEST + MINUTE),
        ("moving-window", f"{LATEST}:{LATEST}", 1, LATEST + MINUTE),
        ("moving-window", f"{LATEST}:{LATEST}:{2**51}", 1, LATEST + MINUTE),
        ("moving-window", f"{LATEST}:{LATEST}:{2**51}:{2**51 + 1}", 2**51 + 1, LATEST + MINUTE),
        ("fixed-window", f"{LATEST}:{LARGEST}", LARGEST, LATEST),
        ("sliding-window-counter", f"{LATEST}:{LARGEST}:{LARGEST}", 2 * LARGEST, LATEST + 2 * MINUTE),
        ("pause", f"{LATEST}", 1, LATEST),
    ],
)
def test_the_highest_numbers_are_read(
    world: World, strategy: str, text: str, count: int, reset_at: int, amount: int
) -> None:
    """What this library may have written, at any time until 2184, is what it reads."""
    one = window(strategy, amount)
    (key,) = world.keys([one])
    put(world.client, key, "list" if strategy == "moving-window" else "string", text)
    reading = world.storage.peek([one], [key], 1).readings[0]

    assert (reading.count, reading.reset_at) == (count, reset_at)


@pytest.mark.parametrize("where", ["lpush", "rpush"])
@pytest.mark.parametrize("costs", [(1,), (3,), (1, 1, 4), (2, 1)], ids=str)
@pytest.mark.parametrize("kept", [1, 2, 3, 9, 10, 11, 40])
@pytest.mark.parametrize(
    "element",
    [
        *("5", "0", "abc", f"{NOW // 1000}", f"{NOW // 10**6}", f"{NOW - 2 * MINUTE}", f"{NOW}"),
        *("5:0:2", f"{NOW}:1:1", f"{NOW}:1:1000", f"{NOW}:1:1000:1001"),
    ],
)
def test_what_somebody_pushed_never_makes_room(
    world: World, kept: int, costs: tuple[int, ...], element: str, where: str
) -> None:
    """A list in which somebody else pushed a number, at whichever end: an error, or none of the hits is forgotten."""
    windows = [window("moving-window", 500)]
    keys = world.keys(windows)
    count = 0
    for number in range(kept):
        world.at(NOW - kept + number)
        cost = costs[number % len(costs)]
        world.storage.acquire(windows, keys, cost)
        count += cost
    world.at(NOW + 1)
    getattr(world.client, where)(keys[0], element)
    with suppress(UnreadableWindow):
        assert world.counts(windows, keys)[0] >= count
        assert world.storage.acquire(windows, keys, 1).readings[0].count >= count + 1
    # Where it is an error, nothing was trimmed.
    assert world.client.llen(keys[0]) >= kept


@pytest.mark.parametrize("amount", [5, 100], ids=["short", "long"])
def test_what_is_over_hides_nothing(world: World, amount: int) -> None:
    """An old stamp in front of hits that count, with older ones behind them: an error, not an empty window."""
    windows = [window("moving-window", amount)]
    keys = world.keys(windows)
    world.client.rpush(keys[0], NOW - 2 * MINUTE, NOW - 1, NOW - 2, NOW - 3 * MINUTE)
    for ask in (world.storage.acquire, world.storage.peek):
        with pytest.raises(UnreadableWindow):
            ask(windows, keys, 1)
    assert world.client.llen(keys[0]) == 4


@pytest.mark.parametrize("element", ["abc", "inf", "-5", "nan", f"{NOW - 5}.5", f"{NOW}:0:1:9"])
@pytest.mark.parametrize("size", [5, 15])
def test_what_is_odd_in_the_middle(world: World, element: str, size: int) -> None:
    """Where the time of the next hit depends on an entry that is odd, it is an error too."""
    windows = [window("moving-window", size)]
    keys = world.keys(windows)
    world.client.rpush(keys[0], *(NOW - number for number in range(size)))
    world.client.lset(keys[0], 2, element)
    for ask in (world.storage.acquire, world.storage.peek):
        with pytest.raises(UnreadableWindow, match="rule 'news'"):
            ask(windows, keys, size - 2)
    # Any other entry is a hit like the others.
    assert world.counts(windows, keys) == [size]


TEXTS = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=12),
    st.integers(NOW - 3 * MINUTE, NOW + 3 * MINUTE).map(str),
    st.lists(
        st.one_of(st.integers(-10, 10), st.integers(NOW - 2 * MINUTE, NOW + MINUTE), st.integers()), max_size=4
    ).map(lambda numbers: ":".join(map(str, numbers))),
)


@given(strategy=st.sampled_from(STRATEGIES), contents=st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=14)))
@settings(max_examples=300)
def test_any_contents_are_read_or_an_error(valkey: Valkey, strategy: Any, contents: str | list[str]) -> None:
    """Whatever a key holds, each verb answers or says that the window is odd, and `clear` leaves nothing of it."""
    world = World(valkey, 7)
    one = window(strategy)
    keys = world.keys([one])
    if isinstance(contents, str):
        world.client.set(keys[0], contents.encode("latin-1"))
    else:
        world.client.rpush(keys[0], *(text.encode("latin-1") for text in contents))
    with suppress(UnreadableWindow):
        world.storage.peek([one], keys, 1)
    with suppress(UnreadableWindow):
        verdict = world.storage.acquire([one], keys, 1)
        if verdict.granted:
            assert world.storage.release([one], keys, 1, [verdict.readings[0].token])
    with suppress(UnreadableWindow):
        world.storage.acquire_many([Request([one], keys, 1)] * 3)
    world.storage.forget([one], keys)

    assert not world.client.exists(keys[0])
    world.close()


def test_giving_back_beside_an_odd_window(world: World) -> None:
    """A window that has become odd keeps no other from its hit; the error says which it was."""
    windows = three()
    for number, one in enumerate(windows):
        keys = world.keys(windows, f"person-{number}")
        tokens = [reading.token for reading in world.storage.acquire(windows, keys, 2).readings]
        put(world.client, keys[number], "hash")
        with pytest.raises(UnreadableWindow, match=f"rule '{one.rule}'"):
            world.storage.release(windows, keys, 2, tokens)
        others = [place for place in range(3) if place != number]

        assert world.counts([windows[n] for n in others], [keys[n] for n in others]) == [0, 0]
        assert world.client.hgetall(keys[number]) == {b"field": b"x"}


@pytest.mark.parametrize("kind", LIMITERS)
def test_the_limiter_names_the_rule_and_clears(valkey: Valkey, kind: str) -> None:
    """What the user sees: the rule by its name, no address, `allow` and `deny` as chosen, and `clear` that mends it."""
    person = "ana@example.com"
    for said in ("raise", "allow", "deny"):
        namespace = f"odd-{os.getpid()}-{next(_numbers)}"
        rules = [Rule("news", "3/day", name="daily news"), Rule("*", "9/day", strategy="fixed-window", name="cap")]
        limiter = LIMITERS[kind](rules, valkey.url, namespace=namespace, on_storage_error=said, timeout=PATIENT)
        limiter.hit("news", person)
        with valkey.client() as client:
            (name,) = (key for key in client.keys(f"{namespace}*") if key.endswith(b":m"))
            client.lpush(name, "inf")
        if said == "raise":
            for verb, who in (("hit", person), ("test", person), ("hit_many", ["bo", person])):
                with pytest.raises(StorageError, match="rule 'daily news'") as raised:
                    getattr(limiter, verb)("news", who)
                assert "ana" not in str(raised.value)
        else:
            decision = limiter.hit("news", person)
            assert decision.allowed == (said == "allow")
            assert "daily news" in decision.error
        assert limiter.clear("news", person) == 2
        assert limiter.hit("news", person).remaining == 2
        # Of the batch that failed, nothing was counted.
        assert limiter.hit("news", "bo").remaining == 2
        limiter.close()


def test_an_odd_window_costs_no_connection(start_valkey: Callable[..., Valkey]) -> None:
    """The answer was understood: the connection goes on, and those who ask on it at the same time get their own answers."""
    server = start_valkey()
    one = window("fixed-window", 100)
    keys = [f"test:{{person-{number}}}:f" for number in range(60)]

    async def main() -> list[Any]:
        storage = AsyncRedisStorage(server.url, timeout=PATIENT)
        await storage.acquire([one], keys[-1:], 1)
        found = await asyncio.gather(
            *(storage.acquire([one], [key], 1) for key in keys for _ in range(3)),
            storage.acquire_many([Request([one], [key], 1) for key in keys]),
            return_exceptions=True,
        )
        await storage.close()
        return found

    with server.client() as client:
        client.set(keys[0], "x")
        client.set(keys[30], "x")
        *found, batch = asyncio.run(main())
        assert isinstance(batch, UnreadableWindow)
        for number, verdict in enumerate(found):
            if number // 3 in (0, 30):
                assert isinstance(verdict, UnreadableWindow)
            else:
                assert verdict.readings[0].count == number % 3 + 1 + (number // 3 == 59)
        storage = RedisStorage(server.url, timeout=PATIENT)
        storage.acquire([one], keys[1:2], 1)
        before = client.info("stats")["total_connections_received"]
        for _ in range(3):
            for ask in (storage.acquire, storage.peek):
                with pytest.raises(UnreadableWindow):
                    ask([one], keys[:1], 1)
            with pytest.raises(UnreadableWindow):
                storage.acquire_many([Request([one], keys[:1], 1)])
        assert storage.acquire([one], keys[1:2], 1).readings[0].count == 5
        assert client.info("stats")["total_connections_received"] == before
        storage.close()


@pytest.mark.parametrize("kind", LIMITERS)
def test_an_odd_window_on_a_cluster(cluster: Any, kind: str) -> None:
    """There too the rule is named, and what the others of the batch took is given back; `clear` mends it."""
    namespace = f"odd-{os.getpid()}-{next(_numbers)}"
    rules = [Rule("news", "3/day"), Rule("*", "1000/day", by=(), name="cap", strategy="fixed-window")]
    limiter = LIMITERS[kind](rules, cluster.url, namespace=namespace, timeout=PATIENT)
    people = [f"person-{number}" for number in range(20)]
    limiter.hit_many("news", people)
    with redis.RedisCluster.from_url(cluster.url.replace("redis+cluster", "redis").split(",")[0]) as client:
        (name,) = client.keys(f"{namespace}*person-7}}*", target_nodes=client.PRIMARIES)
        client.lpush(name, "inf")
    for ask, who in ((limiter.hit, "person-7"), (limiter.test, "person-7"), (limiter.hit_many, people)):
        with pytest.raises(StorageError, match="holds something that this library did not write") as raised:
            ask("news", who)
        assert "person" not in str(raised.value)
    assert limiter.clear("news", "person-7") == 1
    assert [decision.remaining for decision in limiter.hit_many("news", people)] == [
        2 if who == "person-7" else 1 for who in people
    ]
    limiter.close()


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[tuple[list[Window], str, int]], int]:
    plans = [three(), [window("moving-window", rule="a"), window("moving-window", 2, Mode.SHADOW, rule="b")]]
    plans += [[window(strategy, draw(st.integers(1, 3)), draw(st.sampled_from(Mode)))] for strategy in STRATEGIES]
    made = [
        (draw(st.sampled_from(plans)), draw(st.sampled_from("abc")), draw(st.integers(1, 3)))
        for _ in range(draw(st.integers(1, 12)))
    ]
    return made, draw(st.integers(0, len(made)))


@given(batch=batches(), before=batches(), seconds=st.integers(0, 130))
@settings(max_examples=150)
def test_a_batch_with_an_odd_window_counts_nothing(valkey: Valkey, batch: Any, before: Any, seconds: int) -> None:
    """Wherever in the batch it is: what the others had taken by then is given back, and every window reads as before."""
    world = World(valkey, 7)

    def requests(made: Any) -> list[Request]:
        # The strategy ends a key, as in those that the library makes.
        return [
            Request(windows, [f"{key}{id(windows)}" for key in world.keys(windows, who)], cost)
            for windows, who, cost in made
        ]

    odd = window("fixed-window", rule="odd")
    (odd_key,) = world.keys([odd], "odd")
    world.client.set(odd_key, "x")
    earlier, asked = requests(before[0]), requests(batch[0])
    world.storage.acquire_many(earlier)
    world.at(NOW + seconds * MICROSECONDS)
    everything = [
        (one, key) for request in (*earlier, *asked) for one, key in zip(request.windows, request.keys, strict=True)
    ]
    windows, keys = [one for one, _ in everything], [key for _, key in everything]
    seen = world.storage.peek(windows, keys, 1)
    asked.insert(batch[1], Request([odd], [odd_key], 1))
    with pytest.raises(UnreadableWindow, match="rule 'odd'") as raised:
        world.storage.acquire_many(asked)

    assert raised.value.request == batch[1]
    assert world.storage.peek(windows, keys, 1) == seen
    world.close()


# --- Scripts that are stopped half-way ------------------------------------------------------------------------------

WRITING = ["set", "del", "lpush", "ltrim", "lrem", "pexpire"]


@pytest.fixture
def guarded(start_valkey: Callable[..., Valkey]) -> Iterator[Guarded]:
    """A server on which a user may not run all commands."""
    made = Guarded(start_valkey())
    yield made
    made.close()


class Guarded(World):
    """A world, and a storage of a user who may not run all commands."""

    def __init__(self, server: Valkey) -> None:
        super().__init__(server)
        self.forbid()
        self.theirs = ClockedStorage(f"redis://ana:pw@{server.address}/0", timeout=PATIENT)

    def forbid(self, *commands: str) -> None:
        self.client.acl_setuser(
            "ana", enabled=True, passwords=["+pw"], keys=["*"], reset=True, commands=[f"-{it}" for it in commands],
            categories=["+@all"],
        )  # fmt: skip

    def close(self) -> None:
        self.theirs.close()
        super().close()


@pytest.mark.parametrize("forbidden", ["set", "lpush", "ltrim", "pexpire"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("over", ["none", "some", "all"])
def test_a_command_that_is_not_allowed_counts_nothing(
    guarded: Guarded, forbidden: str, order: tuple[int, ...], over: str
) -> None:
    """Windows of all strategies, in every order, hits that are over among them: all of them read as before."""
    windows = [three()[place] for place in order] + [window("moving-window", rule="another")]
    keys = guarded.keys(windows)
    if over != "none":
        guarded.at(NOW - 61 * MICROSECONDS)
        guarded.storage.acquire(windows, keys, 1)
    if over != "all":
        guarded.at(NOW - 1)
        guarded.storage.acquire(windows[:2], keys[:2], 2)
    guarded.at(NOW)
    before = guarded.storage.peek(windows, keys, 1)
    lives = [guarded.client.pttl(key) != -1 for key in keys]
    guarded.forbid(forbidden)
    single, several = (windows, keys, 1), [Request(windows, keys, 1), Request(windows[:1], keys[:1], 2)]
    for ask in (lambda: guarded.theirs.acquire(*single), lambda: guarded.theirs.acquire_many(several)):
        if forbidden == "ltrim" and over == "none":
            continue
        with pytest.raises(StorageError, match="ACL has to allow") as raised:
            ask()
        assert guarded.name not in str(raised.value)
        assert guarded.storage.peek(windows, keys, 1) == before
        assert [guarded.client.pttl(key) != -1 for key in keys] == lives


@pytest.mark.parametrize("forbidden", ["lpush", "ltrim", "pexpire"])
def test_a_forbidden_command_among_windows_of_one_kind(guarded: Guarded, forbidden: str) -> None:
    """The first window is written before a command fails: it is given back, and no key is left without an end."""
    windows = [window("moving-window", rule=name) for name in ("one", "two")]
    keys = guarded.keys(windows)
    guarded.storage.acquire(windows[1:], keys[1:], 1)
    guarded.at(NOW + 61 * MICROSECONDS)
    guarded.forbid(forbidden)
    for one in ([0, 1], [1, 0]):
        with pytest.raises(StorageError, match="ACL has to allow"):
            guarded.theirs.acquire([windows[n] for n in one], [keys[n] for n in one], 2)
        assert guarded.counts(windows, keys) == [0, 0]
        assert all(guarded.client.pttl(key) != -1 for key in keys)


@pytest.mark.parametrize("forbidden", ["set", "lpush", "pexpire"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_where_nothing_can_be_given_back(guarded: Guarded, forbidden: str, order: tuple[int, ...]) -> None:
    """Whether the user may write is asked before the first write, where the windows are not written alike."""
    windows = [three()[place] for place in order]
    keys = guarded.keys(windows)
    guarded.storage.acquire(windows, keys, 2)
    guarded.forbid(forbidden, "lrem", "del")
    with pytest.raises(StorageError, match="ACL has to allow"):
        guarded.theirs.acquire(windows, keys, 1)

    assert guarded.counts(windows, keys) == [2, 2, 2]


@pytest.mark.parametrize("forbidden", ["lpush", "ltrim", "lrem", "lrange", "lindex", "llen"])
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("costs", [(1, 1, 1, 1, 1), (3, 3, 3, 3, 3), (1, 3, 1, 3, 1)], ids=str)
def test_giving_back_loses_no_other_hit(guarded: Guarded, forbidden: str, place: int, costs: tuple[int, ...]) -> None:
    """Where a command is not allowed, a hit is given back, or the window reads as before."""
    windows = [window("moving-window", 50)]
    keys = guarded.keys(windows)
    tokens = []
    for number, cost in enumerate(costs):
        guarded.at(NOW + number)
        tokens.append(guarded.storage.acquire(windows, keys, cost).readings[0].token)
    guarded.at(NOW + MICROSECONDS)
    before = held(guarded.client, keys[0])
    guarded.forbid(forbidden)
    try:
        given = guarded.theirs.release(windows, keys, costs[place], [tokens[place]])
    except StorageError:
        given = False

    if given:
        assert guarded.counts(windows, keys) == [sum(costs) - costs[place]]
    else:
        assert held(guarded.client, keys[0]) == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_what_cannot_be_given_back_is_an_error(guarded: Guarded, order: tuple[int, ...]) -> None:
    """A hit that stays counted in one window is given back in the others, and the caller is told."""
    windows = [[window("moving-window"), window("fixed-window")][place] for place in order]
    keys = guarded.keys(windows)
    tokens = [reading.token for reading in guarded.storage.acquire(windows, keys, 1).readings]
    guarded.forbid("lrem")
    with pytest.raises(StorageError, match="ACL has to allow"):
        guarded.theirs.release(windows, keys, 1, tokens)

    assert guarded.counts(windows, keys) == [int(one.strategy == "moving-window") for one in windows]


@given(forbidden=st.sets(st.sampled_from(WRITING), min_size=1), data=st.data())
@settings(max_examples=150)
def test_whatever_is_forbidden_no_hit_is_lost(shared: Guarded, forbidden: set[str], data: st.DataObject) -> None:
    """Where not even giving back is allowed, a window may count a hit that failed; it never counts fewer than before."""
    guarded = shared
    guarded.name = f"{os.getpid()}-{next(_numbers)}"
    windows = data.draw(st.permutations([*three(), *three()]).map(lambda them: them[: data.draw(st.integers(1, 6))]))
    keys = guarded.keys(windows)
    guarded.forbid()
    guarded.at(NOW - data.draw(st.integers(1, 90)) * MICROSECONDS)
    guarded.storage.acquire(windows, keys, 2)
    guarded.at(NOW)
    verdict = guarded.storage.acquire(windows, keys, 1)
    before = guarded.counts(windows, keys)
    guarded.forbid(*forbidden)
    with suppress(StorageError):
        guarded.theirs.acquire(windows, keys, 2)
        return
    after = guarded.counts(windows, keys)

    assert all(were <= are <= were + 2 for were, are in zip(before, after, strict=True))
    tokens = [reading.token for reading in verdict.readings]
    with suppress(StorageError):
        guarded.theirs.release(windows, keys, 1, tokens)
    assert all(are - 1 <= left <= are for are, left in zip(after, guarded.counts(windows, keys), strict=True))
    with suppress(StorageError):
        guarded.theirs.acquire_many([Request(windows, keys, 1)] * 2)
    assert all(are - 1 <= left for are, left in zip(after, guarded.counts(windows, keys), strict=True))


@pytest.fixture(scope="module")
def shared() -> Iterator[Guarded]:
    """The same for many examples."""
    from servers import valkey_server

    server = valkey_server()
    made = Guarded(server)
    yield made
    made.close()
    server.remove()


def test_what_is_said_to_be_needed_suffices(guarded: Guarded) -> None:
    """A user with no other commands than those that the error names can use every verb."""
    named = [word.strip("(,)").lower() for word in COMMANDS.split() if word.strip("(,)").isupper()]
    guarded.client.acl_setuser(
        "bo", enabled=True, passwords=["+pw"], keys=["test:*"], commands=[f"+{name}" for name in named]
    )
    windows = [*three(), window("moving-window", 100)]
    keys = guarded.keys(windows)
    with guarded.client as client:
        address = client.connection_pool.connection_kwargs
        storage = ClockedStorage(f"redis://bo:pw@{address['host']}:{address['port']}/0", timeout=PATIENT)
        for number in range(20):
            guarded.at(NOW + number * 25 * MICROSECONDS)
            verdict = storage.acquire(windows, keys, 1)
            storage.acquire_many([Request(windows, keys, 1)] * 2)
            storage.peek(windows, keys, 1)
            assert storage.release(windows, keys, 1, [reading.token for reading in verdict.readings])
        assert storage.forget(windows, keys) == 4
        assert storage.check()
        assert storage.reset() is not None
        storage.close()


def test_a_script_that_was_killed_has_counted_nothing(start_valkey: Callable[..., Valkey]) -> None:
    """A script can only be killed before its first write; others are told what the server is busy with."""

    class Waiting(RedisStorage):
        # Until somebody else gives the word, which nobody can while a script runs.
        _CLOCK_LUA = "repeat until call('GET', 'test:go')\nlocal now = tonumber(call('TIME')[1]) * 1000000"

    server = start_valkey("--busy-reply-threshold", "50")
    windows = three()
    keys = [f"test:{{ana@example.com}}:{one.strategy[0]}" for one in windows]
    storage, other = Waiting(server.url, timeout=PATIENT), RedisStorage(server.url, timeout=PATIENT)
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(StorageError) as raised:
            storage.acquire(windows, keys, 1)
        said.append(str(raised.value))

    with server.client() as client:
        thread = threading.Thread(target=ask)
        thread.start()
        busy = ""
        while "busy" not in busy:
            with suppress(redis.RedisError):
                client.ping()
                time.sleep(0.01)
                continue
            with pytest.raises(StorageError) as raised:
                other.acquire(windows, keys, 1)
            busy = str(raised.value)
        client.script_kill()
        thread.join()

        assert "killed on the server before it wrote anything" in said[0]
        assert "ana" not in busy + said[0]
        assert client.keys("*") == []
    storage.close()
    other.close()


def test_a_server_that_cannot_save_counts_nothing(start_valkey: Callable[..., Valkey]) -> None:
    """Redis that accepts no writes refuses the first one of a script: nothing is counted, and the error says why."""
    server = start_valkey()
    windows = three()
    keys = [f"test:{{ana}}:{one.strategy[0]}" for one in windows]
    storage = RedisStorage(server.url, timeout=PATIENT)
    with server.client() as client:
        client.config_set("save", "3600 1")
        shutil.rmtree(server.directory)
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            time.sleep(0.01)
        with pytest.raises(StorageError, match="could not save its data to disk"):
            storage.acquire(windows, keys, 1)

        assert client.keys("*") == []
    storage.close()
