"""The commands, their options and their exit statuses."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ratelimited_notify._version import __version__
from ratelimited_notify.cli.asked_for import CommandForRecipient
from ratelimited_notify.cli.clear import clear_command
from ratelimited_notify.cli.gateway import default_sender
from ratelimited_notify.cli.inspect import inspect_command
from ratelimited_notify.cli.monitoring import monitoring_app
from ratelimited_notify.cli.report import console, say
from ratelimited_notify.cli.report_file import why
from ratelimited_notify.cli.rules import rules_app
from ratelimited_notify.cli.send import MEMORY, Output, Route, send
from ratelimited_notify.cli.standard_output import abandon
from ratelimited_notify.cli.top import top_command
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

app = typer.Typer(
    name="ratelimited-notify",
    help="Send no more notifications than the rules allow.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    # Typer's tracebacks show local variables, so they would show recipients and passwords.
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command line tool. It ends the process with its exit status."""
    # A type in the input may contain characters that the terminal's encoding does not have.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    try:
        app(prog_name="ratelimited-notify")
    except OSError as error:
        # Standard output, mostly: a full disk. What is still in its buffer cannot be written either.
        abandon()
        say(console(stderr=True), f"Error: The command cannot go on: {why(error)}.", "red")
        raise SystemExit(1) from None


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not 0 <= number < inf:
        raise typer.BadParameter("it must be a number of seconds, not negative, such as 2.5")
    return number


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ratelimited-notify {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Print the version and exit."),
    ] = False,
) -> None: ...


@app.command("send")
def send_command(
    rules: Annotated[
        str,
        typer.Option(
            help="A rules file, or a source such as redis://localhost/0?key=notify:rules, which is read once.",
            envvar="RATELIMITED_NOTIFY_RULES",
            metavar="RULES",
        ),
    ],
    notifications: Annotated[
        str,
        typer.Argument(help="The file with the notifications as JSON lines; - is standard input.", metavar="FILE"),
    ] = "-",
    gateway: Annotated[
        str | None,
        typer.Option(
            help="The mail server: smtp://host:port, smtp+starttls:// or smtps://, with user:password@ before the host "
            "if it needs a login. Other users of this machine can see command lines, so put a URI with a password into "
            "the environment variable.",
            envvar="RATELIMITED_NOTIFY_GATEWAY",
            metavar="URI",
        ),
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(
            help="The address that messages come from.",
            metavar="ADDRESS",
            show_default="ratelimited-notify@ and the name of this host",
        ),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            help="Where hits are counted: memory:// forgets them when the command ends; sqlite:///windows.db "
            "keeps them in a file; redis://host:port/0, valkey:// and memcached://host:port are shared with all programs that "
            "count there.",
            envvar="RATELIMITED_NOTIFY_STORAGE",
            metavar="URI",
        ),
    ] = MEMORY,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="How long to wait for the mail server, for a connection and for each answer, in seconds.",
            metavar="SECONDS",
            show_default="60",
            parser=_seconds,
        ),
    ] = None,
    max_wait: Annotated[
        float | None,
        typer.Option(
            help='How long one notification may wait, in seconds, if its rule has on_limit = "wait".',
            metavar="SECONDS",
            parser=_seconds,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar="",
            help="Show what would be sent, but send nothing and count nothing. Decisions start from empty windows in "
            "memory, in which only the notifications of this run count; --storage is not used. Waiting takes no time.",
        ),
    ] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="Print one JSON object for each line of the input, with its number, instead of tables.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write the same JSON objects to a file, which is put in place when the command ends.", metavar="FILE"
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", metavar="", help="Print no tables and no progress, only errors and warnings."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", metavar="", help="Say about each line on standard error what was decided."),
    ] = False,
) -> None:
    """Send the notifications that the rules allow, from a file or from standard input.

    Each line is one JSON object with type, recipient, subject and body. It may also have html, headers (an object), cc,
    bcc and reply_to (an address or a list), priority, cost and fields (an object with channel, tenant, dedupe_key, or
    fields that the rules declare). Notifications over the limit are dropped, unless their rule has on_limit = "wait". A
    file is read while it is sent, 250 lines at a time; from a pipe, each line is sent when it arrives. Input in gzip
    format is unpacked.

    A table of what was sent, suppressed and failed is printed on standard output. Malformed and failed lines are skipped,
    and their line numbers are printed on standard error. If the mail server cannot be reached five times in a row, the
    command stops. The hits of notifications that were decided but not sent are given back. Nothing that is printed or
    reported shows a recipient: line numbers identify notifications.

    Exit status:

    - 0: every notification was sent, or refused by a rule.
    - 1: some lines were malformed, could not be sent, or were not tried, or the report could not be written.
    - 2: an option or a file cannot be used, or the input is not JSON lines; nothing was sent.
    - 130: interrupted by Ctrl-C, SIGTERM or SIGHUP; the hits of what was decided but not sent were given back.
    """
    aside = console(stderr=True)
    output = Output(
        json, report, quiet, verbose, (Path(rules), Path("/dev/stdin" if notifications == "-" else notifications))
    )
    with _usable(), _opened(notifications, quiet=quiet) as stream:
        if quiet and verbose:
            raise NotifyError("Choose either --quiet or --verbose.")
        if dry_run and storage != MEMORY and not quiet:
            say(aside, "Dry run: decisions start from empty windows in memory; the storage is not used.")
        route = Route(rules, sender or default_sender(), gateway, storage, max_wait, dry_run, timeout)
        tally = send(stream, route, console(), aside, output)
    raise typer.Exit(tally.exit_status)


@app.command("demo")
def demo_command() -> None:
    """Send a built-in sample to a mail server in this process, and show what arrived and what was refused."""
    with _usable():
        from ratelimited_notify.cli.demo import demo

        status = demo(console(), console(stderr=True))
    raise typer.Exit(status)


app.add_typer(rules_app)
app.add_typer(monitoring_app)
app.command("inspect", cls=CommandForRecipient)(inspect_command)
app.command("clear", cls=CommandForRecipient)(clear_command)
app.command("top")(top_command)


@contextmanager
def _usable() -> Generator[None, None, None]:
    """Print an error of the library without a traceback, and exit with status 2."""
    try:
        yield
    except NotifyError as error:
        say(console(stderr=True), f"Error: {plain(str(error))}", "red")
        raise typer.Exit(2) from None


def _opened(name: str, *, quiet: bool) -> AbstractContextManager[BinaryIO]:
    if name == "-":
        if sys.stdin is None:
            raise NotifyError("Standard input is closed; name a file with the notifications.")
        if sys.stdin.isatty() and not quiet:
            say(console(stderr=True), "Reading notifications from the keyboard, one JSON object per line.")
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except (OSError, ValueError) as error:
        raise NotifyError(f"The notifications in {name} cannot be read: {why(error)}.") from None
