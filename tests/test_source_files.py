"""Rules in files that change: however they are changed, watched or not, and what is in force while they cannot be read."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from offering import WITHIN, amount, until
from ratelimited_notify import Limiter, NotifyError, RuleError
from ratelimited_notify.sources import FileRules, file as files

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

NOW = threading.Event()
"""Stops nothing."""


def toml(amount: int, more: int = 0) -> str:
    rules = [f'[[rules]]\ntype = "news"\nlimit = "{amount}/day"\n']
    rules += [f'[[rules]]\ntype = "more.{number}"\nlimit = "{amount}/day"\n' for number in range(more)]
    return "\n".join(rules)


def by_writing(path: Path, text: str) -> None:
    path.write_text(text)


def by_renaming(path: Path, text: str) -> None:
    other = path.with_name("new")
    other.write_text(text)
    other.replace(path)


def by_truncating_first(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.flush()
        time.sleep(0.05)
        file.write(text)


def by_removing_first(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.05)
    path.write_text(text)


def by_another_link(path: Path, text: str) -> None:
    """As Kubernetes does it: the file is a link through a link to a directory, which is replaced."""
    data, number = path.parent / "..data", len(list(path.parent.iterdir()))
    directory = path.parent / f"..{number}"
    directory.mkdir()
    (directory / path.name).write_text(text)
    link = path.parent / "..tmp"
    link.symlink_to(directory)
    link.replace(data)
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(data / path.name)


def by_a_crooked_editor(path: Path, text: str) -> None:
    """First a copy beside it, then the file away, then in pieces."""
    path.replace(path.with_name("rules.toml~"))
    with path.open("w") as file:
        for piece in (text[:20], text[20:]):
            file.write(piece)
            file.flush()
            time.sleep(0.02)


def by_the_same_size_and_time(path: Path, text: str) -> None:
    times = path.stat()
    with path.open("r+") as file:
        file.write(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        by_writing, by_renaming, by_truncating_first, by_removing_first, by_another_link, by_a_crooked_editor,
        by_the_same_size_and_time,
    ],
)  # fmt: skip
@pytest.mark.parametrize("watch", [False, True], ids=["looked at", "watched"])
def test_a_changed_file_is_obeyed(
    watch: bool, change: Callable[[Path, str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However it is changed, several times within the steps of its time, and without a word in the log."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1))
    limiter = Limiter(FileRules(path, interval=0.2, watch=watch))
    limiter.hit("news", "ana")
    for number in (2, 3, 4):
        change(path, toml(number))
        until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it

    assert caplog.records == []
    limiter.close()


def test_what_was_restored_long_ago_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same size, the same time, the same file: the system knows that it changed."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1))
    os.utime(path, (1_000_000, 1_000_000))
    monkeypatch.setattr(files, "_FRESH", 0)
    limiter = Limiter(FileRules(path))
    assert not limiter.source.refresh()
    time.sleep(0.05)
    with path.open("r+") as file:
        file.write(toml(2))
    os.utime(path, (1_000_000, 1_000_000))

    assert limiter.source.refresh()
    assert amount(limiter) == 2


def test_a_file_that_seems_unchanged_is_read_again_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For file systems that keep no times that can be relied on."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1))
    limiter = Limiter(FileRules(path))
    seen = files._look(path)
    monkeypatch.setattr(files, "_FRESH", 0)
    monkeypatch.setattr(files, "_look", lambda path: seen)
    assert not limiter.source.refresh()
    path.write_text(toml(2))
    assert not limiter.source.refresh()
    monkeypatch.setattr(files, "_TRUSTED", 0)

    assert limiter.source.refresh()


def test_a_file_is_not_obeyed_while_it_is_written(tmp_path: Path) -> None:
    """A part of a file may be valid. Each version that came into force is a whole one, with all of its rules."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1, 20))
    limiter = Limiter(FileRules(path, interval=0.01))
    sizes: list[int] = []
    limiter.source.on_change(lambda _before, after, _changes: sizes.append(len(after)))
    limiter.hit("news", "ana")
    for number in (2, 3, 4):
        with path.open("w") as file:
            for table in toml(number, 20).split("\n\n"):
                file.write(table + "\n")
                file.flush()
                time.sleep(0.004)
        until(lambda number=number: amount(limiter) == number and len(sizes) == number - 1)  # type: ignore[misc]  # mypy cannot infer it
    limiter.close()

    assert sizes == [21, 21, 21]


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def something_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(files.MOST_BYTES + 1)


def some_bytes(path: Path) -> None:
    path.write_bytes(b"\xff\x00 [[")


@pytest.mark.parametrize("make", [Path.mkdir, a_pipe, a_loop, something_huge, some_bytes, None, "no directory"])
@pytest.mark.parametrize("watch", [False, True], ids=["looked at", "watched"])
def test_what_is_no_file_of_rules_changes_nothing(
    watch: bool, make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Something else in its place, for longer than a moment: sends go on, it is logged once, and the file can come back."""
    path = tmp_path / "etc" / "rules.toml"
    path.parent.mkdir()
    path.write_text(toml(1))
    limiter = Limiter(FileRules(path, interval=0.05, watch=watch))
    limiter.hit("news", "ana")
    path.unlink()
    if make == "no directory":
        path.parent.rmdir()
    elif make is not None:
        make(path)
    until(lambda: limiter.source.status.failures > 2)
    assert limiter.hit("news", "bob")
    assert amount(limiter) == 1
    assert len(caplog.records) == 1
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text(toml(3))

    until(lambda: amount(limiter) == 3)
    until(lambda: len(caplog.records) == 2)
    limiter.close()


FORBIDDEN = """
import os, sys, tempfile
from pathlib import Path
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FileRules

folder = Path(tempfile.mkdtemp())
folder.chmod(0o755)
path = folder / "rules.toml"
path.write_text(sys.argv[1])
limiter = Limiter(FileRules(path))
path.write_text(sys.argv[1].replace("1/", "2/"))
path.chmod(0)
os.seteuid(65534)
for _ in range(2):
    try:
        limiter.source.refresh()
    except Exception as error:
        print(error)
print(bool(limiter.hit("news", "ana")), bool(limiter.hit("news", "ana")))
os.seteuid(0)
path.chmod(0o644)
os.seteuid(65534)
print(limiter.source.refresh(), bool(limiter.hit("news", "ana")))
os.seteuid(0)
path.unlink()
folder.rmdir()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become somebody who may not read a file.")
def test_a_file_that_may_not_be_read() -> None:
    """What is in force stays."""
    done = subprocess.run([sys.executable, "-c", FORBIDDEN, toml(1)], capture_output=True, text=True, check=False)

    assert done.stdout.count("The file cannot be read: Permission denied.") == 2, done.stderr
    assert done.stdout.splitlines()[-2:] == ["True False", "True True"]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with open(sys.argv[1], "w") as file:
        file.write(sys.argv[3])
except OSError:
    print("full")
"""


def test_a_disk_that_is_full_for_whoever_writes(tmp_path: Path) -> None:
    """The file is cut off in the middle of a rule, or empty: what is in force stays."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1, 3))
    limiter = Limiter(FileRules(path))
    before = limiter.rules
    for room in (70, 0):
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(path), str(room), toml(2, 3)], capture_output=True, text=True, check=True
        )
        assert (done.stdout, path.stat().st_size) == ("full\n", room)
        with pytest.raises(RuleError):
            limiter.source.refresh()
        limiter.source.attempt(NOW)
        assert limiter.rules is before
    path.write_text(toml(2, 3))

    assert limiter.source.refresh()


MOUNTED = """
set -e
cd "$1"
touch mounted.toml
mount --bind source.toml mounted.toml
"$2" -c '
import sys, time
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FileRules
limiter = Limiter(FileRules("mounted.toml"))
print(limiter.rules.rules[0].limits[0].amount)
with open("source.toml", "w") as file:
    file.write(sys.argv[1])
print(limiter.source.refresh(), limiter.rules.rules[0].limits[0].amount)
' "$3"
"""


def test_a_single_file_that_is_mounted(tmp_path: Path) -> None:
    """As with `subPath` in Kubernetes: what is written into the file is seen through the mount."""
    mounts = [shutil.which("unshare") or "unshare", "--mount", "--map-root-user"]
    try:
        able = subprocess.run([*mounts, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip("Nothing can be mounted here.")
    (tmp_path / "source.toml").write_text(toml(1))
    done = subprocess.run(
        [*mounts, "sh", "-c", MOUNTED, "sh", str(tmp_path), sys.executable, toml(2)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout == "1\nTrue 2\n", done.stderr


# --- Watched ---------------------------------------------------------------------------------------------------------


def watching() -> int:
    """How many native threads watch something."""
    names = [task / "comm" for task in Path("/proc/self/task").iterdir()] if sys.platform == "linux" else []
    found = 0
    for name in names:
        # It may just have ended.
        with suppress(OSError):
            found += name.read_text().startswith("notify-rs")
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "rules.toml"
    path.parent.mkdir()
    path.write_text(toml(1))
    return path


@pytest.mark.parametrize("given", ["class", "text"])
def test_a_watched_file_is_obeyed_long_before_the_interval(given: str, written: Path) -> None:
    """Also when its directory is replaced: then after the interval at the latest, and at once from then on."""
    source: Any = (
        FileRules(written, interval=3600, watch=True)
        if given == "class"
        else f"file:{written}?interval=3600&watch=true"
    )
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    time.sleep(0.3)
    for number in (2, 3):
        by_renaming(written, toml(number))
        until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it
    before = written.parent.with_name("before")
    written.parent.rename(before)
    # For a while there is no directory.
    time.sleep(0.6)
    written.parent.mkdir()
    by_renaming(written, toml(4))
    limiter.source.refresh()
    assert amount(limiter) == 4
    time.sleep(1.5)
    by_renaming(written, toml(5))

    until(lambda: amount(limiter) == 5)
    limiter.close()


def test_a_change_before_the_watch_begins_is_seen_when_it_begins(written: Path) -> None:
    """The operating system does not tell it. It would be obeyed after the interval only."""
    limiter = Limiter(FileRules(written, interval=3600, watch=True))
    by_renaming(written, toml(2))
    limiter.hit("news", "ana")

    until(lambda: amount(limiter) == 2)
    limiter.close()


def test_a_log_beside_a_watched_file_is_not_told(written: Path) -> None:
    """Each change could be another line in it, without end. A file that comes or goes may matter."""
    log = written.with_name("app.log")
    log.write_text("")
    source = FileRules(written, watch=True)
    source.wait(0.5)
    with log.open("a") as lines:
        lines.write("1 change detected")
    assert not source.wait(0.7)
    log.unlink()
    assert source.wait(WITHIN)
    written.write_text(toml(3))
    assert source.wait(WITHIN)
    source.close()


def test_what_watches_ends_with_the_limiter(written: Path) -> None:
    """Closed, forgotten or used again: the native thread and the files of the operating system go."""
    Limiter(FileRules(written, watch=True)).close()
    gc.collect()
    until(lambda: watching() == 0)
    opened = descriptors()
    limiters = [Limiter(FileRules(written, interval=0.05, watch=True)) for _ in range(6)]
    for limiter in limiters:
        limiter.hit("news", "ana")
    until(lambda: watching() == (len(limiters) if sys.platform == "linux" else 0))
    for limiter in limiters[:4]:
        limiter.close()
    limiters[0].hit("news", "ana")
    limiters[0].close()
    del limiter
    limiters.clear()
    gc.collect()

    until(lambda: watching() == 0)
    until(lambda: descriptors() <= opened)


CHILD = """
import os, sys, time
from pathlib import Path
from ratelimited_notify import Limiter
from ratelimited_notify.sources import FileRules

path = Path(sys.argv[1])
limiter = Limiter(FileRules(path, interval=3600, watch=True))

def obeyed(number, within=10):
    until = time.monotonic() + within
    while limiter.rules.rules[0].limits[0].amount != number:
        if time.monotonic() > until:
            print(os.getpid(), "has not obeyed", number, flush=True)
            os._exit(1)
        time.sleep(0.01)

def change(number):
    other = path.with_name("new")
    other.write_text(path.read_text().replace(f"{number - 1}/", f"{number}/"))
    other.replace(path)

limiter.hit("news", "ana")
time.sleep(0.3)
change(2)
obeyed(2)
child = os.fork()
limiter.hit("news", "ana")
time.sleep(0.5)
if not child:
    obeyed(3)
    limiter.close()
    sys.exit()
time.sleep(0.3)
change(3)
obeyed(3)
_, status = os.waitpid(child, 0)
change(4)
obeyed(4)
print("all", status)
"""


def test_a_forked_child_watches_on_its_own(written: Path) -> None:
    """And the parent goes on when the child has ended; both exit without a word."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", CHILD, str(written)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("all 0\n", "", 0)


def test_watching_needs_an_extra(written: Path) -> None:
    """It is said when the source is made, and which one."""
    program = (
        "import sys; sys.modules['watchfiles'] = None\n"
        "from ratelimited_notify import Limiter, MissingExtra\n"
        "from ratelimited_notify.sources import FileRules\n"
        f"FileRules({str(written)!r})\n"
        f"for rules in (lambda: FileRules({str(written)!r}, watch=True), lambda: Limiter('file:{written}?watch=true')):\n"
        "    try: rules()\n"
        "    except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.count("pip install 'ratelimited-notify[watch]'") == 2
    with pytest.raises(NotifyError, match="watch= must be True or False"):
        FileRules(written, watch=1)  # type: ignore[arg-type]  # what is wrong
    with pytest.raises(RuleError, match="watch= in a source must be true or false"):
        Limiter(f"file:{written}?watch=1")
    with pytest.raises(RuleError, match="options interval, wait, allow_empty, watch and fallback"):
        Limiter(f"file:{written}?watches=1")


def test_yaml_needs_an_extra(tmp_path: Path) -> None:
    """A file in YAML says so at construction; other formats do not need it."""
    for name in ("rules.yaml", "rules.toml"):
        (tmp_path / name).write_text("")
    program = (
        "import sys; sys.modules['yaml'] = None\n"
        "from ratelimited_notify import Limiter, MissingExtra\n"
        "from ratelimited_notify.sources import FileRules\n"
        f"Limiter(FileRules({str(tmp_path / 'rules.toml')!r}))\n"
        f"path = {str(tmp_path / 'rules.yaml')!r}\n"
        "for rules in (path, FileRules(path), 'file:' + path):\n"
        "    try: Limiter(rules)\n"
        "    except MissingExtra as error: print(error)\n"
        "print(bool(Limiter(FileRules(path, fallback={'news': '1/day'})).hit('news', 'ana')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.count("pip install 'ratelimited-notify[yaml]'") == 3
    assert done.stdout.endswith("True\n")
