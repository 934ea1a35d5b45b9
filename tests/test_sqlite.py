"""Windows in an SQLite file: the file itself, and everything that may be wrong with it. (Answers: test_storage_properties.py.)"""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from backends import DAY, HOUR, SECOND, FileBackend, window
from limiting import Clock
from ratelimited_notify import Limiter, NotifyError, RuleError, StorageError
from ratelimited_notify.storage import AsyncSQLiteStorage, SQLiteStorage, open_async_storage, open_storage
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.storage.sqlite import item, large, place, quick, schema
from ratelimited_notify.windows import Request
from test_storage_properties import Storages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE = window("moving-window", 3, DAY)
KEY = ["test:{ana}:news:m"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "windows.db"


@pytest.fixture
def open_file(path: Path) -> Iterator[Callable[..., SQLiteStorage]]:
    """Open the file with any options, as often as needed."""
    opened: list[SQLiteStorage] = []

    def open_one(**options: Any) -> SQLiteStorage:
        opened.append(SQLiteStorage(f"sqlite:///{path}", **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def hit(storage: SQLiteStorage, key: list[str] = KEY) -> bool:
    return storage.acquire([ONE], key, 1).granted


def count(storage: SQLiteStorage, key: list[str] = KEY) -> int:
    return storage.peek([ONE], key, 1).readings[0].count


def refused(storage: SQLiteStorage) -> str:
    """The message with which every verb is refused."""
    with pytest.raises(StorageError) as caught:
        hit(storage)
    for verb in (lambda: storage.peek([ONE], KEY, 1), lambda: storage.forget([ONE], KEY), storage.probe):
        with pytest.raises(StorageError):
            verb()
    assert not storage.check()
    assert "ana" not in str(caught.value)
    return str(caught.value)


# --- Windows with very many hits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hits_per_row", [1, 2])
def test_windows_with_very_many_hits_say_what_the_model_says(
    monkeypatch: pytest.MonkeyPatch, hits_per_row: int
) -> None:
    """Where hits have rows of their own, every answer is the model's, as in every other storage."""
    monkeypatch.setattr(item, "MOST_HITS", 2)
    monkeypatch.setattr(quick, "LONGEST", 2 * 24)
    monkeypatch.setattr(large, "HITS_PER_ROW", hits_per_row)
    backend = FileBackend(lambda uri, clock: SQLiteStorage(uri, clock=clock, timeout=20), asynchronous=False)
    try:
        run_state_machine_as_test(lambda: Storages(backend))
    finally:
        backend.close()


@pytest.mark.parametrize("hits_per_row", [1, 3, 100])
def test_hits_run_out_one_by_one(
    path: Path, open_file: Callable[..., SQLiteStorage], monkeypatch: pytest.MonkeyPatch, hits_per_row: int
) -> None:
    """Every answer of a window with very many hits is that of the memory, also about costs above 1 and hits given back."""
    monkeypatch.setattr(item, "MOST_HITS", 2)
    monkeypatch.setattr(quick, "LONGEST", 2 * 24)
    monkeypatch.setattr(large, "HITS_PER_ROW", hits_per_row)
    clock, one = Clock(), window("moving-window", 9, 100 * SECOND)
    storages = [open_file(clock=clock), MemoryStorage(clock=clock)]
    granted: list[tuple[int, Any]] = []

    def asked(ask: Callable[[Any], Any]) -> Any:
        answer, other = [ask(storage) for storage in storages]
        kept = [(reading.count, reading.retry_at, reading.reset_at) for reading in answer.readings]
        assert (answer.granted, kept) == (other.granted, [tuple(reading)[:3] for reading in other.readings])
        return [answer, other] if answer.granted else None

    for turn in range(120):
        # With pauses in which all of them run out.
        clock.advance((150 if turn % 40 == 39 else 4 + turn % 9) * SECOND)
        for cost in (1, 3, 10):
            asked(lambda storage, cost=cost: storage.peek([one], KEY, cost))
        cost = 1 + turn % 7 // 4
        verdicts = asked(lambda storage, cost=cost: storage.acquire([one], KEY, cost))
        if verdicts:
            granted.append((cost, verdicts))
        if turn % 11 == 10:
            cost, verdicts = granted.pop(-2)
            given = [
                storage.release([one], KEY, cost, [verdict.readings[0].token])
                for storage, verdict in zip(storages, verdicts, strict=True)
            ]
            assert given[0] == given[1]
        # What has run out is deleted with the next hit.
        assert _rows(path, "blocks") <= one.amount


def test_rows_of_hits_go_with_their_window(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """A window of 3,000 hits is read and written in a few rows, which go when it is over, cleared or swept."""
    clock = Clock()
    storage, many = open_file(clock=clock), window("moving-window", 5000, HOUR)
    for key, over in (
        ("test:{ana}:news:m", lambda: storage.forget([many], ["test:{ana}:news:m"])),
        ("test:{bo}:news:m", lambda: clock.advance(2 * HOUR)),
        # Another window in the same row is not over.
        ("test:{cy}:news:m", lambda: (clock.advance(2 * HOUR), hit(storage, ["test:{cy}:other:m"]))),
    ):
        for _ in range(12):
            storage.acquire_many([Request([many], [key], 1)] * 250)
            clock.advance(SECOND)
        assert storage.peek([many], [key], 1).readings[0].count == 3000
        assert 10 < _rows(path, "blocks") < 40
        over()
        for number in range(40):
            hit(storage, [f"test:{{other {number}}}:news:m"])

        assert _rows(path, "blocks") == 0


def _rows(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {table}")
    return int(rows)


# --- The file -----------------------------------------------------------------------------------------------------------


def test_only_its_user_can_read_a_new_file(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """The file, its log and the lock are this user's alone, whatever the umask is; the mode of a file that is there stays."""
    before = os.umask(0)
    try:
        hit(open_file())
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
        path.chmod(0o640)
        hit(open_file())
    finally:
        os.umask(before)

    assert modes == {f"windows.db{end}": 0o600 for end in ("", "-wal", "-shm", "-lock")}
    assert path.stat().st_mode & 0o777 == 0o640


_CRON = """
from ratelimited_notify import RateLimitExceeded, rate_limited

@rate_limited(type="report", limit="1/day")
def send(recipient):
    print("sent")

try:
    send("ana")
except RateLimitExceeded:
    print("refused")
"""


def test_a_cron_job_that_runs_twice_sends_once(path: Path) -> None:
    """Windows outlive the process, by the environment variable alone; the second run leaves nothing but the file."""
    runs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", _CRON],
            env={**os.environ, "RATELIMITED_NOTIFY_STORAGE": f"sqlite:///{path}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]

    assert runs == ["sent\n", "refused\n"]
    assert sorted(each.name for each in path.parent.iterdir()) == ["windows.db", "windows.db-lock"]


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder counts when the storage is made, not when it first decides."""
    monkeypatch.chdir(tmp_path)
    storage = open_storage("sqlite:///windows.db")
    monkeypatch.chdir("/")
    storage.acquire([ONE], KEY, 1)
    storage.close()

    assert (tmp_path / "windows.db").exists()


def test_a_month_of_traffic_leaves_only_those_who_are_there(
    path: Path, open_file: Callable[..., SQLiteStorage]
) -> None:
    """30 days, 300 new recipients a day with windows of a day: the file holds about those of two days, and does not grow."""
    clock, sizes = Clock(), []
    storage = open_file(clock=clock)
    for day in range(30):
        for part in range(10):
            storage.acquire_many([Request([ONE], [f"test:{{{day} {part} {n}}}:news:m"], 1) for n in range(30)])
            clock.advance(DAY // 10)
        sizes.append((_rows(path, "items"), storage._database.read(time.monotonic() + 9, _pages)))

    assert max(rows for rows, _ in sizes) < 3 * 300
    assert sizes[-1][1] <= sizes[4][1] + 4


def _pages(cursor: sqlite3.Cursor) -> int:
    return int(cursor.execute("PRAGMA page_count").fetchone()[0])


@pytest.mark.parametrize(("query", "level"), [("", 1), ("?synchronous=normal", 1), ("?synchronous=full", 2)])
def test_durability_is_chosen_in_the_uri(path: Path, query: str, level: int) -> None:
    """`synchronous=full` reaches SQLite, and `normal` is the default."""
    storage = SQLiteStorage(f"sqlite:///{path}{query}")
    levels = storage._database.read(
        time.monotonic() + 9, lambda cursor: cursor.execute("PRAGMA synchronous").fetchone()
    )
    storage.close()

    assert levels == (level,)


@pytest.mark.parametrize("opened", [open_storage, open_async_storage])
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///folder/", "names no file"),
        ("sqlite:///:memory:", "memory is memory://"),
        ("sqlite://windows.db", "three slashes"),
        ("sqlite://host/windows.db", "three slashes"),
        ("sqlite:///windows.db?synchronous=off", "synchronous=full"),
        ("sqlite:///windows.db?mode=ro", "synchronous=full"),
        ("sqlite:///windows.db?synchronous=full&synchronous=full", "twice"),
        ("sqlite:///windows.db?", "options"),
        ("sqlite:///windows#1.db", "contains a #"),
        ("sqlite:///100%.db", "%25"),
        ("sqlite:///a%0Ab.db", "cannot be printed"),
    ],
)
def test_a_uri_that_could_be_misunderstood_is_refused(opened: Callable[[str], object], uri: str, said: str) -> None:
    """A mistake is an error that says what to write, before any file is made."""
    with pytest.raises(NotifyError, match=said) as caught:
        opened(uri)

    assert not isinstance(caught.value, StorageError)
    assert "sqlite:///windows.db" in str(caught.value)


def test_a_path_may_hold_anything(tmp_path: Path) -> None:
    """Percent-encoded characters, and such as mean something to SQLite's own URIs, are part of the name."""
    storage = open_storage(f"sqlite:///{tmp_path}/a%20b%3Fmode=ro%26c%23%2525é.db")
    storage.acquire([ONE], KEY, 1)
    storage.close()

    assert (tmp_path / "a b?mode=ro&c#%25é.db").exists()


# --- What is not a file of windows ---------------------------------------------------------------------------------------


def _application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.commit()


def _rules(path: Path) -> None:
    from ratelimited_notify.sources.sql.schema import make_tables

    make_tables(f"sqlite:///{path}")


def _marked(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 12345")
        connection.commit()


@pytest.mark.parametrize("made", [_application, _rules, _marked])
def test_another_programs_file_is_refused_and_left_alone(
    path: Path, open_file: Callable[..., SQLiteStorage], made: Callable[[Path], None]
) -> None:
    """The application's database, rules, or a file with another mark: an error, not a byte changed, and no file beside it."""
    made(path)
    before = path.read_bytes()

    assert "of another program" in refused(open_file())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_rules_are_not_put_beside_windows(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """The other way round: `rules init` refuses a file of windows, and a source of rules says what it is, and what to make."""
    from ratelimited_notify.sources import SQLRules

    hit(open_file())
    with pytest.raises(NotifyError, match="holds the windows"):
        _rules(path)
    said = (
        rf"The file {path} holds the windows of a limiter .* run: ratelimited-notify rules init sqlite:///rules\.db\.$"
    )
    with pytest.raises(RuleError, match=said):
        Limiter(SQLRules(f"sqlite:///{path}"))
    with pytest.raises(RuleError, match=said):
        SQLRules(f"sqlite:///{path}").write({"rules": [{"type": "news", "limit": "1/day"}]})

    assert count(open_file()) == 1


def test_a_later_version_is_refused(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """A file that a later release has changed is not touched by this one."""
    storage = open_file()
    hit(storage)
    storage.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE schema_of_windows SET version = ?", (schema.VERSION + 1,))
        connection.commit()

    assert f"has version {schema.VERSION + 1} of the tables" in refused(open_file())


@pytest.mark.parametrize("damage", ["text", "header", "pages"])
def test_a_damaged_file_is_an_error(path: Path, open_file: Callable[..., SQLiteStorage], damage: str) -> None:
    """A file that cannot be read is never taken for an empty one; the limiter does what `on_storage_error` says."""
    storage = open_file()
    storage.acquire_many([Request([ONE], [f"test:{{{number}}}:news:m"], 1) for number in range(500)])
    hit(storage)
    storage.close()
    good = path.read_bytes()
    spoiled = {
        "text": b"not a database " * 500,
        "header": b"\0" * 16 + good[16:],
        "pages": good[:4096] + b"\xff" * (len(good) - 4096),
    }[damage]
    path.write_bytes(spoiled)

    assert "is damaged" in refused(open_file())
    for choice, allowed in (("allow", True), ("deny", False)):
        with Limiter({"news": "1/day"}, f"sqlite:///{path}", on_storage_error=choice) as limiter:
            assert limiter.hit("news", "ana").allowed is allowed
    assert path.read_bytes() == spoiled


def test_a_row_that_cannot_be_read_is_an_error_until_it_is_cleared(
    path: Path, open_file: Callable[..., SQLiteStorage]
) -> None:
    """Whatever is in a row, it is never read as empty, and `forget` deletes it."""
    storage = open_file()
    spoiled: bytes | str | int
    for spoiled in (
        b"",
        b"\xc1",
        b"\x81\xa1m",
        b"\x81\xa6news:m\xc4\x01x",
        b"\x81\xa6news:m\xc4\x10" + b"x" * 16,
        # As many numbers as a window has whose hits are elsewhere, and with the first number of a window that there cannot be.
        b"\x81\xa6news:m\xc4\x20" + b"x" * 32,
        b"\x81\xa6news:m\xc4\x20" + struct.pack("<4q", 1 << 60, large.MOST_WINDOWS, 1, 0),
        "text",
        5,
    ):
        hit(storage)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE items SET value = ?", (spoiled,))
            connection.commit()
        with pytest.raises(StorageError, match="cannot read"):
            hit(storage)
        assert storage.forget([ONE], KEY) == 1
        assert hit(storage)
        storage.forget([ONE], KEY)


def test_a_row_that_cannot_be_read_is_no_error_for_others(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """It is swept when it is over, whatever is in it and under whatever instant it is indexed."""
    storage = open_file()
    storage.probe()
    spoiled = ("text", 5, b"\xc1", b"\x81\xa6news:m\xc4\x20" + b"x" * 32)
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?)", [(f"test:{{{at}}}:", 0, each) for at, each in enumerate(spoiled)]
        )
        connection.commit()
    for number in range(40):
        assert storage.acquire([ONE], [f"test:{{{number + 10}}}:news:m"], 1).granted
    assert _rows(path, "items") == 40

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE items SET expires = 'text'")
        connection.commit()
    assert storage.acquire([ONE], ["test:{10}:news:m"], 1).readings[0].count == 2


@pytest.mark.parametrize("gone", ["-wal", "-shm"])
def test_what_sqlite_keeps_beside_the_file_is_deleted(
    path: Path, open_file: Callable[..., SQLiteStorage], gone: str
) -> None:
    """The next decision is an error, because nobody else would see it; the one after it opens the file anew."""
    storage = open_file()
    assert hit(storage)
    Path(f"{path}{gone}").unlink()

    with pytest.raises(StorageError, match="was deleted or replaced"):
        hit(storage)
    assert hit(storage)
    assert count(storage) == 2


def test_the_file_is_read_by_its_own_process(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """It gives up its locks, so another process takes itself for the last one and deletes the log."""
    storage = open_file()
    assert hit(storage)
    path.read_bytes()
    program = f"""
from ratelimited_notify import Limiter
with Limiter({{"news": "1/day"}}, "sqlite:///{path}") as limiter:
    assert limiter.hit("news", "ben")
"""
    subprocess.run([sys.executable, "-c", program], check=True)

    with pytest.raises(StorageError, match="was deleted or replaced"):
        hit(storage)
    assert hit(storage)
    other = open_file()
    assert [count(storage), hit(other), count(storage)] == [2, True, 3]


def test_a_file_that_another_program_has_taken_the_log_from(
    path: Path, open_file: Callable[..., SQLiteStorage]
) -> None:
    """It gets one again when it is opened."""
    storage = open_file()
    assert hit(storage)
    storage.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)

    assert [hit(storage), hit(storage), count(storage)] == [True, True, 3]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A missing folder, or a folder in the place of the file, is an error that says so."""
    (tmp_path / "file").touch()
    for path, said in (
        (tmp_path / "none" / "windows.db", f"The folder {tmp_path / 'none'} is not there"),
        (tmp_path / "file" / "windows.db", f"The folder {tmp_path / 'file'} is not there"),
        (tmp_path, f"{tmp_path} is a folder. Nothing was counted. Name a file in it: sqlite:///{tmp_path}/windows.db"),
    ):
        storage = SQLiteStorage(f"sqlite:///{path}")
        assert said in refused(storage)
        storage.close()


def test_an_emptied_file_is_an_error(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """A file that had windows and has nothing in it is not taken for a new one, with and without its log."""
    storage = open_file()
    hit(storage)
    storage.close()
    path.write_bytes(b"")
    assert "had windows and is empty now" in refused(open_file())

    path.unlink()
    other = open_file()
    assert hit(other)
    # The lock is new as well. The log has the windows.
    path.with_name("windows.db-lock").unlink()
    os.truncate(path, 0)
    with pytest.raises(StorageError, match="had windows and is empty now"):
        hit(other)


@pytest.mark.parametrize("has_lock", [True, False])
def test_the_log_of_an_emptied_file(path: Path, open_file: Callable[..., SQLiteStorage], has_lock: bool) -> None:
    """SQLite would delete it."""
    program = f"""
import os
from ratelimited_notify import Limiter
assert Limiter({{"news": "1/day"}}, "sqlite:///{path}").hit("news", "ana")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    log = path.with_name("windows.db-wal").read_bytes()
    if not has_lock:
        path.with_name("windows.db-lock").unlink()
    path.write_bytes(b"")

    assert "had windows and is empty now" in refused(open_file())
    assert path.with_name("windows.db-wal").read_bytes() == log != b""


@pytest.mark.parametrize("kind", [SQLiteStorage, AsyncSQLiteStorage, open_storage, open_async_storage])
def test_a_time_out_in_the_uri(path: Path, kind: Callable[..., Any]) -> None:
    """The command and the environment variable have no other place for it. It outranks the argument, as for Redis."""
    assert kind(f"sqlite:///{path}?timeout=7&synchronous=full", timeout=2).timeout == 7
    assert kind(f"sqlite:///{path}", timeout=2).timeout == 2
    for wrong in ("0", "-1", "3600", "nan", "soon", "inf"):
        with pytest.raises(NotifyError, match="timeout= must be a number of seconds above 0 and below 3600"):
            kind(f"sqlite:///{path}?timeout={wrong}")


def test_an_empty_file_that_is_new(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """An administrator may make it, for its owner and mode; and a file that was deleted begins anew."""
    path.touch(0o640)
    storage = open_file()
    assert hit(storage)
    storage.close()
    path.unlink()
    path.touch()
    assert "had windows and is empty now" in refused(open_file())
    path.unlink()
    assert hit(open_file())
    assert path.stat().st_size


_READ_ONLY = """
import os, sys
from ratelimited_notify.storage import open_storage, SQLiteStorage
from ratelimited_notify import StorageError
from ratelimited_notify.windows import Window
one = Window("moving-window", 3, 10**9, rule="news")
if os.getuid() == 0:
    # Everything is imported by now, or can be read by everybody.
    import limits.storage, limits.aio.storage, random, ctypes
    os.setgid(65534); os.setuid(65534)
storage = open_storage(f"sqlite:///{sys.argv[1]}")
try:
    storage.acquire([one], ["test:{ana}:news:m"], 1)
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_a_read_only_folder(is_there: bool) -> None:
    """Where this user may not write, a decision is an error that says what is needed, and nothing is changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "windows.db")
        if is_there:
            storage = SQLiteStorage(f"sqlite:///{path}")
            hit(storage)
            storage.close()
            path.with_name("windows.db-lock").unlink()
            path.chmod(0o444)
        path.parent.chmod(0o555)
        run = subprocess.run([sys.executable, "-c", _READ_ONLY, str(path)], capture_output=True, text=True, check=False)
        left = [each.name for each in path.parent.iterdir()]
        path.parent.chmod(0o755)

    assert "could not be opened for writing" in run.stdout, run.stderr
    assert left == ["windows.db"] * is_there


@pytest.mark.skipif(os.getuid() != 0, reason="Only root can act as two users.")
def test_users_of_one_group_share_a_file() -> None:
    """With the modes that the guide names; without them the error says what the other user must be allowed to do."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name, "windows.db")
        folder.chmod(0o2777)
        storage = SQLiteStorage(f"sqlite:///{path}")
        hit(storage)
        storage.close()
        command = [sys.executable, "-c", _READ_ONLY, str(path)]
        refusal = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for each, mode in ((folder, 0o2770), (path, 0o660), (folder / "windows.db-lock", 0o660)):
            os.chown(each, 0, 65534)
            each.chmod(mode)
        shared = subprocess.run(command, capture_output=True, text=True, check=False)
        storage = SQLiteStorage(f"sqlite:///{path}")
        counted = count(storage)
        storage.close()

    assert "to the file and to those beside it" in refusal
    assert (shared.stdout, shared.stderr, counted) == ("", "", 2)


_FULL = """
import resource, signal, sys
from ratelimited_notify.storage import open_storage
from ratelimited_notify import StorageError
from ratelimited_notify.windows import Window
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
one = Window("moving-window", 3, 10**12, rule="news")
storage = open_storage(f"sqlite:///{sys.argv[1]}")
key = "test:{%d}:news:m"
storage.acquire([one], [key % 0], 1)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
granted, said = 1, set()
for number in range(1, 400):
    try:
        granted += storage.acquire([one], [key % number], 1).granted
    except StorageError as error:
        said.add(str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
kept = sum(storage.peek([one], [key % number], 1).readings[0].count for number in range(400))
assert storage.acquire([one], [key % 999], 1).granted
storage.close()
print(granted, kept, *said)
"""


def test_a_full_disk(path: Path) -> None:
    """What cannot be written is an error and counts nothing; what was granted before is kept, and it goes on afterwards."""
    run = subprocess.run([sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, check=False)
    granted, kept, said = run.stdout.split(" ", 2)

    assert 0 < int(granted) < 400, run.stderr
    assert granted == kept
    assert said.count("could not be written") == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_that_is_deleted(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """The next decision of every process that had it open is an error; after it, all share a new file."""
    first, second = open_file(), open_file()
    assert [hit(first), hit(second)] == [True, True]
    path.unlink()
    for each in (first, second):
        with pytest.raises(StorageError, match="was deleted or replaced"):
            hit(each)

    assert [hit(first), hit(second), count(first)] == [True, True, 2]


def test_a_file_that_is_restored(path: Path, open_file: Callable[..., SQLiteStorage]) -> None:
    """A backup put in its place counts as it is, and nothing of the log of the old file gets into it."""
    first, second = open_file(), open_file()
    hit(first)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(f"{path}-backup")) as backup:
        source.backup(backup)
    first.acquire_many([Request([ONE], [f"test:{{{number}}}:news:m"], 1) for number in range(300)])
    assert [hit(first), hit(second)] == [True, True]
    Path(f"{path}-backup").replace(path)
    for each in (first, second):
        with pytest.raises(StorageError, match="was deleted or replaced"):
            hit(each)

    assert [count(first), hit(second), count(first)] == [1, True, 2]
    assert _rows(path, "items") == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_network_filesystem(
    path: Path, open_file: Callable[..., SQLiteStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Linux says that the folder is mounted from another machine, it is an error that says so; local disks are not."""
    device = os.makedev(0, 52)
    mounted = (
        "28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "97 28 0:52 / /srv/share rw,relatime shared:55 - {} server:/export rw,vers=4.2\n"
        "gibberish\n"
    )
    for kind in ("nfs4", "nfs", "cifs", "smb3", "fuse.sshfs"):
        assert place.network_in(mounted.format(kind), device) == kind
        assert place.network_in(mounted.format(kind), os.makedev(254, 0)) is None
    for kind in ("tmpfs", "overlay", "fuse.mergerfs", "btrfs"):
        assert place.network_in(mounted.format(kind), device) is None
    assert place.network_of(path.parent) is None

    monkeypatch.setattr("ratelimited_notify.storage.sqlite.connection.network_of", lambda folder: "nfs4")
    assert "network filesystem (nfs4)" in refused(open_file())
    assert list(path.parent.iterdir()) == []


def test_a_wall_clock_set_back_opens_no_window(open_file: Callable[..., SQLiteStorage]) -> None:
    """Another process whose clock is an hour behind sees every hit, and its own hits leave no earlier than those before."""
    clock = Clock()
    ahead, behind = open_file(clock=clock), open_file(clock=lambda: clock() - 3600)
    assert [hit(ahead), hit(ahead), hit(behind), hit(behind), hit(ahead)] == [True, True, True, False, False]
    stamps = [behind.peek([ONE], KEY, cost).readings[0].retry_at for cost in (1, 2, 3)]

    assert stamps == [clock.now + DAY] * 3


def test_a_call_from_its_own_clock_is_an_error(path: Path) -> None:
    """A limiter that asks itself for the time does not wait for itself."""
    said: list[str] = []

    def clock() -> float:
        if not said:
            said.append("")
            try:
                hit(storage)
            except StorageError as error:
                said[0] = str(error)
        return 1_700_000_000.0

    storage = SQLiteStorage(f"sqlite:///{path}", clock=clock)
    assert hit(storage)
    storage.close()

    assert "already in use by this thread" in said[0]


def test_a_clock_that_no_number_holds_is_an_error(open_file: Callable[..., SQLiteStorage]) -> None:
    """An instant of more than 64 bits is a `StorageError`, and counts nothing."""
    storage = open_file(clock=lambda: 1e15)
    for strategy in ("moving-window", "fixed-window", "sliding-window-counter"):
        with pytest.raises(StorageError, match="64 bits"):
            storage.acquire([window(strategy, 3)], ["test:{ana}:news:x"], 1)


def test_a_batch_that_fails_half_way_counts_nothing(
    open_file: Callable[..., SQLiteStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a later group of a batch cannot be written, the hits of the earlier groups are given back."""
    storage, many = open_file(), window("moving-window", 1000, DAY)
    write, calls = storage._database.write, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise StorageError("The disk is full.")
        return write(*arguments)

    monkeypatch.setattr(storage._database, "write", failing)
    with pytest.raises(StorageError, match=r"^The disk is full\.$"):
        storage.acquire_many([Request([many], KEY, 1)] * 300)

    assert storage.peek([many], KEY, 1).readings[0].count == 0


def test_the_file_is_opened_at_the_first_call(path: Path) -> None:
    """Making a limiter touches no file, so that a wrong path is a `StorageError` of a decision."""
    for kind in (SQLiteStorage, AsyncSQLiteStorage):
        kind(f"sqlite:///{path}")

    assert not path.exists()
