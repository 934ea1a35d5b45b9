"""What a decision does to which item: generators that yield one step after another and do no I/O themselves.

A step is one read-modify-write of the item under one head. Whoever runs a generator answers each step with what its
`change` returned, or throws the `StorageError` that came instead. Both storages, sync and asyncio, run these.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.memcached import failures
from ratelimited_notify.storage.memcached.record import AT_ONCE, Item, time_to_live
from ratelimited_notify.windows.keys import split
from ratelimited_notify.windows.strategies import Verdict, look, take

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimited_notify.windows.strategies import Reading, Record, Request, Token, Window

T = TypeVar("T")

GROUP = 250
"""Requests of a batch that have one deadline together."""

_SHORTEST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class Step(NamedTuple):
    """One item to read, and to write back if it changed."""

    head: str
    change: Callable[[Item, int], tuple[Any, bool]]  # Any: each kind of step has an answer of its own
    """What to do to the item at an instant; returns the answer, and whether the item has to be written.

    Called anew, with the item as it then is, when somebody else wrote it in the meantime.
    """
    if_unreadable: Any = None  # Any: as above
    """The answer where the item cannot be read, and is deleted for that; with None it is an error, and stays."""


class Write(NamedTuple):
    """What a step leaves in its item."""

    value: bytes
    expire: int
    """The time to live, as memcached wants it."""
    outgrown: Callable[[], StorageError]
    """What to say when the value is too large for the server."""


Steps: TypeAlias = Generator[Step, Any, T]  # Any: what is sent in is the answer of the step that was yielded


def perform(step: Step, value: bytes | None, now: int, wall: float) -> tuple[Any, Write | None]:  # Any: as in `Step`
    """The answer of a step where memcached holds this value, and what to write for it to be true; None is nothing.

    `now` is the instant of the decision, `wall` the seconds since 1970.
    """
    try:
        item = Item(value)
    except StorageError:
        if step.if_unreadable is None:
            raise
        return step.if_unreadable, Write(b"", AT_ONCE, Item(None).outgrown)
    answer, changed = step.change(item, now)
    if not changed:
        return answer, None
    encoded = item.encode(now)
    if encoded is not None:
        content, end = encoded
        return answer, Write(content, time_to_live(end, now, wall), item.outgrown)
    return answer, None if value is None else Write(b"", AT_ONCE, item.outgrown)


def pause(attempt: int) -> float:
    """Seconds to wait before reading again what somebody else wrote first, more on average with each attempt."""
    return random.uniform(0, min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**attempt))  # noqa: S311  # spreads load, no secret


class _Group(NamedTuple):
    """The windows of a request that lie in one item, and where in the request they stand."""

    head: str
    positions: list[int]
    windows: list[Window]
    rests: list[str]

    def records(self, item: Item) -> list[Record]:
        return [item.record(rest, window) for rest, window in zip(self.rests, self.windows, strict=True)]


def _groups(windows: Sequence[Window], keys: Sequence[str]) -> list[_Group]:
    """The request by items: the recipient's own first, those shared with others last."""
    groups: dict[str, _Group] = {}
    for position, (window, key) in enumerate(zip(windows, keys, strict=True)):
        head, rest = split(key)
        group = groups.get(head)
        if group is None:
            group = groups[head] = _Group(head, [], [], [])
        group.positions.append(position)
        group.windows.append(window)
        group.rests.append(rest)
    return sorted(groups.values(), key=lambda group: all(window.shared for window in group.windows))


def acquire(windows: Sequence[Window], keys: Sequence[str], cost: int) -> Steps[Verdict]:
    """Take a hit in all windows or in none.

    Where they lie in several items, each takes in turn; what a later one refuses, the earlier ones are given back.
    """
    groups = _groups(windows, keys)
    verdicts: list[Verdict] = []
    try:
        for group in groups:
            verdicts.append((yield Step(group.head, partial(_take, group, cost))))
            if not verdicts[-1].granted:
                break
    except StorageError as error:
        # The hit is about to be reported as failed: what is known to be counted for it is given back if possible.
        try:
            yield from _undone(groups, verdicts, cost)
        except StorageError:
            raise failures.half_counted(error) from error
        raise
    if all(verdict.granted for verdict in verdicts):
        return _merged(groups, verdicts)
    answers = yield from _undone(groups, verdicts[:-1], cost)
    answers.append(verdicts[-1])
    answers += yield from _seen(groups[len(answers) :], cost)
    return _merged(groups, answers)


def _seen(groups: Sequence[_Group], cost: int) -> Steps[list[Verdict]]:
    verdicts: list[Verdict] = []
    for group in groups:
        verdict: Verdict = yield Step(group.head, partial(_look, group, cost))
        verdicts.append(verdict)
    return verdicts


def _undone(groups: Sequence[_Group], verdicts: Sequence[Verdict], cost: int) -> Steps[list[Verdict]]:
    """Give back all that was granted, and look again; an item that fails keeps no other from giving back."""
    answers: list[Verdict] = []
    failure: StorageError | None = None
    for group, verdict in zip(groups, verdicts, strict=False):
        tokens = [reading.token for reading in verdict.readings]
        try:
            answers.append((yield Step(group.head, partial(_undo, group, cost, tokens))))
        except StorageError as error:
            failure = error
    if failure is not None:
        raise failure
    return answers


def abandon(requests: Sequence[Request], verdicts: Sequence[Verdict]) -> Steps[int]:
    """Give back what the first requests of a batch were granted, as far as it can be done: the batch failed.

    Returns for how many it could not be done.
    """
    kept = 0
    for (windows, keys, cost), verdict in zip(requests, verdicts, strict=False):
        try:
            yield from release(windows, keys, cost, [reading.token for reading in verdict.readings])
        except StorageError:
            kept += 1
    return kept


def peek(windows: Sequence[Window], keys: Sequence[str], cost: int) -> Steps[Verdict]:
    """What `acquire` would say, changing nothing."""
    groups = _groups(windows, keys)
    return _merged(groups, (yield from _seen(groups, cost)))


def release(windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]) -> Steps[bool]:
    """Give back one hit in all windows that took it; an item that fails keeps no other from giving back."""
    given = False
    failure: StorageError | None = None
    for group in _groups(windows, keys):
        left = [tokens[position] for position in group.positions]
        if any(token is not None for token in left):
            try:
                given = (yield Step(group.head, partial(_give, group, cost, left))) or given
            except StorageError as error:
                failure = error
    if failure is not None:
        raise failure
    return given


def forget(windows: Sequence[Window], keys: Sequence[str]) -> Steps[int]:
    """Empty these windows; how many held anything. What cannot be read counts as held, and goes."""
    forgotten = 0
    for group in _groups(windows, keys):
        forgotten += yield Step(group.head, partial(_forget, group), if_unreadable=len(group.rests))
    return forgotten


def _take(group: _Group, cost: int, item: Item, now: int) -> tuple[Verdict, bool]:
    verdict = take(group.windows, group.records(item), now, cost, item.mark)
    taken = any(reading.token is not None for reading in verdict.readings)
    item.mark += taken
    return verdict, taken


def _look(group: _Group, cost: int, item: Item, now: int) -> tuple[Verdict, bool]:
    return look(group.windows, group.records(item), now, cost), False


def _give(group: _Group, cost: int, tokens: Iterable[Token | None], item: Item, now: int) -> tuple[bool, bool]:
    given = False
    for window, record, token in zip(group.windows, group.records(item), tokens, strict=True):
        if token is not None:
            given = record.give(now, window.period, cost, token) or given
    return given, given


def _undo(group: _Group, cost: int, tokens: Iterable[Token | None], item: Item, now: int) -> tuple[Verdict, bool]:
    _, given = _give(group, cost, tokens, item, now)
    return look(group.windows, group.records(item), now, cost), given


def _forget(group: _Group, item: Item, now: int) -> tuple[int, bool]:
    dropped = [item.drop(rest, window, now) for rest, window in zip(group.rests, group.windows, strict=True)]
    return dropped.count("held"), any(one != "absent" for one in dropped)


def _merged(groups: Sequence[_Group], verdicts: Sequence[Verdict]) -> Verdict:
    """One answer, with the windows in the order in which they were asked for."""
    placed: dict[int, Reading] = {}
    for group, verdict in zip(groups, verdicts, strict=True):
        placed.update(zip(group.positions, verdict.readings, strict=True))
    return Verdict(
        all(verdict.granted for verdict in verdicts),
        # Of no windows at all there is nothing to tell that an instant would matter to.
        max((verdict.now for verdict in verdicts), default=0),
        [placed[position] for position in range(len(placed))],
    )
