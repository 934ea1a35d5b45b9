"""Writing a document into the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sqlalchemy import func

from ratelimited_notify.sources.sql import postgresql
from ratelimited_notify.sources.sql.reading import rows_of
from ratelimited_notify.sources.sql.rows import FLAGS, LISTS, NAMES, listed
from ratelimited_notify.sources.sql.tables import overrides, rules, tiers, version
from ratelimited_notify.sources.writing import NO_VERSION, checked, is_version, other_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from ratelimited_notify.sources.base import SourceOptions
    from ratelimited_notify.sources.sql.database import Database

_ARGUMENTS = {argument: column for column, argument in NAMES.items()}
_TEXTS = ("strategy", "name", "on_limit")
_MOST_AT_ONCE = 250
"""Rows of one statement. Old releases of SQLite take less than a thousand values."""


def write(
    database: Database, document: Mapping[str, object], options: SourceOptions, if_version: str | None = None
) -> str:
    """Replace the rules in the tables by those of a document, in one transaction that lets no other writer in between.

    Arguments:
        database: where the tables are.
        document: what a rules file has.
        options: those of the source.
        if_version: the version that the tables must still have; None writes in any case.

    Returns:
        The new version.

    Raises:
        RuleError: the document cannot be used. Nothing was written.
        VersionConflict: the tables have another version. Nothing was written.
    """
    checked(document, options)
    with database.engine().connect() as connection:
        _lock(connection)
        before = _version_in(connection)
        is_empty = connection.execute(rules.select().limit(1)).first() is None
        if if_version is not None and not is_version(
            None if is_empty and if_version == NO_VERSION else before, if_version
        ):
            raise other_version(before, if_version)
        _replace(connection, document)
        after = _version_in(connection)
        connection.commit()
        return after


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # Readers go on, other writers wait.
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(postgresql.TABLES)} IN SHARE ROW EXCLUSIVE MODE")
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(version.select().with_for_update())


def _version_in(connection: Connection) -> str:
    found = postgresql.version_of(connection) if connection.dialect.name == "postgresql" else None
    return rows_of(connection).digest if found is None else found


def _replace(connection: Connection, document: Mapping[str, object]) -> None:
    for table in (tiers, overrides, rules):
        connection.execute(table.delete())
    tables = cast("list[Mapping[str, object]]", document.get("rules", []))
    identities = _inserted(connection, [_row(table, place) for place, table in enumerate(tables)])
    for target, argument, name in ((overrides, "overrides", "recipient"), (tiers, "tiers", "tier")):
        found = [
            {"rule_id": identity, name: str(key), "limit_text": _limit(limit)}
            for identity, table in zip(identities, tables, strict=True)
            for key, limit in cast("Mapping[object, object]", table.get(argument) or {}).items()
        ]
        for start in range(0, len(found), _MOST_AT_ONCE):
            # In one statement: PostgreSQL runs a trigger for each.
            connection.execute(target.insert().values(found[start : start + _MOST_AT_ONCE]))
    settings = {name: value for name, value in document.items() if name != "rules"} or None
    changed = {"settings": settings, "version": version.c.version + 1, "changed_at": func.current_timestamp()}
    if not connection.execute(version.update().where(version.c.id == 1).values(changed)).rowcount:
        connection.execute(version.insert().values(id=1, settings=settings))


def _inserted(connection: Connection, rows: list[dict[str, object]]) -> list[object]:
    """Insert rules, and return their ids in the same order."""
    if not rows:
        return []
    if connection.dialect.insert_executemany_returning_sort_by_parameter_order:
        query = rules.insert().returning(rules.c.id, sort_by_parameter_order=True)
        return list(connection.execute(query, rows).scalars())
    return [
        primary[0]
        for row in rows
        if (primary := connection.execute(rules.insert().values(row)).inserted_primary_key) is not None
    ]


def _row(table: Mapping[str, object], place: int) -> dict[str, object]:
    row: dict[str, object] = {
        **dict.fromkeys(("type", "limit_text", *_TEXTS, *LISTS)),
        **dict.fromkeys(FLAGS, True),
        "ordering": place,
        "enabled": True,
    }
    extra: dict[str, object] = {}
    for argument, value in table.items():
        name = _ARGUMENTS.get(argument, argument)
        if name == "limit_text":
            row[name] = _limit(value)
        elif name == "type" or name in FLAGS or (name in _TEXTS and isinstance(value, str) and value.strip()):
            row[name] = value
        elif name in LISTS and (names := _joined(value)):
            row[name] = names
        elif argument not in ("overrides", "tiers") and value is not None:
            extra[argument] = value
    row["extra"] = extra or None
    return row


def _limit(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else "; ".join(cast("Iterable[str]", value))


def _joined(value: object) -> str | None:
    """The names in one text, if it gives the same names again."""
    names = [value] if isinstance(value, str) else list(cast("Iterable[str]", value))
    text = ", ".join(names)
    return text if listed(text) == names else None
