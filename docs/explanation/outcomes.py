"""Write the table of what a failed send costs into guarantees.md, from the table that decides.

Run it after a change of the table: `python docs/explanation/outcomes.py`. A test holds the two equal.
"""

from __future__ import annotations

import re
from pathlib import Path

from ratelimited_notify.limiter.outcome_table import TABLE, Outcome, Row

PAGE = Path(__file__).with_name("guarantees.md")
HEAD = "| the gateway raised | the message | the hit is |\n| --- | --- | --- |\n"


def table() -> str:
    """The table in Markdown."""
    lines = [line(row) for row in TABLE]
    return (
        HEAD
        + "\n".join([*lines, "| anything else, if its causes are not in the table | was not sent | given back |"])
        + "\n"
    )


def line(row: Row) -> str:
    """One row in Markdown."""
    raised = f"{row.raised}: {', '.join(map(named, row.names))}" if row.names else row.raised
    hit = "kept or given back" if row.outcome is Outcome.WRAPPED else "kept" if row.outcome.kept else "given back"
    return f"| {raised} | {row.outcome.value} | {hit} |"


def named(name: str) -> str:
    """A class, as the table names it."""
    library, _, kind = name.rpartition(".")
    return f"`{kind}` ({library})" if library else f"`{kind}`"


if __name__ == "__main__":
    page = PAGE.read_text("utf-8")
    pattern = re.compile(re.escape(HEAD) + r"(?:\|.*\n)*")
    PAGE.write_text(pattern.sub(lambda found: table(), page), "utf-8")
