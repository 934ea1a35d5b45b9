"""Four processes on one server that is killed: how many they let through by their insurances, by a log of true times."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Valkey

pytestmark = pytest.mark.slow

PROCESSES = 4
AMOUNT = 5

STEPWISE = """
import json, sys
from ratelimited_notify import Limiter

limiter = Limiter({"news": "5/hour"}, sys.argv[1], on_storage_error="memory://", **json.loads(sys.argv[2]))
for line in sys.stdin:
    decisions = [limiter.hit("news", "ana") for _ in range(int(line))]
    print(sum(map(bool, decisions)), sum(decision.degraded for decision in decisions), flush=True)
"""

RACING = """
import json, sys, time
from ratelimited_notify import Limiter

limiter = Limiter({"news": "5/2 seconds"}, sys.argv[1], on_storage_error="memory://", timeout=0.3)
log, until = [], time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    before = time.monotonic()
    decision = limiter.hit("news", "ana")
    if decision:
        doubt = decision.degraded and "not known" in decision.error
        log.append([before, time.monotonic(), decision.degraded, doubt])
    time.sleep(0.003)
print(json.dumps(log))
"""


class Stepwise:
    """A process that hits as often as it is told."""

    def __init__(self, url: str, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", STEPWISE, url, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def hits(self, number: int) -> tuple[int, int]:
        """How many of so many hits are allowed, and how many were degraded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(number, file=self._process.stdin, flush=True)
        allowed, degraded = self._process.stdout.readline().split()
        return int(allowed), int(degraded)

    def end(self) -> None:
        self._process.communicate(timeout=20)


@pytest.mark.parametrize("first", [(5, 0, 0, 0), (2, 1, 1, 1), (0, 0, 3, 2)])
@pytest.mark.parametrize(("share", "each"), [(1, 5), (4, 2)])
def test_a_warm_insurance(start_valkey: Callable[..., Valkey], first: tuple[int, ...], share: int, each: int) -> None:
    """5 per hour, four processes: 20 at most, those before the fault included (a cold one would let 25 through). With a share
    of four, each process has 2, or what it had already.
    """
    server = start_valkey()
    processes = [Stepwise(server.url, insurance_share=share) for _ in range(PROCESSES)]
    before = [process.hits(number)[0] for process, number in zip(processes, first, strict=True)]
    server.stop()
    during = [process.hits(20) for process in processes]
    for process in processes:
        process.end()

    assert before == list(first)
    assert all(degraded == 20 for _, degraded in during)
    assert [used + more for used, (more, _) in zip(before, during, strict=True)] == [max(each, used) for used in before]
    assert sum(before) + sum(more for more, _ in during) <= PROCESSES * AMOUNT


def test_a_server_that_comes_and_goes(start_valkey: Callable[..., Valkey]) -> None:
    """Killed and started again with its data, three times, under load: in no true period more than each process may allow."""
    server = start_valkey("--appendonly", "yes", "--appendfsync", "no")
    lasting = 9.0
    processes = [
        subprocess.Popen([sys.executable, "-c", RACING, server.url, str(lasting)], stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    for _ in range(3):
        time.sleep(1.2)
        server.stop()
        time.sleep(1.0)
        server.start()
    logs: list[list[Any]] = [json.loads(process.communicate(timeout=60)[0]) for process in processes]

    assert any(degraded for log in logs for _, _, degraded, _ in log)
    assert any(not degraded for log in logs for _, _, degraded, _ in log)
    doubts = sum(doubt for log in logs for *_, doubt in log)
    together = sorted(entry for log in logs for entry in log)
    for log, most in [*((log, AMOUNT) for log in logs), (together, PROCESSES * AMOUNT)]:
        for began, *_ in log:
            # Those that were certainly decided within this period.
            within = [entry for entry in log if began <= entry[0] and entry[1] < began + 2.0]
            assert len(within) <= most + doubts
