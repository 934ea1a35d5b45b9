"""Inputs that somebody else may write, made up by chance: no error but the library's own, no code run, and bounded work.

What is read, and what must hold, is in `fuzzing/`, which `make fuzz` runs for hours. Here are a few inputs of each kind.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import records
from fuzzed import NEED_A_SERVER, TARGETS
from hypothesis import given, settings, strategies as st
from target import made_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random
    from types import FrameType

    from target import Target

    from ratelimited_notify import Limiter
    from servers import Memcached, Valkey

FUZZING = Path(__file__).parent.parent / "fuzzing"
TEXTS = [name for name in TARGETS if name not in NEED_A_SERVER and name != "row in SQLite"]

# How many of them the profile says, not each test.
MANY = settings(max_examples=settings().max_examples * 2)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in NEED_A_SERVER])
@given(chance=st.randoms(use_true_random=False))
@MANY
def test_any_input_is_read_or_refused(name: str, chance: Random) -> None:
    """By an error of the library's own; and what is accepted holds what it should."""
    TARGETS[name].read(made_up(TARGETS[name], chance))


@pytest.fixture(scope="module")
def _servers(valkey: Valkey, memcached: Memcached) -> Iterator[None]:
    """The servers of this test run, in place of those that the fuzzing starts."""
    made: list[Limiter] = []

    def opened(limiter: Limiter) -> Limiter:
        made.append(limiter)
        return limiter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("servers.memcached_server", lambda: memcached)
        patch.setattr("servers.valkey_server", lambda: valkey)
        patch.setattr(records, "opened", opened)
        records.clear()
        yield
    records.clear()
    for limiter in made:
        limiter.close()


@pytest.mark.parametrize("name", NEED_A_SERVER)
@pytest.mark.usefixtures("_servers")
@given(chance=st.randoms(use_true_random=False))
@MANY
def test_any_record_is_read_or_refused(name: str, chance: Random) -> None:
    """What a limiter says of windows that another program wrote: it answers, or raises an error that names nobody."""
    TARGETS[name].read(made_up(TARGETS[name], chance))


def test_no_input_runs_code() -> None:
    """In a process that notes whatever runs code, starts a program or loads a module, with little memory. By hand: for hours."""
    for name in ("rules in YAML", "URI of a source"):
        run = subprocess.run(
            [sys.executable, FUZZING, name, "--by-chance", "--runs", "150", "--seed", "1"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        assert "150 inputs by chance" in run.stdout


@pytest.mark.parametrize(
    "harm", ["__import__('nobody')", "exec('1')", "__import__('os').system('true')", "compile('1', '<x>', 'eval')"]
)
def test_code_that_runs_is_noticed(harm: str) -> None:
    """The test above is not one of nothing: what somebody else's code could do is noted, even if it is caught."""
    program = f"""
import guard
guard.install()
try:
    with guard.armed():
        try:
            {harm}
        except Exception:
            pass
except guard.Broken:
    print("noticed")
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=FUZZING, capture_output=True, text=True, check=True)

    assert run.stdout == "noticed\n"


# --- Work and memory grow with the length -----------------------------------------------------------------------------

FEW, MANY_TIMES = 200, 800
GROWTH = 4 * 2
"""Four times the length is four times the work; sixteen times would be its square."""
PER_BYTE = 20
FIXED = 20_000
"""Steps that do not depend on the length: so many need not be looked at."""


class Steps:
    """Counts the lines of Python that run: they do not depend on how busy the machine is."""

    def __init__(self) -> None:
        self.counted = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._traced)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _traced(self, frame: FrameType, event: str, argument: object) -> Any:  # Any: the type is recursive
        self.counted += 1
        return self._traced


@st.composite
def repetitions(draw: st.DrawFn, target: Target) -> tuple[bytes, bytes, bytes]:
    """What stands before, what is repeated, and what stands behind it: pieces of seeds and words."""
    seed = draw(st.sampled_from(target.seeds))
    at = draw(st.integers(0, len(seed)))
    words = st.sampled_from([*target.words, b" ", b"\n", b"a", b"1", b"."])
    piece = st.lists(words, min_size=1, max_size=3).map(b"".join) | st.just(seed[at : at + draw(st.integers(1, 40))])
    return seed[:at], draw(piece), draw(st.sampled_from([seed[at:], b"", b"\0"]))


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
@settings(max_examples=max(5, settings().max_examples // 8))
def test_work_and_memory_grow_with_the_length(name: str, data: st.DataObject) -> None:
    """Not with its square, whatever is repeated in it: in lines that run, and in bytes that are held at once."""
    target = TARGETS[name]
    before, piece, behind = data.draw(repetitions(target))
    steps, held = [], 0
    for times in (FEW, MANY_TIMES):
        content = before + piece * times + behind
        with Steps() as counted:
            target.read(content)
        steps.append(counted.counted)
    tracemalloc.start()
    try:
        target.read(content)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # A shorter one may be refused at once, and a longer one only when it has been read as far.
    assert steps[1] <= max(FIXED, steps[0] * GROWTH, PER_BYTE * len(content))
    assert held < 4_000_000 + 400 * len(content)
