"""The command that writes rules to where programs read them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from command import environment, invoke, line, numbers
from ratelimited_notify import Limiter, RuleSet
from ratelimited_notify.sources import RedisRules

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Valkey

KEY = "notify:pushed"


@pytest.fixture
def uri(valkey: Valkey) -> str:
    """Where nothing has been written yet."""
    with valkey.client() as client:
        client.delete(KEY)
    return f"{valkey.url}?key={KEY}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    return path


def version(uri: str) -> str | None:
    loaded = RedisRules(uri.partition("?")[0], key=KEY).load(None)
    assert loaded is not None
    return loaded.version


def test_what_is_pushed_is_obeyed(uri: str, path: Path) -> None:
    """And told in words; if nothing changes, nothing is written."""
    first = invoke("rules", "push", path, "--to", uri)
    limiter = Limiter(uri)
    path.write_text('[[rules]]\ntype = "news"\nlimit = "2/day"\n')
    second = invoke("rules", "push", path, RATELIMITED_NOTIFY_RULES=uri)
    assert limiter.source.refresh()
    written = version(uri)
    third = invoke("rules", "push", path, "--to", uri)

    assert [each.exit_code for each in (first, second, third)] == [0, 0, 0], first.output
    assert first.stdout.splitlines()[0] == "news: added (1 per day)"
    assert first.stdout.splitlines()[1].startswith("Written as version 1-")
    assert second.stdout.splitlines() == ["news: 1 per day -> 2 per day, counts kept", f"Written as version {written}."]
    assert third.stdout == f"Nothing changes. The rules there have version {written}.\n"
    assert limiter.rules == RuleSet({"news": "2/day"})
    assert version(uri) == written


def test_a_dry_run_writes_nothing(uri: str, path: Path, valkey: Valkey) -> None:
    """It says what would change, and which version is there."""
    first = invoke("rules", "push", path, "--to", uri, "--dry-run")
    with valkey.client() as client:
        assert not client.exists(KEY)
    invoke("rules", "push", path, "--to", uri)
    before = version(uri)
    path.write_text('[[rules]]\ntype = "news"\nlimit = "2/hour"\n')
    second = invoke("rules", "push", path, "--to", uri, "--dry-run", "--if-version", "1")
    third = invoke("rules", "push", path, "--to", uri, "--dry-run", "--if-version", "2")

    assert first.stdout == (
        "news: added (1 per day)\n"
        "Nothing was written. There are no rules there yet; with --if-version 0, push writes only if that is still so.\n"
    )
    assert second.stdout == (
        f"news: 1 per day -> 2 per hour, counting starts anew\nNothing was written. The rules there have version {before}.\n"
    )
    assert (first.exit_code, second.exit_code, third.exit_code, third.stdout) == (0, 0, 3, "")
    assert version(uri) == before


def test_two_who_edit_at_once_do_not_overwrite_each_other(uri: str, tmp_path: Path) -> None:
    """Exactly one of two processes wins, and the other is told."""
    for number in range(2):
        (tmp_path / f"{number}.toml").write_text(f'[[rules]]\ntype = "news"\nlimit = "{number + 1}/day"\n')
    for name in ("0", "1"):
        running = [
            subprocess.Popen(
                [*(sys.executable, "-m", "ratelimited_notify", "rules", "push"), str(tmp_path / f"{number}.toml"), *("--to", uri, "--if-version", name)],
                env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for number in range(2)
        ]  # fmt: skip
        said = [each.communicate(timeout=60) for each in running]
        statuses = sorted(each.returncode for each in running)
        if name == "0":
            assert statuses == [0, 3], said
            (lost,) = (err for _, err in said if err)
            assert lost.startswith("Error: The rules there have version 1-")
            assert "somebody else has changed them" in lost
    # One of the two changes nothing, so it may go first and not write.
    assert statuses in ([0, 0], [0, 3])


def test_a_wrong_file_is_not_pushed(uri: str, path: Path, valkey: Valkey) -> None:
    """All problems are told, with their lines."""
    path.write_text('[[rules]]\ntype = "news"\nlimit = "often"\n\n[[rules]]\ntype = "status"\n')
    result = invoke("rules", "push", path, "--to", uri)
    path.write_text("")
    empty = invoke("rules", "push", path, "--to", uri)
    wanted = invoke("rules", "push", path, "--to", f"{uri}&allow_empty=true")
    missing = invoke("rules", "push", path.with_name("x"), "--to", uri)

    assert (result.exit_code, empty.exit_code, wanted.exit_code, missing.exit_code) == (1, 1, 0, 1)
    assert result.stderr.splitlines()[0] == f"The rules in {path} cannot be used:"
    assert "line 3, rules[0].limit: " in result.stderr
    assert "line 5, rules[1].limit: is missing." in result.stderr
    assert "There are no rules in it" in empty.stderr
    with valkey.client() as client:
        # An empty rule set where nothing is changes nothing.
        assert not client.exists(KEY)


@pytest.mark.parametrize(
    "to", ["rules.toml", "file:rules.toml", "redis://localhost", "redis://localhost:1/0?key=a", "nothing://x"]
)
def test_where_nothing_can_be_written(to: str, path: Path) -> None:
    """The status is that of an option that cannot be used."""
    result = invoke("rules", "push", path, "--to", to)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")


def test_what_is_there_and_cannot_be_used_is_replaced(uri: str, path: Path, valkey: Valkey) -> None:
    """Unless it is something else than rules. The version counts on."""
    with valkey.client() as client:
        for document in ('{"rules": 1}', "[["):
            client.hset(KEY, mapping={"version": "4", "document": document})
            assert invoke("rules", "push", path, "--to", uri, "--if-version", "3").exit_code == 3
            result = invoke("rules", "push", path, "--to", uri, "--if-version", "4")
            assert (result.exit_code, result.stdout.splitlines()[1][:21]) == (0, "Written as version 5-")
            assert "The rules that are there cannot be used: " in result.stderr
        client.delete(KEY)
        client.set(KEY, "x")
        result = invoke("rules", "push", path, "--to", uri)
        assert (result.exit_code, client.get(KEY)) == (2, b"x")
        client.delete(KEY)


def test_check_show_and_diff_read_a_source(uri: str, path: Path) -> None:
    """As a file; and one that cannot be reached is an error of its own."""
    invoke("rules", "push", path, "--to", uri)
    check = invoke("rules", "check", uri, "--json")
    show = invoke("rules", "show", "news", "--rules", uri)
    diff = invoke("rules", "diff", path, uri)
    sent = invoke("send", "--rules", uri, "--dry-run", input=line() + line())
    assert (sent.exit_code, numbers(sent.stdout, "news")) == (0, ["news", "1", "1", "-", "2"])
    gone = "redis://127.0.0.1:1/0?key=x&wait=false&fallback=" + str(path)
    unreached = [
        invoke("rules", *arguments)
        for arguments in (["check", gone], ["check", gone, "--json"], ["show", "news", "--rules", gone], ["diff", path, gone], ["push", gone, "--to", uri])
    ]  # fmt: skip

    assert (check.exit_code, json.loads(check.stdout)) == (0, {"problems": [], "warnings": [], "notes": [], "rules": 1})
    assert (show.exit_code, diff.exit_code, diff.stdout) == (0, 0, "Nothing changes.\n")
    assert [each.exit_code for each in unreached] == [2] * 5
    assert all("Redis cannot be reached" in each.output for each in unreached)
    assert json.loads(unreached[1].stdout)["problems"][0]["line"] is None


@pytest.mark.parametrize("dry_run", [True, False])
def test_where_nothing_can_be_written_nothing_is_promised(
    dry_run: bool, path: Path, tmp_path: Path, uri: str, valkey: Valkey
) -> None:
    """A dry run fails where a push would: without the tables, or where the key is something else."""
    more = ["--dry-run"] if dry_run else []
    database = tmp_path / "empty.db"
    sqlite3.connect(database).close()
    with valkey.client() as client:
        client.set(KEY, "x")
        for to, said in (
            (f"sqlite:///{database}", "The tables of the rules are missing"),
            (uri, "a value of another type"),
        ):
            result = invoke("rules", "push", path, "--to", to, *more)
            assert (result.exit_code, result.stdout) == (2, ""), result.output
            assert said in result.stderr
        client.delete(KEY)
    # First of all the document is checked.
    path.write_text('[[rules]]\ntype = "news"\nlimit = "often"\n\n[[rules]]\ntype = "status"\n')
    result = invoke("rules", "push", path, "--to", f"sqlite:///{database}", *more)
    assert result.exit_code == 1
    assert ("rules[0].limit" in result.stderr, "rules[1].limit" in result.stderr) == (True, True)


def test_what_is_there_and_cannot_be_read_is_replaced(uri: str, path: Path, valkey: Valkey, tmp_path: Path) -> None:
    """Half a hash, and rows that are no rules."""
    with valkey.client() as client:
        client.hset(KEY, "version", "4")
    database = f"sqlite:///{tmp_path / 'rules.db'}"
    assert invoke("rules", "init", database).exit_code == 0
    connection = sqlite3.connect(tmp_path / "rules.db")
    connection.execute("INSERT INTO notify_rules (type, limit_text, extra) VALUES ('news', '1/day', '[]')")
    connection.commit()
    connection.close()
    for to in (uri, database):
        assert invoke("rules", "push", path, "--to", to, "--dry-run").exit_code == 0
        result = invoke("rules", "push", path, "--to", to)
        assert result.exit_code == 0
        assert "The rules that are there cannot be used: " in result.stderr
        assert Limiter(to).rules == RuleSet({"news": "1/day"})


def test_a_reader_that_knows_a_higher_version_obeys_after_the_key_was_deleted(
    uri: str, path: Path, valkey: Valkey
) -> None:
    """The numbers begin again, and another content has another version all the same."""
    for limit in ("1/day", "2/day", "3/day"):
        path.write_text(f'[[rules]]\ntype = "news"\nlimit = "{limit}"\n')
        invoke("rules", "push", path, "--to", uri)
    limiter = Limiter(uri)
    with valkey.client() as client:
        client.delete(KEY)
    conflict = invoke("rules", "push", path, "--to", uri, "--if-version", "3")
    path.write_text('[[rules]]\ntype = "news"\nlimit = "4/day"\n')
    result = invoke("rules", "push", path, "--to", uri, "--if-version", "0")

    assert (conflict.exit_code, conflict.stderr) == (
        3,
        "Error: There are no rules there, so none of version 3. Nothing was written.\n",
    )
    assert result.stdout.splitlines()[1].startswith("Written as version 1-")
    assert limiter.source.status.version is not None
    assert limiter.source.status.version.startswith("3-")
    assert limiter.source.refresh()
    assert limiter.rules == RuleSet({"news": "4/day"})
    limiter.close()


def test_push_says_what_the_rules_need_of_the_programs(uri: str, path: Path) -> None:
    """And pushes them."""
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\ntiers = {gold = "2/day"}\n')
    result = invoke("rules", "push", path, "--to", uri)

    assert (result.exit_code, result.stderr) == (
        0,
        "note: line 4, rules[0].tiers: need tier_of= on the limiter of the program.\n",
    )
