"""What reading an input must not do, whatever the input is: run code, start a program, or fill the memory."""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_MEMORY = 1 << 30
"""Bytes that may be asked for beside what the process has at the start."""

_FORBIDDEN = frozenset(
    (
        "compile",
        "exec",
        "import",
        "marshal.loads",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.system",
        "pickle.find_class",
        "subprocess.Popen",
    )
)
# What may be loaded when it is first needed. No input can name anything else.
_MODULES = sys.stdlib_module_names | {
    *("aiosqlite", "asyncpg", "greenlet", "limits", "msgspec", "psycopg", "pymemcache", "ratelimited_notify", "redis"),
    *("sqlalchemy", "typing_extensions", "watchfiles", "yaml"),
    # Storages that `limits` has besides, and drivers that a URL of a database can name.
    *(
        "asyncmy",
        "coredis",
        "cx_Oracle",
        "emcache",
        "etcd3",
        "MySQLdb",
        "mariadb",
        "memcachio",
        "motor",
        "mysql",
        "oracledb",
    ),
    *(
        "pg8000",
        "psycopg2",
        "psycopg2cffi",
        "pymongo",
        "pymssql",
        "pymysql",
        "pyodbc",
        "pysqlcipher3",
        "sqlcipher3",
        "valkey",
    ),
}

_seen: list[str] = []
_armed = False


class Broken(Exception):
    """An input made the library do what no input may."""


def install() -> None:
    """Watch this process from now on. That cannot be undone."""
    sys.addaudithook(_audited)
    pages = int(open("/proc/self/statm").read().split()[0]) if sys.platform == "linux" else 0  # noqa: PTH123, SIM115  # at once closed
    if pages:
        most = pages * resource.getpagesize() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


@contextmanager
def armed() -> Iterator[None]:
    """Within, each of the forbidden things is noted, and is an error at the end even if somebody catches it."""
    global _armed  # noqa: PLW0603  # an audit hook is one for the process
    _seen.clear()
    _armed = True
    try:
        yield
    finally:
        _armed = False
    if _seen:
        raise Broken(f"It did what no input may make it do: {', '.join(_seen)}.")


def _audited(event: str, arguments: tuple[object, ...]) -> None:
    if not _armed or event not in _FORBIDDEN:
        return
    if event == "import":
        if str(arguments[0]).partition(".")[0] in _MODULES:
            return
    elif event in ("compile", "exec", "marshal.loads") and _is_our_own():
        return
    _seen.append(event)
    raise Broken(event)


def _is_our_own() -> bool:
    """Whether a module is being loaded, or the shortcut of the memory is made, which depends on nothing but strategies."""
    step = sys._getframe(1)
    while step is not None:
        if step.f_globals.get("__name__") in ("importlib._bootstrap", "ratelimited_notify.storage.memory.shortcut"):
            return True
        step = step.f_back
    return False
