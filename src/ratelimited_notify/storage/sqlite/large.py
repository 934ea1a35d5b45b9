"""A moving window with very many hits: they stand in rows of their own, so that a decision reads and writes a few of them.

A row holds a block of `windows.hits`, the stamp of its newest hit and the cost of all its hits. The rows of a window have
consecutive ids, oldest hits first. How much all of them cost is kept in the recipient's row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ratelimited_notify.storage.sqlite import failures
from ratelimited_notify.storage.sqlite.numbers import as_bytes, numbers
from ratelimited_notify.storage.sqlite.stored_hits import StoredHits
from ratelimited_notify.windows.strategies import FITS, NEVER

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator
    from sqlite3 import Cursor

    from ratelimited_notify.windows.hits import Hit, Hits
    from ratelimited_notify.windows.strategies import Token

HITS_PER_ROW = 160
"""So many that a row fits into one page of the file."""

_ROWS = 1 << 32
"""More rows than a window ever has: its rows have the ids from its number times this."""

MOST_WINDOWS = 1 << 31
"""The numbers of windows are below this, because SQLite's ids have 63 bits."""


class _Over(NamedTuple):
    """The hits of a window that have run out."""

    until: int
    """The stamp up to which they have."""
    last_row: int | None
    """The last row in which all hits have; None if there is no such row."""
    in_rows: int
    """The cost of the hits in such rows."""
    cost: int
    """The cost of all of them."""
    oldest: int
    """The stamp of the first hit behind such rows."""


_NOTHING: Final = _Over(0, None, 0, 0, 0)


class LargeWindow:
    """A `Record` of `windows.strategies` whose hits are read and written in rows.

    Arguments:
        cursor: it is in a transaction.
        number: of the window.
        total: the cost of all hits in rows, also of those that have run out.
        newest: the stamp of the newest hit.
        oldest: the stamp of the oldest hit in rows, or an earlier one. As long as it has not run out, no old row is read.
    """

    __slots__ = ("_cursor", "_first", "_last", "_seen", "newest", "number", "oldest", "total")

    def __init__(self, cursor: Cursor, number: int, total: int, newest: int, oldest: int) -> None:
        self._cursor = cursor
        self._first = number * _ROWS
        self._last = self._first + _ROWS - 1
        self.number = number
        self.total = total
        self.newest = newest
        self.oldest = oldest
        self._seen: _Over | None = None

    @classmethod
    def of(cls, cursor: Cursor, hits: Hits) -> LargeWindow:
        """Store the hits of a window in rows."""
        ((last,),) = cursor.execute("SELECT coalesce(max(id), 0) FROM blocks")
        window = cls(cursor, last // _ROWS + 1, hits.total, hits.newest, hits.oldest)
        all_hits: list[Hit] = list(hits)
        for row, start in enumerate(range(0, len(all_hits), HITS_PER_ROW)):
            window._write(window._first + row, StoredHits(all_hits[start : start + HITS_PER_ROW]), is_new=True)
        return window

    def read(self, now: int, period: int, amount: int, cost: int) -> tuple[int, int, int]:
        if self._is_over(now, period):
            return 0, FITS if cost <= amount else NEVER, now
        over = self._over(now - period).cost
        count = self.total - over
        if cost > amount:
            retry_at = NEVER
        elif count + cost > amount:
            retry_at = self._reached(over + count + cost - amount) + period
        else:
            retry_at = FITS
        return count, retry_at, self.newest + period

    def take(self, now: int, period: int, cost: int, mark: int) -> Token:
        self._drop_until(now - period)
        # Stamps never run backwards, even if the clock does.
        stamp = max(now, self.newest) if self.total else now
        row, hits = self._newest_row()
        if hits is None or len(hits) >= HITS_PER_ROW:
            row, hits = (self._first if hits is None else row + 1), StoredHits()
            is_new = True
        else:
            is_new = False
        hits.add(stamp, mark, cost)
        self.oldest = min(self.oldest, stamp)
        self._write(row, hits, is_new=is_new)
        self.total += cost
        self.newest = stamp
        return stamp, mark

    def give(self, now: int, period: int, cost: int, token: Token) -> bool:
        stamp, mark = token
        if now >= stamp + period:
            return False
        for row, hits in self._rows(order="DESC"):
            if hits.newest < stamp:
                break
            if hits.remove(stamp, mark, cost):
                self._seen = None
                if hits:
                    self._write(row, hits, is_new=False)
                else:
                    self._cursor.execute("DELETE FROM blocks WHERE id = ?", (row,))
                self.total -= cost
                _, last = self._newest_row()
                self.newest = stamp if last is None else last.newest
                return True
        return False

    def ends(self, now: int, period: int) -> int:
        return self.newest + period if self.total else now

    def drop(self) -> None:
        """Delete all rows of the window."""
        self._cursor.execute("DELETE FROM blocks WHERE id BETWEEN ? AND ?", (self._first, self._last))

    def _is_over(self, now: int, period: int) -> bool:
        return not self.total or self.newest + period <= now

    def _rows(self, order: Literal["ASC", "DESC"] = "ASC") -> Iterator[tuple[int, StoredHits]]:
        """The rows with their hits, oldest first unless the order is descending. Those that nobody asks for are not read."""
        found = self._cursor.connection.execute(
            f"SELECT id, hits FROM blocks WHERE id BETWEEN ? AND ? ORDER BY id {order}",  # noqa: S608  # our own words
            (self._first, self._last),
        )
        for row, stored in found:
            yield row, _hits(stored)

    def _newest_row(self) -> tuple[int, StoredHits | None]:
        found = self._cursor.execute(
            "SELECT id, hits FROM blocks WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1", (self._first, self._last)
        ).fetchone()
        return (0, None) if found is None else (found[0], _hits(found[1]))

    def _over(self, until: int) -> _Over:
        """What has run out: all hits up to and including this stamp."""
        if until < self.oldest:
            return _NOTHING
        seen = self._seen
        if seen is None or seen.until != until:
            self._seen = seen = self._look(until)
        return seen

    def _look(self, until: int) -> _Over:
        last, whole = None, 0
        for row, hits in self._rows():
            if hits.newest > until:
                return _Over(until, last, whole, whole + hits.cost_until(until), hits.oldest)
            last, whole = row, whole + hits.total
        return _Over(until, last, whole, whole, self.newest)

    def _reached(self, cost: int) -> int:
        """The stamp of the first hit at which the running cost reaches `cost`."""
        for _, hits in self._rows():
            if cost <= hits.total:
                return hits.reached(cost)
            cost -= hits.total
        return self.newest

    def _drop_until(self, stamp: int) -> None:
        """Delete the rows in which no hit is newer than this."""
        over = self._over(stamp)
        if over is _NOTHING:
            return
        self.oldest = over.oldest
        if over.last_row is not None:
            self._cursor.execute("DELETE FROM blocks WHERE id BETWEEN ? AND ?", (self._first, over.last_row))
            self.total -= over.in_rows
            self._seen = _Over(stamp, None, 0, over.cost - over.in_rows, over.oldest)

    def _write(self, row: int, hits: StoredHits, *, is_new: bool) -> None:
        block = hits.block()
        if block is None:
            raise failures.too_large()
        values = (hits.newest, hits.total, as_bytes(block), row)
        if is_new:
            self._cursor.execute("INSERT INTO blocks (newest, total, hits, id) VALUES (?, ?, ?, ?)", values)
        else:
            self._cursor.execute("UPDATE blocks SET newest = ?, total = ?, hits = ? WHERE id = ?", values)


def _hits(stored: bytes) -> StoredHits:
    block: array[int] = numbers(stored)
    if len(block) < 6 or len(block) % 3:
        raise failures.unreadable("a count")
    return StoredHits.of_block(block)
