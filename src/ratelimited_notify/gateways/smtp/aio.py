"""The SMTP gateway for asyncio, on `aiosmtplib`."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from ratelimited_notify.cancellation import cancellation_count, raise_if_cancelled
from ratelimited_notify.errors import MissingExtra
from ratelimited_notify.forking import forkable
from ratelimited_notify.gateways.smtp.conversation import (
    Line,
    Reply,
    Stale,
    hand_over,
    telling,
    unanswered,
    unreachable,
)
from ratelimited_notify.gateways.smtp.settings import GOODBYE_SECONDS, SMTPSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping
    from types import TracebackType
    from typing import Self

    import aiosmtplib

    from ratelimited_notify.gateways.smtp.conversation import Step
    from ratelimited_notify.gateways.smtp.mailbox import Addresses
    from ratelimited_notify.gateways.smtp.message import Letter


class AsyncSMTPGateway(SMTPSettings):
    """`SMTPGateway` for asyncio, with the same arguments. Needs the extra `smtp`.

    One gateway works in several event loops, one after another or at the same time. Each loop has its own connections.
    They are closed by `close()`, at the end of the `async with` block, or when `asyncio.run` ends the loop. A cancelled
    call drops its connection.

    Raises:
        NotifyError: an argument is invalid.
        MissingExtra: aiosmtplib is not installed.
    """

    async def __call__(
        self,
        recipient: str,
        subject: str,
        body: str,
        *,
        headers: Mapping[str, str] | None = None,
        html: str | None = None,
        cc: Addresses = (),
        bcc: Addresses = (),
        reply_to: Addresses = (),
    ) -> str:
        """Send one message. Arguments, result and errors are the same as for `SMTPGateway`."""
        letter = self._letter(recipient, subject, body, headers, html, cc, bcc, reply_to)
        pool = await self._pool()
        async with pool.slots:
            self._check_open()
            connection = self._rested(pool)
            if connection is not None:
                with suppress(Stale):
                    return await self._deliver(letter, connection, pool)
            return await self._deliver(letter, await self._connect(), pool)

    async def close(self) -> None:
        """Close all connections. Calls that are already running finish; later calls raise `SMTPError`."""
        self._closed = True
        here = asyncio.get_running_loop()
        with self._lock:
            pools = list(self._pools.items())
        for loop, pool in pools:
            if loop is here:
                await pool.end()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(pool.end(), loop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _prepare(self) -> None:
        try:
            import_module("aiosmtplib")
        except ImportError:
            raise MissingExtra("smtp", "AsyncSMTPGateway") from None
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._lock = forkable(threading.Lock())

    async def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = _Pool(self._connections)
            with self._lock:
                for other in [other for other in self._pools if other.is_closed()]:
                    del self._pools[other]
                self._pools[loop] = pool
            pool.until_the_loop_ends = self._until_the_loop_ends(loop, pool)
            await anext(pool.until_the_loop_ends)
        return pool

    async def _until_the_loop_ends(self, loop: asyncio.AbstractEventLoop, pool: _Pool) -> AsyncGenerator[None, None]:
        """Close the connections when the loop ends: a loop that shuts down closes its generators, which runs `finally`."""
        try:
            yield
        finally:
            with self._lock:
                self._pools.pop(loop, None)
            await pool.end()

    def _rested(self, pool: _Pool) -> _Connection | None:
        while pool.resting:
            connection = pool.resting.pop()
            if not connection.rested_too_long():
                return connection
            connection.drop()
        return None

    async def _connect(self) -> _Connection:
        import aiosmtplib

        what = "the connection"
        client = aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            timeout=self.timeout,
            use_tls=self.tls == "implicit",
            start_tls=self.tls == "starttls",
            tls_context=self._tls_context,
            local_hostname=self._local_hostname,
        )
        connection = _Connection(client)
        try:
            await _until_cancelled(client.connect())
            try:
                await _until_cancelled(client.ehlo())
            except aiosmtplib.SMTPHeloError:
                await _until_cancelled(client.helo())
            if self._login:
                what = "the login"
                await _until_cancelled(client.login(*self._login))
        except BaseException as error:
            connection.drop()
            # A host name that cannot be encoded raises ValueError.
            if isinstance(error, (aiosmtplib.SMTPException, OSError, ValueError)):
                raise unreachable(what, error, self._place) from None if what == "the login" else telling(error)
            raise
        return connection

    async def _deliver(self, letter: Letter, connection: _Connection, pool: _Pool) -> str:
        conversation = hand_over(letter, connection, connection.client.esmtp_extensions, self._place)
        before = cancellation_count()
        try:
            with suppress(StopIteration):
                step = next(conversation)
                while True:
                    step = conversation.send(await self._exchange(connection, step))
                    raise_if_cancelled(before)
            return letter.message_id
        finally:
            # Do not await here: a cancellation would replace a success.
            if connection.reusable and not self._closed:
                pool.resting.append(connection)
            else:
                connection.drop()

    async def _exchange(self, connection: _Connection, step: Step) -> Reply:
        import aiosmtplib

        try:
            return await connection.exchange(step)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise unanswered(step, self._place) from telling(error)


async def _until_cancelled(work: Coroutine[object, object, object]) -> None:
    """Await a coroutine of aiosmtplib. After a cancellation, wait until it has really stopped.

    If aiosmtplib swallows the cancellation (see `cancellation`), it would wait for the next reply until its timeout.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.01)
        raise
    task.result()


class _Pool:
    until_the_loop_ends: AsyncGenerator[None, None]

    def __init__(self, connections: int) -> None:
        self.slots = asyncio.Semaphore(connections)
        self.resting: deque[_Connection] = deque()

    async def end(self) -> None:
        while self.resting:
            await self.resting.pop().quit()


class _Connection(Line):
    def __init__(self, client: aiosmtplib.SMTP) -> None:
        super().__init__()
        self.client = client

    async def exchange(self, step: Step) -> Reply:
        self.said()
        if not step.message:
            reply = Reply(*await self.client.execute_command(step.payload))
        else:
            # data() of aiosmtplib does not say whether the connection was lost at the command or during the message.
            protocol = self.client.protocol
            if protocol is None:
                raise ConnectionError("connection lost")
            protocol.write(step.payload + b"\r\n")
            reply = Reply(*await protocol.read_response(self.client.timeout))
        self.heard(reply)
        return reply

    async def quit(self) -> None:
        """Send QUIT, wait a short time for the answer, and close the connection."""
        try:
            with suppress(Exception):
                await self.client.quit(timeout=GOODBYE_SECONDS)
        finally:
            self.drop()
        # The transport closes its socket in the next iteration of the loop.
        await asyncio.sleep(0)

    def drop(self) -> None:
        """Close the connection without sending another byte. The unsent part of a message is not sent."""
        with suppress(Exception):
            transport = self.client.transport
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
            self.client.close()
