"""What was decided, and why: plain data, computed from the verdict of the storage only when you ask for it."""

from __future__ import annotations

import threading
from math import ceil, inf
from typing import TYPE_CHECKING, Protocol

from ratelimited_notify.errors import shown_type, type_text
from ratelimited_notify.forking import forkable
from ratelimited_notify.limiter.receipt import Receipt
from ratelimited_notify.rules.plan import Subject
from ratelimited_notify.rules.wording import duration_text, limit_text
from ratelimited_notify.windows.lazy_verdicts import LazyVerdicts
from ratelimited_notify.windows.strategies import FITS, MICROSECONDS, NEVER, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from ratelimited_notify.limiter.receipt import Explanation, Held
    from ratelimited_notify.limiter.window_state import WindowState
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.rule import OnLimit
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Outcome, Reading, VerdictLike

# Several threads may try to give a decision back; only one of them may succeed.
_giving_back = forkable(threading.Lock())

_LEFT_OUT = frozenset({"_subject", "_at", "_verdict", "_receipt", "_windows"})
_USUAL: dict[str, object] = {"cost": 1, "degraded": False, "error": None, "released": False}
new = object.__new__
"""Makes a decision without calling `__init__`, so that only a part of it is filled in."""


class Explainer(Protocol):
    """The part of a limiter that a decision uses."""

    def explanation(self, recipient: str, outcome: Outcome) -> Explanation: ...


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
        "degraded",
        "error",
        "limiter",
        "outcome",
        "recipient",
        "released",
        "type",
    )  # fmt: skip
    limiter: Explainer
    outcome: Outcome | None
    degraded: bool
    """Whether the insurance decided, because the storage failed. Then `windows` are those of the insurance, and `error` says
    what the storage said."""
    released: bool
    """Whether its hit was given back: by `release`, by `reserve`, or because the send failed. Then `remaining`, `windows`
    and `str()` say what is left without the hit."""

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
        receipt: Held | None = None,
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
                found = self.limiter.explanation(self.recipient, outcome)
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
        """Every window that the notification counts in, in the order of the rules, and the pauses of rules."""
        from ratelimited_notify.limiter.window_state import state_of

        subject, verdict = self._about(), self._answer()
        if verdict is None or subject is None:
            return ()
        return tuple(state_of(subject, window, reading, verdict.now) for window, reading in self._read(verdict))

    @property
    def blocked_by(self) -> WindowState | None:
        """The window that refuses it for the longest time; None if it is allowed, the storage failed, or nothing was
        decided.

        In each of these cases, `str()` of the decision is a sentence for a log.
        """
        from ratelimited_notify.limiter.window_state import state_of

        subject, verdict = self._about(), self._answer()
        if self.allowed or verdict is None or subject is None:
            return None
        refusing = [(window, reading) for window, reading in self._enforced() if reading.retry_at != FITS]
        window, reading = max(refusing, key=lambda refused: _order(refused[1]))
        return state_of(subject, window, reading, verdict.now)

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
        """When it would be allowed, in UTC; None if it is allowed now, or never. After the year 9999, it is the end of that
        year: the last instant that a `datetime` can express.
        """
        retry_at = self._retry_at()
        return None if retry_at is None or retry_at == NEVER else _utc(retry_at)

    @property
    def reset_at(self) -> datetime | None:
        """When the last enforced window is empty, if nothing else happens, in UTC; None if no rule applies.

        If the hit was given back, some windows may be empty earlier. After the year 9999, it is the end of that year.
        """
        latest = max((reading.reset_at for _, reading in self._enforced()), default=None)
        return None if latest is None else _utc(latest)

    @property
    def retry_after_header(self) -> int | None:
        """`retry_after` in whole seconds, rounded up; None if it is allowed now, or never. For an HTTP response, use
        `headers`, which leaves the header out then.
        """
        seconds = self.retry_after
        return None if self._retry_at() is None or seconds == inf else ceil(seconds)

    def headers(self, *, ratelimit: bool = False) -> dict[str, str]:
        """The headers for an HTTP response, with the response for an allowed notification too. None of them shows the
        recipient, and every value can be sent as it is.

        `Retry-After` has the whole seconds until it would be allowed, rounded up (RFC 9110, section 10.2.3). It is left
        out if the notification is allowed, if it will never be allowed, and if that is not known.

        Arguments:
            ratelimit: True adds `RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-11, if
                an enforced rule applies. They show the names and the amounts of these rules, and how many hits are
                left. Rules in shadow mode and rules that the priority is exempt from are left out.
        """
        from ratelimited_notify.limiter.headers import rate_limit_fields, retry_after_field

        fields = retry_after_field(self.retry_after_header)
        verdict = self._answer()
        if ratelimit and verdict is not None:
            fields |= rate_limit_fields(
                [state for state in self.windows if state.enforced], _utc(verdict.now), allowed=self.allowed
            )
        return fields

    def to_dict(self) -> dict[str, object]:
        """The decision as a JSON object that you can log, or show to the client that asked: no recipient, no message of
        the storage, and nothing about rules that are not enforced.

        Returns:
            `allowed`, `degraded`, `type`, `cost`, `remaining`, `retry_after` (seconds; None if it will never be allowed, or if that
            is not known), `retry_at` and `reset_at` (in the form `2026-01-31T12:00:00+00:00`, or None), `rule` (the name
            of the rule that refuses, or None), and `windows`: for each enforced window its `rule`, `limit`,
            `remaining`, `retry_after` and `reset_at`.
        """
        blocked_by = self.blocked_by
        return {
            "allowed": self.allowed,
            "degraded": self.degraded,
            "type": shown_type(self.type),
            "cost": self.cost,
            "remaining": self.remaining,
            "retry_after": 0.0 if self.allowed else self.retry_after if self.retry_at else None,
            "retry_at": _iso(self.retry_at),
            "reset_at": _iso(self.reset_at),
            "rule": None if blocked_by is None else blocked_by.rule,
            "windows": [state.to_dict() for state in self.windows if state.enforced],
        }

    def counters(self) -> Sequence[Counter]:
        """What it was counted in."""
        return self._windows

    def grounds(self) -> tuple[Sequence[Counter], VerdictLike | None]:
        """The windows, and the verdict on them; None if no storage was asked."""
        verdict = self._answer()
        return self._windows, verdict

    @property
    def granted_by(self) -> Storage | AsyncStorage | None:
        """The storage that holds the hit; None if there is nothing to give back."""
        receipt = self._receipt
        return None if receipt is None else receipt[0]

    def note_insured(self, insured: object) -> None:
        """Keep what the limiter has noted about the hit because of its insurance, for `take_receipt`."""
        if self._receipt is not None:
            self._receipt = (*self._receipt[:2], insured)

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
        tokens = [reading.token for reading in verdict.readings]
        return Receipt(self._windows, keys, self.cost, tokens, receipt[2])

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
        return [(window, reading) for window, reading in self._read(verdict) if window.mode is Mode.ENFORCE]

    def _read(self, verdict: VerdictLike) -> Iterable[tuple[Counter, Reading]]:
        """The windows with their readings, without the hit if it was given back. Rules that are not paused have no pause."""
        every = zip(self._windows, verdict.readings, strict=True)
        read = [(window, reading) for window, reading in every if reading.count or window.strategy != "pause"]
        if not self.released:
            return read
        return [(window, _without(reading, self.cost, verdict.now)) for window, reading in read]

    def _retry_at(self) -> int | None:
        """The instant at which the last refusing window has room, or NEVER; None if nothing refuses."""
        if self.allowed:
            return None
        instants = [reading.retry_at for _, reading in self._enforced()]
        return NEVER if NEVER in instants else max(instants, default=None)

    def __str__(self) -> str:
        what = type_text(self.type) if self.cost == 1 else f"{type_text(self.type)} at cost {self.cost}"
        if self.error is not None and not self.degraded:
            return f"{what} {'allowed' if self.allowed else 'refused'} without being counted: {self.error}"
        because = f"; the insurance decided, because the storage failed: {self.error}" if self.degraded else ""
        if self.allowed:
            return f"{what} allowed{' and given back' if self.released else ''}, {self._left()}{because}"
        if (by := self.blocked_by) is None:
            return f"{what} refused{because}"
        return f"{what} refused by rule {by.rule!r} ({limit_text(by.item)}), {_when(self.retry_after)}{because}"

    def _left(self) -> str:
        """What is left after an allowed decision, and what rules that are not enforced say."""
        verdict, left = self._answer(), self.remaining
        read = [] if verdict is None else list(self._read(verdict))
        said = [] if left is None else [f"{left} left"]
        if left is None and any(window.mode is Mode.FORCE for window, _ in read):
            said.append("its priority is exempt")
        shadows = [(window, reading) for window, reading in read if window.mode is Mode.SHADOW]
        refusing = [(window, reading) for window, reading in shadows if reading.retry_at != FITS]
        if refusing:
            window, _ = max(refusing, key=lambda refused: _order(refused[1]))
            said.append(f"rule {window.rule!r} ({limit_text(window.item)}) in shadow mode would refuse it")
        elif shadows and not said:
            said.append("rules in shadow mode would allow it too")
        return "; ".join(said) or ("limiting is off" if self._subject is None else "no rule limits it")

    def __repr__(self) -> str:
        return f"<Decision: {self}>"

    def __getstate__(self) -> dict[str, object]:
        # A storage belongs to this process. A copy elsewhere can explain itself, but cannot be released.
        kept = [name for name in self.__slots__ if name not in ("limiter", "outcome")]
        state: dict[str, object] = {name: getattr(self, name) for name in kept}
        state["outcome"] = None
        return {**state, "_receipt": None, "_verdict": self._answer()}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def decided(type: str, recipient: str, limiter: Explainer, outcome: Outcome) -> Decision:
    """The decision from the outcome of a shortcut. Its reasons are computed on demand, and most never are.

    Arguments:
        type: the type of the notification.
        recipient: who it is for, as the caller passed it.
        limiter: explains the decision.
        outcome: what the shortcut returned, at cost 1.
    """
    decision = new(Decision)
    decision.type, decision.recipient, decision.limiter = type, recipient, limiter
    decision.outcome, decision.allowed = outcome, outcome[0]
    return decision


def _order(reading: Reading) -> float:
    """For a comparison of windows that refuse: the instant at which this one no longer does."""
    return inf if reading.retry_at == NEVER else reading.retry_at


def _without(reading: Reading, cost: int, now: int) -> Reading:
    """The reading without a hit that was counted in this window."""
    if reading.token is None:
        return reading
    count = max(0, reading.count - cost)
    return reading._replace(count=count, reset_at=reading.reset_at if count else now)


def _utc(instant: int) -> datetime:
    # Imported on demand, as the states of windows are: most programs never read an instant.
    from ratelimited_notify.limiter.window_state import utc

    return utc(instant)


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _when(seconds: float) -> str:
    if seconds == inf:
        return "and waiting does not help"
    return f"try again in {duration_text(seconds)}"
