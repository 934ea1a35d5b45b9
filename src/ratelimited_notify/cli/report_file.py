"""Write the file of `--report`. It replaces an older one as a whole, when the run ends."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Iterable


class OutputError(NotifyError):
    """The report, or the standard output, cannot be written, so the run stops: nothing is sent that nobody hears of."""


class ReportFile:
    """The report of a run. Each line is written at once, into a file next to the report that takes its place at the end.

    A name that stands for something else than a file, such as a pipe, is written to directly.

    Arguments:
        name: the file.
        others: files that the run reads, which must not be replaced.

    Raises:
        NotifyError: the report cannot be written.
    """

    def __init__(self, name: Path, others: Iterable[Path] = ()) -> None:
        self._name = name
        # The file behind a symbolic link is replaced, not the link.
        self._target = target = Path(os.path.realpath(name))
        try:
            if any(other.exists() and target.exists() and target.samefile(other) for other in others):
                raise NotifyError(f"The report {name} is a file that the command reads. Choose another name.")
            direct = target.exists() and not target.is_file()
            self._part = None if direct else target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
            self._file = (target if self._part is None else self._part).open("wb" if direct else "xb", buffering=0)
            if self._part is not None and target.exists():
                self._part.chmod(target.stat().st_mode & 0o777)
        except (OSError, ValueError) as error:
            raise NotifyError(f"The report {name} cannot be written: {why(error)}.") from None
        self._size = 0

    def write(self, text: str) -> None:
        """Write one line, or nothing of it.

        Raises:
            OutputError: it cannot be written, for example because the disk is full.
        """
        data = memoryview(text.encode())
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            if self._part is not None:
                with suppress(OSError):
                    self._file.truncate(self._size)
            raise OutputError(f"The report {self._name} cannot be written: {why(error)}.") from None
        self._size += len(text.encode())

    def finish(self) -> None:
        """Put the report in place.

        Raises:
            OutputError: it cannot be put in place. The message says where it is.
        """
        if self._file.closed:
            return
        with self._file, suppress(OSError):
            os.fsync(self._file.fileno())
        if self._part is None:
            return
        try:
            self._part.replace(self._target)
        except OSError as error:
            raise OutputError(
                f"The report is in {self._part}, because it cannot be put in place: {why(error)}."
            ) from None

    def discard(self) -> None:
        """Leave an older report as it is, because this run did nothing."""
        self._file.close()
        if self._part is not None:
            with suppress(OSError):
                self._part.unlink()


def why(error: Exception) -> str:
    """The reason of the system for an error with a file."""
    return getattr(error, "strerror", None) or "the name is invalid"
