"""The check of the tests themselves, `make mutants`: that it has something to plant, and tests that should see it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ratelimited_notify"


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of the check."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "mutants"))

    yield __import__
    for name in set(sys.modules) - before:
        if "mutants" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_file_of_the_core_has_tests_that_are_there(mutants: Any) -> None:
    """Windows, memory, SQLite and the scripts are covered wholly, and no file or test has been renamed since."""
    covering = mutants("covering").COVERING
    patterns = ("windows/*.py", "storage/memory/*.py", "storage/redis/*.lua", "storage/sqlite/*.py")
    core = [path for pattern in patterns for path in PACKAGE.glob(pattern)]
    without = {
        "windows/__init__.py",
        "storage/memory/__init__.py",
        "storage/memory/aio.py",
        "storage/redis/trouble.lua",
        "storage/sqlite/__init__.py",
        # Messages.
        "storage/sqlite/failures.py",
    }

    assert {path.relative_to(PACKAGE).as_posix() for path in core} - set(covering) == without
    assert [name for name in covering if not (PACKAGE / name).exists()] == []
    assert {
        name for tests in covering.values() for name in tests.files if not (ROOT / "tests" / name).exists()
    } == set()


def test_faults_of_every_kind_are_planted(mutants: Any) -> None:
    """In Python, in code that Python compiles at run time, and in Lua, each with the line before and after."""
    in_python, in_lua = mutants("in_python"), mutants("in_lua")
    source = (
        'def one(a, b):\n    """Not < this."""\n    if a <= b and not b:\n        a.b = 1\n        raise ValueError(a < b)\n'
        '    zip(a, strict=True)\n    return two(a, b)\n\n\nCODE = """\nif a < b:\n    pass\n"""\n'
    )
    script = "-- a < b\nlocal c = a < b and '1 < 2'\n  call('SET', c)\n  d = 1\n  e = a + 0\n"

    assert {fault.lines(source)[1:] for fault in in_python.faults("x.py", source)} == {
        ("if a <= b and not b:", after)
        for after in ("if not (a <= b and not b):", "if a < b and not b:", "if a > b and not b:", "if a <= b or not b:", "if a <= b and b:")
    } | {
        ("a.b = 1", "pass"), ("a.b = 1", "a.b = 2"), ("a.b = 1", "a.b = (0)"), ("raise ValueError(a < b)", "pass"),
        ("zip(a, strict=True)", "pass"), ("return two(a, b)", "return None"), ("return two(a, b)", "return two(b, a)"),
        ("if a < b:", "if a <= b:"), ("if a < b:", "if a >= b:"),
    }  # fmt: skip
    assert {fault.lines(script)[1:] for fault in in_lua.faults("x.lua", script)} == {
        ("local c = a < b and '1 < 2'", "local c = a <= b and '1 < 2'"),
        ("local c = a < b and '1 < 2'", "local c = a >= b and '1 < 2'"),
        ("local c = a < b and '1 < 2'", "local c = a < b or '1 < 2'"),
        ("call('SET', c)", ""), ("d = 1", ""), ("d = 1", "d = 2"), ("d = 1", "d = (0)"),
        ("e = a + 0", ""), ("e = a + 0", "e = a + 1"), ("e = a + 0", "e = a + (-1)"),
    }  # fmt: skip


def test_what_changes_nothing_has_a_reason_and_a_line(mutants: Any) -> None:
    """An entry whose fault no longer exists would hide another one."""
    in_python, in_lua = mutants("in_python"), mutants("in_lua")
    equivalents = mutants("equivalents").EQUIVALENTS
    for file in {file for file, _, _ in equivalents}:
        source = (PACKAGE / file).read_text(encoding="utf-8")
        found = (in_lua if file.endswith(".lua") else in_python).faults(file, source)
        lines = {fault.lines(source)[1:] for fault in found}
        assert {(before, after) for name, before, after in equivalents if name == file} <= lines, file

    assert all(reason.endswith(".") for reason in equivalents.values())
