"""Show windows: as a table, or as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING

from rich.text import Text

from ratelimited_notify.cli.report import at, shown, table
from ratelimited_notify.rules.wording import duration_text, limit_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table

    from ratelimited_notify.cli.recipient_windows import ShownWindow


def window_table(title: str, windows: Iterable[ShownWindow]) -> Table:
    """The windows as a table. Times are those of this machine."""
    now = datetime.now(UTC)
    made = table(title, "type", "rule", "limit", "used", "left", "free again in", "at", "", numbers=("used", "left"))
    for window in windows:
        state = window.state
        made.add_row(
            Text(shown(window.types)),
            Text(shown(state.rule)),
            Text(limit_text(state.item), "yellow" if state.paused else ""),
            Text("" if window.used is None else f"{window.used:,}"),
            Text("" if state.paused else f"{state.remaining:,}", "red" if not state.remaining else "green"),
            Text(_free_in(state.retry_after)),
            Text(_free_at(state.retry_after, now)),
            Text("; ".join(_remarks(window)), "dim"),
        )
    return made


def _free_in(seconds: float) -> str:
    if seconds == inf:
        return "never"
    return duration_text(seconds) if seconds > 0 else "now"


def _free_at(seconds: float, now: datetime) -> str:
    # The limiter counts by the clock of its storage, which may differ from the one of this machine.
    return at(now + timedelta(seconds=seconds), now) if 0 < seconds < inf else ""


def _remarks(window: ShownWindow) -> Iterator[str]:
    if window.shared:
        yield "shared"
    if not window.state.enforced:
        yield "shadow mode"


def windows_as_json(windows: Iterable[ShownWindow], problems: dict[str, str], notes: Iterable[str]) -> str:
    """The windows as one JSON object. It does not contain the recipient."""
    return json.dumps(
        {
            "windows": [_as_object(window) for window in windows],
            "problems": [{"type": type, "message": message} for type, message in problems.items()],
            "notes": list(notes),
        }
    )


def _as_object(window: ShownWindow) -> dict[str, object]:
    state = window.state
    return {
        "type": window.type if "type" in window.by else None,
        **state.to_dict(),
        "used": window.used,
        "remaining": None if state.paused else state.remaining,
        "by": window.by,
        "shared": window.shared,
        "enforced": state.enforced,
        "paused": state.paused,
    }
