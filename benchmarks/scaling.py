"""The page of the documentation that says what very many recipients cost, worked out from what was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from measured import Figure

BILLION = 10**9
RULES = 3
HITS = 2
"""Hits in a window, on average, when it is fullest."""
SERVER = 64 * 10**9
"""Bytes of memory of one server of the reckoning."""
USABLE = 0.6
"""The share of it that windows may take: the rest is for the copy that a snapshot or a new replica needs, and for growth."""
PEAK = 20
"""Notifications a second for each million recipients: a billion in fourteen hours."""

_PAGE = """% Made by `make bench`; what is written here by hand is lost.

# How far it goes

What a billion recipients cost, worked out from what was measured on one machine ({processor}, {date}). The figures are
those of [the benchmarks](../benchmarks.md); every step of the reckoning is here, so that you can put in your own.

## What one window takes

| where | strategy | bytes a window with one hit, key included |
| --- | --- | --- |
| Valkey | moving-window | {moving:.0f}, and {further:.0f} for each further hit |
| Valkey | fixed-window | {fixed:.0f}, however many hits |
| Valkey | sliding-window-counter | {sliding:.0f}, however many hits |
| in memory | moving-window | {memory:.0f}, and about 9 for each further hit |
| in memory | fixed-window | {memory_fixed:.0f}, however many hits |

Those on Valkey were measured with {people:,} recipients, those in memory with three rules; the addresses had about twenty-five
letters. A longer name of a rule or of a recipient takes its length more; no key is longer than 200 bytes.

A window exists from its first hit until its last has left it. Who got nothing for as long as the longest period of the rules
costs nothing: the server drops the key by itself, and memory sweeps as it decides. So the number that counts is not how
many recipients you have, but how many got something within the period.

## A billion recipients

All of them active within the longest period, {rules} rules each, moving windows with {hits} hits on average:

- windows: {rules} billion, of {moving:.0f} + {more:.0f} = {each:.0f} bytes: **{total:,.0f} GB**;
- servers of {server:.0f} GB, of which windows take {usable:.0%}: **{shards:,} shards**, and with one replica each {servers:,} servers;
- with fixed windows instead of moving ones: {fixed_total:,.0f} GB, {fixed_shards:,} shards;
- if one in ten is active within the period: {tenth:,.0f} GB, {tenth_shards:,} shards.

Decisions: {peak:,} a second, if everybody is notified once in fourteen hours. One caller made {speed:,.0f} decisions a second
by three rules with `hit_many` on one server of this machine, which had two cores for both. For the load alone it would take
{for_speed:,} of such shards; the memory asks for more, and then there is load to spare.

## Where the bounds are, and what to do there

**One process, memory.** {million:.0f} MB for a million recipients with {rules} rules, and at that size the longest call took
{pause:.1f} ms. The windows lie in 512 parts, and what takes longest goes through one of them: with ten times as many it takes up to
ten times as long. A restart forgets everything, and a second process counts by itself: use Redis from there on.

**One server.** Memory first: at {each:.0f} bytes a window, {fits:,.0f} million recipients with {rules} rules fit into {server:.0f} GB. Use
`maxmemory-policy noeviction`, so that a full server is an error and not a forgotten limit. The next step is a cluster.

**A cluster.** All windows of a recipient lie in one slot, so a decision is one round trip to one server, whatever the number of
shards, and shards are added without the callers' knowing. Redis names 1,000 servers as the most for one cluster; at
{server:.0f} GB each and one replica, that is {largest:,.1f} billion recipients of this kind. Beyond, give each part of your recipients a cluster
of its own, by tenant or by region: nothing in a decision looks across.

**A window over everybody** (`by=()`) is one key on one server, and so is asked by every decision. It bears what one server
bears. Where that is not enough, divide it by something that callers know: `by=("channel",)`, or one rule and
one amount for each sending region.

**Long moving windows with large amounts** hold a stamp for each hit: 1,000 a day is {thousand:.0f} kB for a recipient who gets that
much. Above some hundreds, `sliding-window-counter` takes {sliding:.0f} bytes whatever the amount, and is an estimate.

**memcached** has no cluster of its own: several hosts share the recipients between them. One record per recipient has to fit
into one item, 1 MB by default, and is evicted when memory is short, which forgets: give it room, and watch evictions.

**The callers.** A process opens at most 50 connections to each server (`max_connections`), an event loop five: one for decisions and up
to four for batches. A thousand processes with a thousand shards would open up to 50 million: lower it there, and let a process ask in batches (`hit_many`, `send_many`), which
need one connection.
"""


def text(figures: Mapping[str, Figure], where: Mapping[str, str]) -> str:
    """The page."""

    def value(row: str) -> float:
        return figures[row].value

    moving, further = value("redis-bytes-moving"), value("redis-bytes-further")
    fixed, sliding = value("redis-bytes-fixed"), value("redis-bytes-sliding")
    # Rounded as they are shown, or the sum would not seem right.
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
