"""Faults that change nothing that a test could see, each with the reason. They are left out of the score."""

from __future__ import annotations

EQUIVALENTS: dict[tuple[str, str, str], str] = {
    (
        "storage/redis/give.lua",
        "newer, older = older, 2 * older + 1",
        "newer, older = older, 2 * older + 2",
    ): "The search finds the same hit with steps of any length.",
    (
        "storage/redis/moving.lua",
        "return 0, cost > amount and -1 or 0, now, -1, 0, 0, 0, 0",
        "return 0, cost > amount and -1 or 0, now, -1, (-1), 0, 0, 0",
    ): "The sequence of an empty window is not used: its newest stamp, -1, is before every time of a server.",
}
"""By file, the line without the fault and the line with it, both without indentation."""
