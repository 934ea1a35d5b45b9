"""How a decision changes items: generators that yield one step after another and do no I/O themselves.

A step is one read-modify-write of the item under one key head. The caller that runs a generator sends in what the step's
`change` returned, or throws in the `StorageError` raised instead. Both storages, sync and asyncio, run these generators.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.memcached import failures
from ratelimited_notify.storage.memcached.record import AT_ONCE, Item, time_to_live
from ratelimited_notify.windows.keys import split
from ratelimited_notify.windows.strategies import Verdict, look, take

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimited_notify.windows.strategies import Pause, Reading, Record, Request, Token, Window

T = TypeVar("T")

GROUP = 250
"""How many requests of a batch share one deadline."""

_SHORTEST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class Step(NamedTuple):
    """One item to read, and to write back if it changed."""

    head: str
    change: Callable[[Item, int], tuple[Any, bool]]  # Any: each kind of step has an answer of its own
    """Changes the item at an instant. Returns the answer, and whether the item has to be written.

    It is called again, with the current item, if another caller has written the item in the meantime.
    """
    if_unreadable: Any = None  # Any: as above
    """The answer if the item cannot be read; the item is then deleted. With None, an unreadable item is an error, and stays."""

    def __repr__(self) -> str:
        # The head contains a recipient, and a tool may show the variables of a traceback.
        return "<Step>"


class Write(NamedTuple):
    """A value to store, the result of a step."""

    value: bytes
    expire: int
    """The time to live, as memcached expects it."""
    outgrown: Callable[[], StorageError]
    """Makes the error to raise when the value is too large for the server."""

    def __repr__(self) -> str:
        # The value names fields by which it is counted, and a tool may show the variables of a traceback.
        return "<Write>"


Steps: TypeAlias = Generator[Step, Any, T]  # Any: what is sent in is the answer of the step that was yielded


def perform(step: Step, value: bytes | None, now: int, wall: float) -> tuple[Any, Write | None]:  # Any: as in `Step`
    """The answer of a step, given the value that memcached holds, and what has to be written first; None if nothing has.

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


def backoff(attempt: int) -> float:
    """Seconds to wait before the next attempt, after another caller wrote the item first. They grow with each attempt."""
    return random.uniform(0, min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**attempt))  # noqa: S311  # spreads load, no secret


class _Group(NamedTuple):
    """The windows of a request that are in one item, and their positions in the request."""

    head: str
    positions: list[int]
    windows: list[Window]
    rests: list[str]

    def __repr__(self) -> str:
        # The head contains a recipient, and a tool may show the variables of a traceback.
        return "<_Group>"

    def records(self, item: Item) -> list[Record]:
        return [item.record(rest, window) for rest, window in zip(self.rests, self.windows, strict=True)]


def _groups(windows: Sequence[Window], keys: Sequence[str]) -> list[_Group]:
    """The request grouped by item: the recipient's own windows first, windows shared with other recipients last."""
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
    """Count a hit in all windows or in none.

    If the windows are in several items, the items are updated one after another. If a later item refuses, the hit is given
    back in the earlier ones.
    """
    groups = _groups(windows, keys)
    verdicts: list[Verdict] = []
    try:
        for group in groups:
            verdicts.append((yield Step(group.head, partial(_take, group, cost))))
            if not verdicts[-1].granted:
                break
    except StorageError as error:
        # The hit will be reported as failed, so it is given back, if possible, where it is known to be counted.
        try:
            yield from _give_back(groups, verdicts, cost)
        except StorageError:
            raise failures.half_counted(error) from error
        raise
    if all(verdict.granted for verdict in verdicts):
        return _merged(groups, verdicts)
    answers = yield from _give_back(groups, verdicts[:-1], cost)
    answers.append(verdicts[-1])
    answers += yield from _peek_each(groups[len(answers) :], cost)
    return _merged(groups, answers)


def _peek_each(groups: Sequence[_Group], cost: int) -> Steps[list[Verdict]]:
    verdicts: list[Verdict] = []
    for group in groups:
        verdict: Verdict = yield Step(group.head, partial(_look, group, cost))
        verdicts.append(verdict)
    return verdicts


def _give_back(groups: Sequence[_Group], verdicts: Sequence[Verdict], cost: int) -> Steps[list[Verdict]]:
    """Give back the hit in all items that counted it, and read them again. If one item fails, the others are still processed."""
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
    """Give back the hits of the first requests of a failed batch, as far as possible.

    Returns how many requests could not be given back.
    """
    kept = 0
    for (windows, keys, cost), verdict in zip(requests, verdicts, strict=False):
        try:
            yield from release(windows, keys, cost, [reading.token for reading in verdict.readings])
        except StorageError:
            kept += 1
    return kept


def peek(windows: Sequence[Window], keys: Sequence[str], cost: int) -> Steps[Verdict]:
    """The verdict that `acquire` would return, without changing anything."""
    groups = _groups(windows, keys)
    return _merged(groups, (yield from _peek_each(groups, cost)))


def release(windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]) -> Steps[bool]:
    """Give back one hit in all windows that counted it. If one item fails, the others are still processed."""
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
    """Empty these windows. Returns how many held anything. An unreadable window counts as held, and is deleted."""
    forgotten = 0
    for group in _groups(windows, keys):
        forgotten += yield Step(group.head, partial(_forget, group), if_unreadable=len(group.rests))
    return forgotten


def pause(window: Window, key: str, duration: int) -> Steps[int]:
    """Pause a rule. Returns the instant of the end."""
    head, rest = split(key)
    until: int = yield Step(head, partial(_pause, window, rest, duration))
    return until


def _pause(window: Window, rest: str, duration: int, item: Item, now: int) -> tuple[int, bool]:
    paused = cast("Pause", item.record(rest, window))
    before, until = paused.until, paused.extend(now + duration)
    return until, until != before


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
    """One verdict, with the readings in the order of the request's windows."""
    placed: dict[int, Reading] = {}
    for group, verdict in zip(groups, verdicts, strict=True):
        placed.update(zip(group.positions, verdict.readings, strict=True))
    return Verdict(
        all(verdict.granted for verdict in verdicts),
        # Without windows there are no readings, so the instant does not matter.
        max((verdict.now for verdict in verdicts), default=0),
        [placed[position] for position in range(len(placed))],
    )
