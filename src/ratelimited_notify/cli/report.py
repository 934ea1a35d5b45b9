"""Print the results as tables on standard output. Other messages go to standard error."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratelimited_notify.cli.tally import COUNTED
from ratelimited_notify.rules.wording import duration_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from ratelimited_notify.cli.tally import Cause, RefusalCount, Tally

WIDTH = 100
"""The width of the output in columns. A terminal may be narrower; anything else gets this width."""

_LONGEST = 40
_STYLES = ("green", "yellow", "red", "")


def console(*, stderr: bool = False) -> Console:
    """Make a console that prints text literally, without markup or automatic colours."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    made.width = min(made.width, WIDTH) if made.is_terminal else WIDTH
    return made


def say(screen: Console, text: str, style: str = "") -> None:
    """Print a line without wrapping it."""
    screen.print(Text(text, style), soft_wrap=True)


def shown(text: str) -> str:
    """The text as a table cell: shortened, and with control characters escaped so that the terminal ignores them."""
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def table(title: str, *columns: str, numbers: Iterable[str] = ()) -> Table:
    """Make an empty table. The columns in `numbers` are aligned to the right."""
    made = Table(
        title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", show_edge=False, pad_edge=False
    )
    for column in columns:
        counts = column in numbers
        made.add_column(column, justify="right" if counts else "left", no_wrap=counts, overflow="fold")
    return made


def number(count: int | None, style: str = "") -> Text:
    """A count as a table cell. 0 and None are shown as a dash, so that the other counts stand out."""
    return Text(f"{count:,}", style) if count else Text("-", "dim")


def show(screen: Console, made: Table) -> None:
    """Print a table and an empty line."""
    screen.print(made)
    screen.print()


def report(screen: Console, tally: Tally, now: datetime, *, dry_run: bool = False) -> None:
    """Print the results. Times are relative to `now`."""
    if tally.statuses:
        show(screen, _by_type(tally, dry_run=dry_run))
    if tally.refusals:
        show(screen, _by_rule(tally.refusals, now))
    if tally.shadowed:
        show(screen, _by_shadow_rule(tally.shadowed))
    if not tally.statuses:
        say(screen, "No notification was processed.")
    if tally.malformed:
        say(
            screen,
            f"{tally.malformed:,} malformed line{'s' * (tally.malformed > 1)} skipped; see standard error for details.",
            "red",
        )
    for text in endings(tally, dry_run=dry_run):
        say(screen, text, "red")


def endings(tally: Tally, *, dry_run: bool = False) -> Iterator[str]:
    """Why the run ended early, if it did."""
    if tally.stopped:
        yield _stop(tally)
    if tally.interrupted:
        yield _interruption(tally, dry_run=dry_run)


def _by_type(tally: Tally, *, dry_run: bool) -> Table:
    sent = "would be sent" if dry_run else "sent"
    heads = (sent, "suppressed", "failed", "total")
    made = table("Dry run: nothing was sent" if dry_run else "Notifications", "type", *heads, numbers=heads)
    for type, counted in tally.statuses.items():
        made.add_row(Text(shown(type)), *_numbers([*map(counted.get, COUNTED), counted.total()]))
    if len(tally.statuses) > 1:
        sums = [tally.total(status) for status in COUNTED]
        made.add_section()
        made.add_row(Text("all types", "bold"), *_numbers([*sums, sum(sums)], "bold"))
    return made


def _numbers(counts: Iterable[int | None], weight: str = "") -> list[Text]:
    return [number(count, f"{style} {weight}") for count, style in zip(counts, _STYLES, strict=True)]


def _by_rule(refusals: dict[Cause, RefusalCount], now: datetime) -> Table:
    made = table("Refused by", "rule", "limit", "type", "refused", "allowed again in", "at", numbers=["refused"])
    for cause, refused in refusals.items():
        made.add_row(
            *_cells(cause),
            number(refused.count, "yellow"),
            Text(_again(refused, now)),
            Text(at(refused.first, now)),
        )
    return made


def _by_shadow_rule(shadowed: dict[Cause, int]) -> Table:
    made = table("Allowed in shadow mode", "rule", "limit", "type", "over the limit", numbers=["over the limit"])
    for cause, count in shadowed.items():
        made.add_row(*_cells(cause), number(count))
    return made


def _cells(cause: Cause) -> list[Text]:
    return [Text(shown(cell)) for cell in cause]


def _again(refused: RefusalCount, now: datetime) -> str:
    if refused.first is None or refused.last is None:
        return "never"
    first, last = _until(refused.first, now), _until(refused.last, now)
    when = first if first == last else f"{first} to {last}"
    return f"{when}; {refused.never:,} never" if refused.never else when


def at(instant: datetime | None, now: datetime) -> str:
    """An instant in local time, rounded up to a full second, like durations. Empty if it is over."""
    if instant is None or instant <= now:
        return ""
    local = (instant + timedelta(microseconds=-instant.microsecond % 1_000_000)).astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M:%S}"


def _until(instant: datetime, now: datetime) -> str:
    return duration_text((instant - now).total_seconds())


def _stop(tally: Tally) -> str:
    left = "the rest of the input was" if tally.untried is None else f"{tally.untried:,} notifications were"
    return (
        f"Stopped after line {tally.line:,} because the mail server could not be reached several times in a row: "
        f"{left} not tried and not counted."
    )


def _interruption(tally: Tally, *, dry_run: bool) -> str:
    after = f"Interrupted after line {tally.line:,}" if tally.line else "Interrupted before the first notification"
    if dry_run:
        return f"{after}."
    return f"{after}. The next notification may have been sent; no later one was sent or counted."
