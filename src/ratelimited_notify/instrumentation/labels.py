"""The values of a label of metrics: few, and nothing personal. Each combination of values is a time series of its own."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from ratelimited_notify.errors import HIDDEN_TYPE, type_text

if TYPE_CHECKING:
    from collections.abc import Iterable

OTHER = "other"
"""Stands for all values that a label cannot have."""

MOST_VALUES = 100
"""The most values of a label, that for all others aside."""


class Label:
    """The values of a label: the first hundred that are met.

    No lock: a signal handler may send while the thread that it interrupted is here.

    Arguments:
        other: stands for all further values, and for those that must not be shown.
    """

    __slots__ = ("_known", "_numbers", "_other")

    def __init__(self, other: str = OTHER) -> None:
        self._other = other
        self._known: dict[str, str] = {}
        # Each number is given out once, whatever other threads do. Two threads that meet the same value may use up two of them.
        self._numbers = count()

    def of(self, text: str) -> str:
        """The value for this text."""
        value = self._known.get(text)
        return self._new(text) if value is None else value

    def has_room_for(self, texts: Iterable[str]) -> bool:
        """Whether all of these can have values of their own."""
        return len(self._known.keys() | set(texts)) <= MOST_VALUES

    def _new(self, text: str) -> str:
        if len(self._known) >= MOST_VALUES or not _is_fit(text) or next(self._numbers) >= MOST_VALUES:
            return self._other
        return self._known.setdefault(text, text)


def _is_fit(text: str) -> bool:
    """Whether a label may show this text: it is no address, and can be written as UTF-8, in which all metrics are shown."""
    if not text or HIDDEN_TYPE in (text, type_text(text)):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
