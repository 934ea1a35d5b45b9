"""What another program wrote into an SQLite file, in any column of any table: an error of ours, and `clear` mends it."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given, settings, strategies as st

from backends import DAY, pause_window, window
from ratelimited_notify import Limiter, Rule, StorageError
from ratelimited_notify.storage import SQLiteStorage
from ratelimited_notify.storage.sqlite import schema
from ratelimited_notify.windows import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = 1_800_000_000
AT = NOW * 1_000_000
HEAD, OTHER = "test:{anastasia}:", "test:{bo}:"
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
WINDOWS = [window(strategy, 5, DAY) for strategy in STRATEGIES]
RESTS = ["news:m", "news:f", "news:s", "news:p"]
KEYS = [HEAD + rest for rest in RESTS[:3]]


class File:
    """One file for all examples, which anybody may write to."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "windows.db"
        self.storage = SQLiteStorage(f"sqlite:///{self.path}", clock=lambda: float(NOW))
        self.storage.probe()
        self.foreign = sqlite3.connect(self.path, isolation_level=None)

    def write(self, statement: str, *values: object) -> None:
        self.foreign.execute(statement, values)

    def empty(self) -> None:
        for table in ("items", "blocks", "schema_of_windows"):
            self.write(f"DELETE FROM {table}")
        self.write(f"INSERT INTO schema_of_windows VALUES ({schema.VERSION})")

    def close(self) -> None:
        self.foreign.close()
        self.storage.close()
        self.directory.cleanup()


@pytest.fixture(scope="module")
def file() -> Iterator[File]:
    made = File()
    yield made
    made.close()


# SQLite takes any of these for a column, whatever the type of the column is.
number = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 9) | st.integers(AT - 2 * DAY, AT + 2 * DAY)
BAD_TEXT = "CAST(? AS TEXT)"
foreign = (
    number.map(lambda value: ("?", value))
    | st.floats(allow_nan=False).map(lambda value: ("?", value))
    | st.binary(max_size=40).map(lambda value: ("?", value))
    | st.binary(max_size=40).map(lambda value: (BAD_TEXT, value))
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10).map(lambda value: ("?", value))
)


def block(numbers: list[int]) -> bytes:
    return array("q", numbers).tobytes()


numbers = st.lists(number, max_size=13).map(block) | st.binary(max_size=60)
value = (
    st.dictionaries(st.sampled_from(RESTS), numbers, max_size=4)
    .map(msgspec.msgpack.encode)
    .map(lambda value: ("?", value))
    | foreign
)
large = st.tuples(number, st.integers(-1, 3), number, st.just(0)).map(lambda four: block(list(four)))


def all_verbs(storage: SQLiteStorage) -> Iterator[tuple[str, Callable[[], Any]]]:
    tokens = [(AT, 1), (AT, 1), (AT, 1)]
    yield "peek", lambda: storage.peek(WINDOWS, KEYS, 1)
    for one, key in zip(WINDOWS, KEYS, strict=True):
        yield "acquire", lambda one=one, key=key: storage.acquire([one], [key], 1)
        yield "acquire", lambda one=one, key=key: storage.acquire([one], [key], 3)
    yield "acquire_many", lambda: storage.acquire_many([Request(WINDOWS, KEYS, 1)] * 2)
    yield "release", lambda: storage.release(WINDOWS, KEYS, 1, tokens)
    yield "pause", lambda: storage.pause(pause_window(), HEAD + RESTS[3], DAY)


def try_all(file: File) -> list[str]:
    """Ask for everything. Returns what the errors say."""
    said = []
    for verb, ask in all_verbs(file.storage):
        try:
            answer = ask()
        except StorageError as error:
            said.append(str(error))
            continue
        for verdict in {"acquire_many": answer, "peek": [answer], "acquire": [answer]}.get(verb, []):
            assert all(reading.count >= verdict.granted * (verb != "peek") for reading in verdict.readings)
    return said


@given(stored=value, expires=foreign, other=foreign, head=foreign)
@settings(max_examples=100)
@example(stored=(BAD_TEXT, b"\xffab"), expires=("?", 5), other=("?", 0), head=("?", "x"))
@example(stored=("?", b"\x80"), expires=(BAD_TEXT, b"\xffab"), other=("?", 0), head=(BAD_TEXT, b"\xffab"))
@example(stored=("?", b"\x80"), expires=("?", 5), other=(BAD_TEXT, b"\xff"), head=("?", b"\xff"))
def test_any_row(file: File, stored: Any, expires: Any, other: Any, head: Any) -> None:
    """Whatever a row holds, each verb answers or is an error of ours that shows nothing of it; nobody else is concerned."""
    file.empty()
    insert = "INSERT OR IGNORE INTO items (head, expires, value) VALUES ({}, {}, {})"
    file.write(insert.format("?", expires[0], stored[0]), HEAD, expires[1], stored[1])
    # A row of nobody, which is swept.
    file.write(insert.format(head[0], other[0], stored[0]), head[1], other[1], stored[1])
    said = try_all(file)
    file.storage._until_sweep = 0

    assert file.storage.acquire(WINDOWS, [OTHER + rest for rest in RESTS[:3]], 1).granted
    assert "anastasia" not in " ".join(said)
    assert not any("cannot read" not in each and "64 bits" not in each for each in said)
    file.storage.forget([*WINDOWS, pause_window()], [*KEYS, HEAD + RESTS[3]])
    assert file.storage.acquire(WINDOWS, KEYS, 1).granted


@given(
    stored=st.tuples(number, st.integers(-1, 2), number, number).map(list).map(block),
    places=st.lists(st.tuples(st.integers(2**32 - 2, 2**33 + 3), foreign, foreign, numbers.map(lambda it: ("?", it)) | foreign), max_size=4),
)  # fmt: skip
@settings(max_examples=60)
@example(stored=block([AT + DAY, 1, 9, AT]), places=[(2**32, ("?", "x"), ("?", b"x"), ("?", "text"))])
@example(stored=block([AT + DAY, 1, 9, AT - 2 * DAY]), places=[(2**32, (BAD_TEXT, b"\xff"), ("?", 5.5), ("?", 7))])
def test_any_hits_of_a_large_window(file: File, stored: bytes, places: list[Any]) -> None:
    """The rows of a window with very many hits are another table, and may hold anything too."""
    file.empty()
    file.write("INSERT INTO items VALUES (?, ?, ?)", HEAD, AT + DAY, msgspec.msgpack.encode({RESTS[0]: stored}))
    for place, newest, total, hits in places:
        statement = f"INSERT OR IGNORE INTO blocks VALUES (?, {newest[0]}, {total[0]}, {hits[0]})"
        file.write(statement, place, newest[1], total[1], hits[1])
    said = try_all(file)

    assert not any("cannot read" not in each and "64 bits" not in each for each in said)
    file.storage.forget(WINDOWS, KEYS)
    assert file.storage.acquire(WINDOWS, KEYS, 1).granted


@pytest.mark.parametrize(
    ("rest", "numbers"),
    [
        # A sum in the middle that is larger than the last, a last one that is smaller than the first, and counts below 0.
        (0, [AT + DAY, 0, 0, AT - 2 * DAY, 7, 9, AT, 8, 3]),
        (0, [AT + DAY, 0, 5, AT, 7, 4]),
        (0, [AT + DAY, 1, -1, AT]),
        (1, [AT + DAY, -1, 7]),
        (2, [AT + DAY, AT, -1, 1, 7]),
        (2, [AT + DAY, AT, 1, -1, 7]),
    ],
)
def test_no_window_has_fewer_hits_than_none(file: File, rest: int, numbers: list[int]) -> None:
    """It would have more left than its limit: an error that names the rule."""
    file.empty()
    file.write(
        "INSERT INTO items VALUES (?, ?, ?)", HEAD, AT + DAY, msgspec.msgpack.encode({RESTS[rest]: block(numbers)})
    )
    for ask in (file.storage.peek, file.storage.acquire):
        for cost in (1, 2):
            with pytest.raises(StorageError, match="a count of the rule 'rule'"):
                ask(WINDOWS[rest : rest + 1], KEYS[rest : rest + 1], cost)


@pytest.mark.parametrize("version", ["x", b"\xff", None, 0, -1, 1.5, "1e400"])
def test_a_version_that_is_none(file: File, version: Any) -> None:
    """Whatever stands for the version of the tables, it is an error that says so, and the file is left alone."""
    file.empty()
    file.write("DELETE FROM schema_of_windows")
    if version is not None:
        file.write("INSERT INTO schema_of_windows VALUES (?)", version)
    file.storage.close()
    for _, ask in all_verbs(file.storage):
        with pytest.raises(StorageError, match="does not say which version its tables have"):
            ask()
    file.empty()

    assert file.storage.check()


def test_a_row_too_large_for_us(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not fill the memory: it is not read, it is an error for its recipient alone, and it can be cleared and swept."""
    file.empty()
    file.storage.close()
    monkeypatch.setattr("ratelimited_notify.storage.sqlite.connection._LARGEST_VALUE", 100_000)
    file.write("INSERT INTO items VALUES (?, ?, zeroblob(200000))", HEAD, AT + DAY)
    file.write("INSERT INTO items VALUES ('gone', 0, zeroblob(200000))")
    for _, ask in all_verbs(file.storage):
        with pytest.raises(StorageError, match="a row that this release cannot read"):
            ask()
    file.storage._until_sweep = 0
    assert file.storage.acquire(WINDOWS, [OTHER + rest for rest in RESTS[:3]], 1).granted
    assert file.foreign.execute("SELECT count(*) FROM items WHERE head = 'gone'").fetchone() == (0,)

    assert file.storage.forget(WINDOWS, KEYS) >= 1
    assert file.storage.acquire(WINDOWS, KEYS, 1).granted
    file.storage.close()


@given(stored=st.dictionaries(st.sampled_from(STRATEGIES), numbers, min_size=1), pause=numbers | st.none())
@settings(max_examples=60)
def test_what_a_decision_says_of_any_row(file: File, stored: dict[Any, bytes], pause: bytes | None) -> None:
    """Whatever is in the windows of a recipient, what a limiter says can be read, sent as headers and written as JSON."""
    file.empty()
    rules = [Rule("news", "5/day", strategy=each, name=each) for each in STRATEGIES]
    limiter = Limiter(rules, file.storage)
    limiter.hit("news", "anastasia")
    ((held,),) = file.foreign.execute("SELECT value FROM items").fetchall()
    windows = msgspec.msgpack.decode(held)
    for rest in list(windows):
        strategy = next(each for each in STRATEGIES if each[0] == rest.rpartition(":")[2][:1])
        windows[rest] = stored.get(strategy, windows[rest])
    file.write("UPDATE items SET value = ?", msgspec.msgpack.encode(windows))
    for _ in range(2):
        try:
            decision = limiter.hit("news", "anastasia")
        except StorageError:
            break
        assert json.loads(json.dumps(decision.to_dict(), allow_nan=False)) == decision.to_dict()
        said = [
            repr(decision),
            str(decision),
            decision.retry_at,
            decision.reset_at,
            decision.blocked_by,
            decision.retry_after_header,
        ]
        assert said
        assert all(0 <= state.remaining <= 5 for state in decision.windows)
        assert all(len(each) < 500 for each in decision.headers(ratelimit=True).values())
    with suppress(StorageError):
        assert all(0 <= state.remaining <= 5 for state in limiter.windows("news", "anastasia"))
