"""The document that is in the rows of the tables, and where in the tables each part of it is. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from ratelimited_notify.errors import Problem, type_text
from ratelimited_notify.sources.sql.reading import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ratelimited_notify.sources.sql.reading import Row, Rows

NAMES = {"limit_text": "limit", "counted_by": "by"}
"""The columns whose names differ from those of the arguments of `Rule`. `limit` and `by` would have to be quoted in SQL."""

LISTS = ("counted_by", "exempt", "required")
"""The columns with several names, separated by commas."""

FLAGS = ("count_exempt", "enforce")

_COLUMNS = {argument: name for name, argument in NAMES.items()}
_RULE = re.compile(r"rules\[(\d+)\](?:\.(.*))?", re.DOTALL).fullmatch
_RULES = re.compile(r"rules\[(\d+)\]")
_OVERRIDE = re.compile(r"overrides\[(\d+)\](.*)", re.DOTALL).fullmatch


class _Rule:
    """Where a rule of the document came from."""

    __slots__ = ("before", "id", "overrides", "tiers", "type")

    def __init__(self, row: Row) -> None:
        self.id, self.type = row[0], row[1]
        self.before = 0
        """How many overrides are in the column `extra`."""
        self.overrides: list[object] = []
        self.tiers: dict[object, object] = {}

    def __str__(self) -> str:
        return f"notify_rules row {self.id} (type {type_text(self.type)})"


class Places:
    """Says where in the tables a problem is."""

    def __init__(self, rules: Sequence[_Rule] = ()) -> None:
        self._rules = rules

    def explained(self, problem: Problem) -> Problem:
        """The same problem with its place in the tables."""
        message = _RULES.sub(self._named, problem.message)
        found = _RULE(problem.place)
        rule = self._rule(found[1]) if found else None
        if found is None or rule is None:
            place = problem.place
            if place and not place.startswith(("rules", "notify_")):
                place = f"notify_rules_version row 1, settings: {place}"
            return Problem(place, message)
        place = found[2] or ""
        override = _OVERRIDE(place)
        if override and 0 <= int(override[1]) - rule.before < len(rule.overrides):
            row = rule.overrides[int(override[1]) - rule.before]
            return Problem(f"notify_overrides row {row} (of {rule}){override[2].replace('.', ', ')}", message)
        first, _, rest = place.partition(".")
        if first == "tiers" and rest in rule.tiers:
            return Problem(f"notify_tiers row {rule.tiers[rest]} (of {rule})", message)
        return Problem(", ".join(filter(None, (str(rule), _COLUMNS.get(first, first), rest))), message)

    def _rule(self, number: str) -> _Rule | None:
        return self._rules[int(number)] if int(number) < len(self._rules) else None

    def _named(self, found: re.Match[str]) -> str:
        return str(self._rule(found[1]) or found[0])


def document_of(rows: Rows, problems: list[Problem]) -> tuple[Mapping[str, object], Places]:
    """The document in these rows, and the places of its rules.

    Arguments:
        rows: the rows, rules in their order.
        problems: a list to which what cannot be read is added, with its place in the tables.
    """
    document = _object(rows.settings, "notify_rules_version row 1, settings", problems)
    places: list[_Rule] = []
    tables: list[dict[str, object]] = []
    by_id: dict[object, tuple[_Rule, dict[str, object]]] = {}
    for row in rows.rules:
        rule = _Rule(row)
        if _is_enabled(row[RULES.index("enabled")], str(rule), problems):
            table = _table(row, str(rule), problems)
            rule.before = len(_within(table, "overrides")) if "overrides" in table else 0
            places.append(rule)
            tables.append(table)
            by_id[rule.id] = rule, table
    known = {row[0] for row in rows.rules}
    for name, each in (("notify_overrides", rows.overrides), ("notify_tiers", rows.tiers)):
        problems += (_orphan(name, row) for row in each if row[1] not in known)
    for identity, rule_id, recipient, limit, enabled in rows.overrides:
        # Those of a rule that is disabled are not needed.
        if rule_id in by_id and _is_enabled(enabled, f"notify_overrides row {identity}", problems):
            rule, table = by_id[rule_id]
            rule.overrides.append(identity)
            _within(table, "overrides")[recipient] = limit
    for identity, rule_id, tier, limit, enabled in rows.tiers:
        if rule_id in by_id and _is_enabled(enabled, f"notify_tiers row {identity}", problems):
            rule, table = by_id[rule_id]
            rule.tiers[tier] = identity
            _within(table, "tiers")[tier] = limit
    document["rules"] = tables
    return document, Places(places)


def _orphan(name: str, row: Row) -> Problem:
    """The problem of a row whose rule is gone. A new rule may get the same id, and its limits with it."""
    return Problem(
        f"{name} row {row[0]}, rule_id",
        f"is {row[1] if isinstance(row[1], int) else 'an id'}, which no row of notify_rules has. Delete the row. SQLite does that together with the rule only after PRAGMA "
        "foreign_keys = ON.",
    )


def _table(row: Row, place: str, problems: list[Problem]) -> dict[str, object]:
    table: dict[str, object] = {}
    values = dict(zip(RULES, row, strict=True))
    for name in ("type", "limit_text"):
        if values[name] is not None:
            table[NAMES.get(name, name)] = values[name]
    for name in ("strategy", "name", "on_limit", *LISTS):
        value = values[name]
        # Forms of admin pages write an empty text where nothing was filled in.
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        table[NAMES.get(name, name)] = listed(value) if name in LISTS else value
    for name in FLAGS:
        if values[name] is not None:
            table[name] = _flag(values[name])
    table.update(_object(values["extra"], f"{place}, extra", problems))
    return table


def listed(value: object) -> object:
    """The names in a text, which are separated by commas."""
    if not isinstance(value, str):
        return value
    return [name for each in value.split(",") if (name := each.strip())]


def _flag(value: object) -> object:
    return bool(value) if value.__class__ is int and value in (0, 1) else value


def _is_enabled(value: object, place: str, problems: list[Problem]) -> bool:
    if isinstance(value, (str, bytes)):
        # SQLite takes any text, and 'false' would mean true.
        problems.append(Problem(f"{place}, enabled", "is a text; write TRUE or FALSE without quotes, or 1 or 0."))
    return value is None or bool(value)


def _within(table: dict[str, object], name: str) -> dict[object, object]:
    found = table.setdefault(name, {})
    # Something else in the column `extra` is reported as what it is.
    return cast("dict[object, object]", found) if isinstance(found, dict) else {}


def _object(value: Any, place: str, problems: list[Problem]) -> dict[str, object]:  # Any: what a driver makes of JSON
    """The object in a JSON column, which some drivers read and some do not."""
    if value is None or value == "":
        return {}
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            problems.append(Problem(place, "is not JSON."))
            return {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(Problem(place, 'must be a JSON object such as {"required": ["tenant"]}.'))
        return {}
    return dict(cast("Iterable[tuple[str, object]]", value.items()))
