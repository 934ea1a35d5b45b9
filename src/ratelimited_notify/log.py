"""The log of this library, the logger `ratelimited_notify`. Everything that the library logs is logged here, also what users
want in a log of their own.

A handler or a filter may use the library itself, to limit what it sends. So a log call must not lead to another log call, and
must not be made while the library holds a lock. And no line comes once per failure: see `RecurringLine`.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import inf
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.recurring import RecurringEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from ratelimited_notify.recurring import End, Report

Message: TypeAlias = tuple[str, tuple[object, ...]]
"""A message with its arguments, as the logging module takes them."""

Log: TypeAlias = "Callable[[str, tuple[object, ...]], object]"
"""Logs a message with its arguments."""

MUTED = 60.0
"""Seconds after which a task that a handler started may log, even if our log call is what started it. A task that sends one
message is over by then, and a task that stays is not silent for ever."""

MOST_HELD = 100
"""The most lines that are kept while a lock is held."""

_logger = logging.getLogger("ratelimited_notify")

_logging_since: ContextVar[float] = ContextVar("ratelimited_notify_logging_since", default=-inf)


class _Held(NamedTuple):
    since: float
    lines: list[tuple[Log, str, tuple[object, ...]]]


_held: ContextVar[_Held | None] = ContextVar("ratelimited_notify_held", default=None)


def logger_named(name: str) -> logging.Logger:
    """The logger of this name; without a name that of this library."""
    return logging.getLogger(name) if name else _logger


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


def debug(message: str, *args: object) -> None:
    """Log a line that only those want who look for a fault, as `warning` does. Ask `is_debugging` before you make it."""
    _write(logging.DEBUG, message, args)


def is_debugging() -> bool:
    """Whether lines at the level DEBUG are logged."""
    return _logger.isEnabledFor(logging.DEBUG)


def record(logger: object, level: int, message: Message, fields: Mapping[str, object]) -> None:
    """Log with any logger, unless the running code was called by a log call of this library.

    Arguments:
        logger: a logger of the logging module, or one of structlog.
        level: the level.
        message: the message with its arguments.
        fields: what the record says for programs to read.
    """
    if isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        log: Log = partial(_log_record, logger, level, {**fields})
    else:
        log = partial(_log_event, logger, level, {**fields})
    _guarded(log, *message)


def _log_record(
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    level: int,
    fields: dict[str, object],
    message: str,
    args: tuple[object, ...],
) -> None:
    if isinstance(logger, logging.LoggerAdapter):
        # An adapter may put fields of its own in the place of these.
        fields, logger = {**(logger.extra or {}), **fields}, logger.logger
    logger.log(level, message, *args, extra=fields)


def _log_event(logger: object, level: int, fields: dict[str, object], message: str, args: tuple[object, ...]) -> None:
    # All loggers of structlog have these methods. They do not all have `log`.
    log = getattr(logger, logging.getLevelName(level).lower(), None)
    if log is None:
        getattr(logger, "log")(level, message % args, **fields)  # noqa: B009  # structlog need not be installed
    else:
        log(message % args, **fields)


def _write(level: int, message: str, args: tuple[object, ...]) -> None:
    _guarded(partial(_log_line, level), message, args)


def _log_line(level: int, message: str, args: tuple[object, ...]) -> None:
    # The caller of the caller of `_write` is the place that the record names.
    _logger.log(level, message, *args, stacklevel=5)


def _guarded(log: Log, message: str, args: tuple[object, ...]) -> None:
    if is_logging():
        return
    held = _held.get()
    if held is not None and _is_fresh(held.since):
        if len(held.lines) < MOST_HELD:
            held.lines.append((log, message, args))
        return
    before = _logging_since.set(now())
    try:
        from ratelimited_notify.one_line import in_one_line

        log(message, in_one_line(args))
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
            _guarded(*line)


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
