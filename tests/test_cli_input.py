"""What the command reads: the keys of a line, other formats that people have, and words that everybody understands."""

from __future__ import annotations

import builtins
import bz2
import gzip
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings, strategies as st

from command import Inbox, command, invoke, line, mail_server, numbers, started
from ratelimited_notify.cli.first_bytes import unreadable
from ratelimited_notify.cli.input import Input, InputError, WrongFormat
from ratelimited_notify.cli.line import KEYS, Malformed, read_line
from smtp_server import FailingServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = 'default = "2/day"\n'


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """A real mail server, and what it took."""
    with mail_server() as inbox:
        yield inbox


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Two of each type a day."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


# --- The parts of a message ---------------------------------------------------------------------------------------------


def test_a_line_may_hold_all_parts_of_a_message(inbox: Inbox, rules: Path) -> None:
    """HTML, headers, copies and where answers go arrive; the window counts the address of a recipient with a name."""
    given = line(
        recipient="Ana Lee <ana@example.com>", html="<p>hé</p>\n",
        headers={"List-Unsubscribe": "<https://example.com/u/1>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
        cc="Ben <ben@example.com>", bcc=["cleo@example.com", "dan@example.com"], reply_to="a@example.com, b@example.com",
    ) + line(recipient="ANA <ana@example.com>", html=None, headers=None, cc=None, bcc=[], reply_to="") + line()  # fmt: skip

    result = invoke("send", "--rules", rules, "--gateway", inbox.uri, input=given)

    assert result.exit_code == 0, result.output
    assert numbers(result.stdout, "news") == ["news", "2", "1", "-", "3"]
    message = inbox.messages[0]
    assert inbox.addressed[0] == ["ana@example.com", "ben@example.com", "cleo@example.com", "dan@example.com"]
    assert (message["To"], message["Cc"], message["Bcc"]) == (
        "Ana Lee <ana@example.com>",
        "Ben <ben@example.com>",
        None,
    )
    assert message["List-Unsubscribe"] == "<https://example.com/u/1>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert [address.addr_spec for address in message["Reply-To"].addresses] == ["a@example.com", "b@example.com"]
    assert message.get_body(("html",)).get_content().strip() == "<p>hé</p>"
    assert inbox.addressed[1] == ["ana@example.com"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"headers": {"Bcc": "eve@example.com"}},
            "the header Bcc cannot be among the headers; pass the addresses as bcc",
        ),
        ({"headers": {"X A": "x"}}, "a header name must consist of"),
        ({"headers": {"X-A": "a\nBcc: eve@example.com"}}, "the header X-A must not contain line breaks"),
        ({"cc": "eve"}, "an address in cc must be a single e-mail address"),
        ({"reply_to": ["a@example.com, b@example.com"]}, "an address in reply_to must be a single e-mail address"),
    ],
)
def test_a_part_that_cannot_be_sent_is_told(
    rules: Path, wrong: dict[str, Any], said: str
) -> None:  # Any: parts of JSON
    """It is found in a dry run, too, and no address is shown."""
    result = invoke("send", "--rules", rules, "--dry-run", input=line(**wrong) + line())

    assert result.exit_code == 1
    assert f"line 1: failed: {said}" in result.stderr
    assert "eve" not in result.output


# --- Other formats ------------------------------------------------------------------------------------------------------


def zipped(data: bytes) -> bytes:
    """The bytes in a ZIP archive."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("notifications.jsonl", data)
    return made.getvalue()


def tarred(data: bytes, format: int = tarfile.USTAR_FORMAT, mode: Literal["w", "w:gz"] = "w") -> bytes:
    """The bytes in a tar archive, in a directory of their own."""
    made = BytesIO()
    with tarfile.open(fileobj=made, mode=mode, format=format) as archive:
        folder, file = tarfile.TarInfo("mails"), tarfile.TarInfo("mails/notifications.jsonl")
        folder.type, file.size = tarfile.DIRTYPE, len(data)
        archive.addfile(folder)
        archive.addfile(file, BytesIO(data))
    return made.getvalue()


def records() -> list[dict[str, Any]]:  # Any: parts of JSON
    """Three notifications."""
    return [json.loads(line(recipient=f"geheim{number}@example.com")) for number in range(3)]


LINES = b"".join(json.dumps(record).encode() + b"\n" for record in records())
CSV = "type,recipient,subject,body\r\n" + "news,geheim@example.com,Hello,Text\r\n" * 3

WRONG = {
    "UTF-16": (LINES.decode().encode("utf-16"), r"UTF-16.*iconv"),
    "UTF-16LE": (LINES.decode().encode("utf-16-le"), r"UTF-16.*iconv"),
    "UTF-16BE": (LINES.decode().encode("utf-16-be"), r"UTF-16.*iconv"),
    "UTF-16BE with a mark": (b"\xfe\xff" + LINES.decode().encode("utf-16-be"), r"UTF-16.*iconv"),
    "UTF-32": (LINES.decode().encode("utf-32"), r"UTF-32.*iconv"),
    "UTF-32LE": (LINES.decode().encode("utf-32-le"), r"UTF-32.*iconv"),
    "UTF-32BE": (LINES.decode().encode("utf-32-be"), r"UTF-32.*iconv"),
    "ZIP": (zipped(LINES), r"ZIP archive or a spreadsheet"),
    "tar": (tarred(LINES), r"tar archive.*tar -xOf"),
    "tar by GNU": (tarred(LINES, tarfile.GNU_FORMAT), r"tar archive"),
    "tar by POSIX": (tarred(LINES, tarfile.PAX_FORMAT), r"tar archive"),
    "tar in gzip": (tarred(LINES, mode="w:gz"), r"tar archive.*tar -xOf"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + LINES, r"7z archive"),
    "RAR": (b"Rar!\x1a\x07\1\0" + LINES, r"RAR archive"),
    "bzip2": (bz2.compress(LINES), r"bzip2 -dc"),
    "xz": (lzma.compress(LINES), r"xz -dc"),
    "gzip in gzip": (gzip.compress(gzip.compress(LINES)), r"compressed twice"),
    "CSV": (CSV.encode(), r"looks like CSV"),
    "CSV in gzip": (gzip.compress(CSV.encode()), r"looks like CSV"),
    "CSV with semicolons": (b"\xef\xbb\xbf" + CSV.replace(",", ";").encode(), r"looks like CSV"),
    "CSV with tabs and quotes": (re.sub(r"\w+@?[\w.]*", r'"\g<0>"', CSV).replace(",", "\t").encode(), r"looks like CSV"),
    "array": (json.dumps(records()).encode(), r"one JSON array.*jq -c '.\[\]'"),
    "pretty array": (b"\n\n" + json.dumps(records(), indent=2).encode(), r"one JSON array.*jq -c '.\[\]'"),
    "pretty objects": ("\n".join(json.dumps(each, indent=2) for each in records()).encode(), r"line breaks within.*jq -c \."),
    "objects in lines": (b"".join(json.dumps(each).replace(", ", ",\n").encode() for each in records()), r"line breaks within"),
    "HTML": (b"<!DOCTYPE html>\n<p>geheim</p>\n" * 3, r"XML or HTML"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_another_format_is_told_in_one_message(rules: Path, tmp_path: Path, name: str) -> None:
    """Nothing is sent, one line says what to do, and the status is that of a file that cannot be used."""
    data, said = WRONG[name]
    file, report = tmp_path / "input", tmp_path / "report"
    file.write_bytes(data)
    report.write_text("the one before")

    for arguments, piped in ([file], b""), ([], data):
        result = invoke("send", "--rules", rules, "--dry-run", "--report", report, *arguments, input=piped)

        assert (result.exit_code, result.stdout) == (2, "")
        assert re.match(f"Error: Nothing was sent. The input .*{said}", result.stderr)
        assert len(result.stderr.splitlines()) == 1
        assert "geheim" not in result.stderr
    assert report.read_text() == "the one before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "report", "rules.toml"]


@pytest.mark.parametrize("tool", ["iconv", "jq", "tar"])
def test_what_the_messages_say_helps(rules: Path, tmp_path: Path, tool: str) -> None:
    """The commands that the messages name turn the file into one that is sent."""
    if shutil.which(tool) is None:
        pytest.skip(f"There is no {tool} on this machine.")
    for name, (data, _) in WRONG.items():
        (tmp_path / "FILE").write_bytes(data)
        advice = invoke("send", "--rules", rules, "--dry-run", tmp_path / "FILE").stderr.partition("with: ")[2].strip()
        advice = advice.partition(" | ratelimited-notify")[0]
        if advice.startswith(tool):
            made = subprocess.run(advice, shell=True, capture_output=True, check=True, cwd=tmp_path).stdout
            result = invoke("send", "--rules", rules, "--dry-run", input=made)
            assert (result.exit_code, numbers(result.stdout, "news")) == (0, ["news", "3", "-", "-", "3"]), name


@pytest.mark.parametrize("first", [b"no\n", b"hello, world\n", b"{}\n", b'{"type": "a", "recipient"\n', b'{"type": "a"},\n', b"\x00\n"])  # fmt: skip
def test_one_wrong_line_at_the_beginning_is_not_another_format(rules: Path, first: bytes) -> None:
    """A malformed first line is told, and the rest is sent."""
    result = invoke("send", "--rules", rules, "--dry-run", input=first + line())

    assert result.exit_code == 1
    assert result.stderr.startswith("line 1: malformed: ")
    assert numbers(result.stdout, "news") == ["news", "1", "-", "-", "1"]


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=20), min_size=1) | st.just({}), st.booleans())
def test_no_json_object_in_one_line_is_taken_for_another_format(record: dict[str, str], spaced: bool) -> None:
    """However it is written, and whatever is in it."""
    text = json.dumps(record, ensure_ascii=False, separators=None if spaced else (",", ":"))

    assert unreadable(text.encode("utf-8", "surrogatepass") + b"\n") is None


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("by", ["file", "pipe"])
def test_gzip_is_unpacked(rules: Path, tmp_path: Path, by: str, members: int) -> None:
    """A compressed file, or several of them joined, is read as what is in it; lines are counted in there."""
    data = b"".join(gzip.compress(line(f"t{number}") + b"no\n") for number in range(members))
    file = tmp_path / "notifications.jsonl.gz"
    file.write_bytes(data)

    result = invoke("send", "--rules", rules, "--dry-run", *([file] if by == "file" else []), input=data)

    assert result.exit_code == 1
    assert [said.partition(":")[0] for said in result.stderr.splitlines()] == [
        f"line {2 * number + 2}" for number in range(members)
    ]
    assert numbers(result.stdout, f"t{members - 1}")[1] == "1"


@pytest.mark.parametrize("damage", ["cut", "changed", "followed"])
def test_a_damaged_gzip_file_loses_nothing_read_before(rules: Path, damage: str) -> None:
    """What can be unpacked is sent; then one message says that the file ends too early or is damaged."""
    data = bytearray(gzip.compress(b"".join(line("status", f"{number}@example.com") for number in range(2_000))))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "changed":
        data[len(data) // 2 :] = bytes(len(data) // 2)
    else:
        data += b"garbage"

    result = invoke("send", "--rules", rules, "--dry-run", "--json", input=bytes(data))

    assert result.exit_code == 1
    read = [json.loads(each) for each in result.stdout.splitlines()]
    assert [each["line"] for each in read] == list(range(1, len(read) + 1))
    assert len([each for each in read if each["status"] == "would be sent"]) > 100
    last = result.stderr.splitlines()[-1]
    assert re.match(r"The input cannot be read any further: the gzip file (ends too early|is damaged)\.$", last)


def test_progress_of_a_gzip_file_is_measured_in_what_was_read(tmp_path: Path) -> None:
    """The position is one in the file, so that it reaches its size."""
    file = tmp_path / "notifications.jsonl.gz"
    file.write_bytes(gzip.compress(line() * 1000))
    with file.open("rb") as stream:
        source = Input(stream, lambda *_: None)

        assert sum(1 for _ in source) == 1000
        assert source.position == source.size == file.stat().st_size


# --- What editors and DOS programs leave behind -------------------------------------------------------------------------

MARKS = ["\ufeff", "\x1a", "\r", " ", "\t", "\v", "\f", ""]


@given(
    st.lists(st.tuples(st.sampled_from(MARKS), st.sampled_from(MARKS), st.sampled_from(MARKS)), min_size=1, max_size=6)
)
def test_marks_before_and_after_a_line_are_no_harm(around: list[tuple[str, str, str]]) -> None:
    """Byte order marks and Ctrl-Z, in files that were joined, anywhere between notifications."""
    text = line().decode().rstrip("\n")
    data = "\n".join(f"{one}{other}{text}{one}{third}\n{third}{other}" for one, other, third in around).encode()
    told: list[tuple[int, str]] = []

    read = list(Input(BytesIO(data), lambda number, problem: told.append((number, problem))))

    assert (len(read), told) == (len(around), [])


def test_marks_within_a_text_stay() -> None:
    """Inside a string they belong to the text."""
    notification = read_line(line(subject="a\ufeffb", recipient="\ufeffana@example.com"), 1)

    assert notification is not None
    assert notification.args[0] == "a\ufeffb"
    assert notification.recipient == "\ufeffana@example.com"


# --- Words --------------------------------------------------------------------------------------------------------------

PYTHON = re.compile(
    r"\b(None|True|False|dict|str|int|float|bool|tuple|NoneType|RuleSet|msgspec|self|kwargs|"
    + "|".join(name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException))
    + r"|\w+(Error|Exception|Warning)|Traceback|traceback|Errno \d+)\b|`|\$\.|\w=[,. ]"
)  # fmt: skip
"""Words of Python, of its libraries, and of their messages."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.sampled_from(["ana@example.com", "a\n"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["tenant", "X-A", "cost", "a b"]) | st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from([*KEYS, "sender", "ana@example.com"]), JSON, max_size=5).map(
    lambda wrong: {**json.loads(line()), **wrong}
)
SOMETHING = (
    OBJECTS.map(json.dumps).map(str.encode)
    | OBJECTS.map(lambda each: json.dumps(each)[:-3].encode())
    | st.binary(max_size=40)
    | st.sampled_from(
        [
            b"NaN",
            b"{}",
            b'{"type": NaN}',
            b"[" * 5000,
            b'{"type":' * 5000,
            b'{"cost": 1e999}',
            b'{"cost": ' + b"9" * 5000 + b"}",
        ]
    )
)


@settings(max_examples=200)
@given(st.lists(SOMETHING, min_size=1, max_size=3))
def test_no_message_about_a_line_speaks_python(given: list[bytes]) -> None:
    """Whatever the input is: people who know no Python understand what is said about it."""
    told: list[str] = []
    try:
        for _ in Input(BytesIO(b"\n".join(given)), lambda _, problem: told.append(problem)):
            pass
    except (WrongFormat, InputError) as error:
        told.append(str(error))

    assert [said for said in told if PYTHON.search(said)] == []
    assert "ana@example.com" not in " ".join(told).replace(unreadable(b"type,recipient") or "", "")


@settings(max_examples=60, deadline=None)
@given(given=st.lists(OBJECTS, min_size=1, max_size=3))
def test_no_message_of_the_command_speaks_python(given: list[dict[str, Any]]) -> None:  # Any: JSON
    """Neither does what is said when a notification that could be read cannot be decided about or sent."""
    data = b"".join(json.dumps(each).encode() + b"\n" for each in given)
    with FailingServer({"RCPT": "550 5.1.1 no"}) as server:
        for arguments in (["--dry-run"], ["--gateway", f"smtp://127.0.0.1:{server.port}"]):
            result = invoke("send", "--rules", RULES_FILE, *arguments, "--verbose", input=data)
            said = re.sub(r"'[^']*'", "''", result.output)  # Names of types and rules are the user's own.

            assert PYTHON.search(said) is None
            assert "ana@example.com" not in result.output


RULES_FILE = ""


@pytest.fixture(autouse=True, scope="module")
def rules_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file with rules for the property above, which takes no fixture of a test."""
    global RULES_FILE  # noqa: PLW0603  # as said
    path = tmp_path_factory.mktemp("rules") / "rules.toml"
    path.write_text(RULES)
    RULES_FILE = str(path)


WRONG_OPTIONS: list[list[str]] = [
    ["--timeout", "x"], ["--timeout", "nan"], ["--timeout", "-1"], ["--timeout", "0"], ["--max-wait", "x"], ["--max-wait", "inf"],
    ["--max-wait", "nan"], ["--max-wait", "1e999"], ["--gateway", "x"], ["--gateway", "smtp://"], ["--gateway", "smtp://a:b"],
    ["--sender", "x"], ["--dry-run", "a\0b"], ["--dry-run", "."], ["--dry-run", "no-such-file"],
    ["--report", "."], ["--report", "no/such/file"], ["--report", "a\0b"], ["--report", ""], ["--report", "x" * 5000], ["--nonsense"],
    ["--quiet", "--verbose"], ["--storage", "x"], ["--storage", "memcached://127.0.0.1:1"], ["--rules", "no-such-file"],
    ["--gateway", "smtp://127.0.0.1:1"], ["--gateway", "smtp://no-such-host.invalid"], ["--gateway", "smtps://[::1]:1"],
    ["--gateway", "smtp://255.255.255.255"],
]  # fmt: skip


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=" ".join)
def test_no_message_about_an_option_speaks_python(rules: Path, options: list[str]) -> None:
    """What is said about options, files and servers that cannot be used is in plain words too."""
    missing = ["--dry-run"] if "--gateway" not in options else []
    missing = ["--gateway", "smtp://127.0.0.1:1"] if "--storage" in options else missing
    result = invoke("send", "--rules", rules, *missing, *options, input=line())

    assert result.exit_code in (1, 2), result.output
    assert result.stderr
    assert PYTHON.search(result.output.replace("x" * 5000, "")) is None


VALUES = [
    "5",
    "true",
    "[]",
    "{}",
    "[5]",
    '"x y"',
    "1979-01-01",
    "12:00:00",
    "1979-01-01T12:00:00",
    "inf",
    '""',
    "[[1]]",
]
TABLES = [
    "\n".join(f"{key} = {value}" for key, value in {"type": '"a"', "limit": '"1/day"', name: value}.items())
    for name in ("type", "limit", "by", "strategy", "name", "on_limit", "exempt", "enforce", "count_exempt", "overrides", "tiers")
    for value in VALUES
]  # fmt: skip
RULE_FILES = [f"[[rules]]\n{table}" for table in TABLES] + [
    "fields = 5", "default = 5", "unknown_type = 5", "rules = 5", "rules = [5]", "[rules]\na = 1", "x = 1", "= ", "a = [", "fields = [5]",
    'default = "often"', 'x = "\\q"', "x = 1979-99-99", "a.a.a = 1\na = 1", "\0", "[[rules]]",
]  # fmt: skip


def test_no_message_about_rules_speaks_python(tmp_path: Path) -> None:
    """Rules are written in TOML, and what is wrong with them is said in its words, by both commands."""
    path = tmp_path / "rules.toml"
    for text in RULE_FILES:
        path.write_text(text)
        checked, sent = invoke("rules", "check", path), invoke("send", "--rules", path, "--dry-run")

        assert (checked.exit_code, sent.exit_code) in ((0, 0), (1, 2)), text
        assert PYTHON.search(re.sub(r"'[^']*'", "''", checked.output + sent.output)) is None, text


@pytest.mark.parametrize("uri", ["etcd://x", "redis://127.0.0.1:x", "redis://127.0.0.1:1", "redis+unix:///no/x"])
def test_no_message_about_a_storage_speaks_python(rules: Path, uri: str) -> None:
    """A storage that cannot be opened or reached is told in plain words."""
    result = invoke("send", "--rules", rules, "--gateway", "smtp://127.0.0.1:1", "--storage", uri, input=line())

    assert result.exit_code == 2
    assert PYTHON.search(result.output) is None


def test_a_required_field_that_a_line_has_not_is_told_in_its_words(tmp_path: Path) -> None:
    """What to write in a program does not help somebody who writes lines."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\nby = "tenant"\nrequired = "tenant"\n')

    result = invoke("send", "--rules", path, "--dry-run", input=line())

    assert result.exit_code == 1
    assert result.stderr == (
        "line 1: failed: A notification of type 'news' has no tenant, but the rule 'news by tenant' requires it. "
        "Set this field on every notification of this type.\n"
    )


def test_the_words_are_found() -> None:
    """The test above is not one of nothing."""
    for said in (
        "got `int`",
        "a NoneType",
        "OSError",
        "KeyError: 'x'",
        "pass it as cost=.",
        "[Errno 2] x",
        "it is None",
    ):
        assert PYTHON.search(said)


@pytest.mark.parametrize("wrong", [b'{"type": 1}', b"{}"])
def test_a_malformed_line_is_an_error_of_its_own(wrong: bytes) -> None:
    """The reader of a line says why it is none; an empty line is nothing."""
    with pytest.raises(Malformed):
        read_line(wrong, 1)
    assert read_line(b" \r\n", 1) is None


def test_a_gzip_pipe_is_read_as_it_comes(rules: Path, inbox: Inbox) -> None:
    """What was written into a compressed pipe so far is sent when it can be unpacked."""
    with started("send", "--rules", rules, "--gateway", inbox.uri) as running:
        assert running.stdin is not None
        with gzip.GzipFile(fileobj=running.stdin, mode="wb") as packed:
            packed.write(line())
            packed.flush()
            running.stdin.flush()
            assert inbox.taken.acquire(timeout=30)
        running.communicate(timeout=30)

    assert running.returncode == 0


def test_output_that_cannot_be_written_is_told_in_words(rules: Path) -> None:
    """A full disk under the table is an error in one line, without a traceback."""
    run = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh", sys.executable, "-m", "ratelimited_notify", "rules", "check", str(rules)],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip

    assert run.returncode == 1
    assert run.stderr == b"Error: The command cannot go on: No space left on device.\n"


def test_help_names_the_keys() -> None:
    """`send --help` says what a line may hold."""
    shown = " ".join(command("send", "--help").stdout.decode().split())

    assert all(name in shown for name in KEYS)
