"""A fast path for the most frequent decision: cost 1, in moving and fixed windows that are not shared.

It does the arithmetic of `windows.strategies` on the integers of `packed`. A hit fits into a moving window if the window
holds fewer hits than the amount, or if the amount-th newest hit has left the window; then all older hits have left it too. In
any other case the fast path either returns None and has done nothing, or uses the general path under the same lock.

The code of the deciding function is generated for the windows of each plan and compiled once, as `dataclasses` does for its
methods: a loop over three windows would take a fifth longer.
"""

from __future__ import annotations

from functools import lru_cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, cast

from ratelimited_notify.storage.memory.clock import IrregularClock
from ratelimited_notify.storage.memory.packed import DIGIT, LOWEST, MARKS, MOST_HITS, Snapshot, UnpackedRecord
from ratelimited_notify.storage.memory.shards import PARTS
from ratelimited_notify.windows.keys import is_plain
from ratelimited_notify.windows.strategies import Mode, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.storage.memory.clock import MemoryClock
    from ratelimited_notify.storage.memory.packed import Value
    from ratelimited_notify.storage.memory.shards import Shards
    from ratelimited_notify.storage.memory.yielding_lock import YieldingLock
    from ratelimited_notify.windows.strategies import Outcome, VerdictLike, Window, WindowKind

_LONGEST_PERIOD = 1 << 51

# The sweep runs at one tick in this many. It is a prime, because ticks may follow a pattern.
_RARELY = 61

# A recipient with a % needs escaping: the key made here could be the escaped key of another recipient. A window that is not
# stored as an integer (hence the TypeError) is decided by the general path, under the same lock. Looking at a few windows now
# and then costs less than looking at one each time.
# What every call uses is an argument: one look-up less than a global. Its value is the default, in this order.
_FUNCTION = """
def decide(recipient, by_hash, guard, hash, lock, origin, ticks, shortcut, before, {arguments}):
    if "%" in recipient or (lock.locked() and not wait_until_open()):
        return None
    {keys}
    try:
        with lock:
            try:
                tick = ticks()
            except IrregularClock:
                return None
            try:
                shard = by_hash[hash(recipient) & {last_part}]
                added = 0
                {windows}
            except TypeError:
                return as_outcome(shortcut.decided(shortcut.windows, ({all_keys},), 1, tick + origin), tick, shortcut)
            if added and not is_plain(recipient):
                return None
            {stored}
            if added:
                shards.added += added
            {swept}
    finally:
        # After refusals too: a thread that only gets refusals holds the lock as often.
        if guard.contended:
            yield_to_others()
    return True, tick, {values}, shortcut
"""

_ARGUMENTS = "after{n}, full{n}, last{n}, lasting{n}"
_ONE_KEY = 'key0 = f"{before}{recipient}{after0}"'
_SEVERAL_KEYS = "head = before + recipient; "

_MOVING = """
                value{n} = shard.get(key{n})
                if value{n} is None:
                    added += 1
                    value{n} = tick + lasting{n}
                elif value{n} < full{n}:
                    value{n} = value{n} << {digit} | tick + lasting{n}
                elif last{n} < 0:
                    return as_outcome(shortcut.decided(shortcut.windows, ({all_keys},), 1, tick + origin), tick, shortcut)
                elif (value{n} >> last{n} & {lowest}) // {marks} > (tick + origin) // {marks}:
                    {refused}
                else:
                    value{n} = (value{n} & full{n} - 1) << {digit} | tick + lasting{n}
"""

_FIXED = """
                value{n} = shard.get(key{n})
                if value{n} is None:
                    added += 1
                    value{n} = tick + lasting{n} + full{n}
                elif (value{n} & {lowest}) // {marks} <= (tick + origin) // {marks}:
                    value{n} = tick + lasting{n} + full{n}
                elif value{n} >> {digit} < last{n}:
                    value{n} += full{n}
                else:
                    {refused}
"""

# Refusals sweep too, since a process may refuse everything for days. The values are read before the sweep, which may drop them.
_REFUSED = """outcome = False, tick, {found}, shortcut
                    {swept}
                    return outcome"""
# An integer is immutable and can be explained later. A record has to be read now, under the lock. The windows up to this one
# are integers; otherwise the comparison would have raised.
_REFUSED_UNLESS_KEPT = """if {kept}:
                        return as_outcome(shortcut.decided(shortcut.windows, ({all_keys},), 1, tick + origin), tick, shortcut)
                    """
_SWEPT = "not tick % {rarely} and sweep((tick + origin) // {marks}, 8)"


class MemoryShortcut:
    """A fast path to the windows that every recipient has.

    Arguments:
        shared: what all shortcuts of a storage use.
        decided: the general path: decides at a tick, while the caller holds the lock.
        windows: the windows, for all of which `can_have_shortcut` is true.
        key_parts: for each window, what its key has before and after the recipient; the part before is the same for all.
    """

    def __init__(
        self,
        shared: Shared,
        decided: Callable[[Sequence[Window], Sequence[str], int, int], Verdict],
        windows: Sequence[Window],
        key_parts: Sequence[tuple[str, str]],
    ) -> None:
        self.windows = windows
        self.decided = decided
        self._origin = shared.origin
        self.decide: Callable[[str], Outcome | None] = _compiled(shared, self, key_parts)

    def explain(self, outcome: Outcome) -> VerdictLike:
        """The verdict that the general path would have returned."""
        granted, tick, *values, _ = outcome
        if isinstance(values[0], Verdict):
            return values[0]
        return Snapshot(granted, (tick + self._origin) // MARKS, self.windows, cast("list[Value | None]", values))


def can_have_shortcut(window: Window) -> bool:
    """Whether a shortcut can decide about this window."""
    return (
        window.strategy != "sliding-window-counter"
        and window.mode is Mode.ENFORCE
        and not window.shared
        and window.amount > 0
        and window.period < _LONGEST_PERIOD
    )


class Shared:
    """What all shortcuts of a storage use: the same objects, since there may be thousands of shortcuts.

    Arguments:
        shards: the windows.
        guard: the lock that protects them.
        clock: the clock.
    """

    __slots__ = ("arguments", "names", "origin")

    def __init__(self, shards: Shards, guard: YieldingLock, clock: MemoryClock) -> None:
        self.origin = clock.origin
        self.arguments = (shards.by_hash, guard, hash, guard.lock, clock.origin, clock.forward)
        """The first arguments after the recipient."""
        self.names: dict[str, object] = {
            # Tells a fork that the code made here belongs to this package.
            "__name__": __name__,
            "UnpackedRecord": UnpackedRecord,
            "IrregularClock": IrregularClock,
            "is_plain": is_plain,
            "shards": shards,
            "yield_to_others": guard.yield_to_others,
            "wait_until_open": guard.wait_until_open,
            "sweep": shards.sweep,
            "as_outcome": _as_outcome,
        }
        """The globals of the deciding functions."""


def _as_outcome(verdict: Verdict, tick: int, shortcut: MemoryShortcut) -> Outcome:
    """The outcome of the general path."""
    return verdict.granted, tick, verdict, shortcut


def _compiled(
    shared: Shared, shortcut: MemoryShortcut, key_parts: Sequence[tuple[str, str]]
) -> Callable[[str], Outcome | None]:
    windows = shortcut.windows
    arguments: list[object] = [*shared.arguments, shortcut, key_parts[0][0]]
    for window, (_, after) in zip(windows, key_parts, strict=True):
        arguments += (after, *_bounds(window), window.period * MARKS + shared.origin)
    code = _code(tuple([window.strategy for window in windows]))
    return FunctionType(code, shared.names, "decide", tuple(arguments))


@lru_cache(maxsize=64)
def _code(strategies: tuple[WindowKind, ...]) -> CodeType:
    """The code for windows of these strategies. What else differs from window to window are values that it looks up."""
    numbers = range(len(strategies))

    def each(text: str, between: str = ", ") -> str:
        return between.join(text.format(n=n) for n in numbers)

    def refused(by: int) -> str:
        kept = " or ".join(f"shard.get(key{n}).__class__ is UnpackedRecord" for n in numbers[by + 1 :])
        found, all_keys = each("shard.get(key{n})"), each("key{n}")
        text = _REFUSED_UNLESS_KEPT + _REFUSED if kept else _REFUSED
        return text.format(kept=kept, found=found, all_keys=all_keys, swept=swept)

    swept = _SWEPT.format(rarely=_RARELY, marks=MARKS)
    constants = {"digit": DIGIT, "lowest": LOWEST, "marks": MARKS, "last_part": PARTS - 1}
    text = _FUNCTION.format(
        arguments=each(_ARGUMENTS),
        keys=_ONE_KEY if len(strategies) == 1 else _SEVERAL_KEYS + each("key{n} = head + after{n}", "; "),
        windows="".join(
            (_MOVING if strategy == "moving-window" else _FIXED).format(
                n=n, refused=refused(n), all_keys=each("key{n}"), **constants
            )
            for n, strategy in enumerate(strategies)
        ).strip(),
        stored=each("shard[key{n}] = value{n}", "; "),
        values=each("value{n}"),
        all_keys=each("key{n}"),
        swept=swept,
        **constants,
    )
    module = compile(text, f"<windows in memory: {', '.join(strategies)}>", "exec")
    return next(each for each in module.co_consts if isinstance(each, CodeType))


def _bounds(window: Window) -> tuple[int, int]:
    """`full` and `last`. For a fixed window: what one hit adds, and the amount. For a moving window: the number from which it is
    full, and the bit position of the hit that must then have left it; -1 if an integer does not hold that many hits.
    """
    if window.strategy == "fixed-window":
        return 1 << DIGIT, window.amount
    last = DIGIT * (min(window.amount, MOST_HITS) - 1)
    return 1 << last, last if window.amount <= MOST_HITS else -1
