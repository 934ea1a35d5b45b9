"""Reading the tables, as one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import column, literal_column, select, table
from sqlalchemy.exc import DBAPIError

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.document import MOST_LIMITS, MOST_RULES
from ratelimited_notify.sources.sql.sqlite import windows_instead_of_rules
from ratelimited_notify.sources.version import version_of
from ratelimited_notify.sources.writing import Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    Row = tuple[Any, ...]  # Any: what the driver makes of a column

RULES = (
    *("id", "type", "limit_text", "counted_by", "strategy", "name", "on_limit", "exempt", "count_exempt", "enforce"),
    *("required", "enabled", "ordering", "extra"),
)
"""The columns of `notify_rules` that are read. It may have others."""

OVERRIDES = ("id", "rule_id", "recipient", "limit_text", "enabled")
TIERS = ("id", "rule_id", "tier", "limit_text", "enabled")

_NEEDED = frozenset(("id", "type", "limit_text", "rule_id", "recipient", "tier"))


class Rows(NamedTuple):
    """What is in the tables: the columns named above, None for those that a table does not have."""

    settings: object
    """The column `settings` of `notify_rules_version`."""
    rules: Sequence[Row]
    overrides: Sequence[Row]
    tiers: Sequence[Row]

    @property
    def digest(self) -> str:
        """A version for rows that have none."""
        return version_of(msgspec.json.encode(tuple(self), enc_hook=repr))


def rows_of(connection: Connection) -> Rows:
    """Read all tables. The connection must be in a transaction that sees one state of them.

    Raises:
        RuleError: a table has more rows than can be used, or not the columns that are needed; or the file holds windows.
    """
    version = table("notify_rules_version", column("id"), column("settings"))
    settings: object = None
    failure = None
    try:
        settings = connection.execute(select(version.c.settings).where(version.c.id == 1)).scalar()
    except DBAPIError:
        failure = windows_instead_of_rules(connection)
        if failure is None:
            raise
    if failure is not None:
        # Outside of the block, so that nothing is chained to it.
        raise failure
    rules = _read(connection, "notify_rules", RULES, MOST_RULES)
    ordering = RULES.index("ordering")
    rules.sort(key=lambda row: (row[ordering] if isinstance(row[ordering], int) else 0, row[0]))
    return Rows(
        settings,
        rules,
        _read(connection, "notify_overrides", OVERRIDES, MOST_LIMITS),
        _read(connection, "notify_tiers", TIERS, MOST_LIMITS),
    )


def _read(connection: Connection, name: str, columns: Sequence[str], most: int) -> list[Row]:
    # All columns: tables of an application may have more of them, and older ones fewer.
    source = table(name, column("id"))
    everything: ColumnElement[Any] = literal_column("*")  # Any: nobody knows all columns
    query = select(everything).select_from(source).order_by(source.c.id).limit(most + 1)
    found = connection.execute(query)
    names = found.keys()
    keys = [str(name).lower() for name in names]
    missing = [each for each in columns if each in _NEEDED and each not in keys]
    if missing:
        raise RuleError([Problem(name, f"has no column {' and no column '.join(missing)}.")])
    places = [keys.index(each) if each in keys else None for each in columns]
    rows = [tuple(None if place is None else row[place] for place in places) for row in found]
    if len(rows) > most:
        raise Unusable([Problem(name, f"has more than {most:,} rows; at most {most:,} are read.")])
    return rows
