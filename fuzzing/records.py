"""What another program wrote where windows and rules are kept: into an SQLite file, a memcached server, a Redis server."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from target import Target

from ratelimited_notify import Limiter, Rule, RuleError, StorageError
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.sources import RedisRules
from ratelimited_notify.windows.keys import split

# The servers are started with the modules of the tests.
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))

STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
WHO = "anastasia@example.com"
_RULES = [Rule("news", "5/day", strategy=each, name=each) for each in STRATEGIES]


def decide(limiter: Limiter) -> None:
    """Ask a limiter for everything. It answers, or raises an error of ours that names nobody; then it can be cleared."""
    for ask in (limiter.windows, limiter.test, limiter.hit, limiter.hit):
        try:
            answer: Any = ask("news", WHO)  # Any: of two kinds
        except StorageError as error:
            assert WHO not in str(error)
            continue
        states = answer if isinstance(answer, tuple) else answer.windows
        assert all(0 <= state.remaining <= 5 for state in states)
        if not isinstance(answer, tuple):
            assert msgspec.json.decode(msgspec.json.encode(answer.to_dict())) == answer.to_dict()
            assert all(value.isprintable() for value in answer.headers(ratelimit=True).values())
            assert WHO not in f"{answer!r} {answer} {answer.retry_at} {answer.blocked_by}"
    limiter.clear("news", WHO)
    assert limiter.hit("news", WHO)
    limiter.clear("news", WHO)


def opened(limiter: Limiter) -> Limiter:
    """A limiter that was opened, for whoever has to close it."""
    return limiter


def clear() -> None:
    """Forget the servers."""
    _memcached.cache_clear()
    _redis.cache_clear()


@cache
def _file() -> tuple[Limiter, sqlite3.Connection, tempfile.TemporaryDirectory[str]]:
    directory = tempfile.TemporaryDirectory()
    path = f"{directory.name}/windows.db"
    limiter = Limiter(_RULES, f"sqlite:///{path}", timeout=10)
    limiter.hit("news", WHO)
    return limiter, sqlite3.connect(path, isolation_level=None), directory


def read_sqlite(content: bytes) -> None:
    """A row with these bytes as its value, or with this text."""
    limiter, foreign, _ = _file()
    limiter.hit("news", WHO)
    value = "CAST(? AS TEXT)" if content[:1] == b"t" else "?"
    foreign.execute(f"UPDATE items SET value = {value}", (content[1:],))
    decide(limiter)


@cache
def _memcached() -> tuple[Limiter, Any, str]:  # Any: a server of the tests
    from servers import memcached_server

    server = memcached_server()
    limiter = opened(Limiter(_RULES, server.url, timeout=10))
    state = limiter.windows("news", WHO)[0]
    return limiter, server, split(state.item.key_for(*state.identifiers))[0]


def read_memcached(content: bytes) -> None:
    """An item with these bytes."""
    limiter, server, key = _memcached()
    server.ask(b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), len(content), content), b"STORED\r\n")
    decide(limiter)


@cache
def _redis() -> tuple[Limiter, Any, list[bytes]]:  # Any: a client of redis-py
    from servers import valkey_server

    server = valkey_server()
    limiter, client = opened(Limiter(_RULES, server.url, timeout=10)), server.client()
    client.flushdb()
    limiter.hit("news", WHO)
    return limiter, client, sorted(client.keys("*"))


def read_redis(content: bytes) -> None:
    """The keys of a recipient with these bytes, as a string or as the elements of a list."""
    limiter, client, keys = _redis()
    for number, key in enumerate(keys):
        client.delete(key)
        parts = content[1:].split(b"\n")
        if content[:1] == b"l":
            client.rpush(key, *parts)
        elif len(parts) > number:
            client.set(key, parts[number])
    decide(limiter)


def read_redis_rules(content: bytes) -> None:
    """The hash of `RedisRules` with this version and this document."""
    _, client, _ = _redis()
    version, _, document = content.partition(b"\0")
    client.delete("rules")
    client.hset("rules", mapping={"version": version, "document": document})
    host = client.connection_pool.connection_kwargs
    source = RedisRules(f"redis://{host['host']}:{host['port']}/0", key="rules")
    try:
        loaded = source.load(None)
        if loaded is not None:
            rule_set_of(loaded.document)
    except RuleError:
        pass
    finally:
        source.close()


_NOW = time.time_ns() // 1000
_DAY = 86_400_000_000


def _numbers(*numbers: int) -> bytes:
    return array("q", numbers).tobytes()


def _seeds() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """A row of SQLite and an item of memcached, as this library writes them."""
    states = Limiter(_RULES).windows("news", WHO)
    rests = [split(state.item.key_for(*state.identifiers))[1] for state in states]
    moving, fixed, sliding = (
        (_NOW + _DAY, 0, 0, _NOW - 5, 7, 1, _NOW, 8, 3),
        (_NOW + _DAY, 2, 7),
        (_NOW + _DAY, _NOW, 1, 2, 7),
    )
    row = msgspec.msgpack.encode(dict(zip(rests, (_numbers(*each) for each in (moving, fixed, sliding)), strict=True)))
    large = msgspec.msgpack.encode({rests[0]: _numbers(_NOW + _DAY, 1, 3, _NOW)})
    packed: list[list[object]] = [
        [_NOW + _DAY, [2, _NOW, 7, 5, 1]],
        [_NOW + _DAY, [_NOW + _DAY, 2, 7]],
        [_NOW + _DAY, [_NOW, 1, 2, 7]],
    ]
    item = msgspec.msgpack.encode([1, 9, dict(zip(rests, packed, strict=True))])
    return (b"b" + row, b"t" + row, b"b" + large), (item,)


_ROWS, _ITEMS = _seeds()
_BINARY = (
    *(bytes([first]) for first in range(0x80, 0x100, 5)),
    b"\xc4\x18",
    b"\xcf" + b"\xff" * 8,
    b"\xdd\x7f\xff\xff\xff",
    b"\x91" * 900,
)
_LISTS = (
    b"l%d\n%d:3\n%d:7:2" % (_NOW, _NOW - 5, _NOW - 9),
    b"s%d:2\n%d:1:2\n%d" % (_NOW + _DAY, _NOW, _NOW),
)
_TEXTS = (b"inf", b"nan", b"-5", b"1.5", b"0x", b":", b"\n", b"9007199254740993", b"1e300", b"%d" % (_NOW + _DAY))
_DOCUMENT = b'{"rules": [{"type": "news", "limit": "1/day", "by": ["recipient"], "overrides": {"a@b.c": "none"}}], "fields": ["ip"]}'

TARGETS = (
    Target("row in SQLite", read_sqlite, _ROWS, _BINARY),
    Target("item in memcached", read_memcached, _ITEMS, _BINARY),
    Target("keys in Redis", read_redis, _LISTS, _TEXTS),
    Target(
        "rules in Redis", read_redis_rules, (b"1-abc\0" + _DOCUMENT,), (b"\0", b'"', b"[", b"{", b"}", b"]", b"NaN")
    ),
)
