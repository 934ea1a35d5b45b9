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
    from ratelimited_notify.gateways.smtp.message import Letter


class AsyncSMTPGateway(SMTPSettings):
    """`SMTPGateway` for asyncio, with the same arguments; needs the extra `smtp`.

    One gateway serves several event loops, one after another and at once; each has connections of its own, which end
    with `close()`, with the `async with` block, or when `asyncio.run` ends the loop. A call that is cancelled drops its
    connection.

    Raises:
        NotifyError: an argument cannot be used.
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
    ) -> str:
        """Send one message. Arguments, result and errors are those of `SMTPGateway`."""
        letter = self._letter(recipient, subject, body, headers, html)
        pool = await self._pool()
        async with pool.slots:
            self._check_open()
            connection = self._rested(pool)
            if connection is not None:
                with suppress(Stale):
                    return await self._deliver(letter, connection, pool)
            return await self._deliver(letter, await self._connect(), pool)

    async def close(self) -> None:
        """End all connections; later calls are refused, calls under way come to their end."""
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
        self._lock = threading.Lock()

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
        """Left waiting at its yield: a loop that is shut down closes its generators, and this one the connections."""
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
            # ValueError: a host name that cannot be encoded.
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
            # Nothing is awaited here: a cancellation would take the place of a success.
            if connection.in_step and not self._closed:
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
    """Await what aiosmtplib does, and let nothing of it outlive a cancellation.

    A cancellation that it swallows, see `cancellation`, would leave it waiting for the next reply until its timeout.
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
            # aiosmtplib's own data() does not tell a connection lost at the command from one lost at the message.
            protocol = self.client.protocol
            if protocol is None:
                raise ConnectionError("connection lost")
            protocol.write(step.payload + b"\r\n")
            reply = Reply(*await protocol.read_response(self.client.timeout))
        self.heard(reply)
        return reply

    async def quit(self) -> None:
        """Say goodbye, and do not wait long for the answer."""
        try:
            with suppress(Exception):
                await self.client.quit(timeout=GOODBYE_SECONDS)
        finally:
            self.drop()
        # The transport lets go of its socket in the loop's next round.
        await asyncio.sleep(0)

    def drop(self) -> None:
        """End the connection without another byte: what is still unsent of a message stays unsent."""
        with suppress(Exception):
            transport = self.client.transport
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
            self.client.close()
