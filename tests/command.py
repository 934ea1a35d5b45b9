"""Run the command `ratelimited-notify` in tests, with a real mail server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiosmtpd.controller import Controller
from typer.testing import CliRunner

from ratelimited_notify.cli.app import app
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import EmailMessage

    from aiosmtpd.smtp import SMTP, Envelope, Session

SOURCE = Path(__file__).parent.parent / "src"

RULES = """
[[rules]]
type = "news"
limit = "1/day"

[[rules]]
type = "status"
limit = "2/minute"
"""

WITHIN = 60.0
"""Seconds that a command may take before it counts as hung."""


class Inbox:
    """Keeps what a real mail server took; `refuse` is asked about each recipient, and may give a reply."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.senders: list[str | None] = []
        self.addressed: list[list[str]] = []
        self.port = free_port()
        self.refuse: Callable[[str], str | None] = lambda recipient: None
        self.taken = threading.Semaphore(0)
        self.go_on: Callable[[], object] = lambda: None

    @property
    def uri(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def recipients(self) -> list[str]:
        return [message["To"] for message in self.messages]

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.refuse(address)
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        content = envelope.original_content
        assert content is not None
        self.messages.append(message_from_bytes(content, policy=default))
        self.senders.append(envelope.mail_from)
        self.addressed.append(envelope.rcpt_tos)
        self.taken.release()
        self.go_on()
        return "250 2.0.0 taken"


@contextmanager
def mail_server() -> Iterator[Inbox]:
    """A real mail server on a free port."""
    inbox = Inbox()
    controller = Controller(inbox, hostname="127.0.0.1", port=inbox.port, server_hostname="localhost")
    controller.start()
    try:
        yield inbox
    finally:
        controller.stop()


def line(type: str = "news", recipient: str = "ana@example.com", **more: object) -> bytes:
    """One notification as it stands in a file."""
    return (
        json.dumps({"type": type, "recipient": recipient, "subject": "Hello", "body": "Text", **more}).encode() + b"\n"
    )


def environment(**more: str) -> dict[str, str]:
    """The environment for a command: this one, without what would configure the command."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RATELIMITED_NOTIFY", "COLUMNS"))}
    path = os.pathsep.join(filter(None, [str(SOURCE) if SOURCE.exists() else "", os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, **more}


def command(
    *arguments: object, input: bytes = b"", directory: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """What the command does in a process of its own, where a warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ratelimited_notify", *map(str, arguments)],
        input=input,
        capture_output=True,
        check=False,
        timeout=WITHIN,
        cwd=directory,
        env=environment(**variables),
    )


def started(*arguments: object) -> subprocess.Popen[bytes]:
    """A command that runs, with pipes to it."""
    return subprocess.Popen(
        [sys.executable, "-m", "ratelimited_notify", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def invoke(
    *arguments: object, input: bytes = b"", **variables: str
) -> Any:  # Any: the class of the result is typer's own.
    """The same in this process, which is quicker."""
    cleared = {name: None for name in os.environ if name.startswith("RATELIMITED_NOTIFY")}
    return CliRunner().invoke(app, [*map(str, arguments)], input=input, env={**cleared, **variables})


def numbers(output: str, first: str) -> list[str]:
    """The cells of the row of a table that begins with this word."""
    rows = [row.split() for row in output.splitlines() if row.split()[:1] == [first]]
    assert rows, output
    return rows[0]
