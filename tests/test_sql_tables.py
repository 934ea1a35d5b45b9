"""Making the tables of rules, and writing a document into them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from command import invoke
from ratelimited_notify import Limiter, NotifyError, RuleError
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.sources import SQLRules
from ratelimited_notify.sources.sql.reading import OVERRIDES, RULES, TIERS, Rows
from ratelimited_notify.sources.sql.rows import document_of
from ratelimited_notify.sources.sql.tables import metadata
from ratelimited_notify.sources.sql.writing import _row
from ratelimited_notify.sources.writing import VersionConflict
from sql_databases import sqlite_tables, tables as tables

if TYPE_CHECKING:
    from pathlib import Path

    from postgresql import PostgreSQL
    from sql_databases import Tables

DOCUMENT: dict[str, Any] = {
    "fields": ["ip"],
    "default": "5/hour",
    "rules": [
        {"type": "news", "limit": ["1/day", "2/week"], "by": ["recipient", "ip"], "exempt": "critical",
         "overrides": {"ana@example.com": "none", "5": "5/day"}},
        {"type": "all", "limit": "none", "by": []},
        {"type": "mail", "limit": "1/day", "tiers": {"gold": "20/day"}, "enforce": False, "name": "x,y", "exempt": ["a", " b"],
         "required": "tenant", "strategy": "fixed-window", "on_limit": "drop"},
    ],
}  # fmt: skip


def test_a_document_that_was_written_is_read_again(tables: Tables) -> None:
    """With the same meaning, in one transaction, by all who go by the tables."""
    limiter = Limiter(SQLRules(tables.url), tier_of=lambda recipient: None)
    source: Any = limiter.source.source
    version = source.write(DOCUMENT)

    assert limiter.source.refresh()
    assert limiter.rules == rule_set_of(DOCUMENT)
    assert limiter.source.status.version == version
    limiter.close()


def test_who_edits_at_once_loses_nothing(tables: Tables) -> None:
    """A version that is not the newest, and a document that cannot be used, write nothing."""
    source = SQLRules(tables.url)
    loaded = source.load(None)
    assert loaded is not None
    tables.limit(3)
    with pytest.raises(VersionConflict, match=rf"not {loaded.version}: somebody else has changed them"):
        source.write(DOCUMENT, if_version=loaded.version)
    with pytest.raises(RuleError, match=r"rules\[0\]\.limit"):
        source.write({"rules": [{"type": "news", "limit": "x"}]})
    after = source.load(None)
    assert after is not None
    assert after.document == {"rules": [{"type": "news", "limit": "3/day", "count_exempt": True, "enforce": True}]}

    newest = source.write(DOCUMENT, if_version=after.version)
    with pytest.raises(RuleError, match="no rules in it"):
        source.write({"rules": []}, if_version=newest)
    assert SQLRules(tables.url, allow_empty=True).write({"rules": []}, if_version=newest) != newest


def test_the_command_writes_into_the_tables(tables: Tables, tmp_path: Path) -> None:
    """Says what changes, obeys --if-version, and leaves what is there if the new rules cannot be used."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "7/day"\n')
    limiter = Limiter(SQLRules(tables.url))
    before = limiter.source.status.version
    stale = invoke("rules", "push", path, "--to", tables.url, "--if-version", "never")
    dry = invoke("rules", "push", path, "--to", tables.url, "--dry-run")
    assert not limiter.source.refresh()
    done = invoke("rules", "push", path, "--to", tables.url, "--if-version", str(before))
    assert limiter.source.refresh()
    written = limiter.source.status.version
    again = invoke("rules", "push", path, "--to", tables.url)
    path.write_text('[[rules]]\ntype = "news"\nlimit = "often"\n')
    wrong = invoke("rules", "push", path, "--to", tables.url)
    limiter.close()

    assert [each.exit_code for each in (stale, dry, done, again, wrong)] == [3, 0, 0, 0, 1], stale.output + done.output
    assert " ".join(done.stdout.split()).endswith(f"7 per day, counts kept Written as version {written}.")
    assert " ".join(again.stdout.split()) == f"Nothing changes. The rules there have version {written}."
    assert limiter.rules == rule_set_of({"rules": [{"type": "news", "limit": "7/day"}]})
    assert invoke("rules", "diff", path, tables.url).exit_code == 2


def test_version_0_is_that_of_empty_tables(tables: Tables) -> None:
    """Whoever writes the first rules may ask for it. Where there are rules, it is another version."""
    with pytest.raises(VersionConflict):
        SQLRules(tables.url).write(DOCUMENT, if_version="0")
    tables.run("DELETE FROM notify_overrides", "DELETE FROM notify_tiers", "DELETE FROM notify_rules")

    assert SQLRules(tables.url).write(DOCUMENT, if_version="0")


def test_a_text_does_not_enable_a_row(tmp_path: Path) -> None:
    """SQLite takes any text for a boolean, and 'false' would mean true."""
    found = sqlite_tables(tmp_path)
    found.run("INSERT INTO notify_rules (id, type, limit_text, enabled) VALUES (7, 'news', '1/day', 'false')")

    with pytest.raises(RuleError, match=r"row 7.*enabled.*is a text; write TRUE or FALSE without quotes"):
        Limiter(SQLRules(found.url))


names = st.text("ab, *.é", min_size=1, max_size=4)
limits_ = st.sampled_from(["1/day", "none", ["1/hour", "5/day"], "3/hour; 10/day"])


@settings(max_examples=100)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": names, "limit": limits_},
            optional={
                "by": st.just("recipient") | st.lists(st.sampled_from(["recipient", "tenant"]), unique=True),
                "name": names,
                "exempt": names | st.lists(names, max_size=3),
                "count_exempt": st.booleans(),
                "enforce": st.booleans(),
                "required": st.sampled_from(["tenant", ["tenant", "channel"], []]),
                "strategy": st.sampled_from(["fixed-window", "moving-window"]),
            },
        ),
        max_size=4,
    )
)
def test_every_rule_has_a_row(rules: list[dict[str, Any]]) -> None:
    """Whatever a rule says, its row says the same."""
    try:
        expected = rule_set_of({"rules": rules})
    except RuleError:
        return
    rows = [tuple({**_row(rule, place), "id": place}[name] for name in RULES) for place, rule in enumerate(rules)]
    problems: list[Any] = []
    document, _ = document_of(Rows(None, rows, [], []), problems)

    assert rule_set_of(document) == expected
    assert problems == []


def test_columns_need_no_quotes() -> None:
    """In no common database, and the reader knows them all."""
    from sqlalchemy.dialects import mssql, mysql, oracle, postgresql, sqlite

    for table in metadata.tables.values():
        for name in (table.name, *table.columns.keys()):
            for kind in (mssql, mysql, oracle, postgresql, sqlite):
                dialect: Any = kind.dialect
                assert dialect().identifier_preparer.quote(name) == name
    made = {name: set(table.columns.keys()) for name, table in metadata.tables.items()}
    assert (made["notify_rules"], made["notify_overrides"], made["notify_tiers"]) == (
        set(RULES),
        set(OVERRIDES),
        set(TIERS),
    )


def test_the_command_makes_the_tables(tmp_path: Path) -> None:
    """Once or again, and leaves what is in them."""
    url = f"sqlite:///{tmp_path}/rules.db"
    first = invoke("rules", "init", url)
    SQLRules(url).write({"rules": [{"type": "news", "limit": "1/day"}]})
    again = invoke("rules", "init", url)

    assert (first.exit_code, " ".join(first.stdout.split()), first.stderr) == (
        0,
        f"The tables of rules are in {url}.",
        "",
    )
    assert again.exit_code == 0
    assert invoke("rules", "check", url).exit_code == 0


@pytest.mark.parametrize(("url", "status"), [("nope", 2), ("nope://x", 2), ("sqlite:////nowhere/at/all.db", 1)])
def test_the_command_says_what_is_wrong(url: str, status: int) -> None:
    """And exits with its status."""
    result = invoke("rules", "init", url)

    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr


def test_the_sql_can_be_run_by_others(tables: Tables, tmp_path: Path) -> None:
    """By migrations, on an empty database or on one that has the tables."""
    kind = "postgresql://" if tables.kind == "postgresql" else "sqlite://"
    result = invoke("rules", "init", "--sql", kind)
    assert (result.exit_code, result.stderr) == (0, "")
    tables.run(
        "DROP TABLE notify_tiers",
        "DROP TABLE notify_overrides",
        "DROP TABLE notify_rules",
        "DROP TABLE notify_rules_version",
    )
    statements = result.stdout.split(";\n\n") if kind == "sqlite://" else [result.stdout]
    if kind == "sqlite://":
        import sqlite3

        connection = sqlite3.connect(tables.address)
        connection.executescript(result.stdout)
        connection.executescript(result.stdout)
        connection.close()
    else:
        for _ in range(2):
            tables.run(*statements)
    limiter = Limiter(SQLRules(tables.url, interval=3600 if tables.kind == "postgresql" else 0.05))
    assert len(limiter.rules) == 0
    limiter.hit("news", "ana")
    tables.edit("INSERT INTO notify_rules (type, limit_text) VALUES ('news', '7/day')")
    from test_sql_rules import until

    until(lambda: len(limiter.rules) == 1)
    limiter.close()


def test_without_the_right_to_triggers_there_are_tables(postgresql: PostgreSQL) -> None:
    """Changes are noticed once per interval, and the command says so."""
    postgresql.run(
        "CREATE DATABASE narrow",
        "CREATE ROLE narrow LOGIN",
        "GRANT CREATE ON DATABASE narrow TO narrow",
    )
    postgresql.run(
        "GRANT CREATE ON SCHEMA public TO narrow", "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC", dbname="narrow"
    )
    url = f"postgresql+psycopg://narrow@{postgresql.address}/narrow"
    result = invoke("rules", "init", url)
    limiter = Limiter(SQLRules(url))

    assert (result.exit_code, "no right to make the triggers" in " ".join(result.stderr.split())) == (0, True)
    postgresql.run("INSERT INTO notify_rules (type, limit_text) VALUES ('news', '7/day')", dbname="narrow")
    assert limiter.source.refresh()
    limiter.close()
    postgresql.run(
        "REVOKE ALL ON notify_rules FROM narrow", "ALTER TABLE notify_rules OWNER TO postgres", dbname="narrow"
    )
    with pytest.raises(NotifyError, match="no right to read the tables"):
        SQLRules(url).load(None)
    postgresql.run("DROP DATABASE narrow WITH (FORCE)", "DROP ROLE narrow")


def test_a_missing_package_is_named() -> None:
    """With the command that installs it."""
    program = """
import sys
missing = "nothing"
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from ratelimited_notify import Limiter, MissingExtra
for missing in ("psycopg", "sqlalchemy"):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("psycopg", "sqlalchemy") or ".sql" in name]:
        del sys.modules[name]
    for url in ("postgresql+psycopg://localhost/app", "postgresql+asyncpg://localhost/app"):
        try:
            Limiter(url)
        except MissingExtra as error:
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert list(dict.fromkeys(done.stdout.splitlines())) == [
        "A source of rules at postgresql+psycopg:// (or postgresql://) needs an optional dependency. Install it with: pip install 'ratelimited-notify[postgresql]'",
        "A source of rules in a database needs an optional dependency. Install it with: pip install 'ratelimited-notify[sql]'",
    ]


@pytest.mark.parametrize("url", ["redis://localhost/0", "sqlite:///", "mssql+pyodbc://host/x"])
def test_init_says_by_its_status_that_the_url_cannot_be_used(url: str) -> None:
    """As without a driver, and as with --sql."""
    assert invoke("rules", "init", url).exit_code == 2


def test_init_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It shows the URL as it was written."""
    url = f"sqlite:///{tmp_path}/missing/rules.db"
    result = invoke("rules", "init", url)

    assert result.exit_code == 1
    assert f"The rules in {url} cannot be loaded: the file cannot be opened" in " ".join(result.stderr.split())
