"""The tables, for SQLAlchemy. No name in them has to be quoted in any common database."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")
_OBJECT = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

_ID = "id"


def _id() -> Column[int]:
    return Column(_ID, _NUMBER, Identity(), primary_key=True)


def _rule() -> Column[int]:
    return Column("rule_id", _NUMBER, ForeignKey("notify_rules.id", ondelete="CASCADE"), nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=true())


rules = Table(
    "notify_rules",
    metadata,
    _id(),
    Column("type", String(255), nullable=False),
    Column("limit_text", String(1000), nullable=False),
    Column("counted_by", String(255)),
    Column("strategy", String(50)),
    Column("name", String(255)),
    Column("on_limit", String(50)),
    Column("exempt", String(255)),
    _flag("count_exempt"),
    _flag("enforce"),
    Column("required", String(255)),
    Column("extra", _OBJECT),
    Column("ordering", Integer, nullable=False, server_default=text("0")),
    _flag("enabled"),
)

overrides = Table(
    "notify_overrides",
    metadata,
    _id(),
    _rule(),
    Column("recipient", String(255), nullable=False),
    Column("limit_text", String(1000), nullable=False),
    _flag("enabled"),
    UniqueConstraint("rule_id", "recipient", name="notify_overrides_once"),
)

tiers = Table(
    "notify_tiers",
    metadata,
    _id(),
    _rule(),
    Column("tier", String(255), nullable=False),
    Column("limit_text", String(1000), nullable=False),
    _flag("enabled"),
    UniqueConstraint("rule_id", "tier", name="notify_tiers_once"),
)

version = Table(
    "notify_rules_version",
    metadata,
    Column(_ID, Integer, primary_key=True, autoincrement=False),
    Column("version", _NUMBER, nullable=False, server_default=text("1")),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.current_timestamp()),
    Column("settings", _OBJECT),
)
