"""Show on a terminal how far a run is: how much of the input was read, and the counts so far."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ratelimited_notify.cli.tally import COUNTED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

    from ratelimited_notify.cli.tally import Tally

SECONDS = 1.0
"""A run that takes no longer than this shows no progress."""


class Source(Protocol):
    """What is read: its size in bytes, if that is known, and how many bytes have been read."""

    @property
    def size(self) -> int | None: ...

    @property
    def position(self) -> int: ...


@contextmanager
def progress(source: Source, aside: Console, *, quiet: bool = False) -> Generator[Callable[[Tally], None], None, None]:
    """Show progress if the console is a terminal, from one second on. Call what it yields after each notification."""
    if quiet or not aside.is_terminal:
        yield lambda tally: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(compact=True),
        console=aside,
        transient=True,
    )
    task = bar.add_task("Sending", total=source.size, counts="")

    def advance(tally: Tally) -> None:
        counts = ", ".join(f"{tally.total(status):,} {status.value}" for status in COUNTED)
        bar.update(task, completed=source.position, counts=counts)

    # A thread, because the first notification may take long.
    timer = threading.Timer(SECONDS, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        timer.join()
        if bar.live.is_started:
            bar.stop()
