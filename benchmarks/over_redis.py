"""Windows on one Valkey server, which the run starts."""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import TYPE_CHECKING

import redis
from contenders import (
    OURS,
    PEERS,
    bare,
    bare_three,
    decorated,
    each,
    hitting,
    items,
    one_rule,
    periods,
    pyrate,
    three_rules,
    throttled_redis,
)
from limits.strategies import MovingWindowRateLimiter
from measured import Figure, ratio
from paired import Contender, Ratio, fresh, in_turns
from watched import counted

from ratelimited_notify import Limiter, Notifier
from ratelimited_notify.storage.redis.scripts import command

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from contenders import Hit
    from measured import Address, Effort

_AMOUNT = 20
_PEOPLE = 100
_SCRIPTS = ("cmdstat_eval", "cmdstat_evalsha")


def _emptied(valkey: Address) -> None:
    # SYNC, because memory that is freed later would distort the next measurement.
    with redis.Redis(valkey.host, valkey.port) as client:
        client.execute_command("FLUSHALL", "SYNC")


def one(effort: Effort, valkey: Address) -> list[Figure]:
    """One rule, allowed and refused."""
    figures = []
    for row, amount, allowed in (("redis-one", _AMOUNT, True), ("redis-one-refused", 1, False)):
        _emptied(valkey)
        hits = {
            OURS: hitting(one_rule(amount), valkey.url),
            "limits": bare(amount, MovingWindowRateLimiter, valkey.url),
            "throttled-py": throttled_redis([(amount, 86400)], valkey.url),
            "pyrate-limiter": pyrate([(amount, 86400)], redis.Redis(valkey.host, valkey.port)),
        }
        figures.append(_compared(row, hits, effort, allowed=allowed))
    return figures


def three(effort: Effort, valkey: Address) -> list[Figure]:
    """Three rules, allowed, and refused by the last."""
    figures = []
    for row, last, allowed in (("redis-three", None, True), ("redis-three-refused", 1, False)):
        _emptied(valkey)
        limits = periods(_AMOUNT)
        if last is not None:
            limits[2] = (last, limits[2][1])
        hits = {
            OURS: hitting(three_rules(_AMOUNT, last=last), valkey.url),
            "limits": bare_three(_AMOUNT, valkey.url, last=last),
            "throttled-py": throttled_redis(limits, valkey.url),
        }
        if last is None:
            # Its buckets do not accept a limit with a longer period and a smaller amount than another.
            hits["pyrate-limiter"] = pyrate(limits, redis.Redis(valkey.host, valkey.port))
        figures.append(_compared(row, hits, effort, allowed=allowed))
    return figures


def _compared(row: str, hits: dict, effort: Effort, *, allowed: bool) -> Figure:
    people = fresh(_PEOPLE, _AMOUNT)
    if not allowed:
        refused = next(people)
        for hit in hits.values():
            if not all(map(hit, refused)):
                raise AssertionError("The first hit must be allowed.")
        # A refused decision of `limits` spends hits of the other limits. So change recipients before these are used up.
        people = _again(hits, refused)
    times = in_turns(
        {name: each(hit, allowed=allowed) for name, hit in hits.items()}, people, effort.rounds, clock=time.perf_counter
    )
    return ratio(row, times.ratio(OURS, "limits"), times.ratios(OURS, PEERS))


def _again(hits: dict, refused: list[str]) -> Iterator[list[str]]:
    """Repeat the recipients while only the last rule refuses them: `limits` spends hits of the other rules each time."""
    number = 0
    while True:
        for _ in range(_AMOUNT - 2):
            yield refused
        number += 1
        refused = [f"refused.{number}.{index}@example.com" for index in range(_PEOPLE)]
        for hit in hits.values():
            for recipient in refused:
                hit(recipient)


def commands(effort: Effort, valkey: Address) -> list[Figure]:  # noqa: ARG001  # a count needs no effort
    """How many scripts the server was sent, by its own count. Commands inside a script are not sent, so they do not count."""
    client = redis.Redis(valkey.host, valkey.port)
    decisions = 1000
    with Limiter(three_rules(_AMOUNT), valkey.url) as limiter:
        limiter.hit("news", "first@example.com")
        client.config_resetstat()
        for number in range(decisions):
            limiter.hit("news", f"person.{number % 50}@example.com")
        told = client.info("commandstats")
    sent = {name: each["calls"] for name, each in told.items()}
    scripts = sum(sent.get(name, 0) for name in _SCRIPTS)
    return [Figure("redis-commands", scripts / decisions, note=f"{scripts:,} scripts for {decisions:,} decisions")]


def many(effort: Effort, valkey: Address) -> list[Figure]:
    """Batches, compared with a loop of bare hits and with the most that the server can do."""
    rounds = max(3, effort.rounds // 25)
    loop = 1000 / effort.batch
    figures = []
    limiter = Limiter(three_rules(_AMOUNT), valkey.url, timeout=10)
    notifier = Notifier(lambda recipient: None, limiter=limiter)
    people = fresh(effort.batch, rounds + 2)
    for row, decide in (
        ("redis-hit-many", partial(limiter.hit_many, "news")),
        ("redis-send-many", partial(notifier.send_many, "news")),
    ):
        _emptied(valkey)
        times = in_turns(
            {OURS: Contender(decide), "limits": each(bare_three(_AMOUNT, valkey.url), loop)},
            people,
            rounds,
            clock=time.perf_counter,
        )
        figures.append(ratio(row, times.ratio("limits", OURS), people=effort.batch, note=_speed(times.seconds[OURS])))
        if row == "redis-hit-many":
            figures.append(Figure("redis-speed", 1 / Ratio.of(times.seconds[OURS]).value))
    _emptied(valkey)
    fixed = Limiter(one_rule(_AMOUNT, "fixed-window"), valkey.url, timeout=10)
    ceiling = _Ceiling(valkey)
    times = in_turns(
        {OURS: Contender(partial(fixed.hit_many, "news")), "ceiling": Contender(ceiling.run)},
        fresh(effort.batch, rounds + 2),
        rounds,
        clock=time.perf_counter,
    )
    said = f"{_speed(times.seconds[OURS])}; the server {_speed(times.seconds['ceiling'])}"
    figures.append(ratio("redis-ceiling", times.ratio("ceiling", OURS), people=effort.batch, note=said))
    ceiling.close()
    return figures


def _speed(seconds: Sequence[float]) -> str:
    return f"{1 / Ratio.of(seconds).value:,.0f} a second"


class _Ceiling:
    """Does the same as `redis-benchmark -P 64`, which no package contains: sends prepared bytes, and ignores replies."""

    _SCRIPT = b"""
local count = redis.call('INCRBY', KEYS[1], 1)
if count == 1 then redis.call('PEXPIRE', KEYS[1], 86400000) end
return count
"""
    _PIPELINE = 64

    def __init__(self, valkey: Address) -> None:
        self.sha = redis.Redis(valkey.host, valkey.port).script_load(self._SCRIPT).encode()
        self.connection = socket.create_connection((valkey.host, valkey.port), timeout=10)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.packed: dict[str, list[bytes]] = {}

    def run(self, recipients: Sequence[str]) -> Sequence[object]:
        pipelines = self.packed.get(recipients[0])
        if pipelines is None:
            pipelines = self.packed[recipients[0]] = self._pack(recipients)
        awaited = 0
        for commands, replies in pipelines:
            self.connection.sendall(commands)
            awaited += replies
            # Two pipelines are in transit, so that the server does not wait for us.
            while awaited > self._PIPELINE:
                awaited -= self._read()
        while awaited:
            awaited -= self._read()
        return [True] * len(recipients)

    def _pack(self, recipients: Sequence[str]) -> list[tuple[bytes, int]]:
        packed = [command(b"EVALSHA", self.sha, b"1", recipient.encode()) for recipient in recipients]
        parts = [packed[start : start + self._PIPELINE] for start in range(0, len(packed), self._PIPELINE)]
        return [(b"".join(part), len(part)) for part in parts]

    def _read(self) -> int:
        return self.connection.recv(1 << 16).count(b"\n")

    def close(self) -> None:
        self.connection.close()


def remembered(effort: Effort, valkey: Address) -> list[Figure]:
    """Repeated decisions about recipients that were just refused, with `remember_refusals=True`."""
    figures = []
    people = [f"refused.{number}@example.com" for number in range(_PEOPLE)]
    for row, hit in (
        ("redis-remembered", decorated(three_rules(1), storage=valkey.url, timeout=10, remember_refusals=True)),
        ("redis-remembered-hit", hitting(three_rules(1), valkey.url, remember_refusals=True)),
    ):
        _emptied(valkey)
        bare_hit = bare(1, MovingWindowRateLimiter, valkey.url)
        for recipient in people:
            if not (hit(recipient) and bare_hit(recipient)) or hit(recipient):
                raise AssertionError("The first hit must be allowed, and the second one refused.")

        def ours(recipients: Sequence[str], hit: Hit = hit) -> list[object]:
            # The server is asked again within five seconds.
            return [hit(recipient) for _ in range(20) for recipient in recipients]

        contenders = {OURS: Contender(ours, allowed=False), "limits": each(bare_hit, allowed=False)}
        times = in_turns(contenders, iter(lambda: people, None), effort.rounds, clock=time.perf_counter)
        found = times.ratio("limits", OURS)
        figures.append(ratio(row, Ratio(*(20 * each for each in (found.value, found.low, found.high)))))
    return figures


def watching(effort: Effort, valkey: Address) -> list[Figure]:
    """Counters of Prometheus for decisions and deliveries."""
    _emptied(valkey)
    options = {"storage": valkey.url, "timeout": 10}
    times = in_turns(
        {
            OURS: each(decorated(one_rule(_AMOUNT), **options, namespace="unwatched")),
            "counted": each(counted(_AMOUNT, **options, namespace="watched")),
        },
        fresh(_PEOPLE, _AMOUNT),
        2 * effort.rounds,
        clock=time.perf_counter,
    )
    return [ratio("watch-redis", times.ratio("counted", OURS))]


def stored(effort: Effort, valkey: Address) -> list[Figure]:
    """The bytes on the server for a window with one hit, including key and expiry, and for each further hit."""
    client = redis.Redis(valkey.host, valkey.port)
    figures = []
    for row, strategy in (
        ("redis-bytes-moving", "moving-window"),
        ("redis-bytes-fixed", "fixed-window"),
        ("redis-bytes-sliding", "sliding-window-counter"),
    ):
        _emptied(valkey)
        with Limiter(one_rule(_AMOUNT, strategy), valkey.url, timeout=10) as limiter:
            limiter.hit_many("news", ["first@example.com"])
            held = [_used(client)]
            for _ in range(5 if strategy == "moving-window" else 1):
                for start in range(0, effort.stored, 10_000):
                    stop = min(start + 10_000, effort.stored)
                    limiter.hit_many("news", [f"person.{number}@example.com" for number in range(start, stop)])
                held.append(_used(client))
        keys = client.dbsize() - 1
        if keys != effort.stored:
            raise AssertionError(f"{keys} keys for {effort.stored} windows.")
        figures.append(Figure(row, (held[1] - held[0]) / effort.stored, people=effort.stored))
        if len(held) > 2:
            figures.append(Figure("redis-bytes-further", (held[-1] - held[1]) / effort.stored / (len(held) - 2)))
    _emptied(valkey)
    return figures


def _used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def tasks(effort: Effort, valkey: Address) -> list[Figure]:
    """A thousand tasks at once, and a single task, each with decisions by three rules."""
    import asyncio

    _emptied(valkey)
    crowd = asyncio.run(_tasks(effort, valkey, 1000))
    said = _speed([ours / 1000 for ours, _ in crowd])
    _emptied(valkey)
    alone = asyncio.run(_tasks(effort, valkey, 1))
    return [
        ratio("asyncio-three", Ratio.of([theirs / ours for ours, theirs in crowd]), note=said),
        ratio("asyncio-alone", Ratio.of([ours / theirs for ours, theirs in alone])),
    ]


async def _tasks(effort: Effort, valkey: Address, together: int) -> list[tuple[float, float]]:
    """The times of this library and of `limits` for a thousand decisions, `together` at once, measured in turns."""
    import asyncio

    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter as AsyncMovingWindow

    from ratelimited_notify import AsyncLimiter

    limiter = AsyncLimiter(three_rules(_AMOUNT), valkey.url, timeout=30)
    # By default redis-py allows a hundred connections, and raises in the task that needs another one.
    storage = RedisStorage(f"async+{valkey.url}", implementation="redispy", max_connections=1000)
    hit = AsyncMovingWindow(storage).hit
    first, second, third = items(_AMOUNT)

    async def ours(recipient: str) -> bool:
        return bool(await limiter.hit("news", recipient))

    async def theirs(recipient: str) -> bool:
        return (
            await hit(first, "news", recipient)
            and await hit(second, "new*", recipient)
            and await hit(third, "*", recipient)
        )

    async def turn(one: Callable[[str], Awaitable[bool]], people: list[str]) -> float:
        started = time.perf_counter()
        if together == 1:
            outcomes = [await one(recipient) for recipient in people]
        else:
            outcomes = await asyncio.gather(*(one(recipient) for recipient in people))
        taken = time.perf_counter() - started
        if not all(outcomes):
            raise AssertionError("Not every hit was allowed.")
        return taken

    people = fresh(1000, _AMOUNT)
    pairs = []
    for number in range(-2, max(7, effort.rounds // 8)):
        todo = next(people)
        order = [ours, theirs] if number % 2 else [theirs, ours]
        taken = {one: await turn(one, todo) for one in order}
        if number >= 0:
            pairs.append((taken[ours], taken[theirs]))
    await limiter.close()
    return pairs


MEASUREMENTS = (one, three, commands, remembered, many, watching, stored, tasks)
