from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from io import BytesIO, RawIOBase, StringIO
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, strategies as st
from rich.console import Console

from command import RULES, WITHIN, Inbox, command, environment, invoke, line, mail_server, numbers, started
from ratelimited_notify import Limiter, Status, __version__
from ratelimited_notify.cli import progress
from ratelimited_notify.cli.input import LONGEST_LINE, Input
from ratelimited_notify.cli.report import console, shown
from ratelimited_notify.cli.send import Route, send
from ratelimited_notify.cli.tally import Tally
from ratelimited_notify.notifier.base import BATCH
from servers import free_port
from smtp_server import HANG, FailingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cluster_servers import Watched
    from servers import Valkey


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """A real mail server, and what it took."""
    with mail_server() as inbox:
        yield inbox


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A file with the rules above."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


# --- What is sent -------------------------------------------------------------------------------------------------------


def test_a_file_is_sent_as_far_as_the_rules_allow(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """The main job: notifications from a file reach a mail server, no more than the rules allow, and a table says so."""
    file = tmp_path / "notifications.jsonl"
    file.write_bytes(line() * 3 + line(recipient="ben@example.com") + line("status") * 3)

    run = command("send", "--rules", rules, "--gateway", inbox.uri, file)

    assert run.returncode == 0, run.stderr
    assert inbox.recipients == ["ana@example.com", "ben@example.com", "ana@example.com", "ana@example.com"]
    output = run.stdout.decode()
    assert numbers(output, "news") == ["news", "2", "2", "-", "4"]
    assert numbers(output, "status") == ["status", "2", "1", "-", "3"]
    assert "all types      4            3        -       7" in output
    refused = output.partition("Refused by")[2]
    assert numbers(refused, "news")[:5] == ["news", "1", "per", "day", "news"]
    assert "1 day" in refused
    assert "1 min" in refused
    assert run.stderr == b""


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_notifications_come_from_standard_input(inbox: Inbox, rules: Path, arguments: list[str]) -> None:
    """Without a file, or with `-` for one, standard input is read."""
    run = command("send", "--rules", rules, "--gateway", inbox.uri, *arguments, input=line() + line())

    assert run.returncode == 0, run.stderr
    assert len(inbox.messages) == 1


def test_a_message_arrives_as_it_was_written(inbox: Inbox, rules: Path) -> None:
    """Subject, body, sender and recipient are those that were given, in any script."""
    given = line(subject="Grüße, 世界", body="Zeile eins\n.\nπ\n")

    result = invoke(
        "send", "--rules", rules, "--gateway", inbox.uri, "--sender", "Shop <shop@example.com>", input=given
    )

    assert result.exit_code == 0, result.output
    message = inbox.messages[0]
    assert (message["Subject"], message["To"], message["From"]) == (
        "Grüße, 世界", "ana@example.com", "Shop <shop@example.com>",
    )  # fmt: skip
    assert message.get_content().replace("\r\n", "\n") == "Zeile eins\n.\nπ\n"


def test_a_sender_is_made_up_of_the_host(inbox: Inbox, rules: Path) -> None:
    """Without `--sender`, messages come from this command on this host."""
    invoke("send", "--rules", rules, "--gateway", inbox.uri, input=line())

    assert inbox.senders[0] is not None
    assert inbox.senders[0].startswith("ratelimited-notify@")


def test_priority_cost_and_fields_count(inbox: Inbox, tmp_path: Path) -> None:
    """The optional keys of a line do what they do in the library."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'fields = ["ip"]\n'
        '[[rules]]\ntype = "bulk"\nlimit = "3/day"\n'
        '[[rules]]\ntype = "alert"\nlimit = "1/day"\nby = ["recipient", "dedupe_key"]\n'
        '[[rules]]\ntype = "code"\nlimit = "1/day"\nby = "ip"\nexempt = "critical"\n'
    )
    given = (
        line("bulk", subject="b1", cost=2)
        + line("bulk", subject="b2", cost=2)
        + line("bulk", subject="b3")
        + line("alert", subject="a1", fields={"dedupe_key": "disk"})
        + line("alert", subject="a2", fields={"dedupe_key": "disk", "tenant": None})
        + line("alert", subject="a3", fields={"dedupe_key": 7})
        + line("code", subject="c1", fields={"ip": "::1"})
        + line("code", subject="c2", fields={"ip": "::1"})
        + line("code", subject="c3", fields={"ip": "::1"}, priority="critical")
    )

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given)

    assert result.exit_code == 0, result.output
    assert [message["Subject"] for message in inbox.messages] == ["b1", "b3", "a1", "a3", "c1", "c3"]


def test_runs_share_the_windows_of_a_shared_storage(inbox: Inbox, rules: Path, valkey: Valkey) -> None:
    """What one run sent counts in the next, where both count on one server."""
    recipient = f"{os.urandom(8).hex()}@example.com"
    arguments = ("send", "--rules", rules, "--gateway", inbox.uri, "--storage", valkey.url)

    first = command(*arguments, input=line(recipient=recipient))
    second = command(*arguments, input=line(recipient=recipient) + line("status", recipient))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert numbers(second.stdout.decode(), "news") == ["news", "-", "1", "-", "1"]
    assert inbox.recipients == [recipient] * 2


def test_memory_forgets_when_the_run_ends(inbox: Inbox, rules: Path) -> None:
    """As the help says, counting in memory is for one run."""
    for _ in range(2):
        invoke("send", "--rules", rules, "--gateway", inbox.uri, input=line())

    assert len(inbox.messages) == 2


def test_a_rule_may_wait(inbox: Inbox, tmp_path: Path) -> None:
    """A rule that says to wait is waited for, as long as `--max-wait` allows, and refuses beyond."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "soon"\nlimit = "1/second"\non_limit = "wait"\n'
                     '[[rules]]\ntype = "late"\nlimit = "1/hour"\non_limit = "wait"\n')  # fmt: skip

    result = invoke(
        "send", "--rules", rules, "--gateway", inbox.uri, "--max-wait", "5", input=line("soon") * 2 + line("late") * 2
    )

    assert result.exit_code == 0, result.output
    assert numbers(result.stdout, "soon") == ["soon", "2", "-", "-", "2"]
    assert numbers(result.stdout, "late") == ["late", "1", "1", "-", "2"]


def test_tiers_are_left_out_with_a_warning(inbox: Inbox, tmp_path: Path) -> None:
    """Who is in which tier only a program knows: everybody has the plain limit, and that is said."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n[rules.tiers]\ngold = "5/day"\n')

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=line() * 2)

    assert len(inbox.messages) == 1
    assert (
        result.stderr == "warning: The command does not know the tiers of recipients, so it ignores limits of tiers.\n"
    )


def test_the_off_switch_sends_everything_and_says_so(inbox: Inbox, rules: Path) -> None:
    """With limiting switched off nothing is counted, and no storage needs to be there."""
    result = invoke(
        "send", "--rules", rules, "--gateway", inbox.uri, "--storage", f"redis://127.0.0.1:{free_port()}",
        input=line() * 3, RATELIMITED_NOTIFY_DISABLED="1",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert len(inbox.messages) == 3


# --- What is malformed --------------------------------------------------------------------------------------------------

SECRET = "geheim"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b"geheim\n", "not a JSON object; each line must be one"),
        (b'{"type": "geheim"\n', "not valid JSON: it ends too early"),
        (b'["geheim"]\n', "not a JSON object; each line must be one"),
        (b'{"type": "geheim"}\n', "recipient is missing"),
        (b'{"type": "geheim\xff"}\n', "not UTF-8"),
        (b'\xff\xfe{\x00"\x00g\x00e\x00h\x00e\x00i\x00m\x00\n', "not UTF-8"),
        (b'{"type": "geheim\x00"}\n', "not valid JSON at byte 16"),
        (b"\x00\n", "not a JSON object"),
        (line(type=""), "type must be a string that is not empty"),
        (line(recipient=""), "recipient must be a string that is not empty"),
        (line(recipient=5), "recipient must be a string that is not empty"),  # type: ignore[arg-type]  # that is the point
        (line(cost=0), "cost must be a whole number from 1 to 1,000,000,000"),
        (line(cost=10**30), "cost must be a whole number from 1 to 1,000,000,000"),
        (line(cost=1.5), "cost must be a whole number from 1 to 1,000,000,000"),
        (line(priority=["geheim"]), "priority must be a string"),
        (line(fields={"geheim": True}), "fields must be an object with strings, whole numbers and null"),
        (line(prioritty="geheim"), "'prioritty' is not known; known are type, recipient, subject, body, html, headers, cc, bcc, reply_to, priority, cost, fields"),
        (line(tenant="geheim"), "'tenant' is a field; write it in fields: {\"fields\": {\"tenant\": ...}}"),
        (line(dedupe_key="geheim"), "'dedupe_key' is a field; write it in fields: {\"fields\": {\"dedupe_key\": ...}}"),
        (line(**{"geheim@example.com": 1}), "a key is not known; known are type,"),
        (line(fields={"geheim@example.com": "x"}), "a field has a name that cannot be declared"),
        (line(fields={"cost": "geheim"}), "'cost' is not a field; write it next to type and recipient"),
        (line(type="\ud800geheim"), "not valid JSON at byte 16"),
        (b'{"type":' + b"[" * 100_000 + b"\n", "type must be a string"),
        (line(html=5), "html must be a string"),
        (line(headers={"X-A": 5}), "headers must be an object with strings"),
        (line(headers=["geheim"]), "headers must be an object with strings"),
        (line(cc=5), "cc must be a string or a list of strings"),
        (line(bcc=["geheim", None]), "bcc must be a string or a list of strings"),
        (line(reply_to={"geheim": "x"}), "reply_to must be a string or a list of strings"),
        (line().replace(b'"type"', b'"recipient": "geheim", "type"'), "'recipient' is given twice"),
        (line(fields={"tenant": 5}).replace(b'"tenant"', b'"tenant": 5, "tenan\\u0074"'), "'tenant' is given twice"),
        (line(fields={"x": 5}).replace(b'"x": 5', b'"geheim@x": 5, "geheim@x": 6'), "a key is given twice"),
        (line(headers={"X-A": "1"}).replace(b'"X-A"', b'"X-A": "0", "X-A"'), "'X-A' is given twice"),
        (b'{"type": "' + b"x" * LONGEST_LINE + b'"}\n', "longer than 1,048,576 bytes"),
        (line() * 2, None),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named_and_skipped(inbox: Inbox, rules: Path, bad: bytes, problem: str | None) -> None:
    """A line that is no notification is told by number, without its content; the others are sent, and the status is 1."""
    given = line("status") + bad + line("status", "ben@example.com")

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given)

    assert inbox.recipients[:1] + inbox.recipients[-1:] == ["ana@example.com", "ben@example.com"]
    assert result.exit_code == (0 if problem is None else 1)
    if problem is not None:
        assert len(inbox.messages) == 2
        assert f"line 2: malformed: {problem}" in result.stderr
        assert "1 malformed line skipped" in result.stdout
        assert SECRET not in result.output


def test_empty_lines_line_ends_and_a_byte_order_mark_are_no_harm(inbox: Inbox, rules: Path) -> None:
    """Files as editors on other systems write them are read; empty lines are skipped, and count as lines."""
    given = b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n") + b"\r\n \t\n\n" + b"no\n" + line("status").strip()

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given)

    assert len(inbox.messages) == 2
    assert "line 5: malformed" in result.stderr
    assert "1 malformed line skipped" in result.stdout


def test_nothing_is_sent_from_an_empty_file(inbox: Inbox, rules: Path) -> None:
    """No notification is no error."""
    result = invoke("send", "--rules", rules, "--gateway", inbox.uri)

    assert (result.exit_code, result.stdout) == (0, "No notification was processed.\n")


@given(st.binary(max_size=300))
@example(line() + b"\xff" + line())
@example(b"{}\n" * 3)
@example(b"\xef\xbb\xbf\x1a\n\xef\xbb\xbf" + line() + b"\x1a")
@example(b"\xef\n\x1f\x8b")
def test_any_bytes_are_read_to_their_end(data: bytes) -> None:
    """Whatever comes in, each line that is not blank is a notification or is reported, once and in order."""
    told: list[int] = []
    # The first bytes of an input may say that it is something else; that is tested elsewhere.
    data = line() + data
    read = [int(notification.id) for notification in Input(BytesIO(data), lambda number, problem: told.append(number))]

    expected = [
        number
        for number, text in enumerate(data.split(b"\n"), start=1)
        if text.replace(b"\xef\xbb\xbf", b"").strip(b" \t\r\v\f\x1a")
    ]
    assert sorted(read + told) == expected
    assert told == sorted(told)


class Endless(RawIOBase):
    """A stream without end, made of one text again and again."""

    def __init__(self, text: bytes, most: int = sys.maxsize) -> None:
        self.text = text
        self.left = most

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        given = self.text[:size] if self.text.endswith(b"\n") else self.text * min(size, self.left)
        self.left -= len(given)
        return given


def test_lines_are_read_as_they_are_asked_for() -> None:
    """Notifications are streamed: of an input without end, the first ones are there at once."""
    source = Input(Endless(line()), lambda number, problem: None)  # type: ignore[arg-type]  # it reads bytes

    assert [notification.id for notification in islice(source, 3)] == ["1", "2", "3"]
    assert source.position == 3 * len(line())


def test_a_huge_line_is_never_held() -> None:
    """A line of a hundred megabytes takes no more memory than the longest that is allowed."""
    told: list[int] = []
    source = Input(Endless(b"x", 100_000_000), lambda number, problem: told.append(number))  # type: ignore[arg-type]  # it reads bytes

    tracemalloc.start()
    try:
        assert list(source) == []
        assert tracemalloc.get_traced_memory()[1] < 5 * LONGEST_LINE
    finally:
        tracemalloc.stop()
    assert told == [1]


def test_an_input_that_breaks_off_loses_nothing_read_before(
    inbox: Inbox, rules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a disk fails in the middle, what was read is sent, the table is printed, and the status is 1."""

    class Broken(BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if read := super().readline(size):
                return read
            raise OSError(5, "Input/output error")

    route = Route(rules, "shop@example.com", inbox.uri)
    tally = send(Broken(line() + line("status")), route, console(), console(stderr=True))

    assert tally.exit_status == 1
    assert tally.total(Status.SENT) == len(inbox.messages) == 2
    assert capsys.readouterr().err == "The input cannot be read any further: Input/output error.\n"


# --- What fails ---------------------------------------------------------------------------------------------------------


def test_a_failed_send_is_named_and_gives_its_hit_back(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """What the server refuses is told by line, without the recipient, and costs nothing; the status is 1."""
    refusals = iter(["550 5.1.1 no <ana@example.com> here"])
    inbox.refuse = lambda recipient: next(refusals, None) if recipient.startswith("ana") else None
    # More than are decided about at once, so that the second try is decided about after the first has failed.
    others = b"".join(line(recipient=f"{number}@example.com") for number in range(BATCH + 10))

    file = tmp_path / "notifications.jsonl"
    file.write_bytes(line() + others + line())

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, file)

    assert result.exit_code == 1
    assert "line 1: failed: " in result.stderr
    assert "550 5.1.1" in result.stderr
    assert numbers(result.stdout, "news") == ["news", f"{BATCH + 11}", "-", "1", f"{BATCH + 12}"]
    assert inbox.recipients[-1] == "ana@example.com"
    assert "example.com" not in result.output


def test_a_server_that_is_not_there_fails_each_notification(rules: Path) -> None:
    """Every notification that could not be sent is told, and the status is 1."""
    result = invoke(
        "send", "--rules", rules, "--gateway", f"smtp://127.0.0.1:{free_port()}", input=line() + line("status") * 2
    )

    assert result.exit_code == 1
    assert [said.partition(":")[0] for said in result.stderr.splitlines()] == ["line 1", "line 2", "line 3"]
    assert "all types      -            -        3       3" in result.stdout


def test_a_server_that_stays_out_of_reach_ends_the_run(rules: Path, tmp_path: Path, valkey: Valkey) -> None:
    """After five failures in a row nothing more is tried, what was decided is given back, and the rest is counted."""
    file = tmp_path / "notifications.jsonl"
    name = f"news-{os.urandom(8).hex()}"
    rules.write_text(f'[[rules]]\ntype = "{name}"\nlimit = "600/day"\nby = []\n{RULES}')
    sent = [line(name, f"{number}@example.com") for number in range(600)]
    # What a rule refuses, and what cannot be a message, says nothing about the server.
    file.write_bytes(b"".join([*sent[:2], line("news", cost=2), line("status", "nobody"), *sent[2:], b"no\n"]))

    result = invoke(
        "send", "--rules", rules, "--gateway", f"smtp://127.0.0.1:{free_port()}", "--storage", valkey.url, file
    )

    assert result.exit_code == 1
    assert numbers(result.stdout, name) == [name, "-", "-", "5", "5"]
    assert "Stopped after line 7" in result.stdout
    assert "595 notifications were not tried" in result.stdout
    assert [said.partition(":")[0] for said in result.stderr.splitlines()] == [
        "line 1", "line 2", "line 4", "line 5", "line 6", "line 7", "line 603",
    ]  # fmt: skip
    with Limiter(rules, valkey.url) as limiter:
        assert limiter.windows(name, "any@example.com")[0].remaining == 600


def test_a_server_that_comes_back_is_tried_on(rules: Path, tmp_path: Path) -> None:
    """What was sent, or refused by the server, shows that it is there: only failures in a row count."""
    with mail_server() as inbox:
        inbox.refuse = lambda recipient: "550 no" if recipient.startswith("no") else None
        given = b"".join(line(recipient=f"no{number}@example.com") for number in range(7))

        result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given + line())

    assert numbers(result.stdout, "news") == ["news", "1", "-", "7", "8"]
    assert "Stopped" not in result.stdout


def test_a_silent_server_is_given_up_in_time(rules: Path) -> None:
    """`--timeout` bounds the wait for a server that says nothing; of a pipe the rest is not read."""
    with FailingServer({"greeting": HANG}) as server, started(
        "send", "--rules", rules, "--gateway", f"smtp://127.0.0.1:{server.port}", "--timeout", "0.1"
    ) as running:  # fmt: skip
        assert running.stdin is not None
        running.stdin.write(b"".join(line("status", f"{number}@example.com") for number in range(10)))
        running.stdin.flush()
        # It ends while the pipe is open.
        assert running.wait(WITHIN) == 1
        output, errors = running.communicate()

    assert numbers(output.decode(), "status") == ["status", "-", "-", "5", "5"]
    assert b"the rest of the input was not tried" in output
    assert len(errors.splitlines()) == 5
    assert server.connections == 5


def test_a_field_that_is_not_declared_fails_its_line_only(inbox: Inbox, rules: Path) -> None:
    """What the rules do not know cannot be decided about: the line is told, and the others go on."""
    given = line(fields={"planet": "Mars"}) + line("status")

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given)

    assert result.exit_code == 1
    assert "line 1: failed: 'planet' is not a field" in result.stderr
    assert 'fields = ["planet"] in the rules file' in result.stderr
    assert len(inbox.messages) == 1


def test_the_scheme_of_a_gateway_is_read_in_any_case(inbox: Inbox, rules: Path) -> None:
    """As that of a storage is."""
    result = invoke("send", "--rules", rules, "--gateway", inbox.uri.replace("smtp://", "SMTP://"), input=line())

    assert (result.exit_code, inbox.recipients) == (0, ["ana@example.com"])


# --- What cannot be done at all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--gateway", "carrier-pigeon://loft"],
            "There is no gateway for carrier-pigeon://. Use smtp://host:port",
        ),
        (["--gateway", "shop:geheim@mail"], "The value of --gateway is not a URI. Use smtp://host:port"),
        (["--gateway", "smtp://shop:geheim@mail.example.com"], "The password would cross the network unencrypted"),
        (["--gateway", "smtp://shop:ge/heim@mail.example.com"], "The SMTP URI cannot be used"),
        (["--gateway", "smtp://"], "it has no host"),
        ([], "There is no gateway. Pass --gateway"),
        (["--gateway", "smtp://127.0.0.1:1", "--sender", "me"], "the sender must be a single e-mail address"),
        (["--dry-run", "--sender", "me"], "the sender must be a single e-mail address"),
        (["--gateway", "smtp://127.0.0.1:1", "--storage", "geheim"], "is not a storage URI"),
        (
            ["--gateway", "smtp://127.0.0.1:1", "--storage", "redis://:geheim@127.0.0.1:1"],
            "redis://, cannot be used; no notification was sent. Redis cannot be reached",
        ),
        (["--dry-run", "no-such-file"], "The notifications in no-such-file cannot be read: No such file"),
        (["--dry-run", "."], "The notifications in . cannot be read: Is a directory"),
        (["--dry-run", "--rules", "no-such-file"], "The rules in no-such-file cannot be used"),
        (["--max-wait", "-1"], "Invalid value for '--max-wait': it must be a number of seconds, not"),
        (["--timeout", "soon"], "Invalid value for '--timeout': it must be a number of seconds, not"),
        (["--gateway", "smtp://127.0.0.1:1", "--timeout", "0"], "--timeout must be a finite number of seconds"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_done(rules: Path, options: list[str], message: str) -> None:
    """A wrong option is an error in the library's words, with status 2, no traceback and no password."""
    result = invoke("send", "--rules", rules, *options, input=line())

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert SECRET not in result.stderr
    assert "heim" not in result.stderr


def test_why_a_storage_cannot_be_used_is_said(
    rules: Path, start_valkey: Callable[..., Valkey], watched: Watched
) -> None:
    """What the storage itself says of a wrong password, server or service is shown, and no user, password or recipient."""
    guarded = start_valkey()
    with guarded.client() as client:
        client.config_set("requirepass", "right")
    sentinels = watched.url.removeprefix("redis+sentinel://").partition("/")[0]
    said = {
        f"redis://benutzer:{SECRET}@{guarded.address}": "refused the user or password",
        f"redis://:{SECRET}@{guarded.address}": "refused the user or password",
        f"redis://{guarded.address}": "refused the user or password",
        f"redis+cluster://:right@{guarded.address}": "is not part of a cluster; use redis:// for it",
        f"redis+cluster://:{SECRET}@{guarded.address}": "refused the user or password",
        f"redis+sentinel://{sentinels}/{SECRET[::-1]}": f"no Sentinel that replies knows a running master named '{SECRET[::-1]}'",
        f"memcached://127.0.0.1:{free_port()}": "could not be reached",
    }

    for storage, why in said.items():
        result = invoke("send", "--rules", rules, "--gateway", "smtp://127.0.0.1:1", "--storage", storage, input=line())

        assert result.exit_code == 2
        assert why in result.stderr, storage
        assert not any(text in result.stderr for text in (SECRET, "benutzer", "right@", "ana@example.com", "Traceback"))


def test_all_problems_of_the_rules_are_named(tmp_path: Path) -> None:
    """Rules that cannot be used are refused with every problem and its place."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "a"\nlimit = "often"\n[[rules]]\nlimit = "1/day"\nbuy = "recipient"\n')

    result = invoke("send", "--rules", rules, "--dry-run", input=line())

    assert result.exit_code == 2
    for place in ("rules[0].limit: ", "rules[1].type: ", "rules[1].buy: "):
        assert place in result.stderr


def test_waiting_needs_a_bound(tmp_path: Path) -> None:
    """A rule that says to wait needs `--max-wait`, and the error says so."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "a"\nlimit = "1/day"\non_limit = "wait"\n')

    result = invoke("send", "--rules", rules, "--dry-run", input=line())

    assert result.exit_code == 2
    assert "--max-wait SECONDS" in result.stderr


def test_rules_are_required() -> None:
    """Without rules nothing is sent."""
    assert invoke("send", input=line()).exit_code == 2


def test_closed_standard_input_is_an_error(rules: Path) -> None:
    """A process without standard input is told to name a file."""
    run = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "ratelimited_notify", "send", "--rules", str(rules), "--dry-run"],
        capture_output=True, check=False, timeout=WITHIN, env=environment(),
    )  # fmt: skip

    assert run.returncode == 2
    assert b"Standard input is closed" in run.stderr


# --- Dry runs -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_decides_and_sends_nothing(inbox: Inbox, rules: Path) -> None:
    """A dry run shows what would be sent, refused, or fail for its address; nothing arrives."""
    given = line() * 3 + line("status", "not an address")

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, "--dry-run", input=given)

    assert result.exit_code == 1
    assert inbox.messages == []
    assert "Dry run: nothing was sent" in result.stdout
    assert numbers(result.stdout, "news") == ["news", "1", "2", "-", "3"]
    assert numbers(result.stdout, "status") == ["status", "-", "-", "1", "1"]
    assert "line 4: failed: the recipient must be a single e-mail address" in result.stderr


def test_a_dry_run_counts_nothing_in_a_shared_storage(inbox: Inbox, rules: Path, valkey: Valkey) -> None:
    """What a dry run decided about can still be sent; it says that it did not look at the storage."""
    recipient = f"{os.urandom(8).hex()}@example.com"
    arguments = ("send", "--rules", rules, "--gateway", inbox.uri, "--storage", valkey.url)

    rehearsed = invoke(*arguments, "--dry-run", input=line(recipient=recipient))
    sent = invoke(*arguments, input=line(recipient=recipient))

    assert (rehearsed.exit_code, sent.exit_code) == (0, 0)
    assert "the storage is not used" in rehearsed.stderr
    assert inbox.recipients == [recipient]


def test_a_dry_run_does_not_wait(tmp_path: Path) -> None:
    """Hours of waiting pass at once: what would be sent in the end is shown."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "news"\nlimit = "1/hour"\non_limit = "wait"\n')

    result = invoke("send", "--rules", rules, "--dry-run", "--max-wait", "4000", input=line() * 5)

    assert numbers(result.stdout, "news") == ["news", "5", "-", "-", "5"]


# --- Interruption -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_shows_what_was_done_and_gives_the_rest_back(
    inbox: Inbox, tmp_path: Path, valkey: Valkey, number: signal.Signals
) -> None:
    """Ctrl-C, or SIGTERM, prints the table and gives back what was decided and not sent; the status is that of an interrupt."""
    rules, file = tmp_path / "rules.toml", tmp_path / "notifications.jsonl"
    name = f"news-{os.urandom(8).hex()}"
    rules.write_text(f'[[rules]]\ntype = "{name}"\nlimit = "40/day"\nby = []\n')
    file.write_bytes(b"".join(line(name, f"{one}@example.com") for one in range(40)))
    answering = threading.Event()
    inbox.go_on = lambda: len(inbox.messages) < 5 or answering.wait(WITHIN)
    with started("send", "--rules", rules, "--gateway", inbox.uri, "--storage", valkey.url, file) as running:
        for _ in range(5):
            assert inbox.taken.acquire(timeout=WITHIN)
        # The server has the fifth, and has not answered.
        running.send_signal(number)
        output, errors = running.communicate(timeout=WITHIN)
        answering.set()

    assert (running.returncode, errors) == (130, b"")
    assert numbers(output.decode(), name) == [name, "4", "-", "-", "4"]
    assert b"Interrupted after line 4. The next notification may have been sent" in output
    with Limiter(rules, valkey.url) as limiter:
        (window,) = limiter.windows(name, "any@example.com")
    assert window.remaining == 35


def test_an_interrupted_dry_run_has_nothing_on_its_way(rules: Path) -> None:
    """Ctrl-C while it waits for input: the table of what was decided until then."""
    with started("send", "--rules", rules, "--dry-run") as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(line() + b"no\n")
        running.stdin.flush()
        assert running.stderr.readline().startswith(b"line 2: malformed")
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=WITHIN)

    assert (running.returncode, errors) == (130, b"")
    assert numbers(output.decode(), "news") == ["news", "1", "-", "-", "1"]
    assert b"Interrupted after line 1.\n" in output


def test_from_a_pipe_each_line_is_sent_as_it_comes(inbox: Inbox, rules: Path) -> None:
    """A notification does not wait for others: who writes one into a pipe sees it sent."""
    with started("send", "--rules", rules, "--gateway", inbox.uri) as running:
        assert running.stdin is not None
        for number in range(3):
            running.stdin.write(line(recipient=f"{number}@example.com"))
            running.stdin.flush()
            assert inbox.taken.acquire(timeout=WITHIN)
        running.communicate(timeout=WITHIN)

    assert running.returncode == 0


# --- What is shown ------------------------------------------------------------------------------------------------------


def test_no_recipient_and_no_content_is_shown(inbox: Inbox, rules: Path) -> None:
    """Recipients and messages are somebody's: nothing that is printed shows them."""
    given = line(recipient="geheim@example.com", subject="geheim", body="geheim") * 2 + line("geheim-free", "geheim")

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given)

    assert "geheim" not in result.output.replace("geheim-free", "")


def test_a_type_cannot_command_the_terminal(rules: Path) -> None:
    """Control characters and markup in what comes in are shown, not obeyed."""
    given = line("\x1b[2Jred") + line("[red]x[/red]") + line("x" * 5000)

    result = invoke("send", "--rules", rules, "--dry-run", input=given)

    assert "\x1b" not in result.output
    assert "\\x1b[2Jred" in result.stdout
    assert "[red]x[/red]" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_types_beyond_a_thousand_share_a_row(rules: Path) -> None:
    """An input that makes up a type for each line does not make a table without end."""
    given = b"".join(line(f"type-{number}") for number in range(1010))

    result = invoke("send", "--rules", rules, "--dry-run", input=given)

    assert "(other types)" in result.stdout
    assert "type-1009 " not in result.stdout
    assert "1,010" in result.stdout.splitlines()[-2]


def test_a_type_without_a_rule_is_sent_with_a_warning(inbox: Inbox, rules: Path) -> None:
    """The library's warnings are part of what is printed beside the table."""
    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=line("receipt") * 3)

    assert result.exit_code == 0
    assert len(inbox.messages) == 3
    assert result.stderr.startswith("warning: No rule matches notifications of type 'receipt'")
    assert len(result.stderr.splitlines()) == 1


def test_a_line_without_a_required_field_is_told_by_its_number(inbox: Inbox, tmp_path: Path) -> None:
    """It is not sent, and the others are."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\nby = "tenant"\nrequired = "tenant"\n')

    result = invoke(
        "send",
        "--rules",
        rules,
        "--gateway",
        inbox.uri,
        input=line() + line(fields={"tenant": "acme"}) + line(fields={}),
    )

    assert result.exit_code == 1
    assert len(inbox.messages) == 1
    said = "failed: A notification of type 'news' has no tenant, but the rule 'news by tenant' requires it."
    assert [text.partition(". Set")[0] + "." for text in result.stderr.splitlines()] == [
        f"line 1: {said}",
        f"line 3: {said}",
    ]


def test_shadow_mode_is_reported(inbox: Inbox, tmp_path: Path) -> None:
    """What a rule in shadow mode would refuse is sent, and counted in a table of its own."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\nenforce = false\n')

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=line() * 3)

    assert len(inbox.messages) == 3
    shadow = result.stdout.partition("Allowed in shadow mode")[2]
    assert numbers(shadow, "news") == ["news", "1", "per", "day", "news", "2"]


def test_what_can_never_be_sent_is_told_apart(tmp_path: Path) -> None:
    """A limit of nothing, or a cost above the limit, is never allowed again; the table says so."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "no"\nlimit = "0/day"\n[[rules]]\ntype = "few"\nlimit = "1/day"\n')

    result = invoke("send", "--rules", rules, "--dry-run", input=line("no") + line("few") * 2 + line("few", cost=2))

    refused = result.stdout.partition("Refused by")[2]
    assert "1   never" in refused
    assert "2   1 day; 1 never" in refused


def test_shown_text_fits_a_cell() -> None:
    """A long text is cut, and says so."""
    assert shown("x" * 40) == "x" * 40
    assert shown("x" * 41) == "x" * 39 + "…"
    assert shown("a\nb") == "a\\nb"


def test_tables_are_plain_where_nothing_else_can_be_shown(rules: Path) -> None:
    """An output that knows ASCII only gets tables in ASCII."""
    run = command("send", "--rules", rules, "--dry-run", input=line("größe"), PYTHONIOENCODING="ascii")

    assert run.returncode == 0, run.stderr
    assert run.stdout.isascii()
    assert b"gr\\xf6\\xdfe" in run.stdout


def on_a_terminal(*arguments: object, input: bytes, until: bytes) -> tuple[bytes, bytes]:
    """What a command writes to standard output, a pipe, and to standard error, a terminal.

    Its input ends when this text was seen on the terminal; at once if the text is empty.
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ratelimited_notify", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, env=environment(TERM="xterm-256color"),
    ) as running:  # fmt: skip
        os.close(theirs)
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(input)
        running.stdin.flush()
        seen = b""
        # Linux says EIO when the other end of a terminal is gone.
        while True:
            if until in seen and not running.stdin.closed:
                running.stdin.close()
            if not select.select([ours], [], [], WITHIN)[0]:
                break
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
        output = running.stdout.read()
        assert running.wait(WITHIN) == 1
    os.close(ours)
    return output, seen


def test_progress_is_shown_on_a_terminal_and_nowhere_else(rules: Path) -> None:
    """Who looks on for longer than a second sees how far it is; what is piped on holds the tables and nothing else."""
    given = b"no\n" + b"".join(line("status", f"{number}@example.com") for number in range(400))
    arguments = ("send", "--rules", rules, "--dry-run")

    output, seen = on_a_terminal(*arguments, input=given, until=b"Sending")

    assert b"suppressed" in seen
    assert b"line 1: malformed" in seen
    assert b"\x1b" not in output
    assert b"Sending" not in output
    assert numbers(output.decode(), "status") == ["status", "400", "-", "-", "400"]

    assert b"Sending" not in command(*arguments, input=given).stderr


def test_a_short_or_quiet_run_shows_no_progress(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over in a moment does not flicker, and with --quiet only errors are shown."""
    arguments = ("send", "--rules", rules, "--dry-run")

    assert b"Sending" not in on_a_terminal(*arguments, input=b"no\n", until=b"")[1]

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "SECONDS", 0.0)
    for quiet in (False, True):
        aside = Console(file=Terminal(), force_terminal=True)
        with progress.progress(Input(BytesIO(), lambda *_: None), aside, quiet=quiet) as advance:
            for thread in threading.enumerate():
                if isinstance(thread, threading.Timer):
                    thread.join()
            advance(Tally())
        assert ("Sending" in aside.file.getvalue()) is not quiet  # type: ignore[attr-defined]  # it is a StringIO
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_who_types_is_told_what_is_read(rules: Path) -> None:
    """With a keyboard as standard input, the command says that it waits for lines, and reads them to the end."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ratelimited_notify", "send", "--rules", str(rules), "--dry-run"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as running:  # fmt: skip
        os.close(theirs)
        os.write(ours, line() + b"\x04")
        output, errors = running.communicate(timeout=WITHIN)
    os.close(ours)

    assert running.returncode == 0
    assert errors == b"Reading notifications from the keyboard, one JSON object per line.\n"
    assert numbers(output.decode(), "news") == ["news", "1", "-", "-", "1"]


# --- Settings from the environment --------------------------------------------------------------------------------------


def test_gateway_rules_and_storage_come_from_the_environment(inbox: Inbox, rules: Path) -> None:
    """A password need not stand on a command line, where others can see it, and help does not print it."""
    variables = {
        "RATELIMITED_NOTIFY_RULES": str(rules),
        "RATELIMITED_NOTIFY_GATEWAY": inbox.uri,
        "RATELIMITED_NOTIFY_STORAGE": "memory://",
    }

    result = invoke("send", input=line(), **variables)
    told = invoke("send", "--help", **variables | {"RATELIMITED_NOTIFY_STORAGE": "redis://:geheim@localhost"})

    assert result.exit_code == 0, result.output
    assert len(inbox.messages) == 1
    assert "geheim" not in told.output
    assert inbox.uri not in told.output


# --- The other commands -------------------------------------------------------------------------------------------------


def test_the_version_is_told() -> None:
    """`--version` prints the version of the package."""
    run = command("--version")

    assert (run.returncode, run.stdout.decode()) == (0, f"ratelimited-notify {__version__}\n")


def test_without_a_command_the_commands_are_listed() -> None:
    """Somebody who calls it for the first time sees what there is."""
    output = invoke().output

    assert all(name in output for name in ("send", "demo", "rules"))


def test_check_shows_the_rules(tmp_path: Path) -> None:
    """A rules file that can be used is shown as a table: limits, what they are counted by, and what is special."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'fields = ["ip"]\ndefault = "5/hour"\n[[rules]]\ntype = "news"\nlimit = "1/day; 3/week"\n'.replace(
            "3/week", "3 per 7 days"
        )
        + '[[rules]]\ntype = "sms"\nlimit = "none"\nby = []\nstrategy = "fixed-window"\non_limit = "drop"\n'
        '[[rules]]\ntype = "*"\nlimit = "9/day"\nby = "recipient"\nexempt = ["critical"]\ncount_exempt = false\n'
        'enforce = false\n[rules.overrides]\n"geheim@example.com" = "1/day"\n[rules.tiers]\ngold = "20/day"\nlead = "1/day"\n'
    )

    result = invoke("rules", "check", rules)

    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for shown_text in (
        "news news 1 per day; 3 per 7 days type and recipient",
        "none nothing: one window for all fixed-window; over the limit: drop",
        "9 per day recipient shadow mode; exempt, uncounted: critical; 1 override; 2 tiers",
        "default (any other) 5 per hour",
        "Declared fields: ip",
    ):
        assert all(word in text for word in shown_text.split()), shown_text
    assert "geheim" not in result.output


@pytest.mark.parametrize(("setting", "shown_text"), [("send", "sent, with a warning"), ("raise", "an error")])
def test_check_says_what_becomes_of_other_types(tmp_path: Path, setting: str, shown_text: str) -> None:
    """The table tells what happens to a type that no rule names."""
    rules = tmp_path / "rules.toml"
    rules.write_text(f'unknown_type = "{setting}"\n{RULES}')

    assert shown_text in invoke("rules", "check", rules).stdout


def test_check_does_not_speak_of_other_types_where_there_are_none(tmp_path: Path) -> None:
    """With a rule for every type there is no other; what a rule requires is shown."""
    rules = tmp_path / "rules.toml"
    rules.write_text(
        f'{RULES}\n[[rules]]\ntype = "*"\nlimit = "9/week"\nname = "each"\nrequired = ["tenant", "channel"]\n'
    )

    shown_text = invoke("rules", "check", rules).stdout

    assert "(any other)" not in shown_text
    assert "9 per 7 days" in shown_text
    assert "required: tenant, channel" in shown_text


def test_check_warns_of_what_is_hardly_meant(tmp_path: Path) -> None:
    """The rules are shown, and each warning stands beside them with its place; they can be used, so the status is 0."""
    rules = tmp_path / "rules.toml"
    rules.write_text(f'{RULES}\n[[rules]]\ntype = "a|b"\nlimit = "9/day"\noverrides = {{"ana*" = "5/day"}}\n')

    result = invoke("rules", "check", rules)

    assert result.exit_code == 0
    assert "a|b" in result.stdout
    assert [" ".join(text.split(" ")[1:4]) for text in result.stderr.splitlines()] == [
        "line 11, rules[2].type:",
        "line 13, rules[2].overrides[0]:",
    ]
    assert all(text.startswith("warning: ") for text in result.stderr.splitlines())
    assert "ana" not in result.output


def test_check_says_that_there_are_no_rules(tmp_path: Path) -> None:
    """A file without rules can be used, and limits nothing: that is said, since it is hardly what was meant."""
    rules = tmp_path / "rules.toml"
    rules.write_text("")

    result = invoke("rules", "check", rules)

    assert result.exit_code == 0
    assert "There are no rules." in result.stdout
    rules.write_text('default = "5/hour"')
    assert "There are no rules." not in invoke("rules", "check", rules).stdout


def test_flags_take_no_value() -> None:
    """The help shows a flag as a flag; of `--help` itself typer has the say."""
    shown_text = (invoke("--help").output + invoke("send", "--help").output).splitlines()

    for flag in ("--version", "--dry-run"):
        assert [row for row in shown_text if flag in row]
        assert not [row for row in shown_text if flag in row and "bool" in row]


def test_check_names_all_problems(tmp_path: Path) -> None:
    """A rules file that cannot be used is status 1, and every problem has its place."""
    rules = tmp_path / "rules.toml"
    rules.write_text('default = "x"\n[[rules]]\ntype = "a"\nlimit = "often"\n')

    result = invoke("rules", "check", rules)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "rules[0].limit: " in result.stderr
    assert "default: " in result.stderr


# --- Without the extra --------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules[{absent!r}] = None
sys.argv = ["ratelimited-notify", "demo"]
from ratelimited_notify.cli import main
main()
"""


@pytest.mark.parametrize("absent", ["typer", "rich", "aiosmtpd"])
def test_a_missing_extra_is_one_line_that_installs_it(absent: str) -> None:
    """Where what the command is made of is not installed, it says how to install it, without a traceback."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=absent)],
        capture_output=True, check=False, timeout=WITHIN, env=environment(),
    )  # fmt: skip

    assert (run.returncode, run.stdout) == (2, b"")
    assert b"pip install 'ratelimited-notify[cli]'" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_defect_is_not_taken_for_a_missing_extra() -> None:
    """A module of anything else that is missing is a defect, and shows its traceback."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent="ratelimited_notify.cli.report")],
        capture_output=True, check=False, timeout=WITHIN, env=environment(),
    )  # fmt: skip

    assert b"ModuleNotFoundError" in run.stderr


def test_the_entry_point_loads_nothing_before_it_runs() -> None:
    """Importing the package of the command loads none of what it is made of."""
    program = (
        "import sys, ratelimited_notify.cli; print(sorted({'typer', 'rich', 'msgspec', 'limits'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=WITHIN, env=environment()
    )

    assert run.stdout == b"[]\n"


def test_times_are_told_by_the_clock_on_the_wall(inbox: Inbox, rules: Path) -> None:
    """Beside how long it takes stands when it is, in this machine's time, never earlier than it is true."""
    before = datetime.now(UTC)
    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=line() * 2)
    after = datetime.now(UTC)

    told = result.stdout.partition("Refused by")[2].split("1 day ")[1].split("\n")[0].strip()
    at = datetime.strptime(told, "%Y-%m-%d %H:%M:%S").astimezone()
    assert before + timedelta(days=1) <= at <= after + timedelta(days=1, seconds=1)
