"""Records in the log about what is not sent: one for the first of its kind, then the number of those like it.

from ratelimited_notify.instrumentation.logging import instrument

handle = instrument()
"""

from __future__ import annotations

import atexit
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from weakref import WeakSet

from ratelimited_notify import log
from ratelimited_notify.errors import HIDDEN_TYPE, NotifyError, type_text
from ratelimited_notify.forking import in_children
from ratelimited_notify.instrumentation import registry
from ratelimited_notify.instrumentation.events import Decided, Delivered
from ratelimited_notify.instrumentation.watcher import Handle, Watcher
from ratelimited_notify.log import is_logging, logger_named, record
from ratelimited_notify.one_line import one_line
from ratelimited_notify.recurring import RecurringEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.instrumentation.events import Event
    from ratelimited_notify.log import Message
    from ratelimited_notify.recurring import Report

__all__ = ["instrument"]

MOST_KINDS = 1000
"""So many combinations of type, rule and error have records of their own. All others are one."""

_OTHER = ""
"""Stands for all types beyond these. No type is empty."""

_LOOK = 1.0
"""Seconds between two looks for numbers that are due."""

_Levels: TypeAlias = int | str


def instrument(level: _Levels = logging.INFO, logger: object = None, *, decisions: bool = False) -> Handle:
    """Log what the limiters of the process suppress, and what fails: one record for the first of a type and rule, then one in 10
    seconds at most, with the number of those like it.

    A record has the attributes `notification_type`, `notification_status`, `notification_rule`, `notification_error` and
    `notification_count`. It shows no recipient. What a handler of such a record sends is never the subject of a record.

    A number that is due is logged with the next notification of any kind, at the end of the process, and by `close()`.

    Arguments:
        level: the level of the records, a number or its name; `logging.INFO` by default.
        logger: a logger of the logging module, its name, or a logger of structlog. By default the logger `ratelimited_notify`.
        decisions: True logs each refused decision instead of each suppressed delivery. That is for limiters that you ask without
            a notifier and without a decorator. If a notification waits, its refusals are logged too.

    Returns:
        A handle. Its `close()` ends the logging.

    Raises:
        NotifyError: an argument cannot be used.
    """
    if not isinstance(decisions, bool):
        raise NotifyError("decisions= must be True or False.")
    watcher = _Recording(_logger_of(logger), _level_of(level), decisions=decisions)
    return Handle.begun(watcher, _begin, _end)


def _begin(watcher: Watcher) -> None:
    if isinstance(watcher, _Recording):
        atexit.register(watcher.finish)
    registry.begin(watcher)


def _end(watcher: Watcher) -> None:
    registry.end(watcher)
    if isinstance(watcher, _Recording):
        atexit.unregister(watcher.finish)
        watcher.finish()


def _level_of(level: object) -> int:
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else None
    if number is None:
        raise NotifyError("level= must be a level of the logging module, such as logging.INFO or 'INFO'.")
    return number


def _logger_of(logger: object) -> object:
    if logger is None or isinstance(logger, str):
        return logger_named(logger or "")
    if _is_logger(logger):
        return logger
    raise NotifyError(
        f"logger= must be a logger of the logging module or of structlog, or a name, not a {type(logger).__name__}."
    )


def _is_logger(logger: object) -> bool:
    # A logger of structlog has few methods before it is used, but it can be bound.
    return isinstance(logger, (logging.Logger, logging.LoggerAdapter)) or callable(getattr(logger, "bind", None))


class _Kind(NamedTuple):
    """What notifications have in common that are counted together."""

    type: str
    status: str
    rule: str | None
    error: str | None


class _Recording(Watcher):
    """Counts suppressions and failures by their kinds, and logs them.

    Arguments:
        logger: where to log.
        level: the level of all records.
        decisions: whether refused decisions count, and suppressed deliveries do not.
    """

    times_deliveries = False
    times_decisions = False
    logs_suppressions = True

    def __init__(self, logger: object, level: int, *, decisions: bool) -> None:
        super().__init__(self._note)
        self.names_rules = not decisions
        self._logger = logger
        self._level = level
        self._decisions = decisions
        self._events: dict[_Kind, RecurringEvent] = {}
        # The kinds that happened since their last record.
        self._waiting: dict[_Kind, None] = {}
        self._next_look = 0.0
        _recordings.add(self)

    def tell(self, event: Event) -> None:
        """Note an event, unless a record is what led here. It raises nothing but what a signal handler raised."""
        # Most events are not logged, but they are an occasion to log what is due.
        if self._waiting or self._kind(event) is not None:
            super().tell(event)

    def prepared(self, event: Event) -> Callable[[], object]:
        """A function that notes this event."""
        return self._look if self._kind(event) is None else partial(self.tell, event)

    def _what(self) -> str:
        return "What logs suppressions"

    def finish(self) -> None:
        """Log all numbers that have not been logged."""
        for kind, event in self._events.copy().items():
            self._log(kind, event.rest())

    def forget(self) -> None:
        """Forget what happened: it did in the parent of this process, which logs it."""
        self._events = {}
        self._waiting = {}

    def _kind(self, event: Event) -> _Kind | None:
        """What it is counted as; None if it is not logged."""
        if isinstance(event, Delivered):
            if event.status == "failed":
                return _Kind(event.type, "failed", None, event.error)
            if event.status == "suppressed" and not self._decisions:
                return _Kind(event.type, "suppressed", event.rule, None)
        elif self._decisions and isinstance(event, Decided) and event.verdict in ("refused", "failed_closed"):
            return _Kind(event.type, "refused", event.rule, None)
        return None

    def _note(self, event: Event) -> None:
        # A handler that sends the records would never come to an end if what it sends was counted.
        if is_logging():
            return
        self._look()
        kind = self._kind(event)
        if kind is None:
            return
        counted = self._events.get(kind)
        if counted is None:
            kind, counted = self._new(kind)
        # First: what others count from here on must not be forgotten.
        self._waiting.pop(kind, None)
        report = counted.happened()
        if report is None:
            self._waiting[kind] = None
        self._log(kind, report)

    def _new(self, kind: _Kind) -> tuple[_Kind, RecurringEvent]:
        if len(self._events) >= MOST_KINDS:
            kind = _Kind(_OTHER, kind.status, None, None)
        return kind, self._events.setdefault(kind, RecurringEvent(clock=_now))

    def _look(self) -> None:
        """Log the numbers that are due."""
        if not self._waiting or is_logging():
            return
        instant = log.now()
        if 0 < self._next_look - instant <= _LOOK:
            return
        self._next_look = instant + _LOOK
        for kind in self._waiting.copy():
            self._waiting.pop(kind, None)
            event = self._events.get(kind)
            if event is None:
                continue
            report = event.due()
            if report is None and event.unreported:
                self._waiting[kind] = None
            self._log(kind, report)

    def _log(self, kind: _Kind, report: Report | None) -> None:
        if report is None:
            return
        fields = {
            "notification_type": _shown(kind.type),
            "notification_status": kind.status,
            "notification_rule": None if kind.rule is None else one_line(kind.rule),
            "notification_error": kind.error,
            "notification_count": report.number,
        }
        record(self._logger, self._level, _message(kind, report.number), fields)


def _now() -> float:
    # `log.now` itself would stay when a test replaces it.
    return log.now()


def _shown(type: str) -> str:
    """A type for programs to read. One that looks like an address is not shown."""
    if type == _OTHER:
        return "other"
    return HIDDEN_TYPE if type_text(type) == HIDDEN_TYPE else one_line(type)


def _message(kind: _Kind, number: int) -> Message:
    others = f", and {number - 1:,} like it" if number > 1 else ""
    type = "another type" if kind.type == _OTHER else f"type {type_text(kind.type)}"
    rule = "" if kind.rule is None else f" by rule {kind.rule!r}"
    if kind.status == "failed":
        return "A notification of %s failed%s%s.", (type, "" if kind.error is None else f" with {kind.error}", others)
    return "A notification of %s was %s%s%s.", (type, kind.status, rule, others)


_recordings: WeakSet[_Recording] = WeakSet()


def _forget_in_child() -> None:
    for each in list(_recordings):
        each.forget()


in_children(_forget_in_child)
