"""Ways to fail: what gateways raise, and storages that fail or hang when they are told to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import http.client
import smtplib
import ssl
from typing import TYPE_CHECKING, Any

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

CANARY = "ana.secret@example.com"
"""A recipient, and what messages are made of, that no text of the library may show."""


async def ends_when_cancelled(call: Coroutine[Any, Any, object], steps: int) -> bool:
    """Whether a call that is cancelled after so many steps of the loop ends by that, or had ended before."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    came_late = task.done()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    return task.cancelled() or came_late


class ReadTimeout(Exception):
    """Named as those of httpx and requests are."""


class Timed_Out(Exception):  # noqa: N801  # some are written so
    """Named as those of telegram are, with an underscore."""


class SlowAnswer(ReadTimeout):
    """Says time-out only in the name of its base."""


class ServerDisconnectedError(OSError):
    """Named as the one of aiohttp is."""


class SubscriptionCancelled(Exception):
    """A refusal of the service's own, which has nothing to do with a cancelled call."""


# As requests has it: not the builtin one, and told apart from it by nothing but its module.
ForeignConnectionError = type("ConnectionError", (OSError,), {})

# As aiohttp has them: an OSError of a class of its own, with the number of the system's error.
ClientOSError = type("ClientOSError", (OSError,), {})
# As httpx has it: the connection was never there.
ConnectError = type("ConnectError", (Exception,), {})

NOT_SENT = (
    ValueError(CANARY),
    OSError(CANARY),
    ConnectionRefusedError(CANARY),
    ClientOSError(errno.ECONNREFUSED, CANARY),
    ConnectError(CANARY),
    KeyError(CANARY),
    TypeError(CANARY),
    SubscriptionCancelled(CANARY),
    smtplib.SMTPRecipientsRefused({CANARY: (550, b"no")}),
    ExceptionGroup(CANARY, [ValueError(CANARY), ConnectionRefusedError(CANARY)]),
)
"""What says that the message did not go out."""

MAYBE_SENT = (
    TimeoutError(CANARY),
    type("timeout", (OSError,), {})(CANARY),
    ReadTimeout(CANARY),
    Timed_Out(CANARY),
    SlowAnswer(CANARY),
    ConnectionResetError(CANARY),
    ConnectionAbortedError(CANARY),
    BrokenPipeError(CANARY),
    ConnectionError(CANARY),
    ForeignConnectionError(CANARY),
    ServerDisconnectedError(CANARY),
    smtplib.SMTPServerDisconnected(CANARY),
    http.client.RemoteDisconnected(CANARY),
    ClientOSError(errno.ECONNRESET, CANARY),
    http.client.IncompleteRead(CANARY.encode()),
    http.client.BadStatusLine(CANARY),
    ssl.SSLEOFError(CANARY),
    asyncio.IncompleteReadError(CANARY.encode(), 100),
    *(
        type(name, (Exception,), {})(CANARY)
        for name in (
            "ReadError",
            "WriteError",
            "ProtocolError",
            "RemoteProtocolError",
            "ConnectionClosedError",
            "HTTPClientError",
            "ChunkedEncodingError",
            "ClientPayloadError",
            "DeadlineExceeded",
        )
    ),
    concurrent.futures.CancelledError(CANARY),
    ExceptionGroup(CANARY, [ValueError(CANARY), ExceptionGroup(CANARY, [TimeoutError(CANARY)])]),
)
"""What leaves it open whether the message went out."""

INTERRUPTED = (
    KeyboardInterrupt(CANARY),
    SystemExit(CANARY),
    GeneratorExit(CANARY),
    asyncio.CancelledError(CANARY),
    BaseExceptionGroup(CANARY, [KeyboardInterrupt(CANARY)]),
)
"""What leaves it open too, and is no `Exception`."""


def raised_by(call: Callable[[], object]) -> BaseException | None:
    """What the call raises, interrupts included; None where it returns."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # handed on as a value
        return error
    return None


def named(error: BaseException) -> str:
    """The name of a case."""
    return type(error).__name__


class Unreliable(MemoryStorage):
    """Windows in memory that cannot be had: each verb in `failing` raises."""

    failing: Sequence[str] = ()

    def _fail(self, verb: str) -> None:
        if verb in self.failing:
            raise StorageError("The storage does not answer.")

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        self._fail("acquire")
        return super().acquire(windows, keys, cost)

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        self._fail("acquire_many")
        return super().acquire_many(requests)

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        self._fail("release")
        return super().release(windows, keys, cost, tokens)


class AsyncUnreliable(AsyncMemoryStorage):
    """The same, awaited; each verb in `hanging` has done its work, and its answer never comes."""

    failing: Sequence[str] = ()
    hanging: Sequence[str] = ()

    async def _answer(self, verb: str) -> None:
        if verb in self.hanging:
            await asyncio.Event().wait()

    def _fail(self, verb: str) -> None:
        if verb in self.failing:
            raise StorageError("The storage does not answer.")

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        self._fail("acquire")
        verdict = await super().acquire(windows, keys, cost)
        await self._answer("acquire")
        return verdict

    async def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        self._fail("acquire_many")
        verdicts = await super().acquire_many(requests)
        await self._answer("acquire_many")
        return verdicts

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        self._fail("release")
        return await super().release(windows, keys, cost, tokens)
