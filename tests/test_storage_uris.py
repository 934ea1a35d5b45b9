"""Storage URIs: what is understood, what is refused and with which words, and that no password is ever shown."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, strategies as st
from limits._storage_scheme import SCHEMES
from limits.aio.storage import MemoryStorage as AsyncEngineStorage
from limits.storage import MemoryStorage as EngineStorage

from ratelimited_notify import AsyncLimiter, Limiter, NotifyError, StorageError, configure
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.storage import open_async_storage, open_storage
from ratelimited_notify.storage.memcached.aio import AsyncMemcachedStorage
from ratelimited_notify.storage.memcached.sync import MemcachedStorage
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.cluster import RedisClusterStorage
from ratelimited_notify.storage.redis.cluster_aio import AsyncRedisClusterStorage
from ratelimited_notify.storage.redis.sentinel import RedisSentinelStorage
from ratelimited_notify.storage.redis.sentinel_aio import AsyncRedisSentinelStorage
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.storage.uri import kind_of, parse, scheme_of
from ratelimited_notify.windows.strategies import MICROSECONDS, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = Window("moving-window", 10, 60 * MICROSECONDS, rule="news")
KEYS = ["test:{ana}:news:m"]

OPENED = [open_storage, open_async_storage]
both = pytest.mark.parametrize("opened", OPENED, ids=["sync", "async"])


def refusal(opened: Callable[..., Any], uri: str, **options: Any) -> str:
    """The message with which a URI is refused."""
    with pytest.raises(NotifyError) as caught:
        opened(uri, **options)
    assert not isinstance(caught.value, StorageError)
    return str(caught.value)


# --- What is not understood as it is written ------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("memory:///x.db", "nothing may follow memory://.*Write memory://"),
        ("memory://state.db", "nothing may follow memory://"),
        ("memory://?foo=1", "nothing may follow memory://"),
        ("memory:///", "nothing may follow memory://"),
        ("notify+memory://x", "nothing may follow memory://"),
        ("redis+cluster://h:7000,h:7001/3", r"has no databases.*Write redis\+cluster://"),
        ("rediss+cluster://h:7000?db=3", "has no databases"),
        ("redis://:4711#secret@host", "contains a #.*write %23 for #"),
        ("redis://:4711?secret@host", "an @ follows.*%3F for ?"),
        ("redis://:4711/secret@host", "an @ follows.*%2F for /"),
        ("redis+cluster://:4711#secret@h:1", "contains a #"),
        ("redis+sentinel://:4711/secret@h:1/main", "an @ follows"),
        ("redis+unix://:S3cr/etPassw0rd@/run/redis.sock", "an @ follows.*%2F for /"),
        ("redis+unix:///s.sock/2", r"the database is an option there: \?db=2"),
        ("valkey+unix://run/redis.sock", "three slashes"),
        ("redis+unix://", "names no path"),
        ("redis://:6379/0", "a host has no name"),
        ("redis://:password@/0", "a host has no name"),
        ("redis://h:0", "a port is a number from 1 to 65535"),
        ("redis://h:70000/0", "a port is a number"),
        ("redis://h:٣", "a port is a number"),
        ("redis://::1:6379", "stands in brackets"),
        ("redis://[::1", "stands in brackets"),
        ("redis://one:1,two:2/0", r"several are redis\+cluster:// or redis\+sentinel://"),
        ("redis://h o", "a character that cannot be part"),
        ("redis://h/0/1", "it must be a number"),
        ("redis://h//3", "it must be a number"),
        ("redis://h/99999999999", "it must be a number"),
        ("redis://h/1?db=2", "it says db twice"),
        ("redis://:one@h?password=two", "it says password twice"),
        ("redis://h?", r"options, such as \?timeout=2"),
        ("redis://h?timeout", "options, such as"),
        ("redis://h?timeout=", "options, such as"),
        ("redis://h?db=1&db=1", "stands in it twice"),
        ("redis://h?client_name=a+b", r"%2B for \+ and %20 for a space"),
        ("redis://h?max_conections=3", r"unknown \(is max_connections meant\?\)"),
        ("redis://h?quux=3", "unknown; a URI may have client_name, db,"),
        ("redis://h?ssl=true", "its scheme, rediss://"),
        ("redis://h?ssl_check_hostname=maybe", "must be true or false"),
        ("redis://:50%off@h", "is written as %25"),
        ("redis://:%ff%fe@h", "not UTF-8"),
        ("redis://h\n", "line break"),
        ("redis://\udcff@h", "cannot be printed"),
        ("redis+unix:///x%00y", "cannot be printed"),
        ("redis+sentinel://h:1/main/2", r"the database is an option: \?db=2"),
        ("redis+cluster://u:p@h1:1,u:p@h2:2", "once, before the first server"),
        ("memcached://a:1#x", "contains a #"),
        ("memcached:///a@b", "an @ follows"),
        ("user:secret@h/x://y", "A string without '://'"),
    ],
)
def test_what_is_not_understood_is_refused(opened: Callable[..., Any], uri: str, said: str) -> None:
    """A URI that says what cannot be done, or cannot be read in one way only, is an error that says what to write."""
    import re

    message = refusal(opened, uri)

    assert re.search(said, message)
    assert "secret" not in message
    assert "etPass" not in message


@both
@pytest.mark.parametrize(
    "uri",
    [
        "redis://",
        "redis:///3",
        "redis://h/",
        "redis://h/3/",
        "redis://h/3?db=3",
        "redis://[::1]:7/0",
        "redis://[fe80::1%25eth0]",
        "redis://h_1.example-2:7",
        "redis://münchen.example",
        "rediss://:p@ss@h",
        "redis://user@h",
        "redis://h?timeout=2&max_connections=10&socket_keepalive=no",
        "redis://h?password=abc==",
        "redis+unix:///run/user%401000/redis.sock?db=2",
        "redis+unix:///run/redis/6379",
        "redis+cluster://h:1/0",
        "redis+cluster://h:1, h:2",
        "redis+cluster://h:1?ssl=TRUE",
        "redis+sentinel://h:1/main/?db=2",
        "notify+redis://h",
        "memcached://a, b:3/",
    ],
)
def test_what_is_understood(opened: Callable[..., Any], uri: str) -> None:
    """These have one meaning."""
    assert opened(uri).exact


def test_the_meaning_of_a_uri() -> None:
    """Each part goes where it is meant to go, percent-decoded."""
    found = parse(
        "async+notify+Valkeys+Sentinel://us%3Aer:p%40s%2Fs:w@One:1,[::1]:2/m%20x?db=3&client_name=%C3%A9", "sentinel"
    )

    assert (found.tls, found.servers) == (True, (("one", 1), ("::1", 2)))
    assert (found.username, found.password, found.service) == ("us:er", "p@s/s:w", "m x")
    assert dict(found.options) == {"db": "3", "client_name": "é"}
    assert repr(found) == "<StorageURI of sentinel>"
    assert parse("redis+unix://:p%2F@/run/a%20b", "redis").path == "/run/a b"
    assert parse("redis://h/7", "redis").database == 7
    assert scheme_of("Async+Notify+REDIS://x") == "async+redis"


def test_a_storage_takes_its_own_scheme_only() -> None:
    """A class that gets the URI of another one would read it in its own way."""
    for kind, uri in (
        (RedisStorage, "redis+cluster://h:1"),
        (AsyncRedisClusterStorage, "redis://h:1"),
        (RedisSentinelStorage, "redis+cluster://h:1/main"),
        (MemcachedStorage, "redis://h"),
        (MemoryStorage, "memcached://h"),
    ):
        with pytest.raises(NotifyError, match="its scheme is one of another storage"):
            kind(uri)


def test_the_service_is_named_once() -> None:
    """A name that would be ignored is an error."""
    assert RedisSentinelStorage("redis+sentinel://h:1/main", service_name="main")
    with pytest.raises(NotifyError, match="name two masters"):
        AsyncRedisSentinelStorage("redis+sentinel://h:1/main", service_name="other")


def test_a_cluster_has_no_databases() -> None:
    """Not as an argument either."""
    for kind in (RedisClusterStorage, AsyncRedisClusterStorage):
        with pytest.raises(NotifyError, match="leave out db="):
            kind("redis+cluster://h:1", db=3)
        assert kind("redis+cluster://h:1", db=0)


@pytest.mark.parametrize("uri", ["memory:///x.db", "memory://?foo=1"])
def test_a_configured_uri_is_checked_too(uri: str) -> None:
    """Decorators share windows in memory, which are opened in another way."""
    before = configuration._storage
    with pytest.raises(NotifyError, match="nothing may follow memory://"):
        configure({"news": "1/day"}, uri)

    assert configuration._storage is before


# --- Passwords ------------------------------------------------------------------------------------------------------


class _Talkative(EngineStorage):
    """A storage of somebody else that quotes its URI in every error."""

    STORAGE_SCHEME = ["talkative"]

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        self.quoted = str(uri)
        if "broken" in self.quoted:
            raise OSError(self.quoted)
        super().__init__(None, **options)

    def get(self, key: str) -> int:
        raise OSError(self.quoted)

    acquire_entry = get_moving_window = incr = get  # type: ignore[assignment]  # all of them fail

    def __repr__(self) -> str:
        return self.quoted


class _AsyncTalkative(AsyncEngineStorage):
    """The same, awaited."""

    STORAGE_SCHEME = ["async+talkative"]

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        self.quoted, self.timer = str(uri), None
        if "broken" in self.quoted:
            raise OSError(self.quoted)
        super().__init__(None, **options)

    async def get(self, key: str) -> int:
        raise OSError(self.quoted)

    acquire_entry = get_moving_window = incr = get  # type: ignore[assignment]  # all of them fail

    def __repr__(self) -> str:
        return self.quoted


@pytest.fixture
def _talkative() -> Iterator[None]:
    SCHEMES.update({"talkative": _Talkative, "async+talkative": _AsyncTalkative})
    yield
    del SCHEMES["talkative"], SCHEMES["async+talkative"]


PLACES = [
    "redis://{}@127.0.0.1:1/0",
    "rediss://{}@127.0.0.1:1",
    "valkey://{}@127.0.0.1:1/3?timeout=2",
    "valkeys://{}@[::1]:1",
    "redis://127.0.0.1:1?password={}",
    "redis+unix://{}@/nowhere/redis.sock",
    "valkey+unix://{}@/nowhere/redis.sock?db=2",
    "redis+cluster://{}@127.0.0.1:1,127.0.0.1:2",
    "redis+sentinel://{}@127.0.0.1:1,127.0.0.1:2/main",
    "memcached://{}@127.0.0.1:1",
    "memory://{}@x",
    "nowhere://{}@host",
    "talkative://{}@host",
    "talkative://{}@broken",
    "{}@127.0.0.1:1",
    "redis:{}@127.0.0.1:1",
]

RARE = "QXZJKWVqxzjkwv"
RESERVED = ":/?#[]@!$&'()*+,;=%\" <>\\^`{|}~-._\t\n\0é☃"


def parts(secret: str) -> set[str]:
    """The parts of a secret, five characters long, that no message may hold, as it is written and as it is meant."""
    return {
        form[at : at + 5]
        for form in (secret, quote(secret, safe=""), unquote(secret))
        for at in range(len(form) - 4)
        # Others may stand in any message.
        if sum(letter in RARE for letter in form[at : at + 5]) > 1
    }


class _Records(logging.Handler):
    """Keeps what is logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{self.format(record)} {record.args!r} {record.__dict__}")


def everything_said(kind: Any, uri: str) -> tuple[list[str], Any]:
    """What a limiter on this URI says in its errors, their tracebacks, its reprs and the log; and its storage."""
    records, said, storage = _Records(), [], None
    logging.getLogger().addHandler(records)
    try:
        for choice in ("allow", "raise"):
            limiter = kind({"news": "1/day"}, uri, timeout=0.02, on_storage_error=choice)
            storage = limiter.storage
            said += [repr(limiter), str(limiter), str(getattr(storage, "circuits", ""))]
            said += [repr(storage)] if kind_of(scheme_of(uri)) else []
            found = limiter.hit("news", "ana")
            decision = asyncio.run(found) if inspect.isawaitable(found) else found
            said += [repr(decision), str(decision), str(decision.error)]
    except NotifyError as error:
        said += traceback.format_exception(error)
        said += [repr(error), *map(repr, error.args)]
    finally:
        logging.getLogger().removeHandler(records)
    return said + records.texts, storage


kinds = st.sampled_from([Limiter, AsyncLimiter])


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("place", PLACES)
@given(st.text(RARE + RESERVED, min_size=5, max_size=30), st.sampled_from(["", "user"]), st.booleans(), kinds)
@example("XJ#KQVWZJ", "", False, Limiter)
@example("XJ?KQVWZJ=ZZQXV", "", False, Limiter)
@example("XJ/KQVWZJ", "user", False, Limiter)
@example("XJ://KQVWZJ", "user", False, Limiter)
@example("XJ@KQVWZJ/ZZQXV", "", False, Limiter)
@example("XJ@KQVWZJ,ZZQXV", "", False, Limiter)
@example("%51%58%5AXJ", "", False, Limiter)
@example("XJ%KQVWZJ", "", False, Limiter)
@example("[XJKQVWZJ", "", False, Limiter)
def test_no_part_of_a_password_is_ever_shown(place: str, secret: str, user: str, encoded: bool, kind: Any) -> None:
    """In no message, repr, log record or traceback; and what is accepted is understood exactly as it was written."""
    written = quote(secret, safe="") if encoded else secret
    login = written if "password=" in place else f"{user}:{written}"
    uri = place.format(login)
    said, storage = everything_said(kind, uri)
    text = "\n".join(said)

    assert said
    assert [part for part in parts(secret) if part in text] == []
    if storage is not None and "redis" in place and "://" in place:
        found = parse(uri, kind_of(scheme_of(uri)))  # type: ignore[arg-type]  # it has one
        meant = secret if encoded else unquote(secret)
        assert meant in (found.password, found.options.get("password"), found.username)
    elif "redis" in place and "://" in place:
        assert not encoded


# --- Numbers --------------------------------------------------------------------------------------------------------

TIMES = ("timeout", "socket_timeout", "socket_connect_timeout")
BAD_TIMES = ["-1", "0", "nan", "inf", "-inf", "1e10", "3600", "1_0", "x", "0x1", "½", "true", "1e-999"]
BAD_NUMBERS = {
    **dict.fromkeys(TIMES, BAD_TIMES),
    "max_connections": ["-1", "0", "1.5", "nan", "1e3", "4097", "99999999999999999999", "x"],
    "db": ["-1", "1.0", "nan", "2147483648", "x"],
    "health_check_interval": ["-1", "nan", "inf", "x"],
    "socket_read_size": ["-1", "0", "1e9", "x"],
    "protocol": ["1", "4", "x"],
    "ssl_min_version": ["1", "-5", "x"],
}
REDIS = [
    ("redis://h", RedisStorage),
    ("redis://h", AsyncRedisStorage),
    ("redis+unix:///s.sock", RedisStorage),
    ("redis+cluster://h:1", RedisClusterStorage),
    ("redis+cluster://h:1", AsyncRedisClusterStorage),
    ("redis+sentinel://h:1/s", RedisSentinelStorage),
    ("redis+sentinel://h:1/s", AsyncRedisSentinelStorage),
]
of_redis = pytest.mark.parametrize(("uri", "kind"), REDIS, ids=[f"{kind.__name__} {uri[:10]}" for uri, kind in REDIS])


@of_redis
@pytest.mark.parametrize("name", sorted(BAD_NUMBERS))
def test_numbers_in_a_uri(uri: str, kind: Any, name: str) -> None:
    """Each option that is a number has a range; what lies outside is an error at construction that says which."""
    for text in BAD_NUMBERS[name]:
        with pytest.raises(NotifyError, match=rf"its option {name} must be a (whole )?number") as caught:
            kind(f"{uri}?{name}={text}")
        assert caught.value.__cause__ is None


@of_redis
@pytest.mark.parametrize("name", sorted(BAD_NUMBERS))
def test_numbers_as_arguments(uri: str, kind: Any, name: str) -> None:
    """The same for the arguments of the storages, where other types can be passed too."""
    for bad in (-1, math.nan, math.inf, -math.inf, 10**10, True, "1", b"1", [1], 1 + 0j, 10**400, -0.5):
        if name == "health_check_interval" and bad in (10**10, 10**400):
            continue
        with pytest.raises(NotifyError, match=rf"{name}=.* must be a (whole )?number"):
            kind(uri, **{name: bad})
    if name != "timeout":
        if kind in (RedisSentinelStorage, AsyncRedisSentinelStorage):
            with pytest.raises(NotifyError, match=rf"{name}=.* must be a (whole )?number"):
                kind(uri, sentinel_kwargs={name: -1})
    else:
        with pytest.raises(NotifyError, match="timeout= must be a number of seconds above 0 and below 3600"):
            kind(uri, timeout=None)


@of_redis
def test_options_for_reading_replies(uri: str, kind: Any) -> None:
    """Programs share one URI among several clients, and redis-py shows `?decode_responses=True` in its manual. Here they
    have no effect; a reply that was decoded could not be read.
    """
    storage = kind(f"{uri}?decode_responses=True&encoding=UTF-8&encoding_errors=strict&retry_on_timeout=yes&timeout=2")

    assert storage.timeout == 2
    with pytest.raises(NotifyError, match="its option decode_responses must be true or false"):
        kind(f"{uri}?decode_responses=maybe")
    for other in ("latin-1", "utf-16", "nope"):
        with pytest.raises(NotifyError, match="its option encoding must be utf-8"):
            kind(f"{uri}?encoding={other}")


@of_redis
def test_numbers_that_are_allowed(uri: str, kind: Any) -> None:
    """Whole numbers, fractions and exponents, where they make sense."""
    assert kind(f"{uri}?timeout=2.5e-1&max_connections=4096&socket_connect_timeout=1").timeout == 0.25
    assert kind(f"{uri}?socket_timeout=3&health_check_interval=0&protocol=3&socket_read_size=1").timeout == 3
    assert kind(uri, timeout=3599.9, max_connections=1, socket_timeout=None, protocol=None).timeout == 3599.9


BAD_TIMEOUTS = [-1, 0, math.nan, math.inf, 1e10, 3600, True, "1", None, 10**400, -0.0]


@both
@pytest.mark.parametrize(
    "uri", ["memory://", "redis://h", "redis+cluster://h:1", "redis+sentinel://h:1/s", "memcached://h", "talkative://h"]
)
@pytest.mark.usefixtures("_talkative")
def test_time_outs_of_open_storage(opened: Callable[..., Any], uri: str) -> None:
    """For every scheme, those of `limits` too."""
    for bad in BAD_TIMEOUTS:
        assert "timeout= must be a number of seconds above 0 and below 3600, such as 0.5." in refusal(
            opened, uri, timeout=bad
        )


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (MemoryStorage, ()),
        (AsyncMemoryStorage, ()),
        (MemcachedStorage, ("memcached://h",)),
        (AsyncMemcachedStorage, ("memcached://h",)),
        (Limiter, ({},)),
        (AsyncLimiter, ({},)),
    ],
)
def test_time_outs_of_the_others(kind: Any, arguments: tuple[Any, ...]) -> None:
    """For every class that takes one."""
    for bad in BAD_TIMEOUTS:
        with pytest.raises(NotifyError, match="timeout= must be a number of seconds above 0 and below 3600"):
            kind(*arguments, timeout=bad)


def test_time_outs_of_a_pool() -> None:
    """A pool of the caller's own is held to the same."""
    import redis
    import redis.asyncio

    for bad in (-1, 0, math.nan, math.inf, 1e10):
        with pytest.raises(NotifyError, match="socket_timeout= must be a number of seconds"):
            RedisStorage(connection_pool=redis.ConnectionPool(socket_timeout=bad))
        with pytest.raises(NotifyError, match="socket_timeout= must be a number of seconds"):
            AsyncRedisStorage(connection_pool=redis.asyncio.ConnectionPool(socket_timeout=bad))
    pool = redis.asyncio.ConnectionPool(socket_timeout=None)
    assert AsyncRedisStorage(connection_pool=pool, timeout=2.0).timeout == 2
