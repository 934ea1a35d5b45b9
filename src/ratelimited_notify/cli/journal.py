"""Write the records in the order of the lines, each as soon as it is known, so that they say what was done so far."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ratelimited_notify.cli.record import interrupted, malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.cli.record import Record

_MOST_HELD = 1000
"""How many malformed lines wait for notifications before them."""


class Journal:
    """The records of a run.

    Arguments:
        outputs: each is called with every record as a line of text. What it raises ends the run.
    """

    def __init__(self, outputs: Sequence[Callable[[str], None]] = ()) -> None:
        self._outputs = outputs
        self._held: deque[Record] = deque()
        self.interrupted: int | None = None
        """The line that was being sent when the run was interrupted."""

    def malformed(self, line: int, problem: str, *, ahead: bool) -> None:
        """Record a malformed line. `ahead` says that notifications before it are still to be sent."""
        self._held.append(malformed(line, problem))
        if not ahead or len(self._held) >= _MOST_HELD:
            self.catch_up()

    def add(self, record: Record) -> None:
        """Record a notification."""
        while self._held and self._held[0].line < record.line:
            self._write(self._held.popleft())
        self._write(record)

    def end(self) -> None:
        """Write what is left to say."""
        if self.interrupted is not None:
            self.add(interrupted(self.interrupted))
        self.catch_up()

    def catch_up(self) -> None:
        """Write what was held back."""
        while self._held:
            self._write(self._held.popleft())

    def _write(self, record: Record) -> None:
        if self._outputs:
            text = record.written()
            for output in self._outputs:
                output(text)
