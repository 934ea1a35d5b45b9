"""A mixed load goes on for long while servers come and go and rules change: nothing grows, and no limit is exceeded.

`make soak` goes on for twenty minutes and prints the figures; `SOAK_SECONDS` says for how long.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from left_behind import census, left_since
from soak import HIGH, OPEN_FILES, STEADY, TOGETHER, Soak
from true_times import TrueTimes

if TYPE_CHECKING:
    from pathlib import Path

    from soak import Sample

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))

MEGABYTES = 1_000_000
GROWTH = 12 * MEGABYTES
"""What the process may grow by after the first half: the allocator does not give everything back."""
BLOCKS = 40_000
"""How many more blocks of memory there may be: what is in use at one moment and not at another."""
DESCRIPTORS, THREADS = 25, 10
"""How many more there may be: connections and servers come and go."""


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="There is no /proc here.")
def test_soak(tmp_path: Path) -> None:
    """Memory, descriptors and threads stay flat, limits are kept by true times, all errors are the library's own, and
    nothing is left behind.
    """
    log = logging.getLogger("ratelimited_notify")
    before, log.disabled = log.disabled, True
    try:
        # Everything that is imported at the first use.
        Soak(1.5, tmp_path).run()
        there = census()
        soak = Soak(SECONDS, tmp_path)
        soak.run()
        behind = left_since(there)
    finally:
        log.disabled = before
    print(figures(soak))  # noqa: T201  # shown by `make soak`, and if the test fails

    assert sorted(soak.foreign) == []
    assert soak.admitted.wrong == []
    assert soak.admitted.most.keys() == {STEADY, HIGH, TOGETHER}
    # A limit that is hardly used is not exceeded either.
    assert soak.admitted.most[STEADY] > STEADY / 2
    assert behind == {}
    first, last = halves(soak.samples)
    for name, most in {"blocks": BLOCKS, "resident": GROWTH, "descriptors": DESCRIPTORS, "threads": THREADS}.items():
        grown = max(getattr(one, name) for one in last) - max(getattr(one, name) for one in first)
        assert grown <= most, f"{name} grew by {grown}"


def test_the_log_of_true_times_sees_a_hit_too_many() -> None:
    """Three within a second where two may be are seen, whichever call came first; two and one a second later are fine."""
    for starts, seen in (((0.0, 0.5, 0.9), 3), ((0.9, 0.0, 0.5), 3), ((0.0, 0.9, 1.0), 2), ((0.0, 1.0, 2.0), 1)):
        log = TrueTimes()
        for start in starts:
            log.add("window", 2, 1.0, start, start + 0.05)
        log.check(100)

        assert log.most == {2: seen}
        assert len(log.wrong) == (seen > 2)


def halves(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The first half of the samples, and the last third."""
    number = len(samples)
    return samples[: number // 2], samples[-number // 3 :]


def figures(soak: Soak) -> str:
    """What a soak was like, in some lines."""
    rows = soak.samples[:: max(1, len(soak.samples) // 10)]
    return "\n".join(
        [
            (
                f"\n{soak.seconds:g} s: {soak.asked} questions, {soak.errors} errors of the library, {soak.struck} faults, "
                f"{soak.events} events, {soak.admitted.number} admissions checked"
            ),
            f"most admitted in a true second, by limit: {soak.admitted.most}",
            *(
                f"after {one.seconds:6.1f} s: {one.resident / MEGABYTES:6.1f} MB, {one.blocks} blocks, "
                f"{one.descriptors} descriptors, {one.threads} threads"
                for one in rows
            ),
        ]
    )
