"""What `inspect` and `clear` ask for: the options that both have, and the windows that follow from them."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn, TypeAlias

import typer
from typer.core import TyperCommand

from ratelimited_notify.cli.field_options import fields_of
from ratelimited_notify.cli.named_limiter import named_limiter
from ratelimited_notify.cli.recipient_windows import FoundWindows, RecipientWindows, find_windows
from ratelimited_notify.cli.report import console, say
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError, type_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

# A list, so that the command can say itself that there is one too many. Typer would quote it.
RecipientArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        help="Whose windows: the recipient as the program passes it.", metavar="RECIPIENT", show_default=False
    ),
]
AppOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--app",
        help="The limiter of your program, such as shop.notifications:limiter: a limiter, a notifier, a function with "
        "@rate_limited, or a function that returns one of these. The module is imported.",
        metavar="MODULE:LIMITER",
    ),
]
TypeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        help="A type of notification. May be repeated.",
        metavar="TYPE",
        show_default="those that the rules name",
    ),
]
FieldOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--field", help="A field that rules count by, such as tenant=acme. May be repeated.", metavar="NAME=VALUE"
    ),
]


_OPTION = re.compile(r"-[A-Za-z]|--[a-z][a-z-]*+(?:=.*)?", re.DOTALL).fullmatch


class CommandForRecipient(TyperCommand):
    """A command whose argument is a recipient, which no error quotes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer's own class, which has no public name
        for text in args:
            if text == "--":
                break
            if text.startswith("-") and not _OPTION(text):
                fail(
                    NotifyError(
                        "An argument begins with a hyphen, and is no option. If it is the recipient, write it as the last "
                        "argument, after --."
                    )
                )
        return super().parse_args(ctx, args)


class Found(NamedTuple):
    """The windows of a recipient, and the limiter to ask about them."""

    asked: RecipientWindows
    windows: FoundWindows
    notes: list[str]
    """What is not among them, and why."""


@contextmanager
def found(
    recipient: Sequence[str], app: str, types: Sequence[str], fields: Sequence[str]
) -> Generator[Found, None, None]:
    """Ask for the windows of a recipient.

    Raises:
        NotifyError: they cannot be asked for.
    """
    if len(recipient) != 1:
        raise NotifyError("Name one recipient. If it contains spaces, write it in quotes.")
    with RecipientWindows(named_limiter(app), recipient[0], fields_of(fields)) as asked:
        wanted = list(dict.fromkeys(types)) or asked.types()
        if not wanted:
            raise NotifyError(
                "The rules name no type, only patterns, so there are any number of windows. Name a type with --type."
            )
        windows = find_windows(asked, wanted)
        if types and windows.problems:
            raise NotifyError(next(iter(windows.problems.values())))
        yield Found(asked, windows, list(_notes(asked, wanted, windows, named=bool(types))))


def _notes(asked: RecipientWindows, types: Sequence[str], windows: FoundWindows, *, named: bool) -> Iterator[str]:
    if not named:
        patterns = asked.uncovered(types)
        if patterns:
            yield (
                f"The rules for {', '.join(map(repr, patterns))} are for other types, too. To see the windows of such a type, "
                "name it with --type."
            )
    missing: dict[tuple[str, str], None] = {}
    for type in types:
        if type in windows.problems:
            continue
        question = asked.meant(type)
        if question:
            yield f"No rule names the type {type_text(type)}.{question}"
        missing.update(dict.fromkeys(asked.without_field(type)))
    for rule, field in missing:
        yield f"The rule {rule!r} counts by {field}. To see its windows, add --field {field}=VALUE."


def fail(error: NotifyError) -> NoReturn:
    """Print the error, and exit."""
    say(console(stderr=True), f"Error: {plain(str(error))}", "red")
    raise typer.Exit(2) from None
