"""The commands about the windows of a recipient: inspect, clear."""

from __future__ import annotations

import json
import os
import pty
import secrets
import select
import signal
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from command import WITHIN, command, environment, invoke
from processes import unconfigured
from ratelimited_notify import Limiter, Rule, RuleSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Memcached, Valkey

SECRET = "ana.geheim@example.com"

RULES = """
rules = RuleSet([
    Rule("news", "1/day"),
    Rule("status", "2/hour; 10/day"),
    Rule("marketing.*", "3/hour"),
    Rule("sms", "5/day", by=("recipient", "tenant"), name="by tenant"),
    Rule("sms", "9/second", by=(), name="provider"),
    Rule("shadow", "1/day", enforce=False),
    Rule("never", "0/day"),
    Rule("*", "20/day", by="recipient", name="cap"),
])
"""

PROGRAM = (
    """
import json
from ratelimited_notify import *

print("the program is imported")
"""
    + RULES
    + """
class Settings:
    limiter = Limiter(rules, URI, namespace=NAMESPACE)
    @property
    def broken(self): raise ValueError("geheim")

settings = Settings()
limiter = settings.limiter
async_limiter = AsyncLimiter(rules, URI, namespace=NAMESPACE)
notifier = Notifier(print, limiter=limiter)
async_notifier = AsyncNotifier(print, limiter=async_limiter)
configured = configure(rules=rules, storage=URI)
in_memory = Limiter(rules)
off = Limiter(rules, URI, enabled=False)
strict = Limiter(RuleSet([Rule("secured", "1/day", required="tenant"), Rule("news", "1/day")]), URI, namespace=NAMESPACE)
patterns = Limiter([Rule("a*", "1/day")], URI)
tiered = Limiter([Rule("news", "1/day", tiers={"gold": "2/day"})], URI, tier_of=lambda recipient: {}[recipient])
down = Limiter({"news": "1/day"}, "redis://127.0.0.1:1/0", timeout=0.2)
word = "limiter"

@rate_limited("news", limiter=limiter)
def send(to): ...

@rate_limited("news", limiter=async_limiter)
async def send_async(to): ...

def make_limiter(): return limiter
def make_notifier(): return notifier
def make_word(): return word
def make_nothing(): raise KeyError("geheim")
def make_wrong(): return Limiter({"news": "often"})
def needs(argument): ...
async def make_later(): return limiter
"""
)


@pytest.fixture(params=["redis", "sqlite"])
def uri(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> str:
    """Where the windows are."""
    return valkey.url if request.param == "redis" else f"sqlite:///{tmp_path / 'windows.db'}"


@pytest.fixture
def namespace() -> str:
    """What keeps the tests apart that share a server."""
    return f"inspect-{secrets.token_hex(4)}"


@pytest.fixture
def limiter(uri: str, namespace: str) -> Iterator[Limiter]:
    """What the running program counts with."""
    scope: dict[str, RuleSet] = {}
    exec(RULES, {"RuleSet": RuleSet, "Rule": Rule}, scope)
    with Limiter(scope["rules"], uri, namespace=namespace) as limiter:
        yield limiter


@pytest.fixture
def program(uri: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the program, in which the command runs."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "limits.py").write_text(f"URI = {uri!r}\nNAMESPACE = {namespace!r}\n{PROGRAM}")
    (tmp_path / "shop" / "lacking.py").write_text("import no_such_module_at_all")
    (tmp_path / "shop" / "broken.py").write_text("\n\nraise ValueError('geheim')")
    (tmp_path / "shop" / "exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "shop" / "syntax.py").write_text("def (")
    (tmp_path / "shop" / "rules.py").write_text("import ratelimited_notify\nratelimited_notify.Rule('news', 'often')")
    (tmp_path / "shop" / "misspelt.py").write_text("from ratelimited_notify import Limitr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # What a test imported before is another program.
    before = set(sys.modules)
    with unconfigured(monkeypatch):
        yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "shop":
            del sys.modules[name]


def rows(output: str) -> dict[str, list[list[str]]]:
    """The cells of a table, by their first."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for row in output.splitlines()[3:]:
        if cells := row.split():
            found[cells[0]].append(cells[1:])
    return found


# --- inspect ------------------------------------------------------------------------------------------------------------


def test_windows_are_shown_as_another_process_counts_them(program: Path, limiter: Limiter) -> None:
    """The main job: used, left, when free; each window once, and what is not shown is told. No recipient is."""
    for type in ("news", "status", "status", "shadow"):
        limiter.hit(type, SECRET)
    run = command("inspect", SECRET, "--app", "shop.limits:limiter", directory=program)
    shown = rows(run.stdout.decode())

    assert run.returncode == 0, run.stderr
    assert shown["news"][0][:6] == ["news", "1", "per", "day", "1", "0"]
    assert shown["status"][0][:6] == ["status", "2", "per", "hour", "2", "0"]
    # In the words of durations; and then at which time.
    assert shown["news"][0][7] in ("day", "h")
    assert shown["status"][0][7] in ("h", "min")
    assert shown["status"][1] == ["status", "10", "per", "day", "2", "8", "now"]
    assert shown["*"] == [["cap", "20", "per", "day", "4", "16", "now"]]
    assert shown["never"] == [["never", "0", "per", "day", "0", "0", "never"]]
    assert shown["shadow"][0][-2:] == ["shadow", "mode"]
    assert shown["sms"] == [["provider", "9", "per", "second", "0", "9", "now", "shared"]]
    assert run.stderr.decode().splitlines() == [
        "the program is imported",
        "note: The rules for 'marketing.*' are for other types, too. To see the windows of such a type, name it with --type.",
        "note: The rule 'by tenant' counts by tenant. To see its windows, add --field tenant=VALUE.",
    ]
    assert SECRET.encode() not in run.stdout + run.stderr


@pytest.mark.parametrize(
    "name",
    [
        "limiter", "async_limiter", "notifier", "async_notifier", "settings.limiter", "Settings.limiter", "notifier.limiter", "send",
        "send_async", "make_limiter", "make_notifier",
    ],
)  # fmt: skip
def test_an_object_of_any_kind_leads_to_the_limiter(program: Path, limiter: Limiter, name: str) -> None:
    """And to the same windows."""
    limiter.hit("news", SECRET)
    result = invoke("inspect", SECRET, "--app", f"shop.limits:{name}", "--type", "news", "--json")

    assert result.exit_code == 0, result.output
    assert [(each["rule"], each["used"]) for each in json.loads(result.stdout)["windows"]] == [("news", 1), ("cap", 1)]


def test_the_configuration_leads_to_the_limiter(program: Path) -> None:
    """What `configure` returned."""
    result = invoke("inspect", SECRET, "--app", "shop.limits:configured", "--type", "news", "--json")

    assert result.exit_code == 0, result.output
    assert [each["rule"] for each in json.loads(result.stdout)["windows"]] == ["news", "cap"]


def test_windows_for_programs(program: Path, limiter: Limiter) -> None:
    """One object; a pause is a pause, and not a limit of 0."""
    limiter.hit("sms", SECRET, tenant="acme")
    limiter.pause("provider", 300)
    arguments = ("inspect", SECRET, "--app", "shop.limits:limiter", "--type", "sms", "--type", "marketing.x")
    result = invoke(*arguments, "--field", "tenant=acme", "--json")
    found = json.loads(result.stdout)
    pause = next(each for each in found["windows"] if each["paused"])

    assert result.exit_code == 0, result.output
    assert (found["problems"], found["notes"]) == ([], [])
    assert [(each["type"], each["rule"], each["by"], each["used"], each["remaining"]) for each in found["windows"]] == [
        (None, "by tenant", ["recipient", "tenant"], 1, 4),
        (None, "provider", [], 1, 8),
        (None, "provider", [], None, None),
        (None, "cap", ["recipient"], 1, 19),
        ("marketing.x", "marketing.*", ["type", "recipient"], 0, 3),
    ]
    assert (pause["limit"], pause["shared"]) == ("paused", True)
    assert 290 < pause["retry_after"] <= 300
    assert SECRET not in result.output

    shown = [each for each in rows(invoke(*arguments).stdout)["sms"] if "paused" in each]
    assert shown[0][:2] == ["provider", "paused"]
    assert shown[0][2:4] in (["5", "min"], ["4", "min"])
    assert "0 per" not in " ".join(shown[0])


def test_a_type_that_is_misspelt(program: Path) -> None:
    """It says which is meant."""
    result = invoke("inspect", SECRET, "--app", "shop.limits:limiter", "--type", "staus")

    assert (result.exit_code, "No rule names the type 'staus'. Is it meant to be status?" in result.stderr) == (0, True)


def test_a_type_that_nothing_limits(program: Path) -> None:
    """There is no table without rows."""
    result = invoke("inspect", SECRET, "--app", "shop.limits:strict", "--type", "other")

    assert (result.exit_code, result.stdout) == (0, "There are no windows: no rule limits this.\n")


def test_a_field_that_a_rule_requires(program: Path) -> None:
    """The other windows are shown, and the status is 1; if the type was asked for, that is an error."""
    arguments = ("inspect", SECRET, "--app", "shop.limits:strict")
    said = "A rule requires tenant of notifications of type 'secured'. To see their windows, add --field tenant=VALUE."
    result = invoke(*arguments)
    as_json = invoke(*arguments, "--json")

    assert (result.exit_code, list(rows(result.stdout))) == (1, ["news"])
    assert said in result.stderr
    assert json.loads(as_json.stdout)["problems"] == [{"type": "secured", "message": said}]
    assert invoke(*arguments, "--type", "secured").stderr.splitlines()[-1] == f"Error: {said}"
    assert invoke(*arguments, "--field", "tenant=acme").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--app", "shop.limits:limitr"], "shop.limits has no attribute 'limitr'. Did you mean 'limiter'?"),
        (["--app", "shop.limits:settings.limitr"], "shop.limits.settings has no attribute 'limitr'. Did you mean 'limiter'?"),
        (["--app", "shop.limits:zzz"], "shop.limits has no attribute 'zzz'. It has limiter, async_limiter, notifier, async_notifier, "),
        (["--app", "shop.limits:settings.broken"], "shop.limits.settings.broken raised ValueError."),
        (["--app", "shop.limits"], "--app names a module and no object in it. Write shop.limits:NAME. It has limiter, "),
        (["--app", "shop.limits:"], "--app names a module and no object in it."),
        (["--app", "shop.limts:limiter"], "There is no module 'shop.limts' in the current directory, or where Python looks for modules. Did you mean 'limits'?"),
        (["--app", "shpo:limiter"], "There is no module 'shpo' in the current directory, or where Python looks for modules. Did you mean 'shop'?"),
        (["--app", "shop/limits.py:limiter"], "--app must name a module, and not its file, and an object in it, such as "),
        (["--app", ":limiter"], "--app must name a module, and an object in it, such as "),
        (["--app", "shop.lacking:limiter"], "The module shop.lacking cannot be imported: it needs the module 'no_such_module_at_all'."),
        (["--app", "shop.broken:limiter"], "broken.py, line 3: it raised ValueError. To see more, run: python -c 'import shop.broken'"),
        (["--app", "shop.exits:limiter"], "exits.py, line 1: it raised SystemExit. To see more, run: python -c 'import shop.exits'"),
        (["--app", "shop.syntax:limiter"], "The module shop.syntax cannot be imported"),
        (["--app", "shop.rules:limiter"], "rules.py, line 2: limit: 'often'"),
        (["--app", "shop.misspelt:limiter"], "misspelt.py, line 1: cannot import name 'Limitr'"),
        (["--app", "shop.limits:word"], "shop.limits:word is of type str. --app must name a Limiter, an AsyncLimiter, "),
        (["--app", "shop.limits:json"], "shop.limits:json is of type module. --app must name a Limiter"),
        (["--app", "shop.limits:Limiter"], "shop.limits:Limiter is the class Limiter. --app must name "),
        (["--app", "shop.limits:make_word"], "shop.limits:make_word returns an object of type str. --app must name "),
        (["--app", "shop.limits:make_nothing"], "limits.py, line "),
        (["--app", "shop.limits:make_wrong"], "shop.limits:make_wrong cannot make a limiter: "),
        (["--app", "shop.limits:make_later"], "shop.limits:make_later is a coroutine function without @rate_limited."),
        (["--app", "shop.limits:needs"], "shop.limits:needs is a function that needs arguments, and has no @rate_limited."),
        (["--app", "shop.limits:in_memory"], "in the memory of the process that it runs in. This command is another process, and cannot see them."),
        (["--app", "shop.limits:off"], "Limiting is off, by enabled=False or by the environment variable RATELIMITED_NOTIFY_DISABLED"),
        (["--app", "shop.limits:patterns"], "The rules name no type, only patterns, so there are any number of windows. Name a type with --type."),
        (["--app", "shop.limits:tiered"], "The limiter of the program raised KeyError. Its message is not shown"),
        (["--app", "shop.limits:down"], "Connection refused"),
        (["--app", "shop.limits:limiter", "--field", "tenant"], "--field must be a name and a value, such as tenant=acme."),
        (["--app", "shop.limits:limiter", "--field", f"{SECRET}=1"], "The name of a field cannot be declared"),
        (["--app", "shop.limits:limiter", "--type", ""], "The type of a notification is empty"),
        (["--app", "shop.limits:limiter", SECRET], "Name one recipient. If it contains spaces, write it in quotes."),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else None,
)  # fmt: skip
@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["inspect", "clear"])
def test_what_cannot_be_used_is_told(program: Path, name: str, arguments: list[str], said: str) -> None:
    """What is wrong and what to do, with status 2, and nothing that may be secret: no recipient, no message of the program."""
    result = invoke(name, SECRET, *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "geheim" not in result.output.replace("python -c", "")
    assert "Traceback" not in result.output


def test_a_recipient_that_cannot_be_used(program: Path) -> None:
    """An empty one."""
    for name in ("inspect", "clear"):
        result = invoke(name, "", "--app", "shop.limits:limiter", "--type", "news")
        assert (result.exit_code, "recipient" in result.stderr) == (2, True)


@pytest.mark.parametrize("recipient", ["-1001234567", "--geheim@example.com", "-geheim"])
def test_a_recipient_that_begins_with_a_hyphen(program: Path, limiter: Limiter, recipient: str) -> None:
    """It is taken for no option, and not quoted."""
    limiter.hit("news", recipient)
    arguments = ("inspect", "--app", "shop.limits:limiter", "--type", "news", "--json")
    wrong, right = invoke(*arguments, recipient), invoke(*arguments, "--", recipient)

    assert (wrong.exit_code, wrong.stderr) == (
        2,
        "Error: An argument begins with a hyphen, and is no option. If it is the recipient, write it as the last argument, after --.\n",
    )
    assert (right.exit_code, json.loads(right.stdout)["windows"][0]["used"]) == (0, 1)


def test_windows_on_memcached(memcached: Memcached, tmp_path: Path) -> None:
    """Other servers, too."""
    (tmp_path / "app.py").write_text(
        f"import ratelimited_notify\nlimiter = ratelimited_notify.AsyncLimiter({{'news': '2/day'}}, {memcached.url!r}, namespace='inspect')\n"
    )
    with Limiter({"news": "2/day"}, memcached.url, namespace="inspect") as limiter:
        limiter.hit("news", SECRET)
        shown = command("inspect", SECRET, "--app", "app:limiter", directory=tmp_path)
        cleared = command("clear", SECRET, "--app", "app:limiter", "--yes", directory=tmp_path)

        assert (shown.returncode, shown.stderr, rows(shown.stdout.decode())["news"][0][4:6]) == (0, b"", ["1", "1"])
        assert (cleared.returncode, cleared.stderr) == (0, b"")
        assert limiter.test("news", SECRET).remaining == 2


# --- clear --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["limiter", "async_limiter"])
def test_windows_are_emptied(program: Path, limiter: Limiter, name: str) -> None:
    """Those of the recipient, for another process too; not those of others, and not those that it shares."""
    for recipient in (SECRET, "ben@example.com"):
        limiter.hit("news", recipient)
    limiter.hit("sms", SECRET)
    limiter.pause("provider", 300)
    run = command("clear", SECRET, "--app", f"shop.limits:{name}", "--yes", directory=program)

    assert run.returncode == 0, run.stderr
    assert list(rows(run.stdout.decode())) == ["news", "*", "2"]
    assert run.stdout.decode().splitlines()[-1] == "2 windows were emptied."
    assert (
        "The windows of 'provider' are shared with others and stay. --shared empties them, too." in run.stderr.decode()
    )
    assert SECRET.encode() not in run.stdout + run.stderr
    assert limiter.hit("news", SECRET).allowed
    assert not limiter.hit("news", "ben@example.com").allowed
    assert not limiter.hit("sms", "ben@example.com").allowed


def test_shared_windows_are_emptied_on_request(program: Path, limiter: Limiter) -> None:
    """And pauses end."""
    limiter.pause("provider", 300)
    result = invoke("clear", SECRET, "--app", "shop.limits:limiter", "--type", "sms", "--shared", "--yes")

    assert result.exit_code == 0, result.output
    assert "1 window was emptied." in result.stdout
    assert "The windows of 'provider' are shared with others, who can be sent to again, too." in result.stderr
    assert limiter.hit("sms", "ben@example.com").allowed


def test_only_windows_of_these_types_and_fields_are_emptied(program: Path, limiter: Limiter) -> None:
    """What is not named stays."""
    limiter.hit("news", SECRET)
    for tenant in ("acme", "other"):
        limiter.hit("sms", SECRET, tenant=tenant)
    result = invoke("clear", SECRET, "--app", "shop.limits:limiter", "--type", "sms", "--field", "tenant=acme", "-y")

    assert result.exit_code == 0, result.output
    assert not limiter.test("news", SECRET).allowed
    assert [limiter.windows("sms", SECRET, tenant=tenant)[0].remaining for tenant in ("acme", "other")] == [5, 4]


def test_nothing_to_empty(program: Path, limiter: Limiter) -> None:
    """It does not ask."""
    result = invoke("clear", SECRET, "--app", "shop.limits:limiter")

    assert (result.exit_code, result.stdout) == (0, "There is nothing to empty.\n")


def test_without_a_terminal_it_does_not_empty(program: Path, limiter: Limiter) -> None:
    """It says what to do."""
    limiter.hit("news", SECRET)
    run = command("clear", SECRET, "--app", "shop.limits:limiter", input=b"y\n", directory=program)

    assert run.returncode == 2
    assert run.stderr.decode().splitlines()[-1] == (
        "Error: Nothing was emptied, because there is no terminal to ask on. To empty without being asked, add --yes."
    )
    assert not limiter.test("news", SECRET).allowed


def _answered(program: Path, answer: bytes | int) -> tuple[int, bytes, bytes]:
    """The status of `clear` and what it printed, after this answer on the keyboard, or this signal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "ratelimited_notify", "clear", SECRET, "--app", "shop.limits:limiter"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=program, env=environment(),
    ) as running:  # fmt: skip
        os.close(theirs)
        assert running.stderr is not None
        said = b""
        while b"[y/N] " not in said and select.select([running.stderr], [], [], WITHIN)[0]:
            part = os.read(running.stderr.fileno(), 65536)
            assert part, said
            said += part
        if isinstance(answer, int):
            running.send_signal(answer)
        else:
            os.write(ours, answer)
        output, rest = running.communicate(timeout=WITHIN)
    os.close(ours)
    return running.returncode, output, said + rest


@pytest.mark.parametrize(
    ("answer", "status", "last", "is_empty"),
    [
        (b"y\n", 0, b"2 windows were emptied.", True),
        (b"Yes\n", 0, b"2 windows were emptied.", True),
        (b"\n", 1, b"Nothing was emptied.", False),
        (b"no\n", 1, b"Nothing was emptied.", False),
        (b"\x04", 1, b"Nothing was emptied.", False),
        (int(signal.SIGINT), 130, b"", False),
        (int(signal.SIGTERM), 130, b"", False),
    ],
)
@pytest.mark.parametrize("uri", ["sqlite"], indirect=True)
def test_it_asks_on_a_terminal(
    program: Path, limiter: Limiter, answer: bytes | int, status: int, last: bytes, is_empty: bool
) -> None:
    """Only a yes empties."""
    limiter.hit("news", SECRET)
    code, output, said = _answered(program, answer)

    assert (code, output.splitlines()[-1]) == (status, last)
    assert b"Empty these 2 windows? [y/N] " in said
    assert limiter.test("news", SECRET).allowed is is_empty
    assert SECRET.encode() not in output + said


def test_a_field_that_a_rule_requires_leaves_only_its_windows(program: Path, namespace: str, uri: str) -> None:
    """The others are emptied, and the status is 1."""
    with Limiter({"news": "1/day"}, uri, namespace=namespace) as limiter:
        limiter.hit("news", SECRET)
        result = invoke("clear", SECRET, "--app", "shop.limits:strict", "--yes")

        assert (result.exit_code, "1 window was emptied." in result.stdout) == (1, True)
        assert "A rule requires tenant of notifications of type 'secured'." in result.stderr
        assert limiter.test("news", SECRET).allowed


def test_a_server_that_stops_before_the_answer(start_valkey: Callable[..., Valkey], tmp_path: Path) -> None:
    """It says so, and how much was done."""
    server = start_valkey()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "limits.py").write_text(
        f"import ratelimited_notify\nlimiter = ratelimited_notify.Limiter({{'news': '1/day', '*': '9/day'}}, {server.url!r})\n"
    )
    with Limiter({"news": "1/day", "*": "9/day"}, server.url) as limiter:
        limiter.hit("news", SECRET)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ratelimited_notify", "clear", SECRET, "--app", "shop.limits:limiter"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(),
    ) as running:  # fmt: skip
        os.close(theirs)
        assert running.stderr is not None
        said = b""
        while b"[y/N] " not in said:
            part = os.read(running.stderr.fileno(), 65536)
            assert part, said
            said += part
        server.stop()
        os.write(ours, b"y\n")
        _, rest = running.communicate(timeout=WITHIN)
    os.close(ours)

    assert running.returncode == 2
    assert b"0 windows were emptied before that; you can run the command again." in rest
    assert SECRET.encode() not in said + rest
