"""Run `send` on the built-in sample, with a real mail server in this process that counts what arrives."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from rich.text import Text

from ratelimited_notify.cli.check import show_rules
from ratelimited_notify.cli.report import number, say, show, shown, table
from ratelimited_notify.cli.send import Route, send
from ratelimited_notify.errors import MissingExtra
from ratelimited_notify.notifier.delivery import Status
from ratelimited_notify.sources.file import read_rules

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from ratelimited_notify.cli.mailbox import Mail

SENDER = "Your bookshop <shop@example.com>"

_SAMPLE = "sample"
_UNKNOWN = "?"


def demo(out: Console, aside: Console) -> int:
    """Send the sample, and print what arrived and what was refused.

    Returns:
        The exit status. It is 0 if the mail server received exactly what was counted as sent.

    Raises:
        MissingExtra: the mail server is not installed.
        NotifyError: the mail server cannot be started.
    """
    try:
        from ratelimited_notify.cli.mailbox import mail_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiosmtpd":
            raise
        raise MissingExtra("cli", "The mail server of the demo") from None

    with ExitStack() as opened:
        sample = opened.enter_context(as_file(files("ratelimited_notify.cli") / _SAMPLE))
        server = opened.enter_context(mail_server())
        rules, notifications = sample / "rules.toml", sample / "notifications.jsonl"
        say(out, f"A mail server listens at {server.uri} in this process. The demo runs\n")
        say(
            out, f"  ratelimited-notify send --rules {rules.name} --gateway {server.uri} {notifications.name}\n", "bold"
        )
        say(out, f"on the files in {sample}\n")
        show_rules(out, read_rules(rules), "The rules")
        with notifications.open("rb") as stream:
            tally = send(stream, Route(rules, SENDER, server.uri), out, aside)
        mails = list(server.mails)
        show(out, _arrivals(mails, _types(notifications)))
    sent = tally.total(Status.SENT)
    if sent != len(mails) and not tally.interrupted:
        say(out, f"{sent} messages were counted as sent, but the mail server received {len(mails)}.", "red")
        return 1
    say(out, f"{sent} messages were sent, and the mail server received {len(mails)}.", "green")
    return tally.exit_status


def _types(notifications: Path) -> dict[str, str]:
    """The type of each message by its subject, because a mail does not contain its type."""
    with notifications.open("rb") as stream:
        return {line["subject"]: line["type"] for line in map(json.loads, stream)}


def _arrivals(mails: Iterable[Mail], types: dict[str, str]) -> Table:
    counted = Counter((mail.recipient, types.get(mail.subject, _UNKNOWN)) for mail in mails)
    kinds = list(dict.fromkeys([*types.values(), *(type for _, type in counted)]))
    heads = [*map(shown, kinds), "total"]
    made = table("What arrived at the mail server", "recipient", *heads, numbers=heads)
    for recipient in sorted({recipient for recipient, _ in counted}):
        made.add_row(Text(shown(recipient)), *_counts([counted[recipient, kind] for kind in kinds]))
    made.add_section()
    sums = [sum(count for (_, type), count in counted.items() if type == kind) for kind in kinds]
    made.add_row(Text("all recipients", "bold"), *_counts(sums))
    return made


def _counts(counts: list[int]) -> list[Text]:
    return [number(count) for count in (*counts, sum(counts))]
