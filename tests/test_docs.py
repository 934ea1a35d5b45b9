"""Every code block of the README and the docs runs, on real servers, and says what the text says it does."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from documents import blocks
from ratelimited_notify import Limiter
from servers import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster_servers import Cluster, Watched
    from servers import Memcached, Valkey

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "toml", "json", "console", "text", "{toctree}", "{eval-rst}", "{image}", "{note}", "{warning}"}

# What the reader does once by hand, or what another test does: see test_package.py and .ci/run.
ELSEWHERE = ("pip install", "make ", "apt-get ", "git ")


def _relative(document: Path) -> str:
    return str(document.relative_to(ROOT))


with_blocks = pytest.mark.parametrize("document", [each for each in DOCUMENTS if blocks(each)], ids=_relative)


@pytest.fixture(scope="module")
def addresses(valkey: Valkey, memcached: Memcached, cluster: Cluster, watched: Watched) -> Iterator[dict[str, str]]:
    """Where the addresses that the documents name lead to in this test run."""
    mail = Controller(Sink(), hostname=HOST, port=free_port())
    mail.start()
    yield {
        "localhost:6379": f"{HOST}:{valkey.port}",
        "localhost:11211": f"{HOST}:{memcached.port}",
        **{f"localhost:{7000 + number}": member.address for number, member in enumerate(cluster.members)},
        **{f"localhost:{26379 + number}": sentinel.address for number, sentinel in enumerate(watched.sentinels)},
        "localhost:8025": f"{HOST}:{mail.port}",
    }
    mail.stop()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RATELIMITED_NOTIFY")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "COLUMNS": "120"}


@with_blocks
def test_blocks_are_of_languages_that_are_run(document: Path) -> None:
    """No block slips by under a language that nobody looks at."""
    expected = LANGUAGES

    assert {block.language for block in blocks(document)} <= expected


@with_blocks
def test_document_runs(document: Path, addresses: dict[str, str], tmp_path: Path) -> None:
    """Python blocks run in order without a warning, test files pass, console blocks print what is written under them."""
    replaced = [f"{written}={real}" for written, real in addresses.items()]
    ran = subprocess.run(
        [sys.executable, "-W", "error", TESTS / "documents.py", document, *replaced],
        capture_output=True,
        text=True,
        env=_environment(),
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr

    tests = {block.file for block in blocks(document) if block.file is not None and block.file.startswith("test_")}
    if tests:
        _pass(sorted(tests), tmp_path)
    for block in blocks(document):
        if block.language == "console":
            _prints(block.text, addresses, tmp_path)


def _pass(files: list[str], directory: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True,
        text=True,
        env=_environment(),
        cwd=directory,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def _prints(text: str, addresses: dict[str, str], directory: Path) -> None:
    """Run each `$` line; the lines under it must come out, `...` standing for anything."""
    for written, real in addresses.items():
        text = text.replace(written, real)
    for command, expected in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n?)*)", text, re.MULTILINE):
        if command.startswith(ELSEWHERE):
            continue
        ran = subprocess.run(
            ["bash", "-c", command.partition("  #")[0]],
            capture_output=True,
            text=True,
            env=_environment(),
            cwd=directory,
            check=False,
        )
        # Columns may be wider than written.
        pattern = r"\s+".join(re.escape(word).replace(re.escape("..."), ".*") for word in expected.split())
        assert re.search(pattern, ran.stdout + ran.stderr, re.DOTALL), (
            f"{shlex.quote(command)} printed:\n{ran.stdout}{ran.stderr}"
        )


@with_blocks
def test_data_blocks_are_well_formed(document: Path) -> None:
    """TOML blocks are TOML, JSON blocks are JSON, line by line."""
    for block in blocks(document):
        if block.language == "toml":
            assert tomllib.loads(block.text)
        if block.language == "json":
            assert [json.loads(line) for line in block.text.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_relative)
def test_links_lead_somewhere(document: Path) -> None:
    """Links to other files of this repository lead to files that are there."""
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", document.read_text())

    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_reference_of_limiters_shows_what_is_for_users() -> None:
    """What limiters have for notifiers and decorators is no promise, and not on the page."""
    page = (ROOT / "docs" / "reference" / "limiter.md").read_text()
    excluded = [set(re.split(r",\s*", names)) for names in re.findall(r":exclude-members: (.+)", page)]
    limiter = Limiter({"news": "1/day"})

    assert len(excluded) == 2
    assert [{name for name in dir(limiter) if not name.startswith("_")} - names for names in excluded] == [
        {
            "clear", "close", "hit", "hit_many", "insurance", "pause", "release", "reserve", "resume", "rules", "source", "storage",
            "test", "watch", "windows",
        }
    ] * 2  # fmt: skip


def test_pictures_show_what_the_library_decides() -> None:
    """The pictures of the strategies are those that the library of today draws."""
    draw = runpy.run_path(str(ROOT / "docs" / "explanation" / "draw.py"))

    for strategy in draw["STRATEGIES"]:
        assert draw["picture"](strategy) == (ROOT / "docs" / "explanation" / f"{strategy}.svg").read_text()


@pytest.mark.parametrize(
    ("word", "guide"), [("cron", "how-to/cron.md"), ("daily", "how-to/cron.md"), ("sqlite", "how-to/sqlite.md")]
)
def test_the_guide_comes_first_in_the_search(word: str, guide: str) -> None:
    """The search of the pages ranks a page whose title or headings have the word above all others. No other page has it there."""
    found = []
    for document in DOCUMENTS[1:]:
        text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
        if any(word in re.findall(r"\w+", heading.lower()) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)):
            found.append(document.relative_to(ROOT / "docs").as_posix())

    assert found == [guide]
