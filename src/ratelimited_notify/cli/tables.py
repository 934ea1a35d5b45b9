"""The command that makes the tables of rules in a database."""

from __future__ import annotations

from typing import Annotated

import typer

from ratelimited_notify.cli.report import console, say
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError


def init(
    url: Annotated[
        str,
        typer.Argument(
            help="The database, such as sqlite:///rules.db or postgresql+psycopg://user@host/database.",
            metavar="URL",
            show_default=False,
        ),
    ],
    as_sql: Annotated[
        bool,
        typer.Option(
            "--sql", metavar="", help="Print the SQL instead. Nothing is opened; only the kind of database counts."
        ),
    ] = False,
) -> None:
    """Make the tables of rules in a database: notify_rules, notify_overrides, notify_tiers and notify_rules_version.

    What exists stays as it is. On PostgreSQL, triggers are made, too. They announce each change, so that it is obeyed at once.
    Without the right to make them, changes are noticed once per interval.

    Exit status:

    - 0: the tables are there, or their SQL was printed.
    - 1: the database cannot be reached, or refuses.
    - 2: this is not the URL of a database, or its driver is not installed.
    """
    try:
        from ratelimited_notify.sources.sql.database import own_engine, url_of
        from ratelimited_notify.sources.sql.schema import make_tables, statements

        if as_sql:
            typer.echo("".join(f"{statement};\n" for statement in statements(url)))
            raise typer.Exit(0)
        own_engine(url_of(url), create=True)
    except NotifyError as error:
        say(console(stderr=True), f"Error: {plain(str(error))}", "red")
        raise typer.Exit(2) from None
    try:
        place, announced = make_tables(url)
    except NotifyError as error:
        say(console(stderr=True), plain(str(error)), "red")
        raise typer.Exit(1) from None
    say(console(), plain(f"The tables of rules are in {place}."))
    if place.startswith("postgresql:") and not announced:
        say(
            console(stderr=True),
            "There was no right to make the triggers, so changes are noticed once per interval.",
            "yellow",
        )
