"""The commands about rules: check, show, diff, push."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.text import Text

from ratelimited_notify.cli.applying import applying
from ratelimited_notify.cli.check import show_rules
from ratelimited_notify.cli.field_options import fields_of
from ratelimited_notify.cli.push import push, target
from ratelimited_notify.cli.remarks import doubts, needs
from ratelimited_notify.cli.report import console, say, show, shown, table
from ratelimited_notify.cli.rules_argument import GivenRules, Located, as_json
from ratelimited_notify.cli.tables import init
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.rules.difference import differences
from ratelimited_notify.sources.writing import VersionConflict, checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimited_notify.rules.ruleset import RuleSet

rules_app = typer.Typer(
    name="rules",
    help="Check rules, show which of them apply, compare them, and write them to where programs read them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

rules_app.command("init")(init)

_Rules = Annotated[
    str,
    typer.Argument(
        help="A rules file, or a source such as redis://localhost/0?key=notify:rules.",
        metavar="RULES",
        show_default=False,
    ),
]


@rules_app.command("check")
def check(
    rules: _Rules,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Check rules. Print them as a table, or all problems and where they are.

    What is hardly meant as it is written is a warning on standard error, such as a rule that can match nothing. With --json, the
    object has problems, warnings and notes, each with line, path and message, and the number of rules. The line is null if the
    rules are not in a file. A note says what the rules need of the program, such as tier_of= for tiers.

    Exit status:

    - 0: the rules can be used.
    - 1: they cannot be used.
    - 2: an option cannot be used, or the rules cannot be reached.
    """
    given = _given(rules)
    problems: list[Located] = []
    found: RuleSet | None = None
    status = 0
    try:
        found = given.rules()
    except NotifyError as error:
        status = 1 if isinstance(error, RuleError) else 2
        if not json:
            _fail(error, status, given)
        problems = given.located(error.problems) if isinstance(error, RuleError) else [Located(None, "", str(error))]
    warnings = [] if found is None else given.located(doubts(found))
    notes = [] if found is None else given.located(needs(found))
    if json:
        typer.echo(as_json(problems, warnings, notes, 0 if found is None else len(found)))
    elif found is not None:
        show_rules(console(), found)
        for warning in warnings:
            say(console(stderr=True), plain(f"warning: {warning}"), "yellow")
        _say_notes(notes)
    raise typer.Exit(status)


@rules_app.command("show")
def show_command(
    type_: Annotated[str, typer.Argument(help="The type of a notification.", metavar="TYPE", show_default=False)],
    rules: Annotated[
        str,
        typer.Option(
            "--rules",
            help="A rules file, or a source such as redis://localhost/0?key=notify:rules.",
            envvar="RATELIMITED_NOTIFY_RULES",
            metavar="RULES",
        ),
    ],
    to: Annotated[
        str | None, typer.Option("--to", help="Who it is for, as it is counted.", metavar="RECIPIENT")
    ] = None,
    tier: Annotated[
        str | None, typer.Option("--tier", help="The tier that tier_of= would return.", metavar="NAME")
    ] = None,
    priority: Annotated[str | None, typer.Option("--priority", help="Its priority.", metavar="NAME")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option("--field", help="A field of it, such as tenant=acme. May be repeated.", metavar="NAME=VALUE"),
    ] = None,
) -> None:
    """Show which rules apply to a notification, in order, and why.

    Exit status:

    - 0: something limits it.
    - 1: nothing limits it, or the rules cannot be used.
    - 2: an option cannot be used, or the rules cannot be reached.
    """
    given = _given(rules)
    try:
        found = given.rules()
    except NotifyError as error:
        _fail(error, 1 if isinstance(error, RuleError) else 2, given)
    try:
        lines = list(applying(found, type_, to, tier, priority, fields_of(field or [])))
    except NotifyError as error:
        _fail(error, 2)
    made = table(f"Rules for {shown(type_)}", "rule", "limit", "counted by", "why")
    for line in lines:
        made.add_row(*(Text(cell, "" if line.applies else "dim") for cell in line.cells))
    if lines:
        show(console(), made)
    limited = any(line.applies for line in lines)
    if not limited:
        what = "is an error" if found.unknown_type == "raise" and not found.knows(type_) else "is sent without a limit"
        say(console(), f"Nothing limits it: it {what}.", "yellow")
    raise typer.Exit(0 if limited else 1)


@rules_app.command("diff")
def diff(
    old: Annotated[str, typer.Argument(help="The rules before.", metavar="OLD", show_default=False)],
    new: Annotated[str, typer.Argument(help="The rules after.", metavar="NEW", show_default=False)],
) -> None:
    """Say in words what changes from OLD to NEW, and which counts are kept.

    Exit status:

    - 0: nothing changes.
    - 1: something changes.
    - 2: rules cannot be used or reached.
    """
    both: list[RuleSet] = []
    for given in (_given(old), _given(new)):
        try:
            both.append(given.rules())
        except NotifyError as error:
            _fail(error, 2, given)
    changes = list(differences(*both))
    for change in changes:
        say(console(), plain(change))
    if not changes:
        say(console(), "Nothing changes.")
    raise typer.Exit(1 if changes else 0)


@rules_app.command("push")
def push_command(
    rules: _Rules,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Where programs read rules: redis://host:port/0?key=notify:rules or the URL of a database. Other users of this machine can see command "
            "lines, so put a URI with a password into the environment variable.",
            envvar="RATELIMITED_NOTIFY_RULES",
            metavar="URI",
        ),
    ],
    if_version: Annotated[
        str | None,
        typer.Option(
            "--if-version",
            help="Write only if the rules there have this version, as --dry-run prints it; 0 if there must be none.",
            metavar="VERSION",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Say what would change, and write nothing.")
    ] = False,
) -> None:
    """Replace the rules that programs read by those in RULES, in one step, and tell the programs.

    The rules are checked first. What changes is printed in words, as by diff; if nothing does, nothing is written. If two people
    edit at the same time, --if-version keeps one of them from overwriting the changes of the other.

    Exit status:

    - 0: the rules were written, or nothing changes; with --dry-run, they could be written.
    - 1: the rules cannot be used. Nothing was written.
    - 2: an option cannot be used, or something cannot be reached or refused the change.
    - 3: the rules there have another version than --if-version. Nothing was written.
    """
    given = _given(rules)
    try:
        writable = target(to)
    except NotifyError as error:
        _fail(error, 2)
    try:
        document = given.document()
        found = checked(document, writable.options)
    except NotifyError as error:
        _fail(error, 1 if isinstance(error, RuleError) else 2, given)
    _say_notes(given.located(needs(found)))
    try:
        push(document, found, writable, if_version, console(), console(stderr=True), dry_run=dry_run)
    except VersionConflict as error:
        _fail(error, 3)
    except NotifyError as error:
        _fail(error, 2)


def _say_notes(notes: Iterable[Located]) -> None:
    for note in notes:
        say(console(stderr=True), plain(f"note: {note}"))


def _given(text: str) -> GivenRules:
    try:
        return GivenRules(text)
    except NotifyError as error:
        _fail(error, 2)


def _fail(error: NotifyError, status: int, given: GivenRules | None = None) -> NoReturn:
    """Print the error, with lines if it is about these rules, and exit."""
    said = given.said(error) if given is not None and isinstance(error, RuleError) else str(error)
    say(
        console(stderr=True),
        plain(said) if status == 1 else f"Error: {plain(said)}",
        "" if status == 1 else "red",
    )
    raise typer.Exit(status) from None
