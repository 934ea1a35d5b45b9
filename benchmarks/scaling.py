"""The page of the documentation about very large numbers of recipients, calculated from the measured figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from measured import Figure

BILLION = 10**9
RULES = 3
HITS = 2
"""The average number of hits in a window when it is fullest."""
SERVER = 64 * 10**9
"""The memory of one server in the calculation, in bytes."""
USABLE = 0.6
"""The share of this memory for windows. The rest is for the copy of a snapshot or a new replica, and for growth."""
PEAK = 20
"""Notifications per second for each million recipients. At this rate, a billion recipients take fourteen hours."""

_PAGE = """% Made by `make bench`. Do not edit: the next run overwrites it.

# Scaling

This page works out what a billion recipients need, from what was measured on one machine ({processor},
{date}). The figures are those of [the benchmarks](../benchmarks.md). Every step of the calculation is here, so that you can use
your own numbers.

## What one window takes

| where | strategy | bytes for a window with one hit, including its key |
| --- | --- | --- |
| Valkey | moving-window | {moving:.0f}, and {further:.0f} for each further hit |
| Valkey | fixed-window | {fixed:.0f}, no matter how many hits |
| Valkey | sliding-window-counter | {sliding:.0f}, no matter how many hits |
| in memory | moving-window | {memory:.0f}, and about 9 for each further hit |
| in memory | fixed-window | {memory_fixed:.0f}, no matter how many hits |

The windows on Valkey were measured with {people:,} recipients, those in memory with three rules. The addresses had about 25
characters. If the name of a rule or a recipient is longer, the window takes that much more. No key is longer than 200 bytes.

A window exists from its first hit until its last hit has expired. A recipient who got nothing within the longest period of your rules
costs nothing: the server drops expired keys by itself, and in memory they are dropped a few at a time during decisions. So do not count
how many recipients you have. Count how many of them get something within the period.

## A billion recipients

All recipients are active within the longest period, with {rules} rules each, and moving windows with {hits} hits on average:

- Windows: {rules} billion, {moving:.0f} + {more:.0f} = {each:.0f} bytes each: **{total:,.0f} GB**.
- Servers with {server:.0f} GB, of which windows use {usable:.0%}: **{shards:,} shards**, or {servers:,} servers with one replica each.
- With fixed windows instead of moving windows: {fixed_total:,.0f} GB, {fixed_shards:,} shards.
- If one recipient in ten is active within the period: {tenth:,.0f} GB, {tenth_shards:,} shards.

If everybody gets one notification in fourteen hours, that is {peak:,} decisions per second. With three rules and `hit_many`, one caller
made {speed:,.0f} decisions per second on one server of this machine; caller and server shared two cores. For the load alone you would need
{for_speed:,} of these shards. You need more of them for the memory, so there is speed to spare.

## Where the limits are, and what to do about them

**One process, in memory.** A million recipients with {rules} rules take {million:.0f} MB, and at that size the slowest call took
{pause:.1f} ms. The windows are divided into 512 parts, and the slowest work goes through one of them, so with ten times as many windows it
takes up to ten times as long. A restart forgets everything, and a second process counts for itself. From there on, use Redis.

**One server.** Memory runs out first: at {each:.0f} bytes per window, {fits:,.0f} million recipients with {rules} rules fit into {server:.0f} GB. Use
`maxmemory-policy noeviction`, so that a full server is an error and not a forgotten limit. The next step is a cluster.

**A cluster.** All windows of a recipient are in one slot. So a decision is one round trip to one server, no matter how many shards there
are, and you can add shards without changing your code. Redis names 1,000 servers as the most for one cluster. With
{server:.0f} GB each and one replica per master, that is {largest:,.1f} billion recipients with these rules. Beyond that, divide your recipients by
tenant or region, and give each part its own cluster. No decision needs more than one of them.

**A window that everybody shares** (`by=()`) is one key on one server, and every decision asks that server. It cannot take more than one
server can. If that is not enough, divide it by something that your code knows: `by=("channel",)`, or one rule with its own amount for
each region that you send from.

**Long moving windows with large amounts** store the time of every hit: with 1,000 per day, that is {thousand:.0f} kB for a recipient who gets that
many. Above a few hundred, consider `sliding-window-counter`: it takes {sliding:.0f} bytes for any amount, but it is an estimate.

**memcached** has no cluster of its own: if you name several hosts, the recipients are divided among them. The record of a recipient must
fit into one item, 1 MB by default. When memory is short, memcached evicts items, and their hits are forgotten. Give it enough memory, and
watch its evictions.

**An SQLite file** is written by one process at a time, on one machine. [The guide](../how-to/sqlite.md) says what is shared, and how
fairly. Several machines need one of the servers above.

**Connections.** A process opens at most 50 connections to each server (`max_connections`), an event loop at most five: one for decisions
and up to four for batches. A thousand processes with a thousand shards could open up to 50 million. Lower `max_connections` there, and
decide in batches (`hit_many`, `send_many`), which need one connection.
"""


def text(figures: Mapping[str, Figure], where: Mapping[str, str]) -> str:
    """Make the page from the figures and the description of the machine."""

    def value(row: str) -> float:
        return figures[row].value

    moving, further = value("redis-bytes-moving"), value("redis-bytes-further")
    fixed, sliding = value("redis-bytes-fixed"), value("redis-bytes-sliding")
    # Rounded like the displayed values, so that the sum on the page is correct.
    more = round((HITS - 1) * further)
    each = round(moving) + more
    total, fixed_total = BILLION * RULES * each, BILLION * RULES * fixed
    peak = PEAK * BILLION // 10**6
    return _PAGE.format(
        processor=where["Processor"],
        date=where["Date"],
        moving=moving,
        further=further,
        fixed=fixed,
        sliding=sliding,
        memory=value("memory-bytes"),
        memory_fixed=value("memory-bytes-fixed"),
        people=figures["redis-bytes-moving"].people,
        rules=RULES,
        hits=HITS,
        more=more,
        each=each,
        total=total / 1e9,
        server=SERVER / 1e9,
        usable=USABLE,
        shards=_shards(total),
        servers=2 * _shards(total),
        fixed_total=fixed_total / 1e9,
        fixed_shards=_shards(fixed_total),
        tenth=total / 1e10,
        tenth_shards=_shards(total / 10),
        peak=peak,
        speed=value("redis-speed"),
        for_speed=math.ceil(peak / value("redis-speed")),
        pause=value("memory-pause-worst"),
        million=value("memory-bytes") * RULES,
        fits=SERVER * USABLE / each / RULES / 1e6,
        largest=500 * SERVER * USABLE / each / RULES / BILLION,
        thousand=(moving + 999 * further) / 1000,
    )


def _shards(total: float) -> int:
    return math.ceil(total / SERVER / USABLE)
