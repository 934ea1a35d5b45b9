"""Read inputs that are made up, until one of them finds a defect: `make fuzz`.

    make fuzz                                       all inputs, a minute each
    make fuzz INPUT='rules in YAML' SECONDS=3600    one of them, for an hour

With atheris, which looks which inputs reach new code, where it can be installed; otherwise by chance alone. What it finds is written
to `fuzzing/found/`, and can be read again: python fuzzing --again fuzzing/found/FILE
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import pkgutil
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import guard

try:
    import atheris
except ImportError:
    atheris = None

if atheris is None:
    from fuzzed import TARGETS
else:
    with atheris.instrument_imports(include=["ratelimited_notify"]):
        from fuzzed import TARGETS

        # Most modules are loaded when they are first needed, and code that was loaded then would not be seen.
        import ratelimited_notify

        for module in pkgutil.walk_packages(ratelimited_notify.__path__, "ratelimited_notify."):
            if not module.name.endswith(("__main__", "pytest_plugin")):
                importlib.import_module(module.name)

from target import LONGEST, made_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from target import Target

FOUND = Path(__file__).parent / "found"

SLOW = 10
"""Seconds of this processor for one input. It takes milliseconds."""


def prepared(target: Target) -> None:
    """Load what is loaded on first use, and watch from then on."""
    logging.getLogger("ratelimited_notify").addHandler(logging.NullHandler())
    for seed in target.seeds:
        target.read(seed)
    guard.install()


def tried(target: Target, content: bytes) -> None:
    """Read one input; keep it if it finds something."""
    began = time.process_time()
    try:
        with guard.armed():
            target.read(content)
        if time.process_time() - began > SLOW:
            raise TimeoutError(f"It took {time.process_time() - began:.0f} s.")
    except BaseException:
        FOUND.mkdir(exist_ok=True)
        name = f"{target.name.replace(' ', '-')}-{hashlib.sha1(content, usedforsecurity=False).hexdigest()[:12]}"
        (FOUND / name).write_bytes(content)
        print(f"{target.name}: found {FOUND / name}", file=sys.stderr)
        raise


def by_chance(target: Target, seconds: float, runs: int, seed: int) -> int:
    """Read inputs that are made up without looking at the code. Returns how many."""
    chance = random.Random(seed)
    began, done = time.monotonic(), 0
    while (done < runs) if runs else (time.monotonic() - began < seconds):
        tried(target, made_up(target, chance))
        done += 1
    return done


def with_atheris(target: Target, seconds: float, runs: int) -> None:
    """Let libFuzzer make up inputs. It ends the process."""
    directory = tempfile.mkdtemp(prefix="fuzzing-")
    for number, seed in enumerate(target.seeds):
        Path(directory, str(number)).write_bytes(seed)
    words = Path(directory).with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word), encoding="ascii")
    arguments = [
        sys.argv[0],
        directory,
        f"-dict={words}",
        f"-max_len={LONGEST}",
        f"-timeout={SLOW}",
        "-rss_limit_mb=2048",
    ]
    arguments += [
        f"-runs={runs}" if runs else f"-max_total_time={seconds:.0f}",
        f"-artifact_prefix={directory}/",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, lambda content: tried(target, content))
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(rf"\x{byte:02x}" for byte in word)


def main(arguments: Sequence[str]) -> int:
    """Run one input here, or each in a process of its own."""
    parser = argparse.ArgumentParser(prog="fuzzing")
    parser.add_argument("input", nargs="*", choices=[[], *TARGETS], help="all of them, if none is named")
    parser.add_argument("--seconds", type=float, default=60, help="for each of them")
    parser.add_argument("--runs", type=int, default=0, help="so many instead of seconds")
    parser.add_argument("--seed", type=int, default=None, help="for the same inputs again, without atheris")
    parser.add_argument("--by-chance", action="store_true", help="without atheris")
    parser.add_argument("--again", type=Path, help="read one that was found")
    chosen = parser.parse_args(arguments)
    names = chosen.input or list(TARGETS)
    if chosen.again is not None and not chosen.input:
        names = [name for name in names if chosen.again.name.startswith(name.replace(" ", "-"))]
    if len(names) > 1:
        return max(
            subprocess.run([sys.executable, __file__, name, *arguments], check=False).returncode for name in names
        )
    target = TARGETS[names[0]]
    prepared(target)
    if chosen.again is not None:
        target.read(chosen.again.read_bytes())
    elif atheris is None or chosen.by_chance:
        seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
        done = by_chance(target, chosen.seconds, chosen.runs, seed)
        print(f"{target.name}: {done:,} inputs by chance (seed {seed}), nothing found", flush=True)
    else:
        with_atheris(target, chosen.seconds, chosen.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
