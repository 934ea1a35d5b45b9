"""What was decided, and why: plain data, computed from the verdict of the storage only when you ask for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.forking import forkable
from ratelimited_notify.rules.plan import Subject
from ratelimited_notify.rules.wording import duration_text, limit_text
from ratelimited_notify.windows.lazy_verdicts import LazyVerdicts
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, NEVER, Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limits import RateLimitItem

    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Outcome, Reading, Shortcut, StrategyName, Token, VerdictLike

# Several threads may try to give a decision back; only one of them may succeed.
_giving_back = forkable(threading.Lock())

_LEFT_OUT = frozenset({"_subject", "_at", "_verdict", "_receipt", "_windows"})
_USUAL: dict[str, object] = {"cost": 1, "error": None}
new = object.__new__
"""Makes a decision without calling `__init__`, so that only a part of it is filled in."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WindowState:
    """One window at the moment of a decision.

    You can ask `limits` about the same window: `strategy.hit(state.item, *state.identifiers)` on the limiter's storage.
    """

    rule: str
    """The name of the rule."""
    item: RateLimitItem
    """The limit, a `RateLimitItem` of `limits`."""
    identifiers: tuple[str, ...] = field(repr=False)
    """The values that the rule counts by."""
    strategy: StrategyName
    remaining: int
    """How many hits are left: after this hit if it was taken, before it if it was refused."""
    reset_at: datetime
    """When the window is empty, if nothing else happens."""
    retry_after: float
    """Seconds until this cost fits, if nothing else happens. 0 if it fits or was taken, `inf` if it never fits."""
    enforced: bool
    """False for a window that could not refuse: its rule is in shadow mode, or the priority is exempt from it."""


class Receipt(NamedTuple):
    """What a storage's `release` needs to give a hit back."""

    windows: Sequence[Counter]
    keys: Sequence[str]
    cost: int
    tokens: Sequence[Token | None]


Explanation: TypeAlias = "tuple[str, Sequence[Counter], VerdictLike, tuple[Storage | AsyncStorage, None] | None]"
"""The recipient as it is counted, the windows, the verdict, and what `release` needs to give the hit back."""


class Explainer(Protocol):
    """The part of a limiter that a decision uses."""

    def explanation(self, recipient: str, shortcut: Shortcut, outcome: Outcome) -> Explanation: ...


class Decision:
    """Whether a notification may be sent, and why. It is true if it may.

    Limiters make decisions; you never make one yourself.
    """

    __slots__ = (
        "_at",
        "_receipt",
        "_subject",
        "_verdict",
        "_windows",
        "allowed",
        "cost",
        "error",
        "limiter",
        "outcome",
        "recipient",
        "shortcut",
        "type",
    )  # fmt: skip
    limiter: Explainer
    shortcut: Shortcut
    outcome: Outcome | None

    def __init__(
        self,
        type: str,
        recipient: Recipient,
        cost: int,
        allowed: bool,
        subject: Subject | str | None = None,
        windows: Sequence[Counter] = (),
        verdict: VerdictLike | None = None,
        error: str | None = None,
        receipt: tuple[Storage | AsyncStorage, Sequence[str] | None] | None = None,
        page: LazyVerdicts | None = None,
        at: int = 0,
    ) -> None:
        self.type = type
        """The type of the notification."""
        self.recipient = recipient
        """Who it is for, as you passed it."""
        self.cost = cost
        """How many hits it counts as."""
        self.allowed = allowed
        """Whether it may be sent."""
        self.error = error
        """The message of the storage if it failed and `on_storage_error` decided; otherwise None."""
        # Just the recipient as it is counted, if there are no further fields.
        self._subject = subject
        self._windows = windows
        # The verdict, or those on a whole batch and the place of this one: it is made on demand, and most never are.
        self._verdict: VerdictLike | LazyVerdicts | None = verdict if page is None else page
        self._at = at
        # The storage that took the hit, and the keys if they are at hand: what is needed to give it back, once.
        self._receipt = receipt
        self.outcome = None

    if not TYPE_CHECKING:  # pragma: no branch  # when this runs, it is never true

        def __getattr__(self, name: str) -> object:
            # This runs only for what `decided` left out, when it is first used.
            if name in _USUAL:
                return _USUAL[name]
            outcome = self.outcome if name in _LEFT_OUT else None
            if outcome is not None:
                found = self.limiter.explanation(self.recipient, self.shortcut, outcome)
                with _giving_back:
                    # Another thread may have been faster, and may have given the hit back since.
                    if self.outcome is not None:
                        # `_subject` and `outcome` are set last, so a decision that has its subject has all the rest too,
                        # even if a signal handler raises in between.
                        subject, self._windows, self._verdict, self._receipt = found
                        self._at, self._subject, self.outcome = 0, subject, None
            return object.__getattribute__(self, name)

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def windows(self) -> tuple[WindowState, ...]:
        """Every window that the notification counts in, in the order of the rules."""
        subject, verdict = self._about(), self._answer()
        if verdict is None or subject is None:
            return ()
        return tuple(
            _state(subject, window, reading, verdict.now)
            for window, reading in zip(self._windows, verdict.readings, strict=True)
        )

    @property
    def blocked_by(self) -> WindowState | None:
        """The window that refuses it for the longest time; None if it is allowed, the storage failed, or nothing was
        decided.

        In each of these cases, `str()` of the decision is a sentence for a log.
        """
        subject, verdict = self._about(), self._answer()
        if self.allowed or verdict is None or subject is None:
            return None
        refusing = [
            (inf if reading.retry_at == NEVER else reading.retry_at, window, reading)
            for window, reading in self._enforced()
            if reading.retry_at != FITS
        ]
        _, window, reading = max(refusing, key=lambda refused: refused[0])
        return _state(subject, window, reading, verdict.now)

    @property
    def refusals(self) -> tuple[OnLimit | None, ...]:
        """The `on_limit` of each refusing rule; None if the rule leaves that to the notifier."""
        if self.allowed:
            return ()
        return tuple(window.on_limit for window, reading in self._enforced() if reading.retry_at != FITS)

    @property
    def remaining(self) -> int | None:
        """How many hits are left after this decision, in the fullest of the enforced windows; None if no rule applies."""
        left = [max(0, window.amount - reading.count) for window, reading in self._enforced()]
        return min(left, default=None)

    @property
    def retry_after(self) -> float:
        """Seconds until it would be allowed, if nothing else is taken or released. 0 if it is allowed, `inf` if it
        never will be.

        If the storage failed and `on_storage_error="deny"` refused, this is not known, and it is 0.
        """
        retry_at = self._retry_at()
        verdict = self._answer()
        if retry_at is None or verdict is None:
            return 0.0
        return inf if retry_at == NEVER else (retry_at - verdict.now) / MICROSECONDS

    @property
    def retry_at(self) -> datetime | None:
        """When it would be allowed, in UTC; None if it is allowed now, or never."""
        retry_at = self._retry_at()
        return None if retry_at is None or retry_at == NEVER else _utc(retry_at)

    @property
    def reset_at(self) -> datetime | None:
        """When the last enforced window is empty, if nothing else happens, in UTC; None if no rule applies."""
        latest = max((reading.reset_at for _, reading in self._enforced()), default=None)
        return None if latest is None else _utc(latest)

    @property
    def retry_after_header(self) -> int | None:
        """`retry_after` for an HTTP header: whole seconds, rounded up; None if it is allowed now, or never."""
        seconds = self.retry_after
        return None if self._retry_at() is None or seconds == inf else ceil(seconds)

    @property
    def granted_by(self) -> Storage | AsyncStorage | None:
        """The storage that holds the hit; None if there is nothing to give back."""
        receipt = self._receipt
        return None if receipt is None else receipt[0]

    def take_receipt(self) -> Receipt | None:
        """What `release` needs to give the hit back. Only the first call returns it."""
        subject, verdict = self._about(), self._answer()
        with _giving_back:
            receipt, self._receipt = self._receipt, None
        if receipt is None or verdict is None or subject is None:
            return None
        keys = receipt[1]
        if keys is None:
            # Few decisions are given back, so decisions of a batch have no keys until then.
            keys = [window.key(subject.identifiers(window.by) or ()) for window in self._windows]
        return Receipt(self._windows, keys, self.cost, [reading.token for reading in verdict.readings])

    def _about(self) -> Subject | None:
        subject = self._subject
        return Subject(self.type, subject, {}) if isinstance(subject, str) else subject

    def _answer(self) -> VerdictLike | None:
        verdict = self._verdict
        return verdict[self._at] if isinstance(verdict, LazyVerdicts) else verdict

    def _enforced(self) -> list[tuple[Counter, Reading]]:
        verdict = self._answer()
        if verdict is None:
            return []
        return [
            (window, reading)
            for window, reading in zip(self._windows, verdict.readings, strict=True)
            if window.mode is Mode.ENFORCE
        ]

    def _retry_at(self) -> int | None:
        """The instant at which the last refusing window has room, or NEVER; None if nothing refuses."""
        if self.allowed:
            return None
        instants = [reading.retry_at for _, reading in self._enforced()]
        return NEVER if NEVER in instants else max(instants, default=None)

    def __str__(self) -> str:
        what = f"{self.type!r}" if self.cost == 1 else f"{self.type!r} at cost {self.cost}"
        if self.error is not None:
            return f"{what} {'allowed' if self.allowed else 'refused'} without being counted: {self.error}"
        if self.allowed:
            left = self.remaining
            return f"{what} allowed, {'no rule limits it' if left is None else f'{left} left'}"
        blocked_by = self.blocked_by
        if blocked_by is None:
            return f"{what} refused"
        return f"{what} refused by rule {blocked_by.rule!r} ({limit_text(blocked_by.item)}), {_when(self.retry_after)}"

    def __repr__(self) -> str:
        return f"<Decision: {self}>"

    def __getstate__(self) -> dict[str, object]:
        # A storage belongs to this process. A copy elsewhere can explain itself, but cannot be released.
        kept = [name for name in self.__slots__ if name not in ("limiter", "shortcut", "outcome")]
        state: dict[str, object] = {name: getattr(self, name) for name in kept}
        state["outcome"] = None
        return {**state, "_receipt": None, "_verdict": self._answer()}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def decided(type: str, recipient: str, limiter: Explainer, shortcut: Shortcut, outcome: Outcome) -> Decision:
    """The decision from the outcome of a shortcut. Its reasons are computed on demand, and most never are.

    Arguments:
        type: the type of the notification.
        recipient: who it is for, as the caller passed it.
        limiter: explains the decision.
        shortcut: decided, at cost 1.
        outcome: what the shortcut returned.
    """
    decision = new(Decision)
    decision.type, decision.recipient, decision.limiter = type, recipient, limiter
    decision.shortcut, decision.outcome, decision.allowed = shortcut, outcome, outcome[0]
    return decision


def _state(subject: Subject, window: Counter, reading: Reading, now: int) -> WindowState:
    if reading.retry_at == NEVER:
        retry_after = inf
    elif reading.retry_at == FITS:
        retry_after = 0.0
    else:
        retry_after = (reading.retry_at - now) / MICROSECONDS
    return WindowState(
        rule=window.rule,
        item=window.item,
        identifiers=subject.identifiers(window.by) or (),
        strategy=window.strategy,
        remaining=max(0, window.amount - reading.count),
        reset_at=_utc(reading.reset_at),
        retry_after=retry_after,
        enforced=window.mode is Mode.ENFORCE,
    )


def _when(seconds: float) -> str:
    if seconds == inf:
        return "and waiting does not help"
    return f"try again in {duration_text(seconds)}"


def _utc(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)


class RateLimitExceeded(NotifyError):
    """A rule refused the notification, and `on_limit` is `"raise"`, or the wait would be too long.

    `decision` says which rule refused, and when the notification would be allowed.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.decision = decision

    def __str__(self) -> str:
        # Made on demand: most handlers never read it.
        return str(self.decision)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[type[RateLimitExceeded], tuple[Decision]]:
        return type(self), (self.decision,)
