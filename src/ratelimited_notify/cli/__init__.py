"""The command line tool, `ratelimited-notify`. What it is made of is the extra `cli`, loaded when it runs.

app.py       the commands and their options
send.py      notifications from a file to a gateway     what `send` and `demo` both do
input.py     lines of JSON as notifications, streamed
gateway.py   the gateway that a URI names, or a rehearsal
tally.py     what became of the notifications           pure
report.py    the same, as tables
check.py     a rules file, as a table
demo.py      `send` on the shipped sample, to a mail server of its own
sample/      the notifications and the rules of the demo
"""

from __future__ import annotations

_MADE_OF = ("click", "rich", "typer")


def main() -> None:
    """Run the command line tool; it ends the process with its exit status."""
    import sys

    try:
        from ratelimited_notify.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _MADE_OF:
            raise
        from ratelimited_notify.errors import MissingExtra

        sys.stderr.write(f"{MissingExtra('cli', 'The command ratelimited-notify')}\n")
        raise SystemExit(2) from None
    run()
