"""Windows on one memcached server, which the run starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from contenders import OURS, bare_three, each, hitting, three_rules
from limits.strategies import FixedWindowRateLimiter
from measured import Figure, ratio
from paired import fresh, in_turns

from proxy import Proxy
from ratelimited_notify import Limiter

if TYPE_CHECKING:
    from measured import Address, Effort

_AMOUNT = 20


def trips(effort: Effort, memcached: Address) -> list[Figure]:  # noqa: ARG001  # a count needs no effort
    """The round trips of a decision: a proxy counts how often the client sends something and waits."""
    decisions = 500
    with (
        Proxy(memcached.port) as proxy,
        Limiter(three_rules(_AMOUNT), f"memcached://{memcached.host}:{proxy.port}") as limiter,
    ):
        for number in range(50):
            limiter.hit("news", f"person.{number}@example.com")
        proxy.requests = 0
        for number in range(decisions):
            limiter.hit("news", f"person.{number % 50}@example.com")
        sent = proxy.requests
    return [Figure("memcached-trips", sent / decisions, note=f"{sent:,} for {decisions:,} decisions")]


def three(effort: Effort, memcached: Address) -> list[Figure]:
    """Three moving windows, all or none, compared with three separate fixed windows."""
    times = in_turns(
        {
            OURS: each(hitting(three_rules(_AMOUNT), memcached.url)),
            "limits": each(bare_three(_AMOUNT, memcached.url, FixedWindowRateLimiter)),
        },
        fresh(100, _AMOUNT),
        effort.rounds,
        clock=time.perf_counter,
    )
    return [ratio("memcached-three", times.ratio(OURS, "limits"))]


MEASUREMENTS = (trips, three)
