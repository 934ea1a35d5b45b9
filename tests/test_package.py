"""The wheel as a user gets it: what is in it, and what it does in an environment with nothing but its base dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servers import unavailable

if TYPE_CHECKING:
    from email.message import Message

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "ratelimited_notify"

_WITHIN = 300.0
"""Seconds that a step of pip or a program may take before it counts as hung."""


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        timeout=_WITHIN,
        env={
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "RATELIMITED_NOTIFY", "COV"))
        },
    )


def _pip(*arguments: str | Path) -> None:
    run = _run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)
    if run.returncode:
        pytest.fail(f"pip {arguments[0]} failed:\n{run.stdout}{run.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def _index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pip can install: what fails from here on is a fault of the package."""
    arguments = (
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        tmp_path_factory.mktemp("index"),
        "hatchling",
    )
    if _run(sys.executable, *arguments).returncode:
        unavailable("pip reaches no package index")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The wheel that `TESTED_WHEEL` names, else one built from this tree."""
    if built := os.environ.get("TESTED_WHEEL"):
        return Path(built)
    request.getfixturevalue("_index")
    directory = tmp_path_factory.mktemp("dist")
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT)
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory, _index: None) -> Path:
    """The directory of the commands of an environment that holds the wheel and its base dependencies."""
    directory = tmp_path_factory.mktemp("bare")
    made = _run(sys.executable, "-m", "venv", "--without-pip", directory)
    if made.returncode:
        pytest.fail(f"No virtual environment could be made:\n{made.stdout}{made.stderr}", pytrace=False)
    _pip("--python", directory, "install", "--quiet", wheel)
    return directory / ("Scripts" if sys.platform == "win32" else "bin")


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def _python(bare: Path, program: str) -> str:
    """What the program prints in the bare environment, where a warning is an error."""
    run = _run(bare / "python", "-I", "-W", "error", "-c", program)
    if run.returncode:
        pytest.fail(f"The program failed:\n{program}\n{run.stdout}{run.stderr}", pytrace=False)
    return run.stdout


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """Scripts for Redis, sample data and the marker for type checkers arrive with the modules, and nothing else does."""
    if not SOURCE.exists():
        pytest.skip("The source was removed so that the wheel is tested; the job that built it has both.")
    expected = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected


def test_the_wheel_is_marked_as_typed(wheel: Path) -> None:
    """Type checkers read the annotations of an installed package."""
    with zipfile.ZipFile(wheel) as archive:
        assert "ratelimited_notify/py.typed" in archive.namelist()


def test_base_dependencies_are_two(metadata: Message) -> None:
    """Who installs the library gets `limits` and `msgspec` beside it, and asks for anything else."""
    required = metadata.get_all("Requires-Dist", [])

    assert sorted(line.partition(">=")[0] for line in required if "extra ==" not in line) == ["limits", "msgspec"]


def test_the_extra_all_is_every_other_extra(metadata: Message) -> None:
    """`pip install 'ratelimited-notify[all]'` leaves nothing out."""
    of_extras = [line.split("; extra == ") for line in metadata.get_all("Requires-Dist", []) if "; extra == " in line]

    assert {package for package, extra in of_extras if extra == "'all'"} == {package for package, _ in of_extras}


def test_the_bare_environment_has_no_extra(bare: Path) -> None:
    """The tests below show what they say: nothing optional is there."""
    program = """
from importlib.util import find_spec
optional = ["aiosmtplib", "aiosmtpd", "memcachio", "pymemcache", "redis", "rich", "typer", "valkey", "pytest"]
print([name for name in optional if find_spec(name)])
"""

    assert _python(bare, program) == "[]\n"


def test_import_needs_no_extra(bare: Path, metadata: Message) -> None:
    """The package imports with its base dependencies, with every public name and its version."""
    program = """
import ratelimited_notify
for name in ratelimited_notify.__all__:
    getattr(ratelimited_notify, name)
print(ratelimited_notify.__version__)
"""

    assert _python(bare, program).strip() == metadata["Version"]


def test_the_decorator_works_on_memory(bare: Path) -> None:
    """One decorator on a function that sends is all that a first use takes."""
    program = """
from ratelimited_notify import RateLimitExceeded, rate_limited

@rate_limited(type="news", limit="1/day")
def send_news(recipient: str, body: str) -> str:
    return f"{recipient}: {body}"

print(send_news("ana@example.com", "Hello"))
print(send_news("bo@example.com", "Hello"))
try:
    send_news("ana@example.com", "Hello again")
except RateLimitExceeded as error:
    print(0 < error.decision.retry_after <= 86_400)
"""

    assert _python(bare, program) == "ana@example.com: Hello\nbo@example.com: Hello\nTrue\n"


def test_the_decorator_works_on_coroutine_functions(bare: Path) -> None:
    """The same decorator serves asyncio."""
    program = """
import asyncio
from ratelimited_notify import RateLimitExceeded, rate_limited

@rate_limited(type="news", limit="1/day")
async def send_news(recipient: str, body: str) -> str:
    return f"{recipient}: {body}"

async def main():
    print(await send_news("ana@example.com", "Hello"))
    try:
        await send_news("ana@example.com", "Hello again")
    except RateLimitExceeded as error:
        print(0 < error.decision.retry_after <= 86_400)

asyncio.run(main())
"""

    assert _python(bare, program) == "ana@example.com: Hello\nTrue\n"


def test_the_notifier_works_on_memory(bare: Path) -> None:
    """The facade around a gateway needs nothing but rules."""
    program = """
import asyncio
from ratelimited_notify import AsyncNotifier, Notifier

rules = {"status": "2/minute", "news": "1/day", "marketing": "3/hour"}
sent = []
notifier = Notifier(lambda recipient, body: sent.append(body), rules)
for type, body in [("news", "one"), ("news", "two"), ("status", "three"), ("status", "four"), ("status", "five")]:
    print(notifier.send(type, "ana@example.com", body).status.name)
print(sent)

async def gateway(recipient, body):
    sent.append(body)

async def main():
    notifier = AsyncNotifier(gateway, rules)
    for body in ("six", "seven"):
        print((await notifier.send("news", "ana@example.com", body)).status.name)

asyncio.run(main())
print(sent)
"""
    expected = """\
SENT
SUPPRESSED
SENT
SENT
SUPPRESSED
['one', 'three', 'four']
SENT
SUPPRESSED
['one', 'three', 'four', 'six']
"""

    assert _python(bare, program) == expected


@pytest.mark.parametrize(
    ("limiter", "uri", "extra"),
    [
        ("Limiter", "redis://127.0.0.1:1", "redis"),
        ("Limiter", "rediss://127.0.0.1:1", "redis"),
        ("Limiter", "valkey://127.0.0.1:1", "redis"),
        ("Limiter", "redis+cluster://127.0.0.1:1", "redis"),
        ("Limiter", "valkey+sentinel://127.0.0.1:1/notices", "redis"),
        ("AsyncLimiter", "redis://127.0.0.1:1", "redis"),
        ("AsyncLimiter", "valkey://127.0.0.1:1", "redis"),
        ("AsyncLimiter", "valkey+cluster://127.0.0.1:1", "redis"),
        ("AsyncLimiter", "async+redis+sentinel://127.0.0.1:1/notices", "redis"),
        # memcached needs no client library.
    ],
)
def test_a_missing_extra_of_a_storage_names_the_command(bare: Path, limiter: str, uri: str, extra: str) -> None:
    """A storage whose client is not installed is refused at once, with the line that installs it."""
    program = f"""
import ratelimited_notify
try:
    ratelimited_notify.{limiter}({{"news": "1/day"}}, {uri!r})
except ratelimited_notify.MissingExtra as error:
    print(error)
"""

    assert f"pip install 'ratelimited-notify[{extra}]'" in _python(bare, program)


def test_the_missing_extra_of_the_smtp_gateway_names_the_command(bare: Path) -> None:
    """The SMTP gateway for threads needs no extra; the one for asyncio says which it needs."""
    program = """
from ratelimited_notify import MissingExtra
from ratelimited_notify.gateways.smtp import AsyncSMTPGateway, SMTPGateway

SMTPGateway.from_uri("smtp://127.0.0.1:1", sender="news@example.com").close()
try:
    AsyncSMTPGateway.from_uri("smtp://127.0.0.1:1", sender="news@example.com")
except MissingExtra as error:
    print(error)
"""

    assert "pip install 'ratelimited-notify[smtp]'" in _python(bare, program)


def test_the_command_without_its_extra_names_the_command(bare: Path) -> None:
    """The command line tool is part of the wheel, but what it is made of is an extra: it says which, in one line."""
    run = _run(bare / "ratelimited-notify", "demo")

    assert run.returncode == 2
    assert "pip install 'ratelimited-notify[cli]'" in run.stderr
    assert len(run.stderr.splitlines()) == 1
