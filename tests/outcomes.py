"""Exceptions that gateways raise, and storages that fail or hang on demand."""

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
"""The recipient, and the text of messages. No text of the library may contain it."""


async def ends_when_cancelled(call: Coroutine[Any, Any, object], steps: int) -> bool:
    """Cancel a call after some iterations of the loop. True if that ends the call, or if it had already ended."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    came_late = task.done()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    return task.cancelled() or came_late


class ReadTimeout(Exception):
    """Has the same name as in httpx and requests."""


class Timed_Out(Exception):  # noqa: N801  # named like an exception of another library
    """Has a name with an underscore, as in telegram."""


class SlowAnswer(ReadTimeout):
    """Only the name of its base class says timeout."""


class ServerDisconnectedError(OSError):
    """Has the same name as in aiohttp."""


class SubscriptionCancelled(Exception):
    """A refusal of a service. It has nothing to do with a cancelled call."""


# As in requests: not the builtin class, from which only its module distinguishes it.
ForeignConnectionError = type("ConnectionError", (OSError,), {})

# As in aiohttp: a subclass of OSError with the system's error number.
ClientOSError = type("ClientOSError", (OSError,), {})
# As in httpx: the connection was never made.
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
"""Exceptions after which the message was certainly not sent."""

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
"""Exceptions after which it is not known whether the message was sent."""

INTERRUPTED = (
    KeyboardInterrupt(CANARY),
    SystemExit(CANARY),
    GeneratorExit(CANARY),
    asyncio.CancelledError(CANARY),
    BaseExceptionGroup(CANARY, [KeyboardInterrupt(CANARY)]),
)
"""Also exceptions after which it is not known, but these are not subclasses of `Exception`."""


def raised_by(call: Callable[[], object]) -> BaseException | None:
    """The exception that the call raises, including interrupts, or None if it returns."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # returned as a value
        return error
    return None


def named(error: BaseException) -> str:
    """The name of a test case."""
    return type(error).__name__


class Unreliable(MemoryStorage):
    """A storage in memory in which each method named in `failing` raises."""

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
    """The same for asyncio. A method named in `hanging` does its work and then never returns."""

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
