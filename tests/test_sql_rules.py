"""Rules in the tables of a real database, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from offering import WITHIN, amount, until
from ratelimited_notify import AsyncLimiter, Limiter, MissingExtra, NotifyError, Rule, RuleError, RuleSet
from ratelimited_notify.sources import SQLRules
from ratelimited_notify.sources.sql import database as databases, reading, source as sources
from ratelimited_notify.sources.sql.schema import make_tables, statements
from sql_databases import Tables, on_sqlite as on_sqlite, tables as tables

LONG = 3600.0
"""Seconds: an interval that no test lives to see."""


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ratelimited-notify rules")]


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- A change is obeyed ----------------------------------------------------------------------------------------------


def test_a_change_by_another_process_is_obeyed(tables: Tables, caplog: pytest.LogCaptureFixture) -> None:
    """Within the interval; on PostgreSQL long before it. Counts are kept, and nothing is logged."""
    with Limiter(SQLRules(tables.url, interval=0.05 if tables.kind == "sqlite" else LONG)) as limiter:
        assert [limiter.hit("news", "ana").allowed for _ in range(3)] == [True, True, False]
        for allowed in (3, 4):
            tables.edit(f"UPDATE notify_rules SET limit_text = '{allowed}/day'")
            until(lambda allowed=allowed: amount(limiter) == allowed)  # type: ignore[misc]  # mypy cannot infer it
            assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]
        tables.edit("INSERT INTO notify_overrides (rule_id, recipient, limit_text) VALUES (1, 'ana', 'none')")
        until(lambda: limiter.hit("news", "ana").allowed)
        tables.edit('UPDATE notify_rules_version SET settings = \'{"fields": ["ip"]}\'')
        until(lambda: "ip" in limiter.rules.fields)

        assert limiter.source.status.error is None
    assert caplog.records == []


def test_rows_make_the_rules_that_a_file_would(tables: Tables) -> None:
    """All columns, in their order, without what is disabled; other columns do not matter."""
    tables.run(
        "ALTER TABLE notify_rules ADD COLUMN remark VARCHAR(50)",
        "DELETE FROM notify_rules",
        "INSERT INTO notify_rules (id, type, limit_text, counted_by, strategy, name, on_limit, exempt, count_exempt, enforce, required, extra, "
        "ordering, remark) VALUES (7, 'sms.*', '3/hour; 10/day', 'recipient, ip', 'fixed-window', 'sms', 'drop', 'critical, high', false, false, "
        "'tenant', NULL, 2, 'x')",
        "INSERT INTO notify_rules (id, type, limit_text, counted_by, strategy, extra, ordering) VALUES (8, '*', '100/day', '', ' ', '{\"by\": []}', 1)",
        "INSERT INTO notify_rules (id, type, limit_text, enabled) VALUES (9, 'off', 'nonsense', false)",
        "INSERT INTO notify_rules (id, type, limit_text, ordering) VALUES (10, 'mail', 'none', 3)",
        "INSERT INTO notify_overrides (rule_id, recipient, limit_text) VALUES (7, 'vip', '50/day')",
        "INSERT INTO notify_overrides (rule_id, recipient, limit_text, enabled) VALUES (7, 'bob', 'nonsense', false)",
        "INSERT INTO notify_overrides (rule_id, recipient, limit_text) VALUES (9, 'vip', 'nonsense')",
        "INSERT INTO notify_tiers (rule_id, tier, limit_text) VALUES (10, 'gold', '20/day')",
        'UPDATE notify_rules_version SET settings = \'{"fields": ["ip"], "default": "5/hour"}\'',
    )
    limiter = Limiter(SQLRules(tables.url), tier_of=lambda recipient: None)

    assert limiter.rules == RuleSet(
        [
            Rule("*", "100/day", by=()),
            Rule("sms.*", "3/hour; 10/day", by=("recipient", "ip"), strategy="fixed-window", name="sms", on_limit="drop",
                 exempt=("critical", "high"), count_exempt=False, enforce=False, required="tenant", overrides={"vip": "50/day"}),
            Rule("mail", None, tiers={"gold": "20/day"}),
        ],
        fields=["ip"],
        default="5/hour",
    )  # fmt: skip
    limiter.close()


def test_problems_name_the_row(tables: Tables) -> None:
    """In words of the tables, all of them, and no address."""
    limiter = Limiter(SQLRules(tables.url))
    tables.run(
        "INSERT INTO notify_rules (id, type, limit_text, counted_by) VALUES (11, 'mail', '1/dya', 'color')",
        "INSERT INTO notify_rules (id, type, limit_text) VALUES (12, 'news', '5/day')",
        "INSERT INTO notify_rules (id, type, limit_text, extra) VALUES (13, 'sms', '5/day', '{\"limits\": 1}')",
        "INSERT INTO notify_overrides (id, rule_id, recipient, limit_text) VALUES (21, 12, 'ana@example.com', '1/day')",
        "INSERT INTO notify_overrides (id, rule_id, recipient, limit_text) VALUES (22, 12, 'bo@example.com', 'x')",
        "INSERT INTO notify_tiers (id, rule_id, tier, limit_text) VALUES (31, 12, 'gold', 'y')",
        'UPDATE notify_rules_version SET settings = \'{"unknown_type": "drop"}\'',
    )
    with pytest.raises(RuleError) as caught:
        limiter.source.refresh()
    problems = {problem.place: problem.message for problem in caught.value.problems}

    assert sorted(problems) == [
        "notify_overrides row 22 (of notify_rules row 12 (type 'news'))",
        "notify_rules row 11 (type 'mail'), counted_by",
        "notify_rules row 11 (type 'mail'), limit_text",
        "notify_rules row 12 (type 'news')",
        "notify_rules row 13 (type 'sms'), limits",
        "notify_rules_version row 1, settings: unknown_type",
        "notify_tiers row 31 (of notify_rules row 12 (type 'news'))",
    ]
    assert "as notify_rules row 1 (type 'news')" in problems["notify_rules row 12 (type 'news')"]
    assert "@" not in str(caught.value).replace(tables.url, "")
    assert limiter.source.status.problems == caught.value.problems
    tables.run("UPDATE notify_rules SET extra = '[]' WHERE id = 13")
    with pytest.raises(RuleError, match=r"notify_rules row 13 \(type 'sms'\), extra: must be a JSON object"):
        limiter.source.refresh()
    tables.run("ALTER TABLE notify_tiers RENAME COLUMN tier TO level")
    with pytest.raises(RuleError, match="notify_tiers: has no column tier"):
        limiter.source.refresh()
    limiter.close()


def test_what_a_limiter_cannot_go_by_names_the_row(tables: Tables) -> None:
    """Tiers without tier_of=, which only the limiter knows."""
    limiter = Limiter(SQLRules(tables.url))
    tables.run("INSERT INTO notify_tiers (rule_id, tier, limit_text) VALUES (1, 'gold', '9/day')")

    with pytest.raises(RuleError, match=r"notify_rules row 1 \(type 'news'\), tiers: need tier_of="):
        limiter.source.refresh()
    limiter.close()


def test_all_tables_are_read_as_of_one_moment(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever edits two tables in one transaction never has one half of it obeyed."""
    if tables.kind == "sqlite":
        tables.run("PRAGMA journal_mode = wal")
    limiter = Limiter(SQLRules(tables.url))
    tables.run("UPDATE notify_rules SET limit_text = '3/day'")
    read = reading._read

    def interrupted(connection: Any, name: str, *given: Any) -> Any:
        if name == "notify_overrides":
            tables.run(
                "INSERT INTO notify_overrides (rule_id, recipient, limit_text) VALUES (1, 'vip', '9/day') ON CONFLICT DO NOTHING"
            )
            tables.run("UPDATE notify_rules SET limit_text = '4/day'")
        return read(connection, name, *given)

    monkeypatch.setattr(reading, "_read", interrupted)
    assert limiter.source.refresh()
    assert limiter.rules == RuleSet({"news": "3/day"})
    assert limiter.source.refresh()

    assert limiter.rules == RuleSet([Rule("news", "4/day", overrides={"vip": "9/day"})])
    limiter.close()


# --- What may be given -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["text", "URL", "engine", "factory", "async engine", "async text", "source text", "one connection"]
)
def test_what_may_be_given(tables: Tables, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them obey a change, and leave the engine of the user as it is."""
    slow = 0.05 if tables.kind == "sqlite" else LONG
    for_asyncio = tables.url.replace("psycopg", "asyncpg").replace("sqlite:", "sqlite+aiosqlite:")
    engine = sqlalchemy.create_engine(tables.url)
    if given == "one connection":
        engine = sqlalchemy.create_engine(tables.url, poolclass=sqlalchemy.StaticPool)
    with engine.connect() as busy:
        # A transaction of the user, which nobody may end.
        busy.execute(sqlalchemy.text("SELECT 1"))
        rules: Any = {
            "text": lambda: SQLRules(tables.url, interval=slow),
            "URL": lambda: SQLRules(engine.url, interval=slow),
            "engine": lambda: SQLRules(engine, interval=slow),
            "one connection": lambda: SQLRules(engine, interval=slow),
            "factory": lambda: SQLRules(lambda: engine, interval=slow),
            "async engine": lambda: SQLRules(create_async_engine(for_asyncio), interval=slow),
            "async text": lambda: SQLRules(for_asyncio, interval=slow),
            "source text": lambda: f"{tables.url}?interval={slow}&wait=true&timeout=7"[
                : None if tables.kind == "sqlite" else -10
            ],
        }[given]()
        limiter = Limiter(rules)
        limiter.hit("news", "ana")
        assert limiter.source.source.options.interval == slow
        assert (
            repr(limiter.source.source)
            == f"<SQLRules of {tables.url.replace('+psycopg', '').replace('postgres@', '')}>"
        )
        tables.limit(3)
        until(lambda: amount(limiter) == 3)
        assert busy.in_transaction()
    limiter.close()
    until(lambda: not threads())
    engine.dispose()


def test_memory_of_one_connection_is_refused_and_shared_memory_is_not(tmp_path: Path) -> None:
    """It says why, and leaves what is in it."""
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE mine (x INTEGER)"))
    for given in (
        engine,
        sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool),
        "sqlite:///:memory:",
        create_async_engine("sqlite+aiosqlite://"),
    ):
        with pytest.raises(NotifyError, match="in memory belongs to one connection"):
            SQLRules(given)
    with engine.begin() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM mine")).scalar() == 0
    engine.dispose()
    shared = "file:rules?mode=memory&cache=shared&uri=true"
    owner = sqlite3.connect("file:rules?mode=memory&cache=shared", uri=True, isolation_level=None)
    for table in sources_of_tables():
        owner.execute(table)
    owner.execute("INSERT INTO notify_rules (type, limit_text) VALUES ('news', '2/day')")
    limiter = Limiter(SQLRules(f"sqlite:///{shared}", interval=0.05))
    limiter.hit("news", "ana")
    owner.execute("UPDATE notify_rules SET limit_text = '3/day'")

    until(lambda: amount(limiter) == 3)
    limiter.close()
    until(lambda: not threads())
    owner.close()


def sources_of_tables() -> list[str]:
    from ratelimited_notify.sources.sql.schema import statements

    return statements("sqlite://")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "needs a URL such as .* not a int"),
        ("nothing", "not the URL of a database"),
        ("sqlite:rules.db", "not the URL of a database. .* 'sqlite:///rules.db'"),
        ("sqlite://rules.db", "three slashes before its path"),
        ("postgresql://ana:sec/ret@host:port/x", "not the URL of a database"),
        ("nope+secret://x", "knows no database"),
        ("redis://localhost/0", "Rules in Redis need no tables. .* RedisRules"),
        (lambda: 5, "returned a int"),
        ("postgresql://a..b/x", "failed with Unicode(Encode)?Error"),
        (lambda: create_async_engine("sqlite+aiosqlite:///x"), "not for asyncio"),
        ("mssql+pyodbc://ana:secret@host/x", "need the package pyodbc"),
    ],
)
def test_what_cannot_be_used(given: Any, said: str) -> None:
    """It says what to write, and no password."""
    with pytest.raises(NotifyError, match=said) as caught:
        SQLRules(given).load(None)
    assert "sec/ret" not in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, UnicodeError)
    assert "secret" not in str(caught.value).replace("nope+secret", "")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ana:s3cret@127.0.0.1:1/app?interval=2&application_name=x",
        "postgresql+asyncpg://ana:s3cret@127.0.0.1:1/app?ssl=disable&interval=2",
        "postgres://ana:s3cret@127.0.0.1:1/app?interval=2",
        "mysql+pymysql://ana:s3cret@127.0.0.1:1/app?interval=2",
        "sqlite:///missing/s3cret.db?interval=none",
        "postgresql://ana:s3cret@127.0.0.1:one/app?interval=2",
        "ftp://ana:s3cret@127.0.0.1/app",
        "postgresql://ana:pass@s3cret/word@127.0.0.1:1/app",
        "postgresql://ana:pass@s3cret?word@127.0.0.1:1/app",
        "POSTGRESQL://ana:s3cret@127.0.0.1:1/app",
        '"postgresql://ana:s3cret@127.0.0.1:1/app"',
        " redis://ana:s3cret@127.0.0.1:1/0?key=rules",
        "redis-cluster://ana:s3cret@127.0.0.1:1/0?key=rules",
        "file:missing.toml?fallback=redis://ana:s3cret@127.0.0.1:1/0",
    ],
)
def test_no_message_shows_a_password(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of a source that cannot be made, nor of one that cannot be reached, nor its repr."""
    with pytest.raises(NotifyError) as caught:
        Limiter(text)
    said = str(caught.value) + caplog.text
    if text.startswith("postgres") and ":1/" in text and "pass@" not in text:
        source = SQLRules(text.replace("interval=2&", "").replace("interval=2", ""))
        said += repr(source) + source.place
        assert "postgresql://127.0.0.1:1/app" in said
        assert "cannot be reached, or refuses the connection (psycopg.OperationalError)" in said
    assert "s3cret" not in said
    assert "ana" not in said


def test_limits_of_a_rule_that_is_gone_are_a_problem(on_sqlite: Tables) -> None:
    """SQLite deletes them with their rule only if it is told so, and gives the id of the rule to another one."""
    with Limiter(SQLRules(on_sqlite.url)) as limiter:
        on_sqlite.run(
            "INSERT INTO notify_rules (id, type, limit_text, enabled) VALUES (5, 'off', '1/day', false)",
            "INSERT INTO notify_overrides (id, rule_id, recipient, limit_text) VALUES (3, 5, 'vip@example.com', '9/day')",
            "INSERT INTO notify_overrides (id, rule_id, recipient, limit_text) VALUES (4, 7, 'vip@example.com', '9/day')",
            "INSERT INTO notify_tiers (id, rule_id, tier, limit_text) VALUES (6, 8, 'gold', '9/day')",
        )
        with pytest.raises(RuleError) as caught:
            limiter.source.refresh()
        assert [problem.place for problem in caught.value.problems] == [
            "notify_overrides row 4, rule_id",
            "notify_tiers row 6, rule_id",
        ]
        assert caught.value.problems[0].message.startswith("is 7, which no row of notify_rules has. Delete the row.")
        assert "vip@" not in str(caught.value)
        on_sqlite.run("DELETE FROM notify_overrides WHERE id = 4", "DELETE FROM notify_tiers")
        limiter.source.refresh()
        assert limiter.source.status.problems == ()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///rules.db?interval=1", r"write SQLRules\(url, interval=\.\.\.\)"),
        ("sqlite:///rules.db?fallbak=x", "Is it meant to be fallback"),
        ("mysql+mysqldb://host/x", r"need the package MySQLdb, which is not installed.*mysql\+pymysql://"),
        ("postgresql+pg8000://host/x", r"need the package pg8000.*postgresql\+psycopg://, which pip install"),
    ],
)
def test_a_url_that_does_not_do_what_it_says(url: str, said: str) -> None:
    """It is told, with what to write."""
    with pytest.raises(NotifyError, match=said):
        SQLRules(url)


def test_a_url_without_a_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the driver that it installs, with the URL to write."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"postgresql\+psycopg:// .*pip install 'ratelimited-notify\[postgresql\]'"):
        SQLRules("postgresql://localhost/app")


def test_a_factory_that_needs_an_argument_is_refused_at_once() -> None:
    """It is called without one."""
    with pytest.raises(NotifyError, match="without an argument"):
        SQLRules(lambda url: url)  # type: ignore[arg-type]  # what is wrong


def test_no_traceback_shows_a_credential_or_sql(on_sqlite: Tables) -> None:
    """What SQLAlchemy raises contains the statement, and what a driver or a factory raises may contain the URL."""

    def factory() -> Any:
        make_url("nothing: ana:s3cret")

    on_sqlite.run("DROP TABLE notify_overrides")
    away = "postgresql+psycopg://ana:s3cret@127.0.0.1:1/app"
    document = {"rules": [{"type": "news", "limit": "1/day"}]}
    for what in (
        lambda: Limiter(on_sqlite.url),
        lambda: Limiter(away),
        lambda: Limiter(SQLRules(factory)),
        lambda: SQLRules(on_sqlite.url).write(document),
        lambda: SQLRules(away).write(document),
        lambda: SQLRules(factory).write(document),
        lambda: make_tables(away),
        lambda: statements("nothing+s3cret://ana"),
    ):
        with pytest.raises(NotifyError) as caught:
            what()
        error: BaseException | None = caught.value
        said = "".join(traceback.format_exception(error)).replace("nothing+s3cret", "")
        # The lines of this file are no message.
        said = "\n".join(line for line in said.splitlines() if not line.startswith("    "))
        assert "s3cret" not in said
        assert "sqlalche.me" not in said
        assert "SELECT" not in said
        while error is not None:
            assert isinstance(error, NotifyError)
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize("how", ["first", "second", "late"])
def test_what_a_limiter_cannot_use_is_told_in_the_words_of_the_tables(on_sqlite: Tables, how: str) -> None:
    """Also when it is made: the rules are fine, and it lacks tier_of=."""
    source = SQLRules(on_sqlite.url)
    on_sqlite.run("INSERT INTO notify_rules (type, limit_text) VALUES ('a', '1/day')")
    tier = "INSERT INTO notify_tiers (rule_id, tier, limit_text) VALUES (2, 'gold', '3/day')"
    place = "notify_rules row 2 (type 'a'), tiers"
    able = [Limiter(source, tier_of=lambda recipient: None)] if how != "first" else []
    on_sqlite.run(tier)
    for each in able:
        each.source.refresh()
    unable = Limiter(source, enabled=False)
    with pytest.raises(RuleError) as caught:
        unable.source.follow(unable) if how == "late" else Limiter(source)

    assert [problem.place for problem in caught.value.problems] == [place]
    assert f"The rules in sqlite://{on_sqlite.address}" in str(caught.value).replace("///", "//")


def test_the_places_of_other_rules_are_not_those_in_force(on_sqlite: Tables) -> None:
    """If the tables have changed and cannot be used, the rows of today are not those of the rules in force."""
    source = SQLRules(on_sqlite.url)
    on_sqlite.run("INSERT INTO notify_tiers (rule_id, tier, limit_text) VALUES (1, 'gold', '3/day')")
    able = Limiter(source, tier_of=lambda recipient: None)
    on_sqlite.run("INSERT INTO notify_rules (type, limit_text, ordering) VALUES ('a', 'often', -1)")
    with pytest.raises(RuleError, match=r"notify_rules row 2 \(type 'a'\), limit_text"):
        able.source.refresh()
    with pytest.raises(RuleError) as caught:
        Limiter(source)

    assert [problem.place for problem in caught.value.problems] == ["rules[0].tiers"]
    able.close()


def test_the_text_of_a_source_has_options_of_both(on_sqlite: Tables, tmp_path: Path) -> None:
    """Ours are taken out, and those of the database stay."""
    spare = tmp_path / "spare.toml"
    spare.write_text('[[rules]]\ntype = "news"\nlimit = "7/day"\n')
    missing = Limiter(f"sqlite:///{tmp_path}/missing.db?fallback={spare}&timeout=3&allow_empty=true")
    assert amount(missing) == 7
    source: Any = missing.source.source
    assert source.options.allow_empty
    assert source._database.engine().url.query["timeout"] == "3"
    assert not (tmp_path / "missing.db").exists()
    for wrong in ("interval=x", "wait=1"):
        with pytest.raises(RuleError, match=f"{wrong[:4]}.* must be"):
            Limiter(f"{on_sqlite.url}?{wrong}")


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("break_it", "mend_it", "said"),
    [
        ("DELETE FROM notify_rules", "", "has no rules any more"),
        ("ALTER TABLE notify_rules RENAME TO gone", "ALTER TABLE gone RENAME TO notify_rules", "tables of the rules are missing"),
        ("ALTER TABLE notify_rules_version RENAME TO gone", "ALTER TABLE gone RENAME TO notify_rules_version", "run: ratelimited-notify rules init"),
        ("UPDATE notify_rules SET limit_text = 'x'", "DELETE FROM notify_rules", "is not a limit"),
    ],
)  # fmt: skip
def test_the_last_good_rules_stay_and_good_ones_are_found_again(
    tables: Tables, break_it: str, mend_it: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Emptied tables, dropped ones, wrong rows: sends go on, it is logged once, and the next good set is obeyed."""
    limiter = Limiter(SQLRules(tables.url, interval=0.05))
    limiter.hit("news", "ana")
    tables.edit(break_it)
    until(lambda: limiter.source.status.error)
    assert said in str(limiter.source.status.error)
    assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]
    time.sleep(0.2)
    assert len(caplog.records) == 1
    tables.edit(*filter(None, [mend_it]), "INSERT INTO notify_rules (type, limit_text) VALUES ('news', '3/day')",
                "DELETE FROM notify_rules WHERE limit_text = '2/day'")  # fmt: skip
    until(lambda: amount(limiter) == 3)
    limiter.close()


def test_a_thousand_limits_more_than_can_be_used_are_an_error(
    on_sqlite: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that grew by mistake does not fill the memory."""
    limiter = Limiter(SQLRules(on_sqlite.url))
    monkeypatch.setattr(reading, "MOST_LIMITS", 2)
    on_sqlite.run(
        *(
            f"INSERT INTO notify_overrides (rule_id, recipient, limit_text) VALUES (1, '{each}', '1/day')"
            for each in range(3)
        )
    )

    with pytest.raises(RuleError, match="notify_overrides: has more than 2 rows"):
        limiter.source.refresh()
    limiter.close()


# --- Nothing is left behind ------------------------------------------------------------------------------------------


def test_closed_or_forgotten_limiters_leave_nothing_behind(tables: Tables) -> None:
    """No thread, no file, no connection."""
    Limiter(SQLRules(tables.url)).close()
    gc.collect()
    before = files()
    for number in range(40):
        limiter = Limiter(SQLRules(tables.url, interval=0.05))
        limiter.hit("news", "ana")
        if number % 3 == 0:
            until(lambda limiter=limiter: limiter.source.source._kept.open)  # type: ignore[misc]  # mypy cannot infer it
        if number % 2:
            limiter.close()
        del limiter
    gc.collect()

    until(lambda: not threads())
    until(lambda: files() <= before)
    if tables.kind == "postgresql":
        until(
            lambda: (
                tables.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ratelimited-notify'")
                == [(0,)]
            )
        )


def test_it_keeps_no_process_from_exiting(tables: Tables) -> None:
    """A program that ends without closing anything ends, without a word."""
    program = (
        "import time\n"
        "from ratelimited_notify import Limiter\n"
        f"limiter = Limiter('{tables.url}?interval=0.05')\n"
        "print(limiter.hit('news', 'ana').allowed)\n"
        "time.sleep(0.3)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_connection_that_hangs_delays_neither_close_nor_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is left to its time-out."""
    monkeypatch.setitem(databases._LIBPQ, "connect_timeout", 2)  # type: ignore[arg-type]  # it is a dict
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = SQLRules(
            f"postgresql://127.0.0.1:{server.getsockname()[1]}/app", fallback={"news": "2/day"}, interval=0.05
        )
        limiter = Limiter(source)
        assert "did not answer in time" in str(limiter.source.status.error)
        limiter.hit("news", "ana")
        until(source._kept.lock.locked)
        started = time.monotonic()
        assert limiter.hit("news", "ana")
        limiter.close()
        assert time.monotonic() - started < 1

        assert source._kept.lock.locked()
    until(lambda: not threads())


def test_a_child_uses_no_connection_of_its_parent(tables: Tables) -> None:
    """Neither ours nor those in the pool of a given engine; both go on to work in the parent."""
    engine = sqlalchemy.create_engine(tables.url)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    limiter = Limiter(SQLRules(engine, interval=0.05))
    limiter.hit("news", "ana")
    until(lambda: limiter.source.source._kept.open)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # No assertion may leave the child.
        said = b"failed"
        try:
            own = limiter.source.source._kept.open
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("UPDATE notify_rules SET limit_text = '3/day'"))
                connection.commit()
            limiter.hit("news", "ana")
            deadline = time.monotonic() + WITHIN
            while amount(limiter) != 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            said = json.dumps([own, amount(limiter), limiter.source.status.error]).encode()
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)

    assert json.loads(said) == [None, 3, None]
    until(lambda: amount(limiter) == 3)
    tables.limit(4)
    until(lambda: amount(limiter) == 4)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 5")).scalar() == 5
    limiter.close()
    engine.dispose()


def test_asyncio_goes_by_tables_too(tables: Tables) -> None:
    """And asks them beside the loop."""

    async def main() -> tuple[bool, int]:
        engine = create_async_engine(tables.url.replace("psycopg", "asyncpg").replace("sqlite:", "sqlite+aiosqlite:"))
        limiter = AsyncLimiter(SQLRules(engine))
        await asyncio.to_thread(tables.limit, 5)
        changed = await limiter.refresh_rules()
        decision = await limiter.hit("news", "ana")
        await limiter.close()
        return changed, decision.windows[0].item.amount

    assert asyncio.run(main()) == (True, 5)


# --- SQLite ----------------------------------------------------------------------------------------------------------


def test_an_unchanged_file_is_not_read(on_sqlite: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as its number stays the same; and it notices what another connection of this process commits."""
    reads: list[int] = []
    rows_of = sources.rows_of
    monkeypatch.setattr(sources, "rows_of", lambda connection: reads.append(1) or rows_of(connection))
    limiter = Limiter(SQLRules(on_sqlite.url, interval=0.02))
    limiter.hit("news", "ana")
    until(lambda: len(reads) == 2)
    looks = limiter.source.status.checked_at
    until(lambda: limiter.source.status.checked_at != looks)
    time.sleep(0.2)
    assert len(reads) == 2
    on_sqlite.limit(3)
    until(lambda: amount(limiter) == 3)

    assert len(reads) == 3
    limiter.close()


def test_another_file_in_its_place_is_obeyed(on_sqlite: Tables, tmp_path: Path) -> None:
    """Such as a backup that is moved there. The connection still has the old one."""
    path = Path(on_sqlite.address)
    other = tmp_path / "other.db"
    other.write_bytes(path.read_bytes())
    Tables("sqlite", "", str(other)).limit(3)
    limiter = Limiter(SQLRules(on_sqlite.url, interval=0.05))
    limiter.hit("news", "ana")
    until(lambda: limiter.source.source._kept.open)
    other.replace(path)
    until(lambda: amount(limiter) == 3)
    path.unlink()
    until(lambda: limiter.source.status.error)
    assert "the file cannot be opened" in str(limiter.source.status.error)
    assert amount(limiter) == 3
    assert not path.exists()
    limiter.close()


def test_a_locked_file_is_waited_for(on_sqlite: Tables) -> None:
    """For the time-out of the URL; then the rules stay as they are. Nobody else is locked out by reading."""
    limiter = Limiter(SQLRules(f"{on_sqlite.url}?timeout=0.1"))
    locker = sqlite3.connect(on_sqlite.address, isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NotifyError, match="another program keeps the file locked"):
        limiter.source.refresh()
    locker.execute("UPDATE notify_rules SET limit_text = '3/day'")
    locker.execute("COMMIT")
    assert limiter.source.refresh()
    locker.execute("BEGIN EXCLUSIVE")
    locker.execute("COMMIT")
    locker.close()
    Path(on_sqlite.address).write_bytes(b"nonsense" * 1000)

    with pytest.raises(NotifyError, match="the file is not a database"):
        limiter.source.refresh()
    assert amount(limiter) == 3
    limiter.close()


def test_a_signal_handler_refreshes_while_its_thread_reads(on_sqlite: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads by a connection of its own instead of waiting for itself."""
    limiter = Limiter(SQLRules(on_sqlite.url, interval=3600))
    read, struck = sources.rows_of, list[bool]()

    def rows_of(connection: Any) -> Any:
        if not struck:
            struck.append(False)
            struck.append(limiter.source.refresh())
        return read(connection)

    monkeypatch.setattr(sources, "rows_of", rows_of)
    on_sqlite.edit("UPDATE notify_rules SET limit_text = '7/day'")
    thread = threading.Thread(target=limiter.source.refresh, daemon=True)
    thread.start()
    thread.join(20)

    assert not thread.is_alive(), "it waits for ever"
    assert struck == [False, True]
    assert limiter.source.status.error is None
    limiter.close()
