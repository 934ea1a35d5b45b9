"""The commands about monitoring: write the dashboard and the alert rules to files."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from importlib.resources import files
from pathlib import Path  # noqa: TC003  # Typer evaluates the annotations
from typing import Annotated

import typer

from ratelimited_notify.cli.report import console, say
from ratelimited_notify.cli.report_file import why

monitoring_app = typer.Typer(
    name="monitoring",
    help="A dashboard for Grafana, and alert rules for Prometheus.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_DOCUMENTS = {"dashboard.json": "a dashboard for Grafana", "alerts.yaml": "alert rules for Prometheus"}


@monitoring_app.callback()
def _monitoring() -> None:
    """A dashboard for Grafana, and alert rules for Prometheus."""


@monitoring_app.command("export")
def export(
    to: Annotated[
        Path,
        typer.Option("--to", help="The folder to write them to. It is made if it does not exist.", metavar="DIR"),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace files that are there and have another content."),
    ] = False,
) -> None:
    """Write the dashboard for Grafana and the alert rules for Prometheus to files.

    They show the metrics that ratelimited_notify.instrumentation.prometheus counts. In Grafana, import the dashboard. In
    prometheus.yml, name the alert rules under rule_files. A file that is there is not replaced, since you may have changed it;
    then nothing is written.

    Exit status:

    - 0: the files are there.
    - 1: they cannot be written.
    - 2: an option cannot be used, or a file is there that has another content, and --force was not given.
    """
    contents = {
        to / f"ratelimited-notify-{name}": (
            files("ratelimited_notify.instrumentation") / "monitoring" / name
        ).read_bytes()
        for name in _DOCUMENTS
    }
    try:
        missing = {path: content for path, content in contents.items() if not _is(path, content)}
        changed = [path for path in missing if os.path.lexists(path)]
        if changed and not force:
            say(
                console(stderr=True),
                f"Error: {', '.join(map(str, changed))} {'is' if len(changed) == 1 else 'are'} there with another content. Nothing was "
                "written. To replace what is there, add --force.",
                "red",
            )
            raise typer.Exit(2)
        to.mkdir(parents=True, exist_ok=True)
        for path, content in missing.items():
            _put(path, content)
    except (OSError, ValueError) as error:
        say(console(stderr=True), f"Error: The files in {to} cannot be written: {why(error)}.", "red")
        raise typer.Exit(1) from None
    for path, meaning in zip(contents, _DOCUMENTS.values(), strict=True):
        say(console(), f"{'Written' if path in missing else 'Nothing changes'}: {path}, {meaning}.")


def _is(path: Path, content: bytes) -> bool:
    """Whether a file has this content."""
    return path.is_file() and path.read_bytes() == content


def _put(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing. Grafana and Prometheus may read it at any time."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
