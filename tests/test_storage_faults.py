"""Whatever goes wrong with a storage, callers of every policy see what is promised: the table in the documentation."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from policies import CAP, TIMEOUT, observe
from storage_faults import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies import Seen

GRACE = 0.05
"""Seconds beyond the time-out that are promised."""
SLACK = 0.35
"""Seconds more that a busy machine may take."""
PROMISED = 1.0
"""Seconds after the return of the server within which everybody is counted again."""
LATEST = 6.0
"""The same, on a busy machine."""

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "failures.md"

ALLOWED = {"raise": {None}, "allow": {True}, "deny": {False}, "memory://": {True, False}}
"""What callers of a policy get if the storage fails; None for an error."""


@pytest.fixture(autouse=True)
def _unheard() -> Iterator[None]:
    """What the library logs about decisions that were not counted would fill the report."""
    log = logging.getLogger("ratelimited_notify")
    before, log.disabled = log.disabled, True
    yield
    log.disabled = before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_fault(case: Case) -> None:
    """The error is the library's own, the policy holds, no decision takes long, everybody is counted again soon, no hit is
    counted twice, and nothing is left behind: for threads and asyncio, and each policy.
    """
    seen = observe(case)

    assert wrong(seen, case) == []
    assert seen.longest <= TIMEOUT + GRACE + SLACK
    assert seen.back is not None
    assert seen.back <= LATEST


def test_the_page_shows_every_fault() -> None:
    """The table in the documentation has a row for each fault, and no other; it shows that what is promised was measured."""
    written = PAGE.read_text().partition("% Made by `make failures`")[2].partition("% End of what `make failures`")[0]
    rows = [line.strip("| ").split(" | ") for line in written.splitlines() if re.match(r"\| (?!What|---)", line)]

    assert [row[0] for row in rows] == [case.shown for case in CASES]
    for shown, seen, _, longest, back, twice in rows:
        assert seen in ("`StorageError`", "nothing"), shown
        assert float(longest.removesuffix(" s")) <= TIMEOUT + GRACE, shown
        assert back == "at once" or float(back.removesuffix(" s")) <= PROMISED, shown
        assert twice == "0", shown


def wrong(seen: Seen, case: Case) -> list[str]:
    """What must not be, however slow the machine is."""
    found = [f"{caller}: {error}" for caller in seen.callers for error in caller.foreign]
    found += [f"{caller} is stuck" for caller in seen.stuck]
    found += [f"{number} {what} left" for what, number in seen.left.items()]
    found += [f"{caller}: {caller.tasks} tasks left" for caller in seen.callers if caller.tasks]
    for caller in seen.callers:
        uncounted = [one for one in caller.answers if not one.counted]
        if {one.allowed for one in uncounted} - ALLOWED[caller.policy]:
            found.append(f"{caller}: { ({one.allowed for one in uncounted}) }")
        if not all(one.error for one in uncounted):
            found.append(f"{caller}: a decision without its error")
        if {one.degraded for one in uncounted} - {caller.policy not in ("raise", "allow", "deny")}:
            found.append(f"{caller}: an insurance that is not there decided, or one that is did not")
        found += [f"{caller}: certain, and {one.error}" for one in uncounted if one.certain and one.in_doubt]
        if uncounted and case.failing == "none":
            found.append(f"{caller}: {uncounted[0].error}")
        if not uncounted and case.failing == "all":
            found.append(f"{caller}: nothing failed")
        early = [one for one in uncounted if one.end < seen.struck]
        if early:
            found.append(f"{caller}: failed before the fault: {early[0].error}")
    if seen.twice or seen.missing:
        found.append(f"{seen.twice} hits counted twice, {seen.missing} missing")
    if seen.most > CAP:
        found.append(f"{seen.most} allowed of {CAP}")
    return found
