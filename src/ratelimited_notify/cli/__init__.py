"""The command line tool, `ratelimited-notify`. It needs the extra `cli`, which is imported when the command runs.

app.py                the commands and their options
send.py               send notifications from a file             used by `send` and `demo`
input.py              read notifications from a stream, line by line
line.py               read one line                              pure
first_bytes.py        recognize other formats                    pure
gateway.py            open the gateway of a URI, or a dry-run gateway
tally.py              count the results                          pure
report.py             print the results as tables
record.py             what is recorded about a line              pure
journal.py            write the records in the order of the lines
report_file.py        write the file of --report
standard_output.py    write lines to standard output
signals.py            signals that end a run
words.py              messages without Python                pure
progress.py           show progress on a terminal
check.py              print a rules file as a table
monitoring.py         write the dashboard and the alert rules to files
inspect.py            show the windows of a recipient
clear.py              empty the windows of a recipient
asked_for.py          the options of both, and what they ask for
named_limiter.py      the limiter that `--app` names
recipient_windows.py  the windows of one recipient
window_table.py       show windows
field_options.py      fields as `--field` gives them                 pure
top.py                show what is sent and suppressed right now
endpoints.py          read metrics from programs or a Prometheus
web.py                get a document by HTTP
traffic.py            traffic by type, from metrics           pure
demo.py               run `send` on a built-in sample
mailbox.py            the mail server of the demo
sample/               the notifications and the rules of the demo
"""

from __future__ import annotations

_MADE_OF = ("click", "rich", "typer")


def main() -> None:
    """Run the command line tool. It ends the process with its exit status."""
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
