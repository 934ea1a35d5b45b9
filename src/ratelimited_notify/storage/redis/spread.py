"""Decisions over windows in several slots of a cluster: generators that yield script calls and do no I/O.

A round is a list of script calls, at most one per slot, that can be sent at the same time. An empty round sends nothing; the
rounds after it have a new deadline. The caller that runs a generator sends in the answers in the same order, with a
`StorageError` for each script call that failed. The sync and the asyncio storage run the same generators.

A script sees one slot. All windows of a recipient are in one slot; windows shared with other recipients may be in other slots.
The hit is counted in the recipient's own windows first, then in each group of shared windows. If a later group refuses, the
hit is given back in the earlier ones. So there is never a hit too many, but another caller may be refused because of a hit
that is about to be given back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import decided, replies, scripts
from ratelimited_notify.storage.redis.slots import slot_of
from ratelimited_notify.windows.strategies import Request, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ratelimited_notify.windows.strategies import Reading, Token, Window

T = TypeVar("T")


class ScriptCall(NamedTuple):
    """One script call in one slot."""

    slot: int
    call: scripts.Call
    keys: Sequence[str]
    read: Callable[[Any], Any]  # Any: each script has replies of its own
    """The parser of the reply."""

    def __repr__(self) -> str:
        # The keys contain recipients, and a tool may show the variables of a traceback.
        return "<ScriptCall>"


Rounds: TypeAlias = Generator[Sequence[ScriptCall], Sequence[Any], T]  # Any: answers, as above, or `StorageError`


class Part(NamedTuple):
    """The windows of one request that are in one slot, and their positions in the request."""

    slot: int
    positions: list[int]
    windows: list[Window]
    keys: list[str]
    cost: int

    def __repr__(self) -> str:
        # The keys contain recipients, and a tool may show the variables of a traceback.
        return "<Part>"


def acquire(made: scripts.Scripts, request: Request) -> Rounds[Verdict]:
    """Count a hit in all windows or in none. After a failure the hit is given back where it was counted, if possible."""
    parts = _parts(request)
    if len(parts) == 1:
        part = parts[0]
        call = made.acquire(part.windows, part.cost)
        script_call = ScriptCall(part.slot, call, part.keys, call.read)
        verdict: Verdict = _checked((yield [script_call]))[0]
        return verdict
    return (yield from _wave(made, [parts], alone=True))[0]


def acquire_many(made: scripts.Scripts, requests: Sequence[Request]) -> Rounds[list[Verdict]]:
    """`acquire` for each request, in order. If one fails, the hits of the others are given back, if possible."""
    verdicts: list[Verdict] = []
    try:
        for wave in _waves(requests):
            verdicts += yield from _wave(made, wave, alone=False)
            # The empty round: each wave has its own deadline.
            yield ()
    except StorageError as error:
        yield ()
        taken = [
            (part, [verdict.readings[position].token for position in part.positions])
            for request, verdict in zip(requests, verdicts, strict=False)
            for part in _parts(request)
        ]
        yield from _all_back(made, taken, error)
        raise
    return verdicts


def peek(made: scripts.Scripts, request: Request) -> Rounds[Verdict]:
    """The verdict that `acquire_many` would return for this one request, without changing anything."""
    parts = _parts(request)
    return _merged(parts, _checked((yield from _decide(made, [(part, False) for part in parts]))))


def release(made: scripts.Scripts, request: Request, tokens: Sequence[Token | None]) -> Rounds[bool]:
    """Give back one hit in all windows that counted it. If one slot fails, the others are still processed."""
    taken = [(part, [tokens[position] for position in part.positions]) for part in _parts(request)]
    return (yield from _give_back(made, taken)) > 0


def forget(made: scripts.Scripts, windows: Sequence[Window], keys: Sequence[str]) -> Rounds[int]:
    """Empty these windows. Returns how many held anything."""
    parts = _parts(Request(windows, keys, 1))
    answers = yield [
        ScriptCall(part.slot, made.forget(part.windows), part.keys, partial(replies.number, most=len(part.keys)))
        for part in parts
    ]
    return sum(_checked(answers))


def pause(made: scripts.Scripts, window: Window, key: str, duration: int) -> Rounds[int]:
    """Pause a rule. Returns the instant of the end."""
    call = made.pause(window, duration)
    read = partial(replies.paused_until, window=window)
    until: int = _checked((yield [ScriptCall(slot_of(key), call, [key], read)]))[0]
    return until


def _parts(request: Request) -> list[Part]:
    """The request grouped by slot: the recipient's own windows first, windows shared with other recipients last."""
    parts: dict[int, Part] = {}
    for position, (window, key) in enumerate(zip(request.windows, request.keys, strict=True)):
        slot = slot_of(key)
        part = parts.get(slot)
        if part is None:
            part = parts[slot] = Part(slot, [], [], [], request.cost)
        part.positions.append(position)
        part.windows.append(window)
        part.keys.append(key)
    if len(parts) == 1:
        return list(parts.values())
    return sorted(parts.values(), key=lambda part: all(window.shared for window in part.windows))


def _waves(requests: Sequence[Request]) -> Iterator[list[list[Part]]]:
    """Split the requests, in order, into waves that can be decided slot by slot with the same outcome as one by one.

    A request in several slots may have to give back its hit in all but the last slot. So no later request of the same wave may
    use the same windows there, or be decided before it in its last slot.
    """
    wave: list[list[Part]] = []
    unsettled: set[str] = set()
    last: set[str] = set()
    for request in requests:
        parts = _parts(request)
        early = {key for part in parts[:-1] or parts for key in part.keys}
        if wave and (
            len(wave) == scripts.REQUESTS_PER_CALL
            or len(parts) > 2
            or len(wave[-1]) > 2
            or not unsettled.isdisjoint(request.keys)
            or not last.isdisjoint(early)
        ):
            yield wave
            wave, unsettled, last = [], set(), set()
        wave.append(parts)
        if len(parts) > 1:
            unsettled |= early
            last.update(parts[-1].keys)
    if wave:
        yield wave


def _wave(made: scripts.Scripts, wave: Sequence[list[Part]], *, alone: bool) -> Rounds[list[Verdict]]:
    """Decide about independent requests: first the first part of each request, then the second part, and so on.

    With `alone`, everything keeps to one deadline. If a failure leaves no time to give a hit back, the hit stays counted.
    """
    verdicts: list[list[Verdict]] = [[] for _ in wave]
    going = [True] * len(wave)
    counted: Iterable[int] = range(len(wave))
    try:
        for level in range(max(map(len, wave))):
            asked = [number for number, parts in enumerate(wave) if len(parts) > level]
            # A request that is refused already is still read in its other parts: when it fits depends on all of them.
            answers = yield from _decide(made, [(wave[number][level], going[number]) for number in asked])
            for number, answer in zip(asked, answers, strict=True):
                if isinstance(answer, Verdict):
                    verdicts[number].append(answer)
                    going[number] &= answer.granted
            _checked(answers)
        counted = [number for number, goes in enumerate(going) if goes]
        refused = [number for number, goes in enumerate(going) if not goes]
        undone = _taken(wave, verdicts, refused)
        if undone:
            yield from _give_back(made, undone)
            seen = yield from _decide(made, [(part, False) for part, _ in undone])
            now = dict(zip((id(part) for part, _ in undone), _checked(seen), strict=True))
            for number in refused:
                verdicts[number] = [
                    now.get(id(part), verdict) for part, verdict in zip(wave[number], verdicts[number], strict=True)
                ]
    except StorageError as error:
        # The hits will be reported as failed, so they are given back, if possible, where they are known to be counted.
        if not alone:
            yield ()
        yield from _all_back(made, _taken(wave, verdicts, counted), error)
        raise
    return [_merged(parts, known) for parts, known in zip(wave, verdicts, strict=True)]


def _taken(
    wave: Sequence[Sequence[Part]], verdicts: Sequence[Sequence[Verdict]], numbers: Iterable[int]
) -> list[tuple[Part, list[Token | None]]]:
    """The parts of these requests in which a hit was counted, with its tokens."""
    return [
        (part, tokens)
        for number in numbers
        for part, verdict in zip(wave[number], verdicts[number], strict=False)
        if any(tokens := [reading.token for reading in verdict.readings])
    ]


def _decide(made: scripts.Scripts, parts: Sequence[tuple[Part, bool]]) -> Rounds[list[Any]]:  # Any: or an error instead
    """Decide about the parts in order, with one script call per slot, and return a verdict for each. False only reads."""
    groups: dict[int, list[int]] = {}
    for number, (part, _) in enumerate(parts):
        groups.setdefault(part.slot, []).append(number)
    answers = yield [_script_call(made, [parts[number] for number in numbers]) for numbers in groups.values()]
    placed: list[Any] = [None] * len(parts)  # Any: as above
    for numbers, answer in zip(groups.values(), answers, strict=True):
        each = [answer] * len(numbers) if isinstance(answer, StorageError) else answer
        for number, one in zip(numbers, each, strict=True):
            placed[number] = one
    return placed


def _script_call(made: scripts.Scripts, group: Sequence[tuple[Part, bool]]) -> ScriptCall:
    if len(group) == 1:
        part, taking = group[0]
        one = made.acquire(part.windows, part.cost) if taking else made.peek(part.windows, part.cost)
        return ScriptCall(part.slot, one, part.keys, partial(_as_list, read=one.read))
    requests = [Request(part.windows, part.keys, part.cost) for part, _ in group]
    keys = [key for part, _ in group for key in part.keys]
    takings = [taking for _, taking in group]
    call = made.many(requests, takings)
    return ScriptCall(group[0][0].slot, call, keys, partial(decided.verdicts, requests=requests, taking=takings))


def _as_list(reply: object, read: Callable[[object], Verdict]) -> list[Verdict]:
    return [read(reply)]


def _give_back(made: scripts.Scripts, taken: Iterable[tuple[Part, Sequence[Token | None]]]) -> Rounds[int]:
    """Give back hits. Returns in how many windows one was found. If one slot fails, the others are still processed."""
    # Hits of the same cost and slot can be given back in one script call.
    left: dict[tuple[int, int], scripts.HeldHit] = {}
    for part, tokens in taken:
        hit = scripts.held_hit(part.windows, part.keys, tokens)
        if hit.keys:
            together = left.setdefault((part.cost, part.slot), scripts.HeldHit([], [], []))
            together.windows.extend(hit.windows)
            together.keys.extend(hit.keys)
            together.tokens.extend(hit.tokens)
    answers: list[Any] = []  # Any: numbers, or errors
    for cost in sorted({cost for cost, _ in left}):
        answers += yield [
            ScriptCall(slot, made.release(hit, cost), hit.keys, partial(replies.given, windows=hit.windows))
            for (price, slot), hit in left.items()
            if price == cost
        ]
    return sum(_checked(answers))


def _all_back(
    made: scripts.Scripts, taken: Sequence[tuple[Part, Sequence[Token | None]]], error: StorageError
) -> Rounds[None]:
    """Give back the hits that were counted before the error. If that fails, raise an error that says that they may count."""
    given = 0
    with suppress(StorageError):
        given = yield from _give_back(made, taken)
    if given < sum(token is not None for _, tokens in taken for token in tokens):
        raise StorageError(f"{error} Hits counted before in other windows could not all be given back.") from error


def _checked(answers: Sequence[Any]) -> Sequence[Any]:  # Any: as in `Rounds`
    """The answers; raises the first error among them, or rather one after which it is not known what was counted."""
    errors = [answer for answer in answers if isinstance(answer, StorageError)]
    if errors:
        raise min(errors, key=lambda error: error.nothing_counted)
    return answers


def _merged(parts: Sequence[Part], verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict, with the readings in the order of the request's windows."""
    if len(parts) == 1:
        return verdicts[0]
    placed: dict[int, Reading] = {}
    for part, verdict in zip(parts, verdicts, strict=True):
        placed.update(zip(part.positions, verdict.readings, strict=True))
    return Verdict(
        all(verdict.granted for verdict in verdicts),
        # Without windows there are no readings, so the instant does not matter.
        max((verdict.now for verdict in verdicts), default=0),
        [placed[position] for position in range(len(placed))],
    )
