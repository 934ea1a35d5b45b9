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
    (
        "storage/sqlite/rows.py",
        "_LATEST = (1 << 63) - 1",
        "_LATEST = (1 << 63) - 2",
    ): "Both are later than any window ends.",
    (
        "storage/sqlite/sync.py",
        "self._marks = count(randbits(60))",
        "self._marks = count(randbits((59)))",
    ): "Half as many numbers are as unlikely to meet.",
    (
        "storage/sqlite/large.py",
        "stamp = max(now, self.newest) if self.total else now",
        "stamp = max(self.newest, now) if self.total else now",
    ): "The larger of two numbers is the same.",
    (
        "storage/sqlite/connection.py",
        "time.sleep(min(left, random.uniform(0, longest)))  # noqa: S311  # spreads load, no secret",
        "time.sleep(min(random.uniform(0, longest), left))  # noqa: S311  # spreads load, no secret",
    ): "The smaller of two numbers is the same.",
    (
        "storage/sqlite/lock.py",
        "os.lseek(descriptor, 0, os.SEEK_SET)",
        "os.lseek(descriptor, os.SEEK_SET, 0)",
    ): "Both numbers are 0; and this is for Windows.",
}
"""By file, the line without the fault and the line with it, both without indentation."""
