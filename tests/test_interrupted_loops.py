"""An exception at every line of an exchange under asyncio, ours and those of asyncio that read: no answer goes to another caller."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import ratelimited_notify
from asked import RULES, People
from ratelimited_notify import AsyncLimiter, StorageError
from servers import HOST
from striking import Striking, Struck, StruckHard
from test_redis_access import Front

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from servers import Valkey

pytestmark = pytest.mark.slow

OURS = str(Path(ratelimited_notify.__file__).parent / "storage")
READING = tuple(str(Path(asyncio.__file__).parent / name) for name in ("selector_events.py", "sslproto.py"))
TIMEOUT = 0.5
HANGS_AFTER = 20.0

# The loop itself works on after such a strike: these are the only functions of asyncio in which it reads what has arrived.
READS = ("_read_ready", "_do_read", "buffer_updated", "get_buffer", "_app_protocol")


class ReadingStrike(Striking):
    """Raises at one of the lines of ours, or of asyncio's while it reads."""

    def follows(self, frame: Any) -> bool:
        if not super().follows(frame) or frame.f_code.co_name == "__del__":
            return False
        return self.files == (OURS,) or any(name in frame.f_code.co_name for name in READS)


class Loop:
    """An event loop that is run again after an interrupt, and a limiter in it."""

    def __init__(self, uri: str, people: People) -> None:
        self.people = people
        self._loop = asyncio.new_event_loop()
        # asyncio reports what was raised in its callbacks.
        self._loop.set_exception_handler(lambda *_: None)
        self._limiter = AsyncLimiter(RULES, uri, timeout=TIMEOUT, circuit=None)

    def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            return await asyncio.wait_for(call(), HANGS_AFTER)

        task = self._loop.create_task(main())
        while not task.done():
            try:
                self._loop.run_until_complete(task)
            except (KeyboardInterrupt, RuntimeError):
                # Interrupted, or stopped by an interrupt before.
                continue
        return task.result()

    async def waves(self) -> None:
        """Six answers; three are asked for while the first three may still be waited for."""
        first = [asyncio.create_task(self._ask(number)) for number in (0, 1, 2)]
        await asyncio.wait(first, timeout=TIMEOUT / 10)
        await asyncio.wait(first + [asyncio.create_task(self._ask(number)) for number in (3, 4, 5)])

    async def one(self) -> None:
        await self._ask(0)

    async def certainly(self) -> None:
        """Three answers that must come."""
        for number in (0, 1, 2):
            await self.people.await_answer(self._limiter, number)

    async def _ask(self, number: int) -> None:
        # These are known to have failed.
        with suppress(StorageError, Struck, StruckHard, KeyboardInterrupt):
            await self.people.await_answer(self._limiter, number)

    def close(self) -> None:
        self._loop.run_until_complete(self._limiter.close())
        self._loop.close()


def _struck_while_connecting(uri: str, error: type[BaseException], people: People) -> list[str]:
    """The same, while a connection is opened for several callers."""
    found: list[str] = []
    for at in itertools.count(1):
        loop, strike = Loop(uri, people), ReadingStrike(at, error, (OURS,))
        strike.during(lambda loop=loop: loop.run(loop.waves))  # type: ignore[misc]  # mypy does not infer it
        try:
            loop.run(loop.certainly)
            loop.close()
        except BaseException as failure:  # noqa: BLE001  # whatever it is, it is a fault
            found.append(f"after line {at} ({strike.where}): {failure!r}")
        found += [f"after line {at} ({strike.where}): {wrong}" for wrong in people.wrong]
        people.wrong.clear()
        if not strike.where:
            break
    return found


def _struck(uri: str, files: tuple[str, ...], error: type[BaseException], people: People) -> list[str]:
    """What went wrong after strikes at all lines."""
    loop, found, at = Loop(uri, people), [], 0
    while True:
        # The connection is open again.
        loop.run(loop.one)
        loop.run(loop.one)
        strike = ReadingStrike(at, error, files)
        strike.during(lambda: loop.run(loop.waves))
        found += [f"after line {at} ({strike.where}): {wrong}" for wrong in people.wrong]
        people.wrong.clear()
        if at and not strike.where:
            break
        at += 1
    loop.close()
    # All lines were struck, not only those before the first reply.
    assert at > 10
    return found


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def uris(valkey: Valkey, authority: trustme.CA, tmp_path: Path) -> Iterator[dict[str, str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with Front(valkey, context) as front:
        yield {
            "plain": valkey.url,
            "tls": f"rediss://{HOST}:{front.port}?ssl_ca_certs={tmp_path / 'authority.pem'}",
        }


# What is struck while the loop works on may never be seen, and a connection that ends in this way is not closed properly.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [Struck, StruckHard, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize(
    ("kind", "files"),
    [("plain", (OURS,)), ("plain", READING), ("tls", READING)],
    ids=["ours", "asyncio", "asyncio-tls"],
)
def test_an_exception_at_every_line_of_a_loop(
    uris: dict[str, str], kind: str, files: tuple[str, ...], error: type[BaseException]
) -> None:
    """Whatever was read and got lost with an exception, no caller is told what another one asked for."""
    people = People(f"loop-{os.getpid()}-{kind}-{len(files)}-{error.__name__}", 6)
    people.begin(uris["plain"])

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_struck, uris[kind], files, error, people).result() == []
    # What an exception left open, such as a socket that was just made, is closed before the next test.
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt], ids=lambda error: error.__name__)
def test_an_exception_at_every_line_while_a_loop_connects(valkey: Valkey, error: type[BaseException]) -> None:
    """The next callers connect again: nobody is told for ever what went wrong once."""
    people = People(f"opening-{os.getpid()}-{error.__name__}", 6)
    people.begin(valkey.url)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_struck_while_connecting, valkey.url, error, people).result() == []
    # What an exception left open, such as a socket that was just made, is closed before the next test.
    gc.collect()
