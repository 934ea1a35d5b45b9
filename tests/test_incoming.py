"""What arrives on a connection of asyncio: split off in the same way as redis-py's parser, wherever it is cut, and nothing left."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio.connection as redis_connection
from hypothesis import given, settings, strategies as st
from redis.exceptions import ResponseError, TimeoutError as RedisTimeoutError

from ratelimited_notify import AsyncLimiter, StorageError
from ratelimited_notify.storage.circuit import Circuit
from ratelimited_notify.storage.redis import failures
from ratelimited_notify.storage.redis.aio import AsyncRedisStorage
from ratelimited_notify.storage.redis.dial_aio import abort
from ratelimited_notify.storage.redis.incoming import Incoming, split
from ratelimited_notify.windows.strategies import Window
from servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servers import Valkey

PATIENT = 30.0
ROOM = 4096
RULES = {"news": "1000000/day"}
WINDOW = Window("moving-window", 1_000_000, 3_600_000_000, rule="news")
KEYS = ["n:{ana}:news:m"]


# --- Splitting ------------------------------------------------------------------------------------------------------


class Kept:
    """A receiver that keeps what it gets."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.found: list[Any] = []
        self.ended: list[Exception] = []

    @property
    def expects_replies(self) -> bool:
        return len(self.found) < self.expected

    def receive(self, found: Sequence[Any]) -> None:
        self.found += found
        if len(self.found) > self.expected:
            raise failures.UnexpectedReply

    def stumbled(self, inner: Any, error: Exception, *, ours: bool = False) -> None:
        self.ended.append(error)


class Plugged:
    """The writing end of a connection: only what `Incoming` uses."""

    class transport:  # noqa: D106, N801  # the name in asyncio
        set_protocol = staticmethod(lambda _: None)
        abort = staticmethod(lambda: None)


def plugged(protocol: int = 2) -> Any:
    """A connection of redis-py's, connected to nothing."""
    inner = redis_connection.Connection(protocol=protocol)
    if protocol == 3:
        inner.set_parser(redis_connection._AsyncRESP3Parser)
    inner._reader, inner._writer = asyncio.StreamReader(), Plugged()  # type: ignore[assignment]  # as little as is needed
    inner._parser.on_connect(inner)
    return inner


async def fed(expected: int, pieces: Sequence[bytes], protocol: int = 2) -> Kept:
    """What the receiver of a connection gets on which these pieces arrive."""
    inner, kept = plugged(protocol), Kept(expected)
    incoming = Incoming(inner, lambda: kept)
    for piece in pieces:
        # As the event loop does it.
        for begin in range(0, len(piece), ROOM):
            part = piece[begin : begin + ROOM]
            incoming.get_buffer(-1)[: len(part)] = part
            incoming.buffer_updated(len(part))
        # redis-py's parser runs in a task.
        for _ in range(3):
            await asyncio.sleep(0)
    for _ in range(3 * expected):
        await asyncio.sleep(0)
    incoming.close()
    return kept


def encoded(reply: Any, protocol: int = 2) -> bytes:
    """A reply as a server writes it."""
    match reply:
        case None:
            return b"$-1\r\n" if protocol == 2 else b"_\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case str():
            return f"-{reply}\r\n".encode()
        case _:
            return b"*%d\r\n%b" % (len(reply), b"".join(encoded(each, protocol) for each in reply))


replies = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=40),
        st.sampled_from([b"\r\n", b"$3\r\nabc\r\n", b"x" * 70_000]),
        st.sampled_from(["NOSCRIPT No matching script.", "ERR unknown", "MOVED 1 h:1"]),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def plain(reply: Any) -> Any:
    """A reply that can be compared: errors by their class and text, as those in lists are."""
    if isinstance(reply, list):
        return [plain(each) for each in reply]
    return (type(reply), str(reply)) if isinstance(reply, Exception) else reply


def meant(reply: Any) -> Any:
    """The same for what was encoded."""
    if isinstance(reply, list):
        return [meant(each) for each in reply]
    return plain(redis_connection._AsyncRESP2Parser.parse_error(reply)) if isinstance(reply, str) else reply


@pytest.mark.parametrize("protocol", [2, 3])
@given(several=st.lists(replies, min_size=1, max_size=6), data=st.data())
@settings(deadline=None)
def test_replies_arrive_in_order_however_they_are_cut(protocol: int, several: list[Any], data: st.DataObject) -> None:
    """Each reply reaches its receiver once and whole, whether it is split off here or by redis-py's parser."""
    everything = b"".join(encoded(each, protocol) for each in several)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(everything)), max_size=6)))
    pieces = [everything[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(everything)], strict=True)]
    kept = asyncio.run(fed(len(several), [piece for piece in pieces if piece], protocol))

    assert kept.ended == []
    assert [plain(each) for each in kept.found] == [meant(each) for each in several]


@given(data=st.binary(max_size=60))
@settings(max_examples=500)
def test_what_is_split_off_is_what_redis_py_reads(data: bytes) -> None:
    """Whatever arrives: what is taken for a reply here, redis-py's parser reads in the same way."""
    found, at, follows = split(data)

    async def read() -> list[Any]:
        inner = plugged()
        inner._reader.feed_data(data[:at])
        inner._reader.feed_eof()
        read = [await inner.read_response(disable_decoding=True) for _ in found]
        abort(inner)
        return read

    assert asyncio.run(read()) == found
    assert follows in ("incomplete", "other", "garbled")


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        (b"", ([], 0, "incomplete")),
        (b"$2\r\nab\r\n:-7\r\n", ([b"ab", -7], 13, "incomplete")),
        (b"$0\r\n\r\n", ([b""], 6, "incomplete")),
        (b"$2\r\nab\r", ([], 0, "incomplete")),
        (b":1\r\n$1", ([1], 4, "incomplete")),
        (b":1\r\n-ERR no\r\n", ([1], 4, "other")),
        (b"$-1\r\n", ([], 0, "other")),
        (b"$+1\r\na\r\n", ([], 0, "other")),
        (b"$1_0\r\n0123456789\r\n", ([], 0, "other")),
        (b":1_0\r\n", ([], 0, "other")),
        (b":--1\r\n", ([], 0, "other")),
        (b"$65537\r\n", ([], 0, "other")),
        (b"$" + b"1" * 30, ([], 0, "other")),
        (b"$1\r\nabc", ([], 0, "garbled")),
        (b":1\r\n$1\r\nabc", ([1], 4, "garbled")),
    ],
)
def test_what_follows_is_known(data: bytes, meaning: object) -> None:
    """A beginning is waited for, another type goes to redis-py's parser, and what is no reply is told apart from both."""
    assert split(data) == meaning


@pytest.mark.parametrize("surplus", [b"$2\r\nab\r\n", b":1\r\n", b"-ERR no\r\n", b"*0\r\n", b"$2", b"?"])
@pytest.mark.parametrize("together", [False, True])
def test_nobody_gets_a_reply_that_was_not_asked_for(surplus: bytes, together: bool) -> None:
    """What arrives without a request ends the connection, at once."""
    pieces = [b":5\r\n" + surplus] if together else [b":5\r\n", surplus]
    kept = asyncio.run(fed(1, pieces))

    assert kept.found[0] == 5
    assert len(kept.ended) == 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_surplus_reply_behind_an_error(protocol: int) -> None:
    """The same where redis-py's parser has the reply before."""
    kept = asyncio.run(fed(1, [b"-NOSCRIPT no\r\n:1\r\n"], protocol))

    assert isinstance(kept.found[0], ResponseError)
    assert len(kept.ended) == 1


# --- With servers ---------------------------------------------------------------------------------------------------


def test_no_task_is_left(valkey: Valkey) -> None:
    """Neither after a reply that is split off nor after an error, which redis-py's parser reads."""

    async def main() -> tuple[int, int]:
        storage = AsyncRedisStorage(valkey.url, timeout=PATIENT)
        with valkey.client() as client:
            client.script_flush()
        await storage.acquire([WINDOW], KEYS, 1)
        first = len(asyncio.all_tasks())
        await storage.acquire([WINDOW], KEYS, 1)
        tasks = first, len(asyncio.all_tasks())
        await storage.close()
        return tasks

    assert asyncio.run(main()) == (1, 1)


def test_an_idle_connection_that_ends_is_known_at_once(valkey: Valkey) -> None:
    """A server that restarts costs nobody a decision."""

    async def main() -> tuple[bool, int]:
        async with AsyncLimiter(RULES, valkey.url, timeout=PATIENT) as limiter:
            await limiter.hit("news", "bea@example.com")
            (lanes,) = limiter.storage._lanes.values()  # type: ignore[attr-defined]  # a storage on Redis has them
            with valkey.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            for _ in range(1000):
                if lanes.decisions._inner is None:
                    break
                await asyncio.sleep(0.01)
            gone = lanes.decisions._inner is None
            found = await asyncio.gather(*(limiter.hit("news", "bea@example.com") for _ in range(100)))
            return gone, min(decision.remaining for decision in found)

    assert asyncio.run(main()) == (True, 1_000_000 - 101)


async def _greeted(greeting: bytes, tasks: int, circuit: Circuit | None) -> tuple[list[BaseException | Any], int, Any]:
    """What tasks are told by a server that sends this at once and closes, and how often it was connected to."""
    accepted = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        with suppress(OSError):
            writer.write(greeting)
            writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    storage = AsyncRedisStorage(f"redis://{HOST}:{port}", timeout=PATIENT, circuit=circuit)
    found = await asyncio.gather(*(storage.acquire([WINDOW], KEYS, 1) for _ in range(tasks)), return_exceptions=True)
    await storage.close()
    server.close()
    await server.wait_closed()
    return found, accepted, storage.breaker.failures


def test_a_server_that_accepts_and_closes_is_not_asked_over_and_over() -> None:
    """Behind a proxy without servers, each task is told, and a lost connection counts once."""
    found, accepted, failed = asyncio.run(_greeted(b"", 50, Circuit(failures=100)))

    assert all(isinstance(each, StorageError) for each in found)
    assert accepted <= 50
    assert 1 <= failed <= accepted


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"-ERR max number of clients reached\r\n", "maxclients"),
        (b"-DENIED Redis is running in protected mode\r\n", "protected mode"),
        (b"220 mail.example.com ESMTP\r\n", "does not understand"),
    ],
)
def test_a_greeting_is_no_answer(greeting: bytes, said: str) -> None:
    """What a server sends before it is asked is an error in words, never somebody's reply."""
    (error,), _, _ = asyncio.run(_greeted(greeting, 1, None))

    assert isinstance(error, StorageError)
    assert said in str(error) or "broke before the answer" in str(error) or "cannot be reached" in str(error)


@pytest.mark.parametrize("error", [b"-MOVED x\r\n", b"-ASK \r\n"])
def test_a_redirection_that_nobody_asked_for_is_no_answer(error: bytes) -> None:
    """redis-py's parser stumbles over it; the caller gets an error of ours, and not that of the parser."""

    async def main() -> None:
        inner = plugged()
        inner._reader.feed_data(error)
        with pytest.raises(failures.UnexpectedReply):
            Incoming(inner, lambda: None)

    asyncio.run(main())


def test_who_comes_late_is_told_what_ended_the_connection(valkey: Valkey) -> None:
    """Callers wait for one connection, and the first of them loses it: the others are not told that the storage was closed."""

    async def main() -> BaseException | Any:
        storage = AsyncRedisStorage(valkey.url, timeout=PATIENT, circuit=None)
        connection = storage._of_loop().decisions
        deadline = asyncio.get_running_loop().time() + PATIENT

        async def first() -> None:
            await connection.put(b"PING\r\n", [bytes], deadline)
            connection.drop(RedisTimeoutError())

        _, late = await asyncio.gather(first(), connection.put(b"PING\r\n", [bytes], deadline), return_exceptions=True)
        await storage.close()
        return late

    late = asyncio.run(main())

    assert isinstance(late, failures.NothingSent)
    assert "in time, so nothing was sent" in str(late)


def test_long_replies_of_other_types(valkey: Valkey) -> None:
    """Lists of the server, in the middle of decisions, go to redis-py's parser and back."""

    async def main() -> tuple[int, int | None]:
        storage = AsyncRedisStorage(valkey.url, timeout=PATIENT)
        keys = [f"n:{{{number}}}:list:m" for number in range(3000)]
        work: list[Any] = [storage.acquire([WINDOW], [key], 1) for key in keys]
        found = await asyncio.gather(*work[:1500], storage.check(), *work[1500:])
        counted = sum(each is not True and each.granted for each in found)
        dropped = await asyncio.gather(storage.reset(), *(storage.peek([WINDOW], [key], 1) for key in keys))
        await storage.close()
        return counted, dropped[0]

    counted, dropped = asyncio.run(main())

    assert counted == 3000
    assert dropped is not None
    assert dropped >= 3000


@pytest.fixture
def eager() -> Callable[..., Any]:
    found = getattr(asyncio, "eager_task_factory", None)
    if found is None:
        pytest.skip("Tasks begin at once from Python 3.12 on")
    return found  # type: ignore[no-any-return]  # a factory


def test_with_tasks_that_begin_at_once(valkey: Valkey, eager: Callable[..., Any]) -> None:
    """The task for redis-py's parser may be done before anybody sees it."""

    async def main() -> int:
        asyncio.get_running_loop().set_task_factory(eager)
        with valkey.client() as client:
            client.script_flush()
        storage = AsyncRedisStorage(valkey.url, timeout=PATIENT)
        found = await asyncio.gather(*(storage.acquire([WINDOW], KEYS, 1) for _ in range(100)))
        await storage.close()
        return sum(each.granted for each in found)

    assert asyncio.run(main()) == 100
