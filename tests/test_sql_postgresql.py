"""Rules in PostgreSQL: changes that are announced, and what becomes of them when a connection or the server ends or hangs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from ratelimited_notify import Limiter, NotifyError
from ratelimited_notify.sources import SQLRules
from ratelimited_notify.sources.sql import deadline
from sql_databases import NEWS, Tables, on_postgresql as on_postgresql, postgresql_tables
from test_sql_rules import LONG, amount, threads, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from postgresql import PostgreSQL

OURS = "application_name = 'ratelimited-notify'"
END = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS} AND datname = current_database()"


def listening(limiter: Limiter) -> Any:
    """The connection of a limiter, as soon as it listens."""
    source: Any = limiter.source.source
    until(lambda: source._kept.open)
    until(lambda: not source._kept.lock.locked())
    return source._kept.open


def test_no_change_gets_lost(on_postgresql: Tables) -> None:
    """However quickly changes follow one another: the last one is obeyed, long before the interval."""
    limiter = Limiter(SQLRules(on_postgresql.url, interval=LONG))
    limiter.hit("news", "ana")
    for number in range(3, 103):
        on_postgresql.limit(number)
        if number % 10 == 0:
            until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it
    until(lambda: amount(limiter) == 102)
    version = limiter.source.status.version
    on_postgresql.run("TRUNCATE notify_rules CASCADE")
    until(lambda: limiter.source.status.error)
    assert "has no rules any more" in str(limiter.source.status.error)
    assert limiter.source.status.version == version
    on_postgresql.run("DELETE FROM notify_rules_version", NEWS)
    until(lambda: amount(limiter) == 2)
    on_postgresql.run('UPDATE notify_rules_version SET settings = \'{"default": "9/day"}\'')

    until(lambda: limiter.rules.default)
    limiter.close()


def test_an_unchanged_version_is_all_that_is_read(on_postgresql: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look per interval, by the connection that listens: there is no other."""
    from ratelimited_notify.sources.sql import source as sources

    reads: list[int] = []
    rows_of = sources.rows_of
    monkeypatch.setattr(sources, "rows_of", lambda connection: reads.append(1) or rows_of(connection))
    limiter = Limiter(SQLRules(on_postgresql.url, interval=0.05))
    limiter.hit("news", "ana")
    looks = set()
    until(lambda: looks.add(limiter.source.status.checked_at) or len(looks) > 3)

    assert len(reads) == 1
    assert on_postgresql.run(
        f"SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND datname = current_database()"
    ) == [(1,)]
    limiter.close()


def test_a_closed_connection_is_opened_again(on_postgresql: Tables, caplog: pytest.LogCaptureFixture) -> None:
    """At once, and what changed meanwhile is obeyed; a second time within the interval, the interval is the net."""
    limiter = Limiter(SQLRules(on_postgresql.url, interval=2))
    limiter.hit("news", "ana")
    first = listening(limiter)
    time.sleep(2.1)
    on_postgresql.run(END, "UPDATE notify_rules SET limit_text = '3/day'")
    until(lambda: amount(limiter) == 3)
    assert listening(limiter) is not first
    assert caplog.records == []
    on_postgresql.run(END, "UPDATE notify_rules SET limit_text = '4/day'")
    until(lambda: amount(limiter) == 4)
    on_postgresql.run("UPDATE notify_rules SET limit_text = '5/day'")
    until(lambda: amount(limiter) == 5)

    assert [record.getMessage().partition("once")[2] for record in caplog.records] == [
        " per interval. The connection that listens for them has ended again and again."
    ]
    limiter.close()


@pytest.mark.parametrize("why", ["no triggers", "a disabled trigger", "another driver", "a pooler"])
def test_without_announcements_the_interval_is_the_net(
    on_postgresql: Tables, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And one line says so."""
    url = on_postgresql.url
    if why == "no triggers":
        on_postgresql.run("DROP FUNCTION notify_rules_changed CASCADE")
    elif why == "a disabled trigger":
        on_postgresql.run("ALTER TABLE notify_overrides DISABLE TRIGGER ALL")
    engine = sqlalchemy.create_engine(url)
    if why == "another driver":
        engine.dialect.driver = "other"
    limiter = Limiter(SQLRules(engine, interval=0.1))
    limiter.hit("news", "ana")
    if why == "a pooler":
        # As PgBouncer does it: it is listened for on a backend that is somebody else's a moment later.
        with limiter.source.source._kept.lock:  # type: ignore[attr-defined]  # it is a SQLRules
            pass
        made = listening(limiter)
        with limiter.source.source._kept.lock:  # type: ignore[attr-defined]  # as above
            made.connection.exec_driver_sql("UNLISTEN *")
            made.connection.commit()
    for number in (3, 4, 5):
        on_postgresql.run(f"UPDATE notify_rules SET limit_text = '{number}/day'")
        until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it
    said = "a pooler such as PgBouncer" if why == "a pooler" else "They are not announced here"

    assert len(caplog.records) == 1
    assert said in caplog.text
    limiter.close()
    engine.dispose()


def test_a_restored_number_is_no_known_version(on_postgresql: Tables) -> None:
    """After a backup has been restored, other rules may get the number that is known."""
    limiter = Limiter(SQLRules(on_postgresql.url))
    assert str(limiter.source.status.version).startswith("2.")
    on_postgresql.run("UPDATE notify_rules_version SET version = 1", "UPDATE notify_rules SET limit_text = '3/day'")

    assert limiter.source.refresh()
    assert str(limiter.source.status.version).startswith("2.")
    limiter.close()


def test_a_server_that_stops_hangs_or_restarts(
    start_postgresql: Callable[..., PostgreSQL], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sends go on by the last good rules, no call waits for ever, and the next rules are found."""
    monkeypatch.setattr(deadline, "ANSWER_TIMEOUT", 0.5)
    server = start_postgresql()
    tables = postgresql_tables(server)
    tables.run(NEWS)
    # By its socket, as many programs reach it.
    name = tables.url.rpartition("/")[2]
    url = f"postgresql+psycopg://postgres@/{name}?host={server.directory}&port={server.port}&connect_timeout=2"
    limiter = Limiter(SQLRules(url, interval=0.1))
    limiter.hit("news", "ana")
    listening(limiter)
    server.pause()
    with pytest.raises(NotifyError):
        limiter.source.refresh()
    assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]
    server.resume()
    until(lambda: limiter.source.status.error is None)
    tables.limit(3)
    until(lambda: amount(limiter) == 3)
    server.stop()
    until(lambda: limiter.source.status.error)
    assert limiter.hit("news", "ana")
    assert "cannot be loaded" in str(limiter.source.status.error)
    server.start()
    until(lambda: limiter.source.status.error is None)
    tables.limit(4)
    until(lambda: amount(limiter) == 4)
    assert limiter.hit("news", "ana")
    limiter.close()
    until(lambda: not threads())


def test_a_pool_that_is_exhausted_harms_nobody(on_postgresql: Tables) -> None:
    """Rules are read by a connection that is taken out of the pool, so that it is missing there no longer."""
    engine = sqlalchemy.create_engine(on_postgresql.url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    limiter = Limiter(SQLRules(engine, interval=LONG))
    limiter.hit("news", "ana")
    listening(limiter)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("UPDATE notify_rules SET limit_text = '3/day'"))
        connection.commit()
        until(lambda: amount(limiter) == 3)
        other = Limiter(SQLRules(engine, fallback={"news": "7/day"}))
        assert "no connection of the pool became free" in str(other.source.status.error)
    limiter.close()
    engine.dispose()
