"""The insurance: windows of the limiter's own, which decide while the storage fails. Nothing here does I/O.

It knows which windows it decides by, how it counts what the storage has allowed, and what is to be added to the storage when
that is back.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from ratelimited_notify.errors import StorageError
from ratelimited_notify.limiter.debts import Debt, Debts, Due
from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.storage.base import WithShortcut
from ratelimited_notify.windows.lazy_verdicts import GroupedVerdicts
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Request, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.receipt import Receipt
    from ratelimited_notify.log import RecurringLine
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import ExplainingShortcut, Outcome, Reading, Token, VerdictLike, Window

_S = TypeVar("_S", "Storage", "AsyncStorage")

_MOST_KEPT = 4096
"""The twins of so many combinations of windows are kept. With more, all are made anew."""

_MOST_SHORTCUTS = 512
"""As many shortcuts are kept."""

_BY = frozenset(("type", "recipient"))
"""What a window may count by to have a shortcut."""

_UNKNOWN: Any = object()  # Any: stands for what is not looked up yet

_PAUSE = 1.0
"""Seconds after a failure of the insurance in which nothing is copied into it: each copy might take a whole time-out."""


class Twins(NamedTuple):
    """The windows of a notification as the insurance sees them."""

    deciding: tuple[Counter, ...]
    """With the amounts that it decides by."""
    counting: tuple[Counter, ...]
    """For hits that count in any case, without pauses."""
    places: tuple[int, ...] | None
    """The places of these among all windows; None if they are all."""
    shadows: bool
    """Whether some may have counted nothing although the hit was granted."""


class Copy(NamedTuple):
    """A hit of the storage in the windows of the insurance."""

    windows: Sequence[Window]
    keys: Sequence[str]
    cost: int
    verdict: VerdictLike


class Copies(NamedTuple):
    """Hits of the storage that the insurance counts, too."""

    requests: list[Request]
    """What is still to be counted."""
    numbers: list[int]
    """The numbers of the queries about that."""
    notes: list[tuple[int, object]]
    """What is noted about hits, with the numbers of the queries, so that they can be given back."""

    def counted(self, verdicts: Iterable[VerdictLike]) -> Sequence[tuple[int, object]]:
        """All notes, when the rest is counted."""
        self.notes.extend(
            (number, Copy(request.windows, request.keys, request.cost, verdict))
            for number, request, verdict in zip(self.numbers, self.requests, verdicts, strict=True)
        )
        return self.notes


class Answer(NamedTuple):
    """What the storage answered, or the insurance in its place."""

    verdicts: Sequence[VerdictLike]
    """One for each query that has windows."""
    error: StorageError | None = None
    """Why the storage did not answer. None if it did."""
    failed: StorageError | None = None
    """Why the insurance did not answer either. None if it did, or was not asked."""
    notes: Sequence[tuple[int, object]] = ()
    """As in `Copies`."""


class Insurance(Generic[_S]):
    """What decides while the storage fails.

    Arguments:
        storage: where it keeps its windows.
        share: how many processes divide the amounts.
        owned: whether the limiter opened the storage.
        copies: whether it counts what the storage allows.
        line: says in the log that it failed.
        now: returns the current instant in microseconds.
    """

    def __init__(
        self, storage: _S, share: int, *, owned: bool, copies: bool, line: RecurringLine, now: Callable[[], int]
    ) -> None:
        self.storage: _S = storage
        self._line = line
        self.owned = owned
        self.debts = Debts(now)
        self._share = share
        self._copies = copies
        self._fails_until = float("-inf")
        self._twins: dict[tuple[Counter, ...], Twins] = {}
        # If the insurance is in memory, it counts most hits in a fraction of the time.
        self._to = storage.shortcut if isinstance(storage, WithShortcut) else None
        self._shortcuts: dict[tuple[tuple[Counter, ...], str], ExplainingShortcut | None] = {}

    @property
    def copies(self) -> bool:
        """Whether to count now what the storage allows."""
        return self._copies and time.monotonic() >= self._fails_until

    def failed(self, error: StorageError, number: int = 1) -> None:
        """Note that it could not count what the storage allows."""
        self._fails_until = time.monotonic() + _PAUSE
        self._line.happened(str(error), number)

    def works(self) -> None:
        """Note that it could."""
        if self._line.event.ongoing:
            self._line.ended()

    def forget_rules(self) -> None:
        """Note that other rules are in force."""
        self._twins, self._shortcuts = {}, {}

    def twins(self, windows: Sequence[Counter]) -> Twins:
        """The windows as the insurance sees them."""
        key = windows if isinstance(windows, tuple) else tuple(windows)
        found = self._twins.get(key)
        if found is None:
            if len(self._twins) >= _MOST_KEPT:
                self._twins = {}
            found = self._twins[key] = self._made(key)
        return found

    def _made(self, windows: tuple[Counter, ...]) -> Twins:
        share = self._share
        places = tuple(place for place, window in enumerate(windows) if window.strategy != "pause")
        return Twins(
            windows if share == 1 else tuple(window.divided(share) for window in windows),
            tuple(windows[place].in_mode(Mode.FORCE) for place in places),
            None if len(places) == len(windows) else places,
            any(window.mode is Mode.SHADOW for window in windows),
        )

    def question(self, query: Query) -> Request:
        """What to ask the insurance while the storage fails."""
        return Request(self.twins(query.windows).deciding, query.keys, query.cost)

    def _explained(self, query: Query, verdict: VerdictLike) -> VerdictLike:
        """The verdict of the insurance, for a decision."""
        if self._share == 1 or all(reading.retry_at != NEVER for reading in verdict.readings):
            return verdict
        # The whole amount has room for this cost, and the storage allows it after a period without hits at the latest.
        readings = [
            reading._replace(retry_at=verdict.now + window.period)
            if reading.retry_at == NEVER and query.cost <= window.amount
            else reading
            for window, reading in zip(query.windows, verdict.readings, strict=True)
        ]
        return Verdict(verdict.granted, verdict.now, readings)

    def copies_of(self, queries: Sequence[Query], verdicts: Sequence[VerdictLike]) -> Copies:
        """What to count in the insurance because the storage granted it.

        There are verdicts only for queries that have windows.
        """
        copies = Copies([], [], [])
        upcoming = enumerate(_granted(verdicts))
        for number, query in enumerate(queries):
            if not query.windows:
                continue
            place, granted = next(upcoming)
            if not granted:
                continue
            outcome = self.copied_at_once(query)
            if outcome is not None:
                copies.notes.append((number, outcome))
                continue
            windows, keys, _ = self._counted(query, verdicts, place)
            if windows:
                copies.requests.append(Request(windows, keys, query.cost))
                copies.numbers.append(number)
        return copies

    def copied_at_once(self, query: Query) -> Outcome | None:
        """The outcome of a hit that is counted in the insurance by this call. None if it takes longer than this."""
        if self._to is None or query.cost != 1 or not self._copies:
            return None
        shortcut = self._shortcuts.get((query.windows, query.subject.type), _UNKNOWN)
        if shortcut is _UNKNOWN:
            shortcut = self._shortcut(query.windows, query.subject.type)
        if shortcut is None:
            return None
        try:
            outcome = shortcut.decide(query.subject.recipient)
        except StorageError as error:
            self.failed(error)
            return None
        # It does not force hits. Here it only counts less than the storage, so it refuses hardly ever.
        return outcome if outcome is not None and outcome[0] else None

    def _shortcut(self, windows: tuple[Counter, ...], type: str) -> ExplainingShortcut | None:
        if len(self._shortcuts) >= _MOST_SHORTCUTS:
            self._shortcuts = {}
        found = self._shortcuts[windows, type] = self._new_shortcut(windows, type)
        return found

    def _new_shortcut(self, windows: tuple[Counter, ...], type: str) -> ExplainingShortcut | None:
        twins = self.twins(windows)
        if twins.shadows or self._to is None or any(not _BY.issuperset(window.by) for window in windows):
            return None
        enforced = [window.in_mode(Mode.ENFORCE) for window in twins.counting]
        found = self._to(enforced, [window.key_parts(type) for window in enforced])
        return cast("ExplainingShortcut | None", found)

    def copy_in(self, receipt: Receipt) -> tuple[Sequence[Window], Sequence[str], int, list[Token | None]] | None:
        """What to give back in the insurance, together with this hit of the storage. A debt is cancelled."""
        noted = receipt.insured
        if isinstance(noted, Debt):
            self.debts.cancel(noted)
        if isinstance(noted, Copy):
            return noted.windows, noted.keys, noted.cost, _tokens(noted.verdict)
        if isinstance(noted, tuple):
            outcome: Outcome = cast("Any", noted)  # Any: what a shortcut says
            shortcut: ExplainingShortcut = outcome[-1]
            twins = self.twins(receipt.windows)
            keys = receipt.keys if twins.places is None else [receipt.keys[place] for place in twins.places]
            return shortcut.windows, keys, receipt.cost, _tokens(shortcut.explain(outcome))
        return None

    def decisions(
        self, queries: Iterable[Query], answer: Answer, unlimited: Callable[[Query], Decision], *, tested: bool
    ) -> list[Decision]:
        """The decisions of the insurance about all queries.

        Arguments:
            queries: what was asked.
            answer: what it answered about those that have windows.
            unlimited: makes the decision about one that has none.
            tested: whether nothing was counted.
        """
        upcoming = iter(answer.verdicts)
        return [
            self._decision(query, next(upcoming), answer.error, tested=tested) if query.windows else unlimited(query)
            for query in queries
        ]

    def _decision(self, query: Query, verdict: VerdictLike, error: StorageError | None, *, tested: bool) -> Decision:
        granted, receipt = verdict.granted, None
        if granted and not tested:
            certain = error is not None and error.nothing_counted and self._copies
            receipt = self.storage, query.keys, self.owe(query, verdict) if certain else None
        decision = Decision(
            query.subject.type, query.recipient, query.cost, granted,
            subject=query.subject, windows=self.twins(query.windows).deciding,
            verdict=self._explained(query, verdict), error=str(error), receipt=receipt,
        )  # fmt: skip
        decision.degraded = True
        return decision

    def owe(self, query: Query, verdict: VerdictLike) -> Debt | None:
        """Note what the insurance has granted, to be added to the storage."""
        windows, keys, places = self._counted(query, [verdict], 0)
        if not windows:
            return None
        readings = verdict.readings
        lasting = [readings[place].reset_at - verdict.now for place in places]
        return self.debts.add(windows, keys, query.cost, lasting)

    def _counted(
        self, query: Query, verdicts: Sequence[VerdictLike], at: int
    ) -> tuple[Sequence[Counter], Sequence[str], Sequence[int]]:
        """The windows that counted a granted hit, their keys, and their places. Its verdict is read only if needed."""
        twins, keys = self.twins(query.windows), query.keys
        if not twins.shadows:
            places: Sequence[int] = range(len(keys)) if twins.places is None else twins.places
            return twins.counting, keys if twins.places is None else [keys[place] for place in places], places
        readings = verdicts[at].readings
        counted = [
            (window, place)
            for window, place in zip(twins.counting, twins.places or range(len(keys)), strict=True)
            if _was_counted(query.windows[place], readings[place])
        ]
        places = [place for _, place in counted]
        return [window for window, _ in counted], [keys[place] for place in places], places

    def due(self, requests: Iterable[Request]) -> tuple[list[Request], list[int], Due]:
        """These requests, each behind what its windows owe; their places; and what was taken out for that."""
        due = Due()
        places: list[int] = []
        each: list[Request] = []
        for request in requests:
            twins = self.twins(request.windows)  # type: ignore[arg-type]  # the windows of a rule
            keys = request.keys if twins.places is None else [request.keys[place] for place in twins.places]
            before = len(due.requests)
            self.debts.take(twins.counting, keys, due)
            each += due.requests[before:]
            places.append(len(each))
            each.append(request)
        return each, places, due

    def undone(self, due: Due, error: StorageError) -> None:
        """Note that the storage failed when it was asked to count this."""
        if error.nothing_counted:
            self.debts.put_back(due)


def both_failed(error: StorageError, insurance: StorageError) -> Answer:
    """The answer if the insurance fails as well."""
    both = StorageError(
        f"{error} The insurance failed too: {insurance}",
        nothing_counted=error.nothing_counted and insurance.nothing_counted,
    )
    return Answer((), error, both)


def _granted(verdicts: Iterable[VerdictLike]) -> Iterable[bool]:
    if isinstance(verdicts, GroupedVerdicts):
        return chain.from_iterable(group.granted for group in verdicts.groups)
    return (verdict.granted for verdict in verdicts)


def _tokens(verdict: VerdictLike) -> list[Token | None]:
    return [reading.token for reading in verdict.readings]


def _was_counted(window: Counter, reading: Reading) -> bool:
    return window.mode is not Mode.SHADOW or reading.retry_at == FITS
