"""What a server answers is checked wholly before any of it is used: anything else is a `StorageError` that shows nothing."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st

from limiting import LIMITERS
from proxy import Proxy
from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import decided, replies, scripts
from ratelimited_notify.storage.redis.failures import UnexpectedReply
from ratelimited_notify.storage.redis.slots import slot_ranges
from ratelimited_notify.windows.strategies import (
    FITS,
    MICROSECONDS,
    NEVER,
    RECORDS,
    Mode,
    Request,
    Verdict,
    Window,
    look,
    take,
)

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable

    from servers import Valkey

NOW = 1_800_000_000_000_000
DAY = 24 * 3600 * MICROSECONDS
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
SECRET = b"ana@example.com"

encode = msgspec.msgpack.encode


def window(strategy: Any = "moving-window", amount: int = 3, mode: Mode = Mode.ENFORCE) -> Window:
    return Window(strategy, amount, DAY, mode, rule="news")


# --- Valid replies, made by `windows.py` ----------------------------------------------------------------------------


def written(verdict: Verdict, windows: list[Window], *, brief: bool) -> list[int]:
    """What `decide.lua` writes for this grant."""
    numbers = []
    for reading, one in zip(verdict.readings, windows, strict=True):
        instant, sequence = reading.token or (-1, 0)
        if brief and instant >= 0 and one.strategy == "fixed-window":
            numbers += [-reading.count, instant]
        elif brief and (instant, sequence) == (verdict.now, 0) and one.strategy == "moving-window":
            numbers += [-reading.count]
        else:
            retry_at = {FITS: 0, NEVER: -1}.get(reading.retry_at, reading.retry_at)
            numbers += [reading.count, retry_at, reading.reset_at, instant, sequence]
    return [(1 if verdict.granted else -1) * (1 + len(numbers)), *numbers]


class Subject:
    """Requests, whether each was to be counted, and what is granted to them."""

    def __init__(self, requests: list[Request], taking: list[bool]) -> None:
        self.requests, self.taking = requests, taking
        records: dict[str, Any] = {}
        self.verdicts = []
        for (windows, keys, cost), takes in zip(requests, taking, strict=True):
            those = [records.setdefault(key, RECORDS[one.strategy]()) for one, key in zip(windows, keys, strict=True)]
            self.verdicts.append(take(windows, those, NOW, cost, 0) if takes else look(windows, those, NOW, cost))

    @property
    def reply(self) -> list[int]:
        """What a script that decides about several answers."""
        numbers = [NOW]
        for request, verdict in zip(self.requests, self.verdicts, strict=True):
            numbers += written(verdict, request.windows, brief=True)
        return numbers

    @property
    def single(self) -> list[int]:
        """What a script that decides about the last one answers."""
        return [NOW, *written(self.verdicts[-1], self.requests[-1].windows, brief=False)]


@st.composite
def asked(draw: st.DrawFn) -> Subject:
    plans = draw(
        st.lists(
            st.lists(
                st.builds(window, st.sampled_from(STRATEGIES), st.integers(0, 4), st.sampled_from(Mode)), max_size=3
            ),
            min_size=1,
            max_size=3,
        )
    )
    requests, taking = [], []
    for _ in range(draw(st.integers(1, 12))):
        number = draw(st.integers(0, len(plans) - 1))
        recipient = draw(st.integers(0, 2))
        keys = [f"{recipient}:{number}:{place}" for place in range(len(plans[number]))]
        requests.append(Request(plans[number], keys, draw(st.integers(1, 3))))
        taking.append(draw(st.booleans()))
    return Subject(requests, draw(st.sampled_from([taking, [True] * len(taking)])))


def read_all(made: Subject, reply: object) -> list[Verdict]:
    everything = None if all(made.taking) else made.taking
    found = decided.answers(reply, made.requests, everything)
    assert list(found.granted) == [verdict.granted for verdict in found]
    assert decided.verdicts(reply, made.requests, everything) == list(found)
    return list(found)


@given(made=asked())
def test_valid_replies_are_read(made: Subject) -> None:
    """What the script says is what the caller is told, however brief."""
    last = made.requests[-1].windows

    assert read_all(made, encode(made.reply)) == made.verdicts
    assert decided.verdict(encode(made.single), last, taking=made.taking[-1]) == made.verdicts[-1]
    assert decided.reader(last, taking=made.taking[-1])(encode(made.single)) == made.verdicts[-1]


@given(made=asked(), data=st.data())
@settings(max_examples=300)
def test_the_short_way_to_read_refuses_what_the_long_way_refuses(made: Subject, data: st.DataObject) -> None:
    """A reply that says that everything was counted is checked in one step, as strictly as any other."""
    windows, numbers = made.requests[-1].windows, made.single
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(numbers) - 1))
        numbers[at] = data.draw(st.one_of(st.integers(-30, 30), st.sampled_from([2**53, 2**53 + 1, True, 0.0])))
    if data.draw(st.booleans()):
        numbers.append(0)

    def outcome(read: Callable[[object], Verdict]) -> object:
        try:
            return read(encode(numbers))
        except StorageError as error:
            return type(error), str(error)

    for taking in (True, False):
        long = outcome(lambda reply, taking=taking: decided.verdict(reply, windows, taking=taking))  # type: ignore[misc]
        assert outcome(decided.reader(windows, taking=taking)) == long


def test_readings_that_are_made_when_they_are_read() -> None:
    """They are a sequence like any other."""
    windows = [window(amount=3), window("fixed-window", amount=4)]
    reply = encode([NOW, 11, 1, 0, NOW + 5, NOW, 0, 2, 0, NOW + 6, NOW + 6, 0])
    readings = decided.reader(windows, taking=True)(reply).readings

    assert isinstance(readings, decided.CountedReadings)
    assert (len(readings), readings[1], readings[-2:], list(readings)) == (
        2,
        list(readings)[1],
        list(readings),
        [*readings],
    )
    assert readings == decided.verdict(reply, windows).readings
    assert readings != []
    assert readings != 5
    assert repr(readings) == repr(list(readings))
    assert pickle.loads(pickle.dumps(readings)) == readings


def makes_sense(verdict: Verdict, windows: list[Window], *, taking: bool) -> bool:
    """Whether a storage may say this."""
    enforced = [r for r, one in zip(verdict.readings, windows, strict=True) if one.mode is Mode.ENFORCE]
    return (
        len(verdict.readings) == len(windows)
        and all(r.count >= 0 and (r.retry_at == FITS or r.retry_at > 0) and r.reset_at >= 0 for r in verdict.readings)
        and verdict.granted == all(r.retry_at == FITS for r in enforced)
        and all((r.token is not None) == (verdict.granted and taking) for r in enforced)
        and not any(r.token for r in verdict.readings if not (verdict.granted and taking))
    )


@given(made=asked(), data=st.data())
@settings(max_examples=300)
def test_changed_replies_are_errors_or_make_sense(made: Subject, data: st.DataObject) -> None:
    """A number changed, left out or put in: a `StorageError`, or an answer that a storage might have given."""
    numbers = made.reply
    at = data.draw(st.integers(0, len(numbers) - 1))
    other: Any = data.draw(
        st.one_of(
            st.integers(-30, 30), st.integers(-(2**63), 2**63), st.floats(), st.sampled_from([None, "x", True, []])
        )
    )
    match data.draw(st.sampled_from(["change", "drop", "insert", "cut"])):
        case "change":
            numbers[at] = other
        case "drop":
            del numbers[at]
        case "insert":
            numbers.insert(at, other)
        case _:
            del numbers[at:]
    with suppress(StorageError):
        found = read_all(made, encode(numbers))
        assert len(found) == len(made.requests)
        assert all(
            makes_sense(verdict, request.windows, taking=takes)
            for verdict, request, takes in zip(found, made.requests, made.taking, strict=True)
        )
    with suppress(StorageError):
        one = decided.verdict(encode(numbers), made.requests[0].windows, taking=made.taking[0])
        assert makes_sense(one, made.requests[0].windows, taking=made.taking[0])


PLAIN = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.binary(max_size=40), st.text(max_size=10))
ANYTHING = st.recursive(PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(), inner)))
PACKED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=12),
).map(encode)
READERS: list[Callable[[object], object]] = [
    lambda reply: decided.verdict(reply, [window()]),
    lambda reply: decided.verdict(reply, [window(), window("fixed-window")], taking=False),
    lambda reply: list(decided.answers(reply, [Request([window()], ["key"], 1)] * 3)),
    lambda reply: decided.verdicts(reply, [Request([window("fixed-window")], ["key"], 1)] * 2, [True, False]),
    lambda reply: replies.given(reply, [window()]),
    lambda reply: replies.number(reply, 3),
    scripts.pong,
    scripts.okay,
    scripts.scanned,
    slot_ranges,
]


@given(reply=st.one_of(ANYTHING, PACKED))
@example(reply=b"OK")
@example(reply=7)
@example(reply=None)
@example(reply=[])
@example(reply=[b"0"])
@example(reply=[[0, 1, [b"host", b"port"]]])
@example(reply=[[0, 16384, [b"host", 1]]])
@example(reply=b"\xc1")
@example(reply=encode([NOW, 6, 1, 0, 2.5, NOW, 0]))
@example(reply=encode([NOW, 6, 2**53 + 1, 0, NOW, NOW, 0]))
@settings(max_examples=300)
def test_any_reply_is_read_or_a_storage_error(reply: object) -> None:
    """Whatever comes, for every command that is sent: nothing but a `StorageError` comes of it, or what it means."""
    for read in READERS:
        with suppress(StorageError):
            read(reply)


@pytest.mark.parametrize("number", range(len(READERS)))
@pytest.mark.parametrize("reply", [b"ana@example.com", [b"ana@example.com"], encode(["ana@example.com"])])
def test_an_unexpected_reply_is_not_shown(number: int, reply: object) -> None:
    """It may hold anything, an address for example; neither it nor what was raised on the way is in the error."""
    with pytest.raises(UnexpectedReply, match="does not understand") as raised:
        READERS[number](reply)

    error = raised.value
    assert "ana" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("read", "reply", "meaning"),
    [
        (lambda reply: replies.given(reply, [window()] * 2), 2, 2),
        (lambda reply: replies.number(reply, 3), 0, 0),
        (scripts.pong, b"PONG", True),
        (scripts.okay, b"OK", True),
        (scripts.scanned, [b"17", [b"a", b"\xff", b"n:{ana}:r:m"]], (b"17", [b"n:{ana}:r:m"])),
        (slot_ranges, [[0, 16383, [b"h", 1, b"id", []], [None, 2]]], [[0, 16383, [b"h", 1, b"id", []], [None, 2]]]),
        (slot_ranges, [], []),
    ],
)
def test_other_commands_are_read(read: Callable[[object], object], reply: object, meaning: object) -> None:
    """What the server says to the other commands is understood."""
    assert read(reply) == meaning


def test_a_count_is_within_what_was_asked() -> None:
    """More windows, more dropped keys than there were: not an answer."""
    for read in (lambda reply: replies.given(reply, [window()]), lambda reply: replies.number(reply, 1)):
        for reply in (2, -2, 2**70, True, 1.0, b"1"):
            with pytest.raises(UnexpectedReply):
                read(reply)


def test_a_batch_of_nothing() -> None:
    """The answer to no requests is only the time."""
    assert list(decided.answers(encode([NOW]), [])) == []
    with pytest.raises(UnexpectedReply):
        decided.answers(encode([NOW, 1]), [])


TWO_MOVING = [Request([window()], ["key"], 1)] * 2
TWO_FIXED = [Request([window("fixed-window")], ["key"], 1)] * 2
REFUSED = [-6, 3, NOW + 5, NOW + 5, -1, 0]


@pytest.mark.parametrize(
    ("requests", "numbers"),
    [
        (TWO_MOVING, [2, -1]),
        (TWO_MOVING, [2, -1, 3, -2]),
        (TWO_MOVING, [2, -1, 2, 0]),
        (TWO_MOVING, [2, -1, 2, 2]),
        (TWO_MOVING, [2, -1, -2, -2]),
        (TWO_MOVING, [2, -1, 2, -2, 2, -3]),
        (TWO_MOVING, [2, -1, 3, -2, NOW + 5]),
        (TWO_MOVING, [2, -1, -6, 3, NOW + 5, NOW + 5, NOW, 0]),
        (TWO_MOVING, [2, -1, -6, 3, 0, NOW + 5, -1, 0]),
        (TWO_MOVING, [2, -1, -6, 3, -2, NOW + 5, -1, 0]),
        (TWO_MOVING, [*REFUSED, *REFUSED[:-1]]),
        (TWO_MOVING, [*REFUSED, 6, *REFUSED[1:]]),
        (TWO_FIXED, [3, -1, NOW + 5, 3, -2, NOW]),
        (TWO_FIXED, [3, -1, NOW + 5, 2, -2]),
    ],
)
def test_wrong_batches(requests: list[Request], numbers: list[int]) -> None:
    """Sizes, counts, ends and tokens that do not fit together, in one of the answers: none of them is used."""
    with pytest.raises(UnexpectedReply):
        decided.answers(encode([NOW, *numbers]), requests)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_an_odd_window_is_named(place: int) -> None:
    """Which window of which request holds something else: the error names its rule, and the request."""
    rules = [Window("fixed-window", 3, DAY, rule=name) for name in ("one", "two", "three")]
    requests = [Request(rules[:1], ["a"], 1), Request(rules[1:], ["b", "c"], 1)]
    with pytest.raises(replies.UnreadableWindow, match=f"rule '{rules[place - 1].rule}'") as raised:
        decided.answers(encode([NOW, 0, place]), requests)

    assert raised.value.request == min(place - 1, 1)
    assert pickle.loads(pickle.dumps(raised.value)).request == raised.value.request
    with pytest.raises(replies.UnreadableWindow, match=f"rule '{rules[place - 1].rule}'"):
        decided.verdict(encode([NOW, 0, place]), rules)
    with pytest.raises(replies.UnreadableWindow, match=f"rule '{rules[place - 1].rule}'"):
        replies.given(-place, rules)
    with pytest.raises(UnexpectedReply):
        decided.answers(encode([NOW, 0, 4]), requests)


# --- On the way from a real server ----------------------------------------------------------------------------------


class Changing(Proxy):
    """A proxy that answers something else instead of what the server says to a script."""

    instead = b""
    answering = False
    """Whether it is a plain proxy for the moment."""
    opened = 0
    """How many connections there were."""

    def _answer(
        self, server: socket.socket, client: socket.socket, script: threading.Event, begun: threading.Event
    ) -> None:
        self.opened += 1
        with suppress(OSError):
            while data := server.recv(1 << 20):
                client.sendall(self.instead if script.is_set() and not self.answering else data)
        self._leave(client, server)


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


INSTEAD = {
    "ok": b"+OK\r\n",
    "number": b":7\r\n",
    "nothing": b"$-1\r\n",
    "empty": b"*0\r\n",
    "array": b"*2\r\n:1\r\n" + bulk(SECRET),
    "text": bulk(SECRET),
    "bytes": bulk(b"\xc1\xff\x00"),
    "map": bulk(encode({"a": 1})),
    "texts": bulk(encode([SECRET.decode()])),
    "no window": bulk(encode([NOW, 1])),
    "too few": bulk(encode([NOW, 6, 1, 0, NOW, NOW])),
    "too many": bulk(encode([NOW, 6, 1, 0, NOW, NOW, 0, 0])),
    "wrong size": bulk(encode([NOW, 4, 1, 0, NOW, NOW, 0])),
    "below zero": bulk(encode([NOW, 6, -1, 0, NOW, NOW, 0])),
    "not whole": bulk(encode([NOW, 6, 1.5, 0, NOW, NOW, 0])),
    "too large": bulk(encode([NOW, 6, 2**60, 0, NOW, NOW, 0])),
    "infinite": bulk(encode([NOW, 6, float("inf"), 0, NOW, NOW, 0])),
    "nothing taken": bulk(encode([NOW, 6, 1, 0, NOW, -1, 0])),
    "refused and taken": bulk(encode([NOW, -6, 1, 0, NOW, NOW, 0])),
    "refused, no reason": bulk(encode([NOW, -6, 1, 0, NOW, -1, 0])),
}


@pytest.mark.parametrize("instead", INSTEAD.values(), ids=INSTEAD)
@pytest.mark.parametrize("kind", LIMITERS)
def test_a_wrong_reply_is_the_storages_failure(valkey: Valkey, kind: str, instead: bytes) -> None:
    """`on_storage_error` applies to every kind of wrong reply, and so to every verb; nothing of it is shown."""
    with Changing(valkey.port) as proxy:
        for said in ("raise", "allow", "deny"):
            limiter = LIMITERS[kind](
                {"news": "3/day"}, proxy.url.replace("/0", "/9"), on_storage_error=said, namespace="wrong"
            )
            proxy.instead = instead
            for verb, decides in (("hit", True), ("test", True), ("hit_many", True), ("clear", False)):
                if verb == "test" and instead == INSTEAD["nothing taken"]:
                    # As it should be.
                    continue
                who = ["ana"] if verb == "hit_many" else "ana"
                if said == "raise" or not decides:
                    with pytest.raises(StorageError) as raised:
                        getattr(limiter, verb)("news", who)
                    assert SECRET.decode() not in f"{raised.value} {raised.value.__cause__}"
                else:
                    found = getattr(limiter, verb)("news", who)
                    for decision in found if verb == "hit_many" else [found]:
                        assert (decision.allowed, decision.windows) == (said == "allow", ())
                        assert SECRET.decode() not in decision.error
            limiter.close()


@pytest.mark.parametrize("size", [1, 200, 600], ids=["single", "batch", "long batch"])
@pytest.mark.parametrize("kind", LIMITERS)
def test_a_wrong_reply_drops_the_connection(valkey: Valkey, kind: str, size: int) -> None:
    """What else may be on its way there is never taken for an answer to the next call, which has a new connection."""
    people = [f"person-{number}" for number in range(size)]
    with Changing(valkey.port) as proxy:
        limiter = LIMITERS[kind]({"news": "900/day"}, proxy.url, namespace=f"dropped-{kind}-{size}", timeout=10)
        for wrong in (INSTEAD["number"], INSTEAD["wrong size"], INSTEAD["nothing"]):
            proxy.instead = b""
            proxy.answering = True
            assert all(limiter.hit_many("news", people))
            opened = proxy.opened
            assert all(limiter.hit_many("news", people))
            assert proxy.opened == opened
            proxy.answering, proxy.instead = False, wrong
            with pytest.raises(StorageError, match="does not understand"):
                limiter.hit_many("news", people)
            proxy.answering = True
            assert all(limiter.hit_many("news", people))
            assert proxy.opened == opened + 1
        limiter.close()
