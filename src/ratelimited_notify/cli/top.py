"""The command that shows, by type, what is sent and suppressed right now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ratelimited_notify.cli.endpoints import Endpoints, PrometheusServer
from ratelimited_notify.cli.report import console, number, say, show, shown, table
from ratelimited_notify.cli.signals import terminable
from ratelimited_notify.cli.traffic import by_type
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ratelimited_notify.cli.endpoints import MetricsSource
    from ratelimited_notify.cli.traffic import Reading

_SHORTEST, _LONGEST = 0.1, 3600.0


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST <= seconds <= _LONGEST:
        raise typer.BadParameter(f"it must be a number of seconds from {_SHORTEST:g} to {_LONGEST:g}, such as 2")
    return seconds


def top_command(
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            help="The URL of the metrics of a program, such as http://localhost:8000/metrics. May be repeated. Needs the extra "
            "prometheus.",
            metavar="URL",
        ),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", help="The URL of a Prometheus, such as http://localhost:9090.", metavar="URL"),
    ] = None,
    every: Annotated[
        float,
        typer.Option(
            "--every",
            help="How long to wait between two readings.",
            metavar="SECONDS",
            show_default="2",
            parser=_interval,
        ),
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", metavar="", help="Print one table after two readings, and end.")
    ] = False,
) -> None:
    """Show by type what is sent, what is suppressed, and which rule refuses most, until you press Ctrl-C.

    The program has to export its metrics: ratelimited_notify.instrumentation.prometheus.instrument() does that. The totals are
    those since the programs began. From --metrics, the rates are those since the last reading; from --prometheus, those of the
    last 5 minutes. What does not answer is named, keeps its totals, and is asked again.

    On a terminal the table is drawn anew. Otherwise a table is printed after each reading.

    Exit status:

    - 0: the table was shown.
    - 1: with --once, something did not answer.
    - 2: an option cannot be used.
    - 130: with --once, interrupted by Ctrl-C, SIGTERM or SIGHUP.
    """
    screen, aside = console(), console(stderr=True)
    try:
        source = _source(metrics or [], prometheus)
    except NotifyError as error:
        say(aside, f"Error: {plain(str(error))}", "red")
        raise typer.Exit(2) from None
    try:
        with terminable():
            if once:
                source.read()
                time.sleep(every)
                _print(source.read(), source, screen, aside)
            elif screen.is_terminal:
                _draw(source, screen, every)
            else:
                while True:
                    _print(source.read(), source, screen, aside)
                    time.sleep(every)
    except KeyboardInterrupt:
        raise typer.Exit(130 if once else 0) from None
    raise typer.Exit(1 if source.problems else 0)


def _source(metrics: list[str], prometheus: str | None) -> MetricsSource:
    if metrics and prometheus is not None:
        raise NotifyError("Choose either --metrics or --prometheus.")
    if prometheus is not None:
        return PrometheusServer(prometheus)
    if not metrics:
        raise NotifyError(
            "Say where the metrics are: --metrics http://localhost:8000/metrics for a program, or --prometheus "
            "http://localhost:9090 for a Prometheus that reads them."
        )
    return Endpoints(metrics)


def _draw(source: MetricsSource, screen: Console, every: float) -> None:
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            reading = source.read()
            made = _table(reading, source)
            shown_first = [made] if made is not None else [] if source.problems else [Text(_NOTHING)]
            live.update(Group(*shown_first, *(Text(problem, "red") for problem in source.problems)), refresh=True)
            time.sleep(every)


def _print(reading: Reading, source: MetricsSource, screen: Console, aside: Console) -> None:
    made = _table(reading, source)
    if made is not None:
        show(screen, made)
    elif not source.problems:
        say(screen, _NOTHING)
    for problem in source.problems:
        say(aside, problem, "red")


_NOTHING = (
    "No metrics of ratelimited-notify yet. The program has to call instrument() of "
    "ratelimited_notify.instrumentation.prometheus."
)


def _table(reading: Reading, source: MetricsSource) -> Table | None:
    """The table; None if nothing was counted."""
    traffic = by_type(reading)
    if not traffic:
        return None
    counts = ("sent", "suppressed", "failed", "sent/s", "suppressed/s")
    made = table(f"Notifications; per second {source.lately}", "type", *counts, "refused most by", numbers=counts)
    for each in traffic:
        made.add_row(
            Text(shown(each.type)),
            number(round(each.sent), "green"),
            number(round(each.suppressed), "yellow"),
            number(round(each.failed), "red"),
            _rate(each.sent_rate),
            _rate(each.suppressed_rate),
            Text(f"{shown(each.rule)} ({each.share:.0%})" if each.rule else ""),
        )
    return made


def _rate(each: float) -> Text:
    return Text(f"{each:,.1f}") if each >= 0.05 else Text(f"{each:.2g}") if each > 0 else Text("-", "dim")
