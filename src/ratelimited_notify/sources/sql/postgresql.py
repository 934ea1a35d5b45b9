"""What is special about PostgreSQL: triggers that keep a version and tell about changes, and one snapshot for several queries."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from sqlalchemy import Connection

CHANNEL = "notify_rules"

TABLES = ("notify_rules", "notify_overrides", "notify_tiers", "notify_rules_version")

TRIGGER = "notify_rules_changed"

_FUNCTION = """\
CREATE OR REPLACE FUNCTION notify_rules_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed integer;
BEGIN
    EXECUTE format(
        'UPDATE %I.notify_rules_version SET version = version + 1, changed_at = clock_timestamp() WHERE id = 1',
        TG_TABLE_SCHEMA);
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed = 0 THEN
        EXECUTE format(
            'INSERT INTO %I.notify_rules_version (id, version, changed_at) VALUES (1, 1, clock_timestamp()) '
            'ON CONFLICT (id) DO NOTHING', TG_TABLE_SCHEMA);
    END IF;
    PERFORM pg_notify('notify_rules', '');
    RETURN NULL;
END
$$"""


def trigger_statements() -> list[str]:
    """The statements that make the triggers. They can be run again."""
    statements = [_FUNCTION]
    for table in TABLES:
        # The function itself changes the version.
        update = "UPDATE OF settings" if table == "notify_rules_version" else "UPDATE"
        events = f"INSERT OR {update} OR DELETE OR TRUNCATE"
        statements += [
            f"DROP TRIGGER IF EXISTS {TRIGGER} ON {table}",
            f"CREATE TRIGGER {TRIGGER} AFTER {events} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {TRIGGER}()",
        ]
    return statements


_PLACES = ", ".join(f"to_regclass('{table}')" for table in TABLES)

_VERSION = text(
    "SELECT version, extract(epoch FROM changed_at) FROM notify_rules_version WHERE id = 1 AND (SELECT count(*) FROM pg_catalog.pg_trigger "  # noqa: S608  # names of our own
    f"WHERE tgname = '{TRIGGER}' AND tgenabled IN ('O', 'A') AND tgrelid IN "
    f"({_PLACES})) = {len(TABLES)}"
)


def version_of(connection: Connection) -> str | None:
    """The version that the triggers keep; None if one of the triggers is missing.

    It has the time, too: after a backup has been restored, the numbers come again.
    """
    row = connection.execute(_VERSION).first()
    return None if row is None else f"{row[0]}.{row[1]}"


def listener_on(connection: Connection, driver: Any) -> Listener | None:  # Any: a connection of any driver
    """Listen for changes on this connection; None if that is not possible.

    Only psycopg 3 says which notifications have come. A standby server does not take LISTEN.
    """
    if connection.dialect.driver != "psycopg":
        return None
    try:
        connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        connection.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        connection.rollback()
        return None
    return Listener(driver)


class Listener:
    """Notifications on a connection. All methods need the lock of the connection, except `wait`."""

    def __init__(self, driver: Any) -> None:  # Any: a connection of psycopg
        self.driver = driver
        self._heard = False
        # Those that come while a query runs.
        driver.add_notify_handler(self._hear)

    def _hear(self, _notification: object) -> None:
        self._heard = True

    @property
    def is_over(self) -> bool:
        """Whether the connection is closed."""
        return bool(self.driver.closed)

    def heard(self) -> bool:
        """Whether something has been heard since the last time. Does not wait.

        Raises:
            Exception: the connection is closed.
        """
        connection = self.driver.pgconn
        connection.consume_input()
        while connection.notifies():
            self._heard = True
        heard, self._heard = self._heard, False
        return heard

    def wait(self, timeout: float) -> bool:
        """Wait until something has come from the server, or the connection has ended."""
        return _readable(self.driver.fileno(), timeout)


def _readable(number: int, timeout: float) -> bool:
    if hasattr(select, "poll"):
        # `select` takes no more than 1,024 files.
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    return bool(select.select([number], [], [], timeout)[0])
