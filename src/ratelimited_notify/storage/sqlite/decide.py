"""How decisions change the rows. Each function runs in one transaction of the caller, on the transaction's cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.sqlite import failures
from ratelimited_notify.storage.sqlite.quick import quick_take
from ratelimited_notify.storage.sqlite.rows import load, load_many, save
from ratelimited_notify.windows.keys import split
from ratelimited_notify.windows.strategies import look, take

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from sqlite3 import Cursor

    from ratelimited_notify.storage.sqlite.item import Item
    from ratelimited_notify.windows.strategies import Pause, Record, Request, Token, Verdict, Window

GROUP = 250
"""How many requests of a batch are decided in one transaction, and share one deadline."""


class _Items:
    """The rows that a transaction has read."""

    __slots__ = ("_cursor", "_read", "changed")

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._read: dict[str, Item] = {}
        self.changed: dict[str, Item] = {}

    def of(self, key: str) -> tuple[Item, str]:
        """The row that holds a window, and the rest of its key."""
        head, rest = split(key)
        item = self._read.get(head)
        if item is None:
            item = self._read[head] = load(self._cursor, head)
        return item, rest

    def take(self, windows: Sequence[Window], keys: Sequence[str], cost: int, now: int, mark: int) -> Verdict:
        """Count a hit in all windows or in none."""
        places = self._places(keys)
        if cost == 1 and len(set(keys)) == len(keys):
            verdict = quick_take(windows, places, now, mark)
            if verdict is not None:
                for item, _ in places:
                    self.changed[item.head] = item
                return verdict
        verdict = _checked(take(windows, self._records(windows, places), now, cost, mark), windows)
        if verdict.granted:
            for (item, _), reading in zip(places, verdict.readings, strict=True):
                if reading.token is not None:
                    self.changed[item.head] = item
        return verdict

    def look(self, windows: Sequence[Window], keys: Sequence[str], cost: int, now: int) -> Verdict:
        """The verdict that `take` would return, without changing anything."""
        return _checked(look(windows, self._records(windows, self._places(keys)), now, cost), windows)

    def read(self, requests: Sequence[Request]) -> None:
        """Read the rows of the first windows of many requests at once."""
        heads = {split(keys[0])[0] for _, keys, _ in requests if keys}
        self._read.update((item.head, item) for item in load_many(self._cursor, list(heads)))

    def _places(self, keys: Sequence[str]) -> list[tuple[Item, str]]:
        # What `of` does, for each key, without a call for each.
        get = self._read.get
        places: list[tuple[Item, str]] = []
        for key in keys:
            head, brace, rest = key.partition("}:")
            item = get(head + brace)
            places.append(self.of(key) if item is None else (item, rest))
        return places

    def _records(self, windows: Sequence[Window], places: Sequence[tuple[Item, str]]) -> list[Record]:
        return [item.record(rest, window, self._cursor) for window, (item, rest) in zip(windows, places, strict=True)]

    def save(self, now: int) -> None:
        """Write the rows that have changed."""
        save(self._cursor, self.changed.values(), now)


def _checked(verdict: Verdict, windows: Sequence[Window]) -> Verdict:
    """The verdict, unless a window has fewer hits than none, which another program wrote: it would have more left than its limit.

    Raises:
        StorageError: it has.
    """
    for window, reading in zip(windows, verdict.readings, strict=True):
        if reading.count < 0:
            raise failures.unreadable(f"a count of the rule {window.rule!r}")
    return verdict


def acquire(
    cursor: Cursor, windows: Sequence[Window], keys: Sequence[str], cost: int, now: int, mark: int
) -> tuple[Verdict, bool]:
    """Count a hit in all windows or in none. Returns the verdict, and whether anything was counted."""
    items = _Items(cursor)
    verdict = items.take(windows, keys, cost, now, mark)
    items.save(now)
    return verdict, bool(items.changed)


def acquire_many(
    cursor: Cursor, requests: Sequence[Request], now: int, marks: Iterator[int]
) -> tuple[list[Verdict], bool]:
    """`acquire` for each request. Earlier requests count for later ones."""
    items = _Items(cursor)
    items.read(requests)
    verdicts = [items.take(*request, now, next(marks)) for request in requests]
    items.save(now)
    return verdicts, bool(items.changed)


def peek(cursor: Cursor, windows: Sequence[Window], keys: Sequence[str], cost: int, now: int) -> Verdict:
    """The verdict that `acquire` would return, without changing anything."""
    return _Items(cursor).look(windows, keys, cost, now)


def release(
    cursor: Cursor,
    windows: Sequence[Window],
    keys: Sequence[str],
    cost: int,
    tokens: Sequence[Token | None],
    now: int,
) -> bool:
    """Give back one hit in all windows that counted it."""
    items = _Items(cursor)
    for window, key, token in zip(windows, keys, tokens, strict=True):
        if token is None:
            continue
        item, rest = items.of(key)
        if item.record(rest, window, cursor).give(now, window.period, cost, token):
            items.changed[item.head] = item
    items.save(now)
    return bool(items.changed)


def pause(cursor: Cursor, window: Window, key: str, until: int, now: int) -> int:
    """Pause a rule until this instant, or longer if it is paused for longer already. Returns the instant of the end."""
    items = _Items(cursor)
    item, rest = items.of(key)
    until = cast("Pause", item.record(rest, window, cursor)).extend(until)
    items.changed[item.head] = item
    items.save(now)
    return until


def forget(cursor: Cursor, keys: Sequence[str], now: int) -> int:
    """Empty these windows. Returns how many held anything. A row that cannot be read is deleted as a whole."""
    items = _Items(cursor)
    forgotten = 0
    for key in keys:
        try:
            item, rest = items.of(key)
            was_there, held = item.drop(rest, now, cursor)
        except StorageError:
            head, _ = split(key)
            cursor.execute("DELETE FROM items WHERE head = ?", (head,))
            forgotten += 1
            continue
        forgotten += held
        if was_there:
            items.changed[item.head] = item
    items.save(now)
    return forgotten
