"""Measure every row of `targets` and write `docs/benchmarks.md` (`make bench`), or only show it (`make bench-quick`).

Each measurement runs in a separate process, so that no measurement affects the next one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The benchmarks start servers with the modules of the tests.
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))

import importing
import in_a_file
import in_memory
import large_rule_sets
import over_memcached
import over_redis
import page
import stopped_server
import watched
from measured import FULL, QUICK, Address

from servers import HOST, memcached_server, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measured import Effort, Figure


def measured(effort: Effort, wanted: str) -> Iterator[Figure]:
    """Run the measurements with `wanted` in their name, one after the other, and yield their figures."""
    for module, start in (
        (importing, None),
        (in_memory, None),
        (large_rule_sets, None),
        (in_a_file, None),
        (over_redis, valkey_server),
        (watched, None),
        (over_memcached, memcached_server),
        (stopped_server, None),
    ):
        server = None if start is None else start()
        try:
            for measure in module.MEASUREMENTS:
                name = f"{module.__name__}.{measure.__name__}"
                if wanted in name:
                    started = time.monotonic()
                    yield from alone(measure, effort, server)
                    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        finally:
            if server is not None:
                server.remove()


def alone(measure: Callable[..., list[Figure]], effort: Effort, server: Any) -> list[Figure]:
    """Run a measurement in a new process and return its figures."""
    arguments = (effort,) if server is None else (effort, Address(server.url, HOST, server.port))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes, smaller numbers, nothing written")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="only the measurements with NAME in their name, nothing written"
    )
    chosen = parser.parse_args()
    effort = QUICK if chosen.quick else FULL
    figures = list(measured(effort, chosen.only))
    print("".join(page.table({figure.row: figure for figure in figures})), end="")
    if not chosen.quick and not chosen.only:
        page.write(figures)
        print(f"Written: {page.DOCS / 'benchmarks.md'}", file=sys.stderr)


if __name__ == "__main__":
    main()
