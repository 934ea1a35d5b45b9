"""The log of this library, the logger `ratelimited_notify`. Everything that the library logs is logged here.

A handler or a filter may use the library itself, to limit what it sends. So a log call must not lead to another log call, and
must not be made while the library holds a lock. And no line comes once per failure: see `RecurringLine`.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.recurring import RecurringEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ratelimited_notify.recurring import End, Report

Message: TypeAlias = tuple[str, tuple[object, ...]]
"""A message with its arguments, as the logging module takes them."""

MUTED = 60.0
"""Seconds after which a task that a handler started may log, even if our log call is what started it. A task that sends one
message is over by then, and a task that stays is not silent for ever."""

MOST_HELD = 100
"""The most lines that are kept while a lock is held."""

_logger = logging.getLogger("ratelimited_notify")

_logging_since: ContextVar[float] = ContextVar("ratelimited_notify_logging_since", default=-inf)


class _Held(NamedTuple):
    since: float
    lines: list[tuple[int, str, tuple[object, ...]]]


_held: ContextVar[_Held | None] = ContextVar("ratelimited_notify_held", default=None)


def now() -> float:
    """The time by which lines are limited, in seconds."""
    return time.monotonic()


def is_logging() -> bool:
    """Whether the running code was called by a log call of this library, so that it must not log.

    That is code in a handler, a filter or the like, and in the tasks that it starts. Other threads and tasks may log.
    """
    return _is_fresh(_logging_since.get())


def warning(message: str, *args: object) -> None:
    """Log a warning, unless the running code was called by a log call of this library."""
    _write(logging.WARNING, message, args)


def _write(level: int, message: str, args: tuple[object, ...]) -> None:
    if is_logging():
        return
    held = _held.get()
    if held is not None and _is_fresh(held.since):
        if len(held.lines) < MOST_HELD:
            held.lines.append((level, message, args))
        return
    before = _logging_since.set(now())
    try:
        from ratelimited_notify.one_line import in_one_line

        args = in_one_line(args)
        # The caller of the caller is the place that the record names.
        _logger.log(level, message, *args, stacklevel=3)
    except NotifyError:
        # A filter or a handler used this library, which refused or failed, and does not handle that. It must not change what
        # the caller of the library gets.
        pass
    finally:
        _logging_since.reset(before)


def _is_fresh(instant: float) -> bool:
    # An interrupt may leave a mark behind. It must not silence a thread for ever.
    return 0 <= now() - instant < MUTED


@contextmanager
def lines_held() -> Generator[None, None, None]:
    """Log only after the block. Enter it before you take a lock under which something may be logged."""
    if _held.get() is not None:
        yield
        return
    held = _Held(now(), [])
    before = _held.set(held)
    try:
        yield
    finally:
        _held.reset(before)
        for line in held.lines:
            _write(*line)


class RecurringLine:
    """A line about something that may happen thousands of times, and the line that says that it is over.

    The first line comes at once, then one in 10 seconds at most, with the number since the last line.

    Arguments:
        level: the level of both lines. A reader of the first one must get the last one.
        begun: makes the line from a report and the newest cause.
        over: makes the line that says that it is over.
    """

    __slots__ = ("_begun", "_level", "_over", "event")

    def __init__(self, level: int, begun: Callable[[Report, str], Message], over: Callable[[End], Message]) -> None:
        self._level = level
        self._begun = begun
        self._over = over
        self.event = RecurringEvent(clock=lambda: now())  # noqa: PLW0108  # `now` itself would stay when a test replaces it
        """What is counted. If it is `ongoing`, call `ended` as soon as it has not happened although it could have."""

    def happened(self, cause: str, times: int = 1) -> None:
        """Note that it happened, and log it if it is time for a line."""
        if is_logging():
            # Counted, but not reported: nobody would get the report.
            self.event.count(times)
            return
        report = self.event.happened(times)
        if report is not None:
            _write(self._level, *self._begun(report, cause))

    def ended(self) -> None:
        """Note that it has not happened this time, and log that it is over."""
        if is_logging():
            return
        end = self.event.ended()
        if end is not None:
            _write(self._level, *self._over(end))
