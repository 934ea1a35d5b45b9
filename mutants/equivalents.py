"""Faults that change nothing that a test could see, each with the reason. They are left out of the score."""

from __future__ import annotations

from equivalents_in_lua import IN_LUA

EQUIVALENTS: dict[tuple[str, str, str], str] = {
    **IN_LUA,
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
    (
        "limiter/headers.py",
        'return {} if seconds is None else {"Retry-After": str(max(1, seconds))}',
        'return {} if seconds is None else {"Retry-After": str(max(seconds, 1))}',
    ): "The larger of two numbers is the same.",
    (
        "limiter/batch.py",
        "first = notifications[0]",
        "first = notifications[(-1)]",
    ): "All are like the first one, or like the last one: that is the same.",
    (
        "limiter/refund.py",
        "if self._failing > PATIENCE:",
        "if self._failing >= PATIENCE:",
    ): "No failures take exactly as long.",
    (
        "notifier/policy.py",
        "if waited + pause <= (self.max_wait or 0):",
        "if waited + pause <= (self.max_wait or (-1)):",
    ): "A pause is longer than 0 seconds, so it is longer than either.",
    (
        "limiter/watching.py",
        "_MOST_TYPES = 4096",
        "_MOST_TYPES = 4097",
    ): "One more or less of so many is as good.",
    (
        "limiter/watching.py",
        "_MOST_TYPES = 4096",
        "_MOST_TYPES = (4095)",
    ): "One more or less of so many is as good.",
    (
        "limiter/watching.py",
        "return self._watchers[0].prepared(event)",
        "return self._watchers[(-1)].prepared(event)",
    ): "Of one watcher, the first is the last.",
    (
        "limiter/watching.py",
        "self._watchers[0].raised(error)",
        "self._watchers[(-1)].raised(error)",
    ): "Of one watcher, the first is the last.",
    (
        "limiter/watching.py",
        "return self._watchers[0].prepared_decision(event)",
        "return self._watchers[(-1)].prepared_decision(event)",
    ): "Of one watcher, the first is the last.",
    (
        "limiter/watching.py",
        "name: str = windows[0].rule",
        "name: str = windows[(-1)].rule",
    ): "Of one window, the first is the last.",
    (
        "limiter/watching.py",
        "if len(self._watchers) == 1:",
        "if len(self._watchers) == (0):",
    ): "What tells several tells one, too.",
    (
        "limiter/watching.py",
        "if timed and len(self._watchers) == 1:",
        "if timed and len(self._watchers) == (0):",
    ): "What tells several tells one, too.",
    (
        "limiter/watching.py",
        "alike = type, verdict, rule, degraded, cost, seconds is None",
        "alike = type, verdict, rule, degraded, cost, seconds is not None",
    ): "It tells two kinds apart, whatever they are called.",
    (
        "limiter/places.py",
        'return self._where(), "", 0',
        'return self._where(), "", 1',
    ): "It is the place of those whom no window holds, whatever its amount.",
    (
        "limiter/places.py",
        'return self._where(), "", 0',
        'return self._where(), "", (-1)',
    ): "It is the place of those whom no window holds, whatever its amount.",
}
"""By file, the line without the fault and the line with it, both without indentation."""
