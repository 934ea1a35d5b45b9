"""What memcached and those in between may answer, and what an item may hold: nothing of it is ever taken for fewer hits."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from backends import pause_window
from memcached_storages import (
    PATIENT,
    fixed,
    item_of,
    key,
    moving,
    opened as opened,
    sliding,
    someone,
    storage as storage,
)
from proxy import HOST, Proxy
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.memcached.protocol import (
    LARGEST_VALUE,
    Garbled,
    Gets,
    Refusal,
    Store,
    TooLarge,
    Version,
)
from ratelimited_notify.storage.memcached.record import Item
from ratelimited_notify.windows.keys import split

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from servers import Memcached

LATEST = 2**62
"""Microseconds: twice as far as what can be read, and sums still fit into 64 bits."""

# --- Replies ------------------------------------------------------------------------------------------------------

KEY = b"test:{ana@example.com}"
ADD, CAS = Store(KEY, b"value", 10, None), Store(KEY, b"value", 10, b"7")
ANSWERS: list[tuple[Any, bytes, Any]] = [
    (Gets(KEY), b"END\r\n", (None, None)),
    (
        Gets(KEY),
        b"VALUE %b 0 5 18446744073709551615\r\nva\r\ne\r\nEND\r\n" % KEY,
        (b"va\r\ne", b"18446744073709551615"),
    ),
    (Gets(KEY), b"VALUE %b 0 0 1\r\n\r\nEND\r\n" % KEY, (b"", b"1")),
    (ADD, b"STORED\r\n", True),
    (ADD, b"NOT_STORED\r\n", False),
    (CAS, b"STORED\r\n", True),
    (CAS, b"EXISTS\r\n", False),
    (CAS, b"NOT_FOUND\r\n", False),
    (Version(), b"VERSION 1.6.18\r\n", True),
]
"""What is asked, a reply, and what it means."""


@pytest.mark.parametrize(("exchange", "reply", "meaning"), ANSWERS)
def test_a_reply_is_read_to_its_end(exchange: Any, reply: bytes, meaning: Any) -> None:
    """A part of a reply is waited for, a whole one understood, and one byte too many is no reply, wherever it is cut."""
    assert [exchange.read(reply[:end]) for end in range(len(reply))] == [None] * len(reply)
    assert exchange.read(reply) == exchange.read(bytearray(reply)) == meaning
    for more in (b"x", b"\r\n", reply):
        with pytest.raises(Garbled):
            exchange.read(reply + more)


@pytest.mark.parametrize(
    ("exchange", "reply"),
    [
        (Gets(KEY), b"VALUE %b 0 99999999999999 1\r\n" % KEY),
        (Gets(KEY), b"VALUE %b 0 %d 1\r\n" % (KEY, LARGEST_VALUE + 1)),
        (Gets(KEY), b"VALUE %b 0 -1 1\r\n" % KEY),
        (Gets(KEY), b"VALUE %b 0 5\r\nvalue\r\nEND\r\n" % KEY),
        (Gets(KEY), b"VALUE %b 0 5 x\r\nvalue\r\nEND\r\n" % KEY),
        (Gets(KEY), b"VALUE %b 0 4 1\r\nvalue\r\nEND\r\n" % KEY),
        (Gets(KEY), b"VALUE %b 0 5 1\r\nvalue\r\nVALUE x 0 1 1\r\n" % KEY),
        (Gets(KEY), b"VALUE test:{bo@example.com} 0 5 1\r\nvalue\r\nEND\r\n"),
        (Gets(KEY), b"VALUE %b 0 %b 1\r\n" % (KEY, b"9" * 1500)),
        (Gets(KEY), b"STORED\r\n"),
        (Gets(KEY), b"x" * 2048),
        (ADD, b"EXISTS\r\n"),
        (CAS, b"NOT_STORED\r\n"),
        (CAS, b"END\r\n"),
        (CAS, b"\r\n"),
        (Version(), b"STORED\r\n"),
    ],
)
def test_what_is_no_reply(exchange: Any, reply: bytes) -> None:
    """A reply to something else, of a wrong length or without end is refused as soon as that can be known."""
    with pytest.raises(Garbled):
        exchange.read(reply)


@pytest.mark.parametrize(
    ("said", "shown", "is_certain"),
    [
        (b"SERVER_ERROR out of memory storing object", "out of memory storing object", True),
        (b"SERVER_ERROR no room for ana@example.com", "an error of the server's own", False),
        (b"CLIENT_ERROR bad key ana@example.com", "it does not understand the request", True),
        (b"ERROR", "it does not understand the request", True),
    ],
)
def test_what_the_server_refuses(said: bytes, shown: str, *, is_certain: bool) -> None:
    """Of the server's words only those are shown that are known to name nobody."""
    for exchange in (Gets(KEY), CAS, Version()):
        with pytest.raises(Refusal) as raised:
            exchange.read(said + b"\r\n")

        assert (raised.value.said, raised.value.is_certain) == (shown, is_certain)


def test_an_item_too_large_is_told_apart() -> None:
    """Only what was to be stored can be too large."""
    said = b"SERVER_ERROR object too large for cache\r\n"
    with pytest.raises(TooLarge):
        CAS.read(said)
    with pytest.raises(Refusal) as raised:
        Gets(KEY).read(said)

    assert not isinstance(raised.value, TooLarge)


garbage = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.sampled_from([reply for _, reply, _ in ANSWERS]), st.binary(max_size=3), st.integers(0, 60)).map(
        lambda drawn: drawn[0][: drawn[2]] + drawn[1] + drawn[0][drawn[2] :]
    ),
    st.lists(st.sampled_from([b"VALUE", b" ", KEY, b"0", b"5", b"-1", b"\r\n", b"END", b"STORED", b"\xff"])).map(
        b"".join
    ),
)


@given(reply=garbage, number=st.integers(0, len(ANSWERS) - 1))
@settings(max_examples=500)
def test_any_bytes_are_a_reply_or_none(reply: bytes, number: int) -> None:
    """Whatever comes is the answer, or not all of it, or an error of the protocol's; an answer is all that came."""
    exchange = ANSWERS[number][0]
    with suppress(Garbled, Refusal):
        answer = exchange.read(reply)
        if isinstance(answer, tuple) and answer[0] is not None:
            assert reply.startswith(b"VALUE %b " % KEY)
            assert reply.endswith(b" %d %b\r\n%b\r\nEND\r\n" % (len(answer[0]), answer[1], answer[0]))
        elif answer is not None:
            assert reply.endswith(b"\r\n")
            assert reply.count(b"\r\n") == 1


class Meddler(Proxy):
    """Passes on something else than what the server answers."""

    change: ClassVar[Any] = staticmethod(bytes)  # Any: whatever the test says

    def _answer(self, server: socket.socket, client: socket.socket, *_: object) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                client.sendall(self.change(data))
        self._leave(client, server)


@pytest.fixture
def meddler(memcached: Memcached) -> Iterator[Meddler]:
    with Meddler(memcached.port) as made:
        yield made


@given(reply=garbage.filter(lambda reply: reply not in {answer for _, answer, _ in ANSWERS}), honest=st.integers(0, 2))
@settings(max_examples=40)
def test_any_bytes_instead_of_replies(
    opened: Callable[..., Any], memcached: Memcached, meddler: Meddler, reply: bytes, honest: int
) -> None:
    """Whatever comes instead of a reply, each verb is an error of ours, shows no recipient, and no hit that is granted is
    missing; the connection is not used again.
    """
    name, windows = someone(), [moving(50), fixed(50), sliding(50)]
    keys = [key(name, window) for window in windows]
    straight = opened(memcached.url, timeout=PATIENT)
    # Waiting in vain for the rest of a reply is what other tests are about.
    storage = opened(f"memcached://{HOST}:{meddler.port}", timeout=0.05, circuit=None)
    passed = 0

    def change(data: bytes) -> bytes:
        nonlocal passed
        passed += 1
        return data if passed <= honest else reply or b"\r\n"

    token = straight.acquire(windows, keys, 1).readings[0].token
    granted, said = 0, []
    for verb, arguments in (
        ("acquire", (windows, keys, 1)),
        ("peek", (windows, keys, 1)),
        ("release", (windows[:1], keys[:1], 1, [token])),
        ("acquire_many", ([(windows, keys, 1), (windows, keys, 1)],)),
    ):
        passed, meddler.__dict__["change"] = 0, change
        try:
            answer = getattr(storage, verb)(*arguments)
        except StorageError as error:
            said.append(str(error))
        else:
            granted += verb == "acquire" and answer.granted
        meddler.__dict__["change"] = bytes

        assert any(storage.check() for _ in range(20))
    counts = [reading.count for reading in straight.peek(windows, keys, 1).readings]

    assert min(counts[1:]) >= 1 + granted
    assert name not in " ".join(said)
    storage.close()
    straight.close()


# --- Items --------------------------------------------------------------------------------------------------------

WINDOWS = [moving(5, rule="one"), fixed(5, rule="two"), sliding(5, rule="three")]

number = st.one_of(
    st.integers(-2, 9),
    st.integers(1_000_000_000_000_000, 3_000_000_000_000_000),
    st.sampled_from([2**62, 2**63 - 5, 2**63, 2**64 - 1, -(2**63), 2**57]),
)
thing = st.one_of(
    number, st.floats(), st.none(), st.text(max_size=3), st.binary(max_size=3), st.lists(number, max_size=2)
)
packed = st.one_of(
    st.lists(number, max_size=7),
    st.lists(thing, max_size=7),
    thing,
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4).map(lambda pairs: [2, *sum(pairs, ())]),
)
rests = st.sampled_from([split(key("x", window))[1] for window in WINDOWS]) | st.text(max_size=3)
item = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.just(1) | number, number, st.dictionaries(rests, st.tuples(number, packed) | thing, max_size=4)).map(
        msgspec.msgpack.encode
    ),
)


def put(memcached: Memcached, name: str, value: bytes) -> None:
    memcached.ask(b"set %b 0 0 %d\r\n%b\r\n" % (item_of(name).encode(), len(value), value), b"STORED\r\n")


def held(memcached: Memcached, name: str) -> bytes:
    return memcached.ask(b"get %b\r\n" % item_of(name).encode(), b"END\r\n")


@given(value=item, cut=st.none() | st.integers(0, 60), which=st.sets(st.integers(0, 2), min_size=1))
@settings(max_examples=150)
def test_any_item(storage: Any, memcached: Memcached, value: bytes, cut: int | None, which: set[int]) -> None:
    """Whatever an item holds, each verb counts on from it or is an error of ours that leaves it alone; `forget` mends it."""
    name, windows = someone(), [WINDOWS[each] for each in sorted(which)]
    keys = [key(name, window) for window in windows]
    put(memcached, name, value if cut is None else value[:cut])
    stored = held(memcached, name)
    seen, said, left_alone = None, [], []
    for verb, arguments in (
        ("peek", (windows, keys, 1)),
        ("release", (windows, keys, 1, [(1, 2)] * len(windows))),
        ("acquire", (windows, keys, 1)),
        ("acquire_many", ([(windows, keys, 1)],)),
    ):
        try:
            answer = getattr(storage, verb)(*arguments)
        except StorageError as error:
            said.append(str(error))
            left_alone.append(verb == "acquire_many" or held(memcached, name) == stored)
        else:
            if verb == "peek":
                seen = answer
            if verb == "acquire":
                readings = answer.readings

                assert all(reading.reset_at < LATEST for reading in readings)
                assert seen is not None
                assert [reading.count for reading in readings] >= [reading.count for reading in seen.readings]
                if answer.granted:
                    again = storage.peek(windows, keys, 1).readings

                    assert all(reading.count >= 1 for reading in again)
                stored = held(memcached, name)
    storage.forget(windows, keys)

    assert all(left_alone)
    assert name not in " ".join(said)
    assert [reading.count for reading in storage.peek(windows, keys, 1).readings] == [0] * len(windows)
    assert storage.acquire(windows, keys, 1).granted is True


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\x93\x01\x02\x81\xa1\xff\x92\x01\x90", "these windows"),  # Text that is no UTF-8.
        (b"\x93\x01\xcf" + b"\xff" * 8 + b"\x80", "these windows"),  # The next hit would have a number beyond 64 bits.
        (b"\x93\x01\x02\x81\xa1a\x92\x01" + b"\x91" * 100_000 + b"\x90", "these windows"),  # Arrays in arrays.
        (b"\x93\x07\x02\x80", "these windows"),  # A layout to come.
        (msgspec.msgpack.encode([1, 2, {"rule0:m": [2**50, [2, 2**50, -1]]}]), "the rule 'news'"),
        (msgspec.msgpack.encode([1, 2, {"rule0:m": [2**50, [2, float("nan"), 1]]}]), "the rule 'news'"),
        (msgspec.msgpack.encode([1, 2, {"rule0:m": [2**50, [2, 2**63, 1]]}]), "the rule 'news'"),
        (msgspec.msgpack.encode([1, 2, {"rule0:m": [0, [9, 1, 1]]}]), "the rule 'news'"),
    ],
)
def test_clear_mends_an_item(storage: Any, memcached: Memcached, value: bytes, said: str) -> None:
    """What cannot be read is an error that says whose it is, and nothing is counted; `forget` drops it, as held."""
    name, window = someone(), moving(1)
    put(memcached, name, value)
    with pytest.raises(StorageError, match=rf"of {said} .*cannot read.*Nothing was counted.*`clear`"):
        storage.acquire([window], [key(name, window)], 1)
    forgotten = storage.forget([window], [key(name, window)])

    assert forgotten == 1
    assert storage.forget([window], [key(name, window)]) == 0
    assert [storage.acquire([window], [key(name, window)], 1).granted for _ in range(2)] == [True, False]


FIXED, SLIDING, MOVING, PAUSE = "rule0:f", "rule0:s", "rule0:m", "rule0:p"
AT = 1_764_000_000_000_000


@pytest.mark.parametrize(
    ("rest", "numbers"),
    [
        (FIXED, [AT, 1]), (FIXED, [AT, 1, 2, 3]), (FIXED, [AT, -1, 2]), (FIXED, [AT, 1, -2]), (FIXED, [2**61, 1, 2]),
        (FIXED, [-(2**61), 1, 2]), (FIXED, [AT, 2**62, 2]), (FIXED, [AT, 1, 2**63]), (FIXED, []),
        (SLIDING, [AT, 1, 2]), (SLIDING, [AT, 1, 2, 3, 4]), (SLIDING, [AT, -1, 1, 2]), (SLIDING, [AT, 1, -1, 2]),
        (SLIDING, [AT, 1, 1, -2]), (SLIDING, [2**61, 1, 1, 2]), (SLIDING, [-(2**61), 1, 1, 2]), (SLIDING, [AT, 2**62, 1, 2]),
        (SLIDING, [AT, 1, 2**62, 2]), (SLIDING, [AT, 1, 1, 2**63]),
        (MOVING, []), (MOVING, [1, AT]), (MOVING, [4, AT, 1, 1]), (MOVING, [2, AT]), (MOVING, [2, AT, 1, 5]),
        (MOVING, [3, AT, 1]), (MOVING, [3, AT, 1, 1, 5]), (MOVING, [3, AT, 1, 1, 5, 1]), (MOVING, [3, AT, 1, 0]),
        (MOVING, [3, AT, 1, -1]), (MOVING, [3, AT, 1, 5, 1, 1, -1]), (MOVING, [3, AT, 1, 2**62]),
        (MOVING, [3, AT, 1, 2**61, 1, 1, 2**61]), (MOVING, [2, 2**61, 1]), (MOVING, [2, -(2**61), 1]),
        (MOVING, [2, AT, 1, 2**61, 1]), (MOVING, [2, AT, 1, -(2**62), 1]), (MOVING, [2, AT, -1]), (MOVING, [2, AT, 1, 1, -2]),
        (MOVING, [2, AT, 2**63 - 1, 1, 1]),
        (PAUSE, []), (PAUSE, [AT, 1]), (PAUSE, [2**61]), (PAUSE, [-(2**61)]),
    ],
    ids=str,
)  # fmt: skip
def test_a_corrupt_count_is_an_error_and_not_fewer_hits(rest: str, numbers: list[int]) -> None:
    """Too few numbers, too many, or none that this library writes: nothing is read out of them, whatever the window."""
    window = {FIXED: fixed(5), SLIDING: sliding(5), MOVING: moving(5), PAUSE: pause_window()}[rest]
    item = Item(msgspec.msgpack.encode([1, 2, {rest: [AT, numbers]}]))

    with pytest.raises(StorageError, match=r"holds a count .*cannot read"):
        item.record(rest, window)


@pytest.mark.parametrize(
    "stored",
    [[1, 2], [1, 2, {}, 3], [0, 2, {}], [2, 2, {}], [1, -1, {}], [1, 2**63, {}], [1, 2, []], [1, 2, {FIXED: AT}],
     [1, 2, {FIXED: [AT]}], [1, 2, {FIXED: [AT, [], 1]}], [1, 2, {1: [AT, []]}], [1.5, 2, {}], {}, 1, None],
    ids=str,
)  # fmt: skip
def test_a_corrupt_item_is_an_error_and_not_an_empty_one(stored: object) -> None:
    """Of any other layout: nothing is read out of it."""
    with pytest.raises(StorageError, match=r"holds an item .*cannot read"):
        Item(msgspec.msgpack.encode(stored))


@pytest.mark.parametrize("kind", [moving, fixed, sliding])
def test_a_window_that_is_empty_again_is_deleted(storage: Any, memcached: Memcached, kind: Callable[..., Any]) -> None:
    """When its last hit is given back, nothing of it stays on the server; before that, it stays."""
    name, window = someone(), kind(5)
    tokens = [storage.acquire([window], [key(name, window)], 2).readings[0].token for _ in range(2)]
    empty = []
    for token in tokens:
        assert storage.release([window], [key(name, window)], 2, [token])
        empty.append(held(memcached, name) == b"END\r\n")

    assert empty == [False, True]


def test_what_cannot_be_read_keeps_no_other_window_from_counting(storage: Any, memcached: Memcached) -> None:
    """A window that cannot be read is left as it is by decisions about the recipient's other windows."""
    name, window, other = someone(), moving(5), fixed(5)
    put(memcached, name, msgspec.msgpack.encode([1, 2, {"rule0:m": [2**52, "odd"]}]))
    counts = [storage.acquire([other], [key(name, other)], 1).readings[0].count for _ in range(2)]

    assert counts == [1, 2]
    assert b"odd" in held(memcached, name)
    with pytest.raises(StorageError, match="'news'"):
        storage.peek([window], [key(name, window)], 1)
