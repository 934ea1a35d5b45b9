"""The command that empties the windows of a recipient."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ratelimited_notify.cli.asked_for import AppOption, FieldOption, RecipientArgument, TypeOption, fail, found
from ratelimited_notify.cli.report import console, say, show
from ratelimited_notify.cli.signals import terminable
from ratelimited_notify.cli.window_table import window_table
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.cli.asked_for import Found
    from ratelimited_notify.cli.recipient_windows import ShownWindow

_YES = ("y", "yes")


def clear_command(
    recipient: RecipientArgument,
    app: AppOption,
    type_: TypeOption = None,
    field: FieldOption = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            metavar="",
            help="Empty the windows that the recipient shares with others, too, and end the pauses of their rules.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")] = False,
) -> None:
    """Empty the windows of a recipient, so that it can be sent to again.

    The windows that hold anything are shown, and you are asked before they are emptied. Windows that the recipient shares with
    others, such as those of a tenant or of a provider, stay as they are without --shared.

    Exit status:

    - 0: the windows are empty.
    - 1: you said no; or some windows cannot be found, because a rule requires a field. All others are empty.
    - 2: an option or the program cannot be used, or the storage cannot be reached.
    - 130: interrupted by Ctrl-C, SIGTERM or SIGHUP.
    """
    try:
        with terminable(), found(recipient, app, type_ or [], field or []) as asked:
            done = _clear(asked, shared=shared, yes=yes)
    except NotifyError as error:
        fail(error)
    except KeyboardInterrupt:
        say(console(stderr=True), "Interrupted.", "red")
        raise typer.Exit(130) from None
    raise typer.Exit(0 if done and not asked.windows.problems else 1)


def _clear(asked: Found, *, shared: bool, yes: bool) -> bool:
    """Empty the windows, if they may be. False if they may not."""
    screen, aside = console(), console(stderr=True)
    held = [window for window in asked.windows.windows if window.holds_anything]
    clearable = [window for window in held if shared or not window.shared]
    if clearable:
        show(screen, window_table("These windows will be emptied", clearable))
    for note in asked.notes:
        say(aside, plain(f"note: {note}"))
    for message in asked.windows.problems.values():
        say(aside, plain(message), "yellow")
    _say_what_is_shared(held, shared=shared)
    if not clearable:
        say(screen, "There is nothing to empty.")
        return True
    if not yes and not _confirmed(len(clearable)):
        say(screen, "Nothing was emptied.")
        return False
    # A window of several types was found by the first of them.
    types = list(dict.fromkeys(window.type for window in clearable))
    number = 0
    for type in types:
        try:
            number += asked.asked.clear(type, shared=shared)
        except StorageError as error:
            raise NotifyError(
                f"{error} {_counted(number).capitalize()} emptied before that; you can run the command again."
            ) from None
    say(screen, f"{_counted(number)} emptied.")
    return True


def _say_what_is_shared(held: Sequence[ShownWindow], *, shared: bool) -> None:
    rules = ", ".join(dict.fromkeys(repr(window.state.rule) for window in held if window.shared))
    if rules and shared:
        say(
            console(stderr=True),
            f"The windows of {rules} are shared with others, who can be sent to again, too.",
            "yellow",
        )
    elif rules:
        say(
            console(stderr=True), f"The windows of {rules} are shared with others and stay. --shared empties them, too."
        )


def _confirmed(number: int) -> bool:
    """Whether the user says yes.

    Raises:
        NotifyError: there is nobody to ask.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise NotifyError(
            "Nothing was emptied, because there is no terminal to ask on. To empty without being asked, add --yes."
        )
    aside = console(stderr=True)
    aside.print(f"Empty {'this window' if number == 1 else f'these {number} windows'}? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in _YES


def _counted(number: int) -> str:
    return "1 window was" if number == 1 else f"{number} windows were"
