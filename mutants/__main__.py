"""Plant small faults in the core, one at a time, and show those that no test sees: `make mutants`.

    MUTANTS=50 make mutants                          fifty of them, chosen by chance
    make mutants FILES='windows/hits.py'             all faults in one file; several paths are possible
    MUTANTS=50 SEED=7 WORKERS=4 make mutants         the same fifty again, four at a time

Each worker has a copy of the project. It plants a fault there, and runs the tests that should see it (`covering.py`) with few
examples, until the first one fails. A run that takes much longer than without a fault counts as seen, too. The score is the share
of the faults that were seen, without those that change nothing (`equivalents.py`); below 97%, the exit status is 1.

mutmut and cosmic-ray are for Python only, and the scripts for Redis are half of what matters here. mutmut changes functions only,
and runs the whole suite to find out which tests belong to which; here, that takes minutes and misses what is compiled from texts,
and the tests in processes of their own. cosmic-ray has one command for all tests of a session. So one small program does both.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import in_lua
import in_python
from covering import COVERING
from equivalents import EQUIVALENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from covering import Tests
    from fault import Fault

ROOT = Path(__file__).parent.parent
PACKAGE = Path("src", "ratelimited_notify")
ENOUGH = 0.97
"""The share of faults that the tests have to see."""


class Workshop:
    """A copy of the project in which one fault at a time is planted."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.running: subprocess.Popen[bytes] | None = None
        for name in ("src", "tests", "benchmarks", "docs"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, place)
        self.environment = os.environ | {
            "PYTHONPATH": f"{place / 'src'}{os.pathsep}{place / 'tests'}",
            # A file that changed within a second and kept its size would be taken from the cache.
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_PROFILE": "mutants",
        }

    def fails(self, tests: Tests, timeout: float | None = None) -> bool:
        """Whether one of these tests fails, or all of them together take too long."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        left_out = "not thorough and not faults" if tests.slow else "not slow and not thorough and not faults"
        command += ["-m", left_out, "-k", tests.keyword]
        command += [f"tests/{name}" for name in tests.files]
        with subprocess.Popen(  # noqa: S603  # pytest, with the arguments above
            command,
            cwd=self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as self.running:
            try:
                return self.running.wait(timeout) != 0
            except subprocess.TimeoutExpired:
                return True
            finally:
                self.stop()

    def stop(self) -> None:
        """End the tests that run, with everything that they have started."""
        if self.running is not None and self.running.poll() is None:
            os.killpg(self.running.pid, signal.SIGKILL)

    def sees(self, fault: Fault, timeout: float) -> bool:
        """Whether a test sees this fault."""
        path = self.place / PACKAGE / fault.file
        source = path.read_text(encoding="utf-8")
        path.write_text(fault.planted(source), encoding="utf-8")
        try:
            return self.fails(COVERING[fault.file], timeout)
        finally:
            path.write_text(source, encoding="utf-8")


def main() -> int:
    """Plant, and print the score and what was not seen."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    files = sys.argv[1:] or list(COVERING)
    if unknown := [file for file in files if file not in COVERING]:
        print(f"No tests are named for {', '.join(unknown)}: add them to mutants/covering.py.", file=sys.stderr)
        return 2
    sources = {file: (ROOT / PACKAGE / file).read_text(encoding="utf-8") for file in files}
    faults, harmless = _faults(sources)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    total, wanted = len(faults), int(os.environ.get("MUTANTS") or len(faults))
    faults = random.Random(seed).sample(faults, min(wanted, total))  # noqa: S311  # a sample
    print(
        f"{len(faults)} of {total} faults in {len(files)} files, {harmless} others change nothing. SEED={seed}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        seen = _results(faults, Path(place), int(os.environ.get("WORKERS") or 2))
    print()
    return _score(faults, seen)


def _faults(sources: dict[str, str]) -> tuple[list[Fault], int]:
    """All faults in these files, without those that change nothing, and the number of these."""
    faults: list[Fault] = []
    harmless = 0
    known = set(EQUIVALENTS)
    for file, source in sources.items():
        for fault in (in_lua if file.endswith(".lua") else in_python).faults(file, source):
            _, before, after = fault.lines(source)
            if (file, before, after) in EQUIVALENTS:
                known.discard((file, before, after))
                harmless += 1
            else:
                faults.append(fault)
    for file, before, after in known:
        if file in sources:
            print(f"mutants/equivalents.py: {file} has no such fault any more:\n- {before}\n+ {after}", file=sys.stderr)
    return faults, harmless


def _results(faults: Sequence[Fault], place: Path, workers: int) -> list[bool]:
    """For each fault, whether a test sees it."""
    free: SimpleQueue[Workshop] = SimpleQueue()
    workshops = [Workshop(place / str(number)) for number in range(workers)]
    for workshop in workshops:
        free.put(workshop)

    def unplanted(tests: Tests) -> float:
        workshop = free.get()
        try:
            began = time.monotonic()
            if workshop.fails(tests):
                raise SystemExit(f"These tests fail without any fault, with HYPOTHESIS_PROFILE=mutants: {tests}")
            return 20 + 3 * (time.monotonic() - began)
        finally:
            free.put(workshop)

    def sees(fault: Fault) -> bool:
        workshop = free.get()
        try:
            seen = workshop.sees(fault, timeouts[COVERING[fault.file]])
        finally:
            free.put(workshop)
        print("." if seen else _shown(fault), end="", flush=True)
        return seen

    pool = ThreadPoolExecutor(workers)
    try:
        several = list(dict.fromkeys(COVERING[fault.file] for fault in faults))
        timeouts = dict(zip(several, pool.map(unplanted, several), strict=True))
        print(
            f"Without a fault, their tests take {', '.join(f'{(each - 20) / 3:.0f}' for each in timeouts.values())} s.",
            flush=True,
        )
        return list(pool.map(sees, faults))
    finally:
        # When it was interrupted, nothing goes on.
        pool.shutdown(wait=False, cancel_futures=True)
        for workshop in workshops:
            workshop.stop()


def _shown(fault: Fault) -> str:
    line, before, after = fault.lines((ROOT / PACKAGE / fault.file).read_text(encoding="utf-8"))
    return f"\n{PACKAGE / fault.file}:{line}\n- {before}\n+ {after}\n"


def _score(faults: Sequence[Fault], seen: Sequence[bool]) -> int:
    """Print the score of each language; 1 if one of them is too low."""
    too_low = 0
    for language, is_lua in (("Python", False), ("Lua", True)):
        results = [each for fault, each in zip(faults, seen, strict=True) if fault.file.endswith(".lua") is is_lua]
        if results:
            score = sum(results) / len(results)
            print(f"{language}: {sum(results)} of {len(results)} faults were seen ({score:.1%})")
            too_low |= score < ENOUGH
    return too_low


if __name__ == "__main__":
    sys.exit(main())
