"""The command that shows the windows of a recipient."""

from __future__ import annotations

from typing import Annotated

import typer

from ratelimited_notify.cli.asked_for import AppOption, FieldOption, RecipientArgument, TypeOption, fail, found
from ratelimited_notify.cli.report import console, say, show
from ratelimited_notify.cli.window_table import window_table, windows_as_json
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError


def inspect_command(
    recipient: RecipientArgument,
    app: AppOption,
    type_: TypeOption = None,
    field: FieldOption = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Show the windows of a recipient: how much is used, how much is left, and when it is free again.

    The windows follow from the rules of your program, which is imported for that. Nothing is counted. Rules that are paused are
    shown as paused. Windows in memory are those of another process, and cannot be seen.

    Exit status:

    - 0: the windows were shown.
    - 1: some of them cannot be shown, because a rule requires a field. It is printed on standard error which.
    - 2: an option or the program cannot be used, or the storage cannot be reached.
    """
    aside = console(stderr=True)
    try:
        with found(recipient, app, type_ or [], field or []) as asked:
            windows, problems = asked.windows
            notes = [plain(note) for note in asked.notes]
    except NotifyError as error:
        fail(error)
    problems = {type: plain(message) for type, message in problems.items()}
    if json:
        typer.echo(windows_as_json(windows, problems, notes))
    else:
        if windows:
            show(console(), window_table("Windows", windows))
        else:
            say(console(), "There are no windows: no rule limits this.", "yellow")
        for note in notes:
            say(aside, f"note: {note}")
        for message in problems.values():
            say(aside, message, "yellow")
    raise typer.Exit(1 if problems else 0)
