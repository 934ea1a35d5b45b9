"""A bound for how long a server may take to answer, since a server that hangs answers nothing and closes nothing."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

ANSWER_TIMEOUT = 30.0
"""Seconds until all rules must have been read."""


@contextmanager
def answering(driver: Any) -> Generator[None]:  # Any: a connection of any driver
    """Cut the connection if the block takes too long, so that a thread that waits for an answer gets an error instead.

    Arguments:
        driver: a connection that says which socket it has: psycopg, psycopg2. Others are not bounded.
    """
    number = socket_of(driver)
    if number is None:
        yield
        return
    timer = threading.Timer(ANSWER_TIMEOUT, _cut, (number,))
    timer.daemon = True
    timer.name = "ratelimited-notify rules deadline"
    with suppress(RuntimeError):
        # There may be no thread left, or the interpreter is shutting down.
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def socket_of(driver: Any) -> int | None:  # Any: as above
    """The file descriptor of a connection to a server; None if it does not say, or is closed."""
    fileno = getattr(driver, "fileno", None)
    if fileno is None:
        return None
    try:
        return int(fileno())
    except Exception:  # noqa: BLE001  # each driver has an error of its own for a closed connection
        return None


def _cut(number: int) -> None:
    with suppress(OSError):
        copy = socket.socket(fileno=os.dup(number))
        try:
            copy.shutdown(socket.SHUT_RDWR)
        finally:
            copy.close()
