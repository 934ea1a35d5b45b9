"""The mail server of the demo: a real SMTP server on a free local port, which keeps the messages that it receives."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from typing import TYPE_CHECKING, NamedTuple

from aiosmtpd.smtp import SMTP

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aiosmtpd.smtp import Envelope, Session

_HOST = "127.0.0.1"


class Mail(NamedTuple):
    """One message that arrived for one recipient."""

    recipient: str
    subject: str


class Mailbox:
    """The messages that arrived, and the URI of the server."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.uri = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        message = message_from_bytes(envelope.original_content or b"", policy=default)
        self.mails += (Mail(recipient, str(message["Subject"])) for recipient in envelope.rcpt_tos)
        return "250 2.0.0 accepted"


@contextmanager
def mail_server() -> Generator[Mailbox, None, None]:
    """Run a mail server in a thread until the context ends.

    Raises:
        NotifyError: the server cannot listen on this machine.
    """
    mailbox = Mailbox()
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        # Looking up the host name can take long, so pass it.
        server = await loop.create_server(lambda: SMTP(mailbox, hostname="localhost", loop=loop), _HOST, 0)
        port: int = server.sockets[0].getsockname()[1]
        started.set_result((port, lambda: loop.call_soon_threadsafe(stopped.set)))
        await stopped.wait()
        server.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except Exception as error:  # noqa: BLE001  # raised again in the thread that starts the server
            started.set_exception(error)

    thread = threading.Thread(target=run, name="mail server of the demo", daemon=True)
    thread.start()
    try:
        port, stop = started.result()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise NotifyError(f"The mail server of the demo cannot listen on {_HOST}: {reason}.") from None
    mailbox.uri = f"smtp://{_HOST}:{port}"
    try:
        yield mailbox
    finally:
        stop()
        thread.join()
