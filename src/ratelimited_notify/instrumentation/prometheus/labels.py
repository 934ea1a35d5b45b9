"""The values of a label: few, and nothing personal. Each combination of values is a time series of its own."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from ratelimited_notify.errors import HIDDEN_TYPE, type_text

if TYPE_CHECKING:
    from collections.abc import Iterable

OTHER = "other"
"""Stands for all values that a label cannot have."""

MOST_VALUES = 100
"""The most values of a label, `OTHER` aside."""


class Label:
    """The values of a label: the first hundred that are met. All others are `OTHER`.

    No lock: a signal handler may send while the thread that it interrupted is here.
    """

    __slots__ = ("_known", "_numbers")

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        # Each number is given out once, whatever other threads do. Two threads that meet the same value may use up two of them.
        self._numbers = count()

    def of(self, text: str) -> str:
        """The value for this text."""
        value = self._known.get(text)
        return self._new(text) if value is None else value

    @property
    def is_full(self) -> bool:
        """Whether there will be no more values."""
        return len(self._known) >= MOST_VALUES

    def has_room_for(self, texts: Iterable[str]) -> bool:
        """Whether all of these can have values of their own."""
        return len(self._known.keys() | set(texts)) <= MOST_VALUES

    def _new(self, text: str) -> str:
        if self.is_full or not _is_fit(text) or next(self._numbers) >= MOST_VALUES:
            return OTHER
        return self._known.setdefault(text, text)


def _is_fit(text: str) -> bool:
    """Whether a label may show this text: it is no address, and can be written as UTF-8, in which all metrics are shown."""
    if not text or type_text(text) == HIDDEN_TYPE:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
