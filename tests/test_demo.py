from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from ratelimited_notify.cli import mailbox
from ratelimited_notify.cli.app import app

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parent.parent / "src"
SAMPLE = files("ratelimited_notify.cli") / "sample"

# What sample/rules.toml says, said once more in the plainest way; the demo takes much less than a minute.
OWN = {"status": 2, "news": 1, "marketing": 3}
CAP = 20


class Expected(NamedTuple):
    """What the rules let through and what they refuse, as a person would count it."""

    arrived: Counter[tuple[str, str]]
    refused: Counter[tuple[str, str]]


def sample() -> list[dict[str, str]]:
    """The notifications of the demo."""
    return [json.loads(text) for text in (SAMPLE / "notifications.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def expected() -> Expected:
    """A naive count over the sample: nothing of it is the library's."""
    arrived: Counter[tuple[str, str]] = Counter()
    in_all: Counter[str] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    for one in sample():
        who, what = one["recipient"], one["type"]
        if arrived[who, what] >= OWN.get(what, sys.maxsize):
            refused[what, what] += 1
        elif in_all[who] >= CAP and one.get("priority") != "critical":
            refused["frequency cap", what] += 1
        else:
            arrived[who, what] += 1
            in_all[who] += 1
    return Expected(+arrived, refused)


@pytest.fixture(scope="module")
def run() -> subprocess.CompletedProcess[str]:
    """The demo, as `make demo` runs it."""
    path = os.pathsep.join(filter(None, [str(SOURCE) if SOURCE.exists() else "", os.environ.get("PYTHONPATH", "")]))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RATELIMITED_NOTIFY", "COLUMNS"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ratelimited_notify", "demo"],
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=60,
        env={**kept, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    )


def table(output: str, title: str) -> list[list[str]]:
    """The rows of a table: its head first, cells apart by two spaces or more, without the lines."""
    rows = output.partition(f"\n{title} ")[2].split("\n\n")[0].splitlines()[1:]
    return [re.split(r"\s{2,}", row.strip()) for row in rows if row.strip(" ─")]


def number(cell: str) -> int:
    """What a cell says; nothing is a dash."""
    return 0 if cell == "-" else int(cell.replace(",", ""))


def test_the_demo_succeeds(run: subprocess.CompletedProcess[str]) -> None:
    """The demo ends well, and all that it has to say beside is the library's warning about the type without a rule."""
    assert run.returncode == 0, run.stderr
    assert run.stderr.splitlines() == [
        "warning: Only caps over all types ('frequency cap') match notifications of type 'receipt', so they are sent without a limit of their own. Add a rule or a default."
    ]


def test_what_arrived_is_what_the_rules_allow(run: subprocess.CompletedProcess[str], expected: Expected) -> None:
    """The mail server has, for each recipient and type, what a naive count by the rules gives."""
    head, *rows = table(run.stdout, "What arrived at the mail server")
    arrived = {
        (row[0], kind): number(cell) for row in rows[:-1] for kind, cell in zip(head[1:-1], row[1:-1], strict=True)
    }

    assert +Counter(arrived) == expected.arrived
    assert [number(cell) for cell in rows[-1][1:]] == [
        sum(count for (_, kind), count in expected.arrived.items() if kind == column) for column in head[1:-1]
    ] + [expected.arrived.total()]


def test_what_was_refused_is_what_the_rules_refuse(run: subprocess.CompletedProcess[str], expected: Expected) -> None:
    """Each rule is shown with what it refused, of which type, and when that would be allowed."""
    head, *rows = table(run.stdout, "Refused by")
    refused = {(row[0], row[2]): number(row[3]) for row in rows}
    waits = {row[0]: row[4] for row in rows}

    assert head == ["rule", "limit", "type", "refused", "allowed again in", "at"]
    assert refused == expected.refused
    assert waits["marketing"] in ("1 h", "59 min 59 s")
    assert waits["news"] == waits["frequency cap"] == "1 day"
    # The others were refused at about one instant; how much of the minute is over depends on the machine.
    assert re.fullmatch(r"1 min|\d+ s(?: to (?:1 min|\d+ s))?", waits["status"])


def test_sent_and_suppressed_are_told_by_type(run: subprocess.CompletedProcess[str], expected: Expected) -> None:
    """The table of `send` has the numbers of the rules for each type."""
    _, *rows = table(run.stdout, "Notifications")
    told = {row[0]: [number(cell) for cell in row[1:]] for row in rows}

    for kind in {one["type"] for one in sample()}:
        sent = sum(count for (_, type), count in expected.arrived.items() if type == kind)
        suppressed = sum(count for (_, type), count in expected.refused.items() if type == kind)
        assert told[kind] == [sent, suppressed, 0, sent + suppressed]
    assert told["all types"][3] == len(sample())


def test_the_demo_holds_what_it_is_to_show(expected: Expected) -> None:
    """The sample has several users, each of the rules refuses something, and what is critical passes the cap."""
    notifications = sample()
    by_user = Counter(user for user, _ in expected.arrived.elements())
    critical = Counter(one["recipient"] for one in notifications if one.get("priority") == "critical")

    assert len(notifications) > 200
    assert len(by_user) >= 10
    assert {rule for rule, _ in expected.refused} == {"status", "news", "marketing", "frequency cap"}
    assert "receipt" in {type for _, type in expected.arrived}
    assert any(count > CAP and critical[user] for user, count in by_user.items())


def test_subjects_tell_the_type(expected: Expected) -> None:
    """Mail says nothing of types, so the demo counts by subject: no two types share one."""
    subjects = {(one["subject"], one["type"]) for one in sample()}

    assert len({subject for subject, _ in subjects}) == len(subjects)


def test_the_output_fits_a_hundred_columns(run: subprocess.CompletedProcess[str]) -> None:
    """The tables are readable where nothing is wider than a hundred columns, without colour."""
    wide = [text for text in run.stdout.splitlines() if len(text) > 100 and not text.startswith("on the files in ")]

    assert wide == []
    assert "\x1b" not in run.stdout


def test_a_demo_that_cannot_listen_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the mail server cannot be started, that is told in one line, with status 2."""
    # An address that no machine has (RFC 5737).
    monkeypatch.setattr(mailbox, "_HOST", "192.0.2.1")

    result = CliRunner().invoke(app, ["demo"])

    assert (result.exit_code, result.stdout) == (2, "")
    # Python 3.13 says it in words of its own.
    assert re.fullmatch(
        r"Error: The mail server of the demo cannot listen on 192\.0\.2\.1: "
        r"(Cannot assign requested address|could not bind on any address .+)\.\n",
        result.stderr,
    )


def test_a_demo_that_loses_mail_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo compares what was sent with what the mail server received, and believes the mail server."""

    async def forget(*_: object) -> str:
        return "250 2.0.0 forgotten"

    monkeypatch.setattr(mailbox.Mailbox, "handle_DATA", forget)

    result = CliRunner().invoke(app, ["demo"])

    assert result.exit_code == 1
    assert "messages were counted as sent, but the mail server received 0." in result.stdout
