"""Parsing the replies of the deciding scripts. Pure.

Each reply is checked completely before any of it is used (see `replies`). A batch is checked in as few steps as possible:
usually the replies to all of its requests have the same shape, and are checked together, a column of numbers at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import repeat
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, overload

import msgspec

from ratelimited_notify.storage.redis.failures import UnexpectedReply
from ratelimited_notify.storage.redis.replies import unreadable_window
from ratelimited_notify.windows.lazy_verdicts import LazyVerdicts
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Reading, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ratelimited_notify.windows.strategies import Request, Token, Window

_EXACT = 2**53
_FULL = 5
"""How many numbers a window has in a reply in its full form."""
_BRIEF = {"moving-window": 1, "fixed-window": 2}
"""How many numbers a window has in its brief form, which only says that a hit was counted."""

# How replies write `FITS` and `NEVER`. The server's clock never returns such instants.
_FITS, _NEVER = 0, -1

# Looking these up in the class would take as long as comparing them.
_ENFORCE, _FORCE = Mode.ENFORCE, Mode.FORCE

# This takes a third less time than the constructor of a named tuple; the saving is as much as the checks cost.
_made: Callable[[type[Reading], tuple[int, int, int, Token | None]], Reading] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # it is for any tuple
_verdict: Callable[[type[Verdict], tuple[bool, int, Sequence[Reading]]], Verdict] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # as above

# Lua's numbers are exact up to here.
_decode = msgspec.msgpack.Decoder(list[Annotated[int, msgspec.Meta(ge=-_EXACT, le=_EXACT)]]).decode


@cache
def _counted(windows: int) -> Callable[[bytes], tuple[int, ...]]:
    """Parses a reply that says that the hit was counted in all of so many windows, and checks it completely."""
    number, fits, size = _between(0, _EXACT), _between(_FITS, _FITS), 1 + _FULL * windows
    numbers = (number, _between(size, size), *(number, fits, number, number, number) * windows)
    shape: Any = tuple.__class_getitem__(numbers)  # Any: a type that is made here
    decode: Callable[[bytes], tuple[int, ...]] = msgspec.msgpack.Decoder(shape).decode
    return decode


def _between(least: int, most: int) -> Any:  # Any: a type that is made here
    return Annotated[int, msgspec.Meta(ge=least, le=most)]


class CountedReadings(Sequence[Reading]):
    """The readings of a hit that was counted in all its windows, made from the reply when a caller reads them."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers) // _FULL

    def __iter__(self) -> Iterator[Reading]:
        numbers = self._numbers
        for at in range(2, len(numbers), _FULL):
            count, _, reset_at, instant, sequence = numbers[at : at + _FULL]
            yield _made(Reading, (count, FITS, reset_at, (instant, sequence)))

    @overload
    def __getitem__(self, at: int) -> Reading: ...

    @overload
    def __getitem__(self, at: slice) -> list[Reading]: ...

    def __getitem__(self, at: int | slice) -> Reading | list[Reading]:
        return list(self)[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)  # pyright: ignore[reportUnknownArgumentType]  # whatever it holds

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __repr__(self) -> str:
        return repr(list(self))


def reader(windows: Sequence[Window], *, taking: bool) -> Callable[[object], Verdict]:
    """The parser of the reply to one request; arguments and errors as for `verdict`."""
    exactly = partial(verdict, windows=windows, taking=taking)
    if not taking or any(window.strategy == "pause" for window in windows):
        return exactly
    decode = _counted(len(windows))

    def read(reply: object) -> Verdict:
        # The usual reply is checked in one step.
        if type(reply) is bytes:
            try:
                numbers = decode(reply)
            except msgspec.MsgspecError:
                pass
            else:
                return _verdict(Verdict, (True, numbers[0], CountedReadings(numbers)))
        return exactly(reply)

    return read


def verdict(reply: object, windows: Sequence[Window], *, taking: bool = True) -> Verdict:
    """Parse the reply to one request.

    Arguments:
        reply: the reply of the script.
        windows: the windows of the request.
        taking: whether the hit was to be counted; False for a request that only reads.

    Raises:
        UnreadableWindow: the key of a window holds something that this library did not write.
        UnexpectedReply: this is not a reply to the request.
    """
    numbers = _numbers(reply)
    size = 1 + _FULL * len(windows)
    if len(numbers) != size + 1 or abs(numbers[1]) != size:
        _refuse(numbers, [windows])
    granted = numbers[1] > 0
    blocked = False
    readings: list[Reading] = []
    at = 2
    for window in windows:
        count, retry_at, reset_at, instant, sequence = numbers[at : at + _FULL]
        at += _FULL
        if count < 0 or retry_at < _NEVER or reset_at < 0 or instant < -1 or sequence < 0:
            raise UnexpectedReply
        if instant >= 0:
            # A hit is counted only if it fits, and only if the request was granted.
            if not (granted and taking) or retry_at != _FITS or window.strategy == "pause":
                raise UnexpectedReply
            readings.append(_made(Reading, (count, FITS, reset_at, (instant, sequence))))
            continue
        mode = window.mode
        if retry_at != _FITS:
            if mode is _FORCE:
                raise UnexpectedReply
            blocked = blocked or mode is _ENFORCE
        elif granted and taking and mode is not _FORCE and window.strategy != "pause":
            raise UnexpectedReply
        readings.append(_made(Reading, (count, _instant(retry_at), reset_at, None)))
    if granted is blocked:
        raise UnexpectedReply
    return Verdict(granted, numbers[0], readings)


def verdicts(reply: object, requests: Sequence[Request], taking: Sequence[bool] | None = None) -> list[Verdict]:
    """Parse the reply to several requests at once; arguments and errors as for `answers`."""
    return [Verdict(answer.granted, answer.now, answer.readings) for answer in answers(reply, requests, taking)]


def answers(reply: object, requests: Sequence[Request], taking: Sequence[bool] | None = None) -> Replies:
    """Parse the reply to several requests. All verdicts are checked; their readings are lazily computed.

    Arguments:
        reply: the reply of the script.
        requests: the requests.
        taking: for each request, whether the hit was to be counted; by default all were.

    Raises:
        UnreadableWindow: the key of a window holds something that this library did not write; nothing was counted.
        UnexpectedReply: this is not a reply to the requests.
    """
    return Replies(_numbers(reply), [windows for windows, _, _ in requests], taking)


class Replies(LazyVerdicts):
    """Verdicts kept as the numbers of the reply, in one list: most readings are never used."""

    __slots__ = ("_numbers", "_places", "_windows")

    def __init__(
        self, numbers: list[int], windows: Sequence[Sequence[Window]], taking: Sequence[bool] | None = None
    ) -> None:
        self._numbers = numbers
        self._windows = windows
        same = taking is None and windows.count(windows[0] if windows else ()) == len(windows)
        size = numbers[1] if len(numbers) > 1 else 0
        step = abs(size)
        if (
            same
            and size
            and len(numbers) == 1 + step * len(windows)
            and numbers[1::step].count(size) == len(windows)
            and _fit([numbers[place::step] for place in range(2, 1 + step)], windows[0], numbers[0], size > 0, True)
        ):
            # The usual case: all requests have replies of the same shape.
            self._places: Sequence[int] = range(1, len(numbers), step)
            self.granted: Sequence[bool] = [size > 0] * len(windows)
        else:
            kinds = repeat(0) if same else zip(map(id, windows), repeat(True) if taking is None else taking)  # noqa: B905  # the one has no end
            self._divide(kinds, taking)

    def _divide(self, kinds: Iterable[object], taking: Sequence[bool] | None) -> None:
        """Find where the reply to each request begins, and check replies of the same kind and size together."""
        numbers, end = self._numbers, len(self._numbers)
        places: list[int] = []
        alike: dict[object, tuple[int, list[int]]] = {}
        at = 1
        for request, kind in zip(range(len(self._windows)), kinds):  # noqa: B905  # as above
            size = numbers[at] if at < end else 0
            if not size:
                _refuse(numbers, self._windows)
            places.append(at)
            behind = at + abs(size)
            look = kind, size
            if look in alike:
                alike[look][1].extend(numbers[at + 1 : behind])
            else:
                alike[look] = request, numbers[at + 1 : behind]
            at = behind
        if at != end:
            raise UnexpectedReply
        self._places = places
        self.granted = [numbers[place] > 0 for place in places]
        for request, rows in alike.values():
            windows, now, granted = self._windows[request], numbers[0], self.granted[request]
            takes = taking is None or taking[request]
            step = abs(numbers[places[request]]) - 1
            if _fit([rows[place::step] for place in range(step)], windows, now, granted, takes):
                continue
            # Two replies of this size may have different windows in brief form, so check them one by one.
            for row in range(0, max(1, len(rows)), step or 1):
                if not _fit([[number] for number in rows[row : row + step]], windows, now, granted, takes):
                    raise UnexpectedReply

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Verdict: ...

    @overload
    def __getitem__(self, at: slice) -> list[Verdict]: ...

    def __getitem__(self, at: int | slice) -> Verdict | list[Verdict]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        return Verdict(self.granted[at], self._numbers[0], self._readings(self._places[at] + 1, self._windows[at]))

    def _readings(self, at: int, windows: Sequence[Window]) -> list[Reading]:
        numbers, now = self._numbers, self._numbers[0]
        readings: list[Reading] = []
        for window in windows:
            count = -numbers[at]
            if count <= 0:
                _, retry_at, reset_at, instant, sequence = numbers[at : at + _FULL]
                token = (instant, sequence) if instant >= 0 else None
                readings.append(Reading(-count, _instant(retry_at), reset_at, token))
                at += _FULL
            elif window.strategy == "moving-window":
                readings.append(Reading(count, FITS, now + window.period, (now, 0)))
                at += 1
            else:
                ends = numbers[at + 1]
                readings.append(Reading(count, FITS, ends, (ends, 0)))
                at += 2
        return readings


def _instant(retry_at: int) -> int:
    """The `Reading.retry_at` for that of a reply."""
    if retry_at > 0:
        return retry_at
    return FITS if retry_at == _FITS else NEVER


def _numbers(reply: object) -> list[int]:
    # Rejects everything that is not bytes, including subclasses.
    if type(reply) is not bytes:
        raise UnexpectedReply
    try:
        numbers: list[int] = _decode(reply)
    except msgspec.MsgspecError:
        raise UnexpectedReply from None
    if not numbers or numbers[0] < 0:
        raise UnexpectedReply
    return numbers


def _refuse(numbers: list[int], windows: Iterable[Sequence[Window]]) -> NoReturn:
    """Raise the error for a reply without verdicts: it gives the place of an unreadable window, or is not a reply at all."""
    if len(numbers) == 3 and numbers[1] == 0 and numbers[2] > 0:
        place = numbers[2]
        for request, each in enumerate(windows):
            if place <= len(each):
                raise unreadable_window(each[place - 1], request)
            place -= len(each)
    raise UnexpectedReply


def _fit(columns: Sequence[Sequence[int]], windows: Sequence[Window], now: int, granted: bool, taking: bool) -> bool:
    """Whether these can be replies of the same shape about these windows. Each column has one number of each reply."""
    place = 0
    blocking: list[Sequence[int]] = []
    for window in windows:
        if place < len(columns) and columns[place][0] < 0:
            size = _BRIEF.get(window.strategy, 0)
            fits = granted and taking and _brief(columns[place : place + size], size, now)
        else:
            size = _FULL
            # A pause is only read.
            takes = taking and window.strategy != "pause"
            fits = _full(columns[place : place + size], window.mode, granted, takes)
            if window.mode is _ENFORCE and fits:
                blocking.append(columns[place + 1])
        if not fits:
            return False
        place += size
    return place == len(columns) and (granted or (bool(blocking) and all(map(any, zip(*blocking, strict=True)))))


def _brief(columns: Sequence[Sequence[int]], size: int, now: int) -> bool:
    """Whether these can be the brief form of one window: a negative count and, for a fixed window, its end."""
    return 0 < size <= len(columns) and max(columns[0]) < 0 and (size == 1 or min(columns[1]) > now)


def _full(columns: Sequence[Sequence[int]], mode: Mode, granted: bool, taking: bool) -> bool:
    """Whether these can be the full form of one window, see `decide.lua`."""
    if len(columns) < _FULL:
        return False
    counts, retries, resets, instants, sequences = columns
    if min(counts) < 0 or min(retries) < _NEVER or min(resets) < 0 or min(instants) < -1 or min(sequences) < 0:
        return False
    if any(retries) and (mode is _FORCE or (granted and mode is _ENFORCE)):
        return False
    if not (granted and taking):
        return max(instants) < 0
    # Exactly the hits that fit are counted. Forced hits have their own bounds.
    return mode is _FORCE or [it == _FITS for it in retries] == [it >= 0 for it in instants]
