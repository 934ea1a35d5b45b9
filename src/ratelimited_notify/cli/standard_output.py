"""Standard output, when it cannot be written: a full disk, or a reader that is gone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO

from ratelimited_notify.cli.report_file import OutputError, why


def print_line(file: IO[str], text: str) -> None:
    """Write a line at once.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        file.write(text)
        file.flush()
    except OSError as error:
        abandon()
        raise OutputError(f"Standard output cannot be written: {why(error)}.") from None


def abandon() -> None:
    """Forget what is still in the buffer of standard output. Python would try to write it again at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
