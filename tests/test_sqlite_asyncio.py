"""Windows in an SQLite file under asyncio: the event loop never waits, and a cancelled call counts nothing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from backends import DAY, window
from ratelimited_notify import AsyncLimiter, NotifyError, StorageError
from ratelimited_notify.storage import AsyncSQLiteStorage, SQLiteStorage
from ratelimited_notify.windows import Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = window("moving-window", 100, DAY)
KEY = ["test:{ana}:news:m"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "windows.db"


@pytest.fixture
def other(path: Path) -> Iterator[SQLiteStorage]:
    """Another storage on the file, which may keep it locked."""
    made = SQLiteStorage(f"sqlite:///{path}", timeout=20)
    made.acquire([ONE], ["other"], 1)
    yield made
    made.close()


class Locked:
    """Keeps the file locked in a thread, until the block ends."""

    def __init__(self, storage: SQLiteStorage) -> None:
        self._free, self._has = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=storage._database.write, args=(time.monotonic() + 20, self._keep))

    def _keep(self, cursor: object) -> None:
        self._has.set()
        self._free.wait(20)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._has.wait(20)

    def __exit__(self, *_: object) -> None:
        self._free.set()
        self._thread.join()


def count(storage: SQLiteStorage) -> int:
    return storage.peek([ONE], KEY, 1).readings[0].count


def test_the_event_loop_goes_on_while_the_file_is_locked(path: Path, other: SQLiteStorage) -> None:
    """Other tasks run while a decision waits for another process, up to the time-out and a little more."""

    async def main() -> int:
        storage, turns = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=0.3), 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.005)

        turning = asyncio.create_task(turn())
        with Locked(other):
            for ask in (storage.acquire([ONE], KEY, 1), storage.acquire_many([Request([ONE], KEY, 1)])):
                with pytest.raises(StorageError, match=r"stayed locked|no answer"):
                    await ask
        turning.cancel()
        assert (await storage.acquire([ONE], KEY, 1)).granted
        await storage.close()
        return turns

    assert asyncio.run(main()) > 10
    assert count(other) == 1


def test_a_thousand_tasks_and_two_event_loops(path: Path, other: SQLiteStorage) -> None:
    """Tasks of several event loops share one storage: exactly the limit gets in."""
    storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20)

    async def main() -> int:
        verdicts = await asyncio.gather(*(storage.acquire([ONE], KEY, 1) for _ in range(500)))
        return sum(verdict.granted for verdict in verdicts)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(main()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(storage.close())

    assert sum(found) == 100 == count(other)


@pytest.mark.parametrize("is_batch", [False, True])
def test_a_cancelled_call_counts_nothing(path: Path, other: SQLiteStorage, is_batch: bool) -> None:
    """Cancelled while it waits for its turn in the thread, or while the thread waits for the file: no hit stays counted."""

    async def main() -> None:
        storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20)

        async def ask() -> None:
            await (storage.acquire_many([Request([ONE], KEY, 1)] * 5) if is_batch else storage.acquire([ONE], KEY, 1))

        with Locked(other):
            asking = [asyncio.create_task(ask()) for _ in range(3)]
            await asyncio.sleep(0.05)
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            assert all(each.cancelled() for each in asking)
        # The thread does one after another, so what was given up is undone by now.
        assert (await storage.peek([ONE], KEY, 1)).readings[0].count == 0
        await storage.close()

    asyncio.run(main())
    assert count(other) == 0


def test_a_call_that_takes_too_long_counts_nothing(
    path: Path, other: SQLiteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk does not answer: the caller gets an error in time, and the hit is given back when the disk is there again."""
    asleep = threading.Event()

    async def main() -> None:
        storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=0.1)
        acquire = storage._storage._acquire

        def slow(*arguments: object) -> object:
            asleep.wait(20)
            return acquire(*arguments)  # type: ignore[arg-type]  # as they were passed

        monkeypatch.setattr(storage._storage, "_acquire", slow)
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(StorageError, match=r"no answer within 0\.1 seconds"):
                await storage.acquire([ONE], KEY, 1)
        assert time.monotonic() - began < 10
        asleep.set()
        await storage.close()

    asyncio.run(main())
    assert count(other) == 0


def test_event_loops_that_begin_at_once_share_one_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run one after another, so what is undone has been done before."""
    make = threading.Thread.__init__

    def slowly(thread: threading.Thread, *args: Any, **options: Any) -> None:  # Any: whatever a thread takes
        if str(options.get("name")).endswith("SQLite"):
            time.sleep(0.2)
        make(thread, *args, **options)

    monkeypatch.setattr(threading.Thread, "__init__", slowly)
    storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=10)
    loops = [threading.Thread(target=lambda: asyncio.run(storage.check())) for _ in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()

    assert sum(thread.name.endswith("SQLite") for thread in threading.enumerate()) == 1
    asyncio.run(storage.close())


def test_close_ends_the_thread(path: Path) -> None:
    """A storage has one thread, from its first call until it is closed or dropped, and can be used again."""

    def running() -> int:
        return sum("SQLite" in thread.name for thread in threading.enumerate() if thread not in earlier)

    def soon(number: int) -> bool:
        until = time.monotonic() + 20
        while running() != number and time.monotonic() < until:
            time.sleep(0.01)
        return running() == number

    async def use(storage: AsyncSQLiteStorage) -> None:
        assert await storage.check()
        await asyncio.gather(*(storage.acquire([ONE], KEY, 1) for _ in range(9)))

    # Those of other tests may be about to end.
    earlier = set(threading.enumerate())
    storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20)
    assert running() == 0
    for _ in range(2):
        asyncio.run(use(storage))
        assert running() == 1
        asyncio.run(storage.close())
        assert soon(0)
    asyncio.run(use(storage))
    del storage

    assert soon(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own(path: Path, other: SQLiteStorage) -> None:
    """After a fork, both go on with the same storage object."""
    storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20)
    asyncio.run(_once(storage))
    child = os.fork()
    if not child:
        try:
            os._exit(0 if asyncio.run(_once(storage)) else 1)
        finally:
            os._exit(2)
    asyncio.run(_once(storage))
    _, status = os.waitpid(child, 0)
    asyncio.run(storage.close())

    assert status == 0
    assert count(other) == 3


async def _once(storage: AsyncSQLiteStorage) -> bool:
    return (await storage.acquire([ONE], KEY, 1)).granted


def test_under_trio_it_says_what_works(path: Path) -> None:
    """Without an event loop of asyncio, the error names the way out."""
    trio = pytest.importorskip("trio")
    with closing(SQLiteStorage(f"sqlite:///{path}")), pytest.raises(NotifyError, match="run on asyncio"):
        trio.run(AsyncSQLiteStorage(f"sqlite:///{path}").acquire, [ONE], KEY, 1)


def test_a_limiter_on_it(path: Path) -> None:
    """`AsyncLimiter` takes the URI, and a `Limiter` on the same file counts in the same windows."""
    from ratelimited_notify import Limiter

    async def main() -> list[bool]:
        async with AsyncLimiter({"news": "3/day"}, f"sqlite:///{path}", timeout=20) as limiter:
            found = [(await limiter.hit("news", "ana")).allowed]
            found += [each.allowed for each in await limiter.hit_many("news", ["ana", "bo"])]
            assert await limiter.clear("news", "bo") == 1
            return found

    assert asyncio.run(main()) == [True] * 3
    with Limiter({"news": "3/day"}, f"sqlite:///{path}", timeout=20) as limiter:
        assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]


def test_tasks_that_wait_are_decided_in_one_transaction(path: Path, other: SQLiteStorage) -> None:
    """One at a time would cost each of them a transaction. Each gets its own verdict; together they get exactly the limit."""
    transactions = 0

    def clock() -> float:
        nonlocal transactions
        transactions += 1
        return time.time()

    async def main() -> list[bool]:
        storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20, clock=clock)
        with Locked(other):
            # The thread begins with the first, and waits.
            first = asyncio.create_task(storage.acquire([ONE], ["test:{ben}:news:m"], 1))
            await asyncio.sleep(0.1)
            tasks = [asyncio.create_task(storage.acquire([ONE], KEY, 1 + number % 2)) for number in range(200)]
            await asyncio.sleep(0.1)
        granted = [(await task).granted for task in (first, *tasks)]
        await storage.close()
        return granted

    granted = asyncio.run(main())

    assert transactions == 2
    # 33 pairs of 1 and 2, and another 1.
    assert granted == [True] + [True] * 67 + [False] * 133
    assert count(other) == 100


def test_one_of_many_tasks_is_cancelled(path: Path, other: SQLiteStorage) -> None:
    """It is not counted. The others are."""

    async def main() -> None:
        storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20)
        with Locked(other):
            tasks = [asyncio.create_task(storage.acquire([ONE], KEY, 1)) for _ in range(10)]
            await asyncio.sleep(0.1)
            for task in tasks[:3]:
                task.cancel()
            await asyncio.sleep(0.1)
        verdicts = await asyncio.gather(*tasks[3:])
        assert all(verdict.granted for verdict in verdicts)
        await storage.close()

    asyncio.run(main())

    assert count(other) == 7


def test_an_error_of_one_of_many_tasks_is_its_own(path: Path, other: SQLiteStorage) -> None:
    """What cannot be read in the row of one recipient is no error for the tasks that are decided with it."""
    other.acquire([ONE], ["test:{ben}:news:m"], 1)
    other._database.write(
        time.monotonic() + 20, lambda cursor: cursor.execute("UPDATE items SET value = x'C1' WHERE head LIKE '%ben%'")
    )

    async def main() -> list[object]:
        storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=20)
        with Locked(other):
            keys = [KEY, ["test:{ben}:news:m"], KEY, KEY]
            tasks = [asyncio.create_task(storage.acquire([ONE], key, 1)) for key in keys]
            await asyncio.sleep(0.1)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await storage.close()
        return [str(each) if isinstance(each, Exception) else each.granted for each in found]

    first, wrong, *others = asyncio.run(main())

    assert [first, *others] == [True] * 3
    assert "cannot read" in str(wrong)
    assert count(other) == 3


def test_tasks_that_wait_in_vain_get_errors_of_their_own(path: Path, other: SQLiteStorage) -> None:
    """All of them in time, however many they are, and nothing is counted."""

    async def main() -> list[BaseException]:
        storage = AsyncSQLiteStorage(f"sqlite:///{path}", timeout=0.3)
        with Locked(other):
            tasks = [asyncio.create_task(storage.acquire([ONE], KEY, 1)) for _ in range(50)]
            found = await asyncio.gather(*tasks, return_exceptions=True)
        await storage.close()
        return [each for each in found if isinstance(each, StorageError)]

    errors = asyncio.run(main())

    assert len({id(error) for error in errors}) == 50
    assert count(other) == 0
