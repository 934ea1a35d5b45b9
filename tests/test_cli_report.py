"""What the command tells about each line: as JSON, in a report that is whole or not there, quietly or in detail."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from command import RULES, WITHIN, Inbox, command, environment, invoke, line, mail_server, numbers, started
from ratelimited_notify import Limiter, NotifyError
from ratelimited_notify.cli import journal as journal_module
from ratelimited_notify.cli.journal import Journal
from ratelimited_notify.cli.record import Record
from ratelimited_notify.cli.report_file import OutputError, ReportFile
from servers import free_port
from smtp_server import CLOSE, FailingServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Valkey

KEYS = ["line", "status", "type", "rule", "retry_at", "problem"]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """A real mail server, and what it took."""
    with mail_server() as inbox:
        yield inbox


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A file with rules."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def read(text: str | bytes) -> list[dict[str, Any]]:  # Any: parts of JSON
    """The records in an output or in a report."""
    found = [json.loads(each) for each in text.splitlines()]
    assert all(list(each) == KEYS for each in found)
    return found


def told(records: list[dict[str, Any]]) -> list[tuple[int, str]]:  # Any: parts of JSON
    """Line and status of each record."""
    return [(record["line"], record["status"]) for record in records]


# --- What is told -------------------------------------------------------------------------------------------------------


def test_each_line_is_told_as_json_and_in_the_report(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """Line, status, rule and when it would be allowed, in the order of the lines, without a recipient; tables beside it."""
    inbox.refuse = lambda recipient: "550 5.1.1 no such user" if recipient.startswith("no") else None
    file, report = tmp_path / "notifications.jsonl", tmp_path / "report.jsonl"
    file.write_bytes(line() + b"bad\n\n" + line() + line("größe", "no@example.com") + line("news", cost=2) + b"bad\n")
    arguments = ("send", "--rules", rules, "--gateway", inbox.uri)

    before = datetime.now(UTC)
    result = invoke(*arguments, "--report", report, file)
    printed = invoke(*arguments, "--json", file)

    assert (result.exit_code, printed.exit_code) == (1, 1)
    records = read(report.read_bytes())
    assert told(records) == [
        (1, "sent"), (2, "malformed"), (4, "suppressed"), (5, "failed"), (6, "suppressed"), (7, "malformed"),
    ]  # fmt: skip
    assert [record["type"] for record in records] == ["news", None, "news", "größe", "news", None]
    assert [record["rule"] for record in records] == [None, None, "news", None, "news", None]
    assert before + timedelta(hours=23) < datetime.fromisoformat(records[2]["retry_at"]) < before + timedelta(hours=25)
    assert records[4]["retry_at"] is None  # Never, because it costs more than the limit.
    assert "550 5.1.1" in records[3]["problem"]
    assert "not a JSON object" in records[1]["problem"]
    assert told(read(printed.stdout)) == told(records)
    assert printed.stdout.isascii()
    assert numbers(result.stdout, "news") == ["news", "1", "2", "-", "3"]
    assert "example.com" not in report.read_text() + printed.output


def test_a_dry_run_reports_what_would_be_sent(rules: Path) -> None:
    """It does not say that anything was sent."""
    result = invoke("send", "--rules", rules, "--dry-run", "--json", input=line() * 2)

    assert told(read(result.stdout)) == [(1, "would be sent"), (2, "suppressed")]


def test_from_a_pipe_each_record_comes_at_once(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """A program that reads the records does not wait for the end, for those of malformed lines neither."""
    with started("send", "--rules", rules, "--gateway", inbox.uri, "--json") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for number, given in enumerate([line(), b"no\n", line()], start=1):
            running.stdin.write(given)
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["line"] == number
        running.communicate(timeout=WITHIN)

    assert running.returncode == 1


def test_what_may_have_been_sent_is_unknown(rules: Path) -> None:
    """A connection that is lost during the message is neither sent nor failed: whoever sends it again may send it twice."""
    with FailingServer({"end": CLOSE}) as server:
        result = invoke(
            "send", "--rules", rules, "--gateway", f"smtp://127.0.0.1:{server.port}", "--json", input=line()
        )

    assert told(read(result.stdout)) == [(1, "unknown")]
    assert result.exit_code == 1


def test_a_run_that_stops_reports_what_it_tried(rules: Path, tmp_path: Path) -> None:
    """A line that is not in the report was not tried."""
    file, report = tmp_path / "notifications.jsonl", tmp_path / "report.jsonl"
    file.write_bytes(b"".join(line(recipient=f"{number}@example.com") for number in range(600)))
    arguments = ("send", "--rules", rules, "--gateway", f"smtp://127.0.0.1:{free_port()}", "--report", report, file)

    for options in (["--json"], ["--quiet"]):
        result = invoke(*arguments, *options)

        assert result.exit_code == 1
        assert told(read(report.read_bytes())) == [(number, "failed") for number in range(1, 6)]
        assert "Stopped after line 5" in result.stderr
        assert "595 notifications were not tried" in result.stderr


@given(
    st.lists(st.sampled_from(["malformed", "malformed", "notification"]), max_size=30),
    st.integers(1, 8),
    st.integers(1, 40),
)
def test_records_are_in_order(lines: list[str], batch: int, most: int) -> None:
    """However far ahead the lines are read, each is recorded once, and in order unless too many are malformed."""
    written: list[int] = []
    kept, journal_module._MOST_HELD = journal_module._MOST_HELD, most
    try:
        journal = Journal([lambda text: written.append(json.loads(text)["line"])])
        waiting: list[int] = []
        for number, kind in enumerate(lines, start=1):
            if kind == "malformed":
                journal.malformed(number, "bad", ahead=bool(waiting))
            else:
                waiting.append(number)
            if len(waiting) == batch:
                while waiting:
                    journal.add(Record(waiting.pop(0), "sent"))
        for each in waiting:
            journal.add(Record(each, "sent"))
        journal.end()
    finally:
        journal_module._MOST_HELD = kept

    assert sorted(written) == list(range(1, len(lines) + 1))
    if lines.count("malformed") < most:
        assert written == sorted(written)


# --- The file of the report ---------------------------------------------------------------------------------------------


def left_behind(directory: Path) -> list[str]:
    """Parts of reports in a directory."""
    return [path.name for path in directory.iterdir() if path.name.endswith(".part")]


def test_a_report_takes_the_place_of_the_one_before_at_once(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """While the command runs, the earlier report is whole; its rights and a symbolic link to it stay."""
    report, link = tmp_path / "report.jsonl", tmp_path / "link.jsonl"
    report.write_text("before")
    report.chmod(0o640)
    link.symlink_to(report)
    seen: list[str] = []
    inbox.go_on = lambda: seen.append(report.read_text())

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, "--report", link, input=line() + line("status"))

    assert result.exit_code == 0
    assert seen == ["before", "before"]
    assert told(read(report.read_bytes())) == [(1, "sent"), (2, "sent")]
    assert stat.S_IMODE(report.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_run_reports_what_was_done(
    inbox: Inbox, tmp_path: Path, valkey: Valkey, number: signal.Signals
) -> None:
    """What was sent is in the report, and what may have been; the rest was given back."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("This signal is ignored here, by nohup for example.")
    rules, file, report = tmp_path / "rules.toml", tmp_path / "notifications.jsonl", tmp_path / "report.jsonl"
    name = f"news-{os.urandom(8).hex()}"
    rules.write_text(f'[[rules]]\ntype = "{name}"\nlimit = "40/day"\nby = []\n')
    file.write_bytes(b"bad\n" + b"".join(line(name, f"{one}@example.com") for one in range(40)) + b"bad\n")
    answering = threading.Event()
    inbox.go_on = lambda: len(inbox.messages) < 3 or answering.wait(WITHIN)
    arguments = ("--rules", rules, "--gateway", inbox.uri, "--storage", valkey.url, "--report", report, "--json", file)
    with started("send", *arguments) as running:
        for _ in range(3):
            assert inbox.taken.acquire(timeout=WITHIN)
        # The server has the third, and has not answered.
        running.send_signal(number)
        output, errors = running.communicate(timeout=WITHIN)
        answering.set()

    assert running.returncode == 130
    expected = [(1, "malformed"), (2, "sent"), (3, "sent"), (4, "unknown"), (42, "malformed")]
    assert told(read(report.read_bytes())) == told(read(output)) == expected
    assert b"Interrupted after line 3. The next notification may have been sent" in errors
    assert left_behind(tmp_path) == []
    with Limiter(rules, valkey.url) as limiter:
        assert limiter.windows(name, "any@example.com")[0].remaining == 37


def test_an_interrupted_dry_run_has_nothing_on_its_way(rules: Path, tmp_path: Path) -> None:
    """Nothing is unknown where nothing is sent."""
    report = tmp_path / "report.jsonl"
    with started("send", "--rules", rules, "--dry-run", "--verbose", "--report", report) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(line())
        running.stdin.flush()
        assert running.stderr.readline().startswith(b"line 1: sent")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=WITHIN)

    assert running.returncode == 130
    assert told(read(report.read_bytes())) == [(1, "would be sent")]


def test_a_killed_run_leaves_the_report_before_whole(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """What it did is in a file beside it."""
    report = tmp_path / "report.jsonl"
    report.write_text("before")
    with started("send", "--rules", rules, "--gateway", inbox.uri, "--json", "--report", report) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(line() + line("status"))
        running.stdin.flush()
        assert [json.loads(running.stdout.readline())["line"] for _ in range(2)] == [1, 2]
        running.kill()
        running.communicate(timeout=WITHIN)

    assert report.read_text() == "before"
    [part] = left_behind(tmp_path)
    assert told(read((tmp_path / part).read_bytes())) == [(1, "sent"), (2, "sent")]


def limited(size: int) -> Any:  # Any: a hook of subprocess
    """Makes files of a process end at a size, like a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_full_disk_stops_the_run(inbox: Inbox, rules: Path, tmp_path: Path, valkey: Valkey) -> None:
    """No more is sent than the report can say, the report has whole lines, and the message says after which line."""
    file, report = tmp_path / "notifications.jsonl", tmp_path / "report.jsonl"
    name = f"news-{os.urandom(8).hex()}"
    rules.write_text(f'[[rules]]\ntype = "{name}"\nlimit = "40/day"\nby = []\n')
    file.write_bytes(b"".join(line(name, f"{one}@example.com") for one in range(40)))
    arguments = ("--rules", rules, "--gateway", inbox.uri, "--storage", valkey.url, "--report", report, file)

    run = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-m", "ratelimited_notify", "send", *map(str, arguments)],
        capture_output=True, check=False, timeout=WITHIN, env=environment(), preexec_fn=limited(600),
    )  # fmt: skip

    records = read(report.read_bytes())
    assert run.returncode == 1
    assert told(records) == [(number, "sent") for number in range(1, len(records) + 1)]
    assert len(inbox.messages) == len(records) + 1
    said = f"cannot be written: {os.strerror(errno.EFBIG)}. Stopped after line {len(records) + 1}, which was processed."
    assert said in run.stderr.decode()
    assert b"Traceback" not in run.stderr
    assert numbers(run.stdout.decode(), name)[1] == str(len(records) + 1)
    with Limiter(rules, valkey.url) as limiter:
        assert limiter.windows(name, "any@example.com")[0].remaining == 40 - len(inbox.messages)


@pytest.mark.parametrize("closed", ["pipe", "full"])
def test_standard_output_that_ends_stops_the_run(inbox: Inbox, rules: Path, tmp_path: Path, closed: str) -> None:
    """With --json, what nobody can read any more is not sent either; the report has all of it."""
    file, report = tmp_path / "notifications.jsonl", tmp_path / "report.jsonl"
    file.write_bytes(b"".join(line("status", f"{one}@example.com") for one in range(500)))
    arguments = ("send", "--rules", rules, "--gateway", inbox.uri, "--json", "--report", report, file)
    if closed == "pipe":
        with started(*arguments) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            assert json.loads(running.stdout.readline())["line"] == 1
            running.stdout.close()
            errors = running.stderr.read()
            assert running.wait(WITHIN) == 1
    else:
        with open("/dev/full", "wb") as full:  # noqa: PTH123  # not a file
            run = subprocess.run(
                [sys.executable, "-m", "ratelimited_notify", *map(str, arguments)],
                stdout=full, stderr=subprocess.PIPE, check=False, timeout=WITHIN, env=environment(),
            )  # fmt: skip
        errors = run.stderr
        assert run.returncode == 1

    said = "Broken pipe" if closed == "pipe" else "No space left on device"
    assert errors.decode().startswith(f"Standard output cannot be written: {said}. Stopped after line ")
    assert len(errors.splitlines()) == 1
    assert told(read(report.read_bytes())) == [(number, "sent") for number in range(1, len(inbox.messages) + 1)]
    assert len(inbox.messages) < 500


def test_a_pipe_closed_under_the_table_is_no_traceback(rules: Path) -> None:
    """`| head` ends the command, and that is all."""
    with started("send", "--rules", rules, "--dry-run") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        running.stdin.write(line())
        running.stdin.close()
        errors = running.stderr.read()
        assert running.wait(WITHIN) == 1

    assert errors == b""


@pytest.mark.parametrize("name", [".", "no/such/report", "rules.toml", "notifications.jsonl", "x" * 5000])
def test_a_report_that_cannot_be_is_refused_before_anything_is_sent(
    inbox: Inbox, rules: Path, tmp_path: Path, name: str
) -> None:
    """A directory, a path that is not there, or a file that the command reads: status 2, and nothing is lost."""
    file = tmp_path / "notifications.jsonl"
    file.write_bytes(line())

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, "--report", tmp_path / name, file)

    assert (result.exit_code, result.stdout, inbox.messages) == (2, "", [])
    assert "The report" in result.stderr
    assert file.read_bytes() == line()
    assert rules.read_text() == RULES
    assert left_behind(tmp_path) == []


def test_a_report_may_be_a_pipe(inbox: Inbox, rules: Path, tmp_path: Path) -> None:
    """What is no file is written to, not replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[bytes] = []
    reading = threading.Thread(target=lambda: seen.append(pipe.read_bytes()))
    reading.start()
    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, "--report", pipe, input=line())
    reading.join(WITHIN)

    assert result.exit_code == 0
    assert told(read(seen[0])) == [(1, "sent")]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_report_that_cannot_be_put_in_place_is_not_lost(tmp_path: Path) -> None:
    """The message says where it is."""
    report = ReportFile(tmp_path / "report.jsonl")
    report.write("{}\n")
    (tmp_path / "report.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"The report is in .*\.part, because") as caught:
        report.finish()
    report.finish()

    [part] = left_behind(tmp_path)
    assert part in str(caught.value)
    assert (tmp_path / part).read_text() == "{}\n"
    assert isinstance(caught.value, NotifyError)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_reports_are_written_as_they_are(lines: list[str]) -> None:
    """Whatever is in a line, and whatever it takes to write it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as directory:
        report = ReportFile(Path(directory) / "report")
        for each in lines:
            report.write(each)
        report.finish()

        assert (Path(directory) / "report").read_bytes() == "".join(lines).encode()


# --- Quiet and verbose --------------------------------------------------------------------------------------------------


def test_quiet_prints_errors_only(inbox: Inbox, rules: Path) -> None:
    """For cron: nothing where nothing went wrong, and on standard error what did."""
    arguments = ("send", "--rules", rules, "--gateway", inbox.uri, "--quiet")

    silent = command(*arguments, input=line() * 2)
    spoke = command(*arguments, input=line() + b"no\n" + line("status", "nobody"))

    assert (silent.returncode, silent.stdout, silent.stderr) == (0, b"", b"")
    assert (spoke.returncode, spoke.stdout) == (1, b"")
    assert [said.partition(b": ")[0] for said in spoke.stderr.splitlines()] == [b"line 2", b"line 3"]


def test_verbose_says_what_happened_to_each_line(inbox: Inbox, rules: Path) -> None:
    """On standard error, by line, with the rule, and without a recipient; the tables come all the same."""
    result = invoke(
        "send", "--rules", rules, "--gateway", inbox.uri, "--verbose", input=line() * 2 + line("status", "nobody")
    )

    said = result.stderr.splitlines()
    assert said[0].startswith("line 1: sent: 'news' allowed")
    assert said[1].startswith("line 2: suppressed: 'news' refused by rule 'news' (1 per day), try again in ")
    assert said[2].startswith("line 3: failed: the recipient must be")
    assert len(said) == 3
    assert numbers(result.stdout, "news") == ["news", "1", "1", "-", "2"]
    assert "example.com" not in result.output.replace("name@example.com", "").replace("<name@example.com>", "")


def test_lines_in_order_are_what_they_say() -> None:
    """A record is one line of ASCII, whatever is in it."""
    written = Record(1, "sent", "grö\nße\u2028").written()

    assert written.isascii()
    assert written.count("\n") == 1
    assert json.loads(written)["type"] == "grö\nße\u2028"
