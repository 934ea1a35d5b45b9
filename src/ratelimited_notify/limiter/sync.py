"""`Limiter`: decides whether a notification may be sent, and sends nothing."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import StorageError
from ratelimited_notify.limiter.base import BaseLimiter
from ratelimited_notify.limiter.decision import Decision, new
from ratelimited_notify.limiter.failure_budget import ENDLESS
from ratelimited_notify.limiter.options import check_slept
from ratelimited_notify.limiter.refund import give_back
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.notification.cost import ONE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from datetime import datetime
    from typing import Self

    from ratelimited_notify.limiter.failure_budget import FailureBudget
    from ratelimited_notify.limiter.insured import Insured
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.window_state import WindowState
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.storage.base import Storage
    from ratelimited_notify.windows.strategies import VerdictLike


class Limiter(BaseLimiter["Storage"]):
    """Decides whether notifications may be sent. Any thread may call it."""

    def _open(self, storage: str | Storage) -> Storage:
        from ratelimited_notify.storage.open import adopt, open_storage

        if isinstance(storage, str):
            return open_storage(storage, timeout=self._timeout, clock=self._clock, circuit=self._circuit)
        self._check_clock_of(storage)
        return adopt(storage)

    def _insured_by(self) -> type[Insured]:
        from ratelimited_notify.limiter.insured import Insured

        return Insured

    def _found_insurance(self) -> Insured:
        if self._insurance is None:
            self.storage  # noqa: B018  # opens it, and the insurance with it
        return cast("Insured", self._insurance)

    def hit(
        self,
        type: str,
        recipient: Recipient,
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> Decision:
        """Decide about one notification, and count it if it is allowed.

        Arguments:
            type: the type of the notification.
            recipient: who it is for: a `str`, `int` or `UUID`. `5` and `"5"` are the same recipient.
            cost: how many hits it counts as, 1 by default.
            priority: a name that rules can exempt.
            fields: further values that rules can count by: channel, tenant, dedupe_key, and the fields that the rule
                set declares.

        Returns:
            The decision. It is true if the notification may be sent. A refusal takes nothing from any window.

        Raises:
            TypeError: the recipient, the type or the cost has the wrong type.
            NotifyError: the recipient is empty, a field is not declared, a field is missing that a rule requires, or no
                rule matches the type and the rules make that an error (`unknown_type="raise"`).
            StorageError: the storage failed, and `on_storage_error` is `"raise"`.
        """
        # The same as `_decide_by_shortcut` and `decided`, without the calls. Most hits end here.
        if (
            cost is ONE
            and priority is None
            and not fields
            and type.__class__ is recipient.__class__ is str
            and not switch.off
        ):
            shortcut = self.plans.shortcuts.get(type)
            if shortcut is not None and (outcome := shortcut.decide(recipient)) is not None:  # pyright: ignore[reportArgumentType]  # a text
                decision = new(Decision)
                decision.type, decision.recipient, decision.limiter = type, recipient, self
                decision.outcome, decision.allowed = outcome, outcome[0]
                return decision
            if shortcut is None and (first := self._decide_first(type, recipient)) is not None:  # pyright: ignore[reportArgumentType]  # a text
                return first
        query = self._prepare(type, recipient, cost, priority, fields, hit=True)
        if isinstance(query, Decision):
            return query
        if self._is_insured:
            return self._insured([query], self._found_insurance().hit(self.storage, query))[0]
        try:
            verdict = self.storage.acquire(query.windows, query.keys, query.cost)
        except StorageError as error:
            return self._failed([query], error)[0]
        return self._hit_decision(query, verdict)

    def test(
        self,
        type: str,
        recipient: Recipient,
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> Decision:
        """The decision that `hit` would make, without counting anything. Same arguments and errors as `hit`."""
        query = self._prepare(type, recipient, cost, priority, fields, hit=False)
        if isinstance(query, Decision):
            return query
        try:
            verdict = self.storage.peek(query.windows, query.keys, query.cost)
        except StorageError as error:
            if self._is_insured:
                answer = self._found_insurance().test(query, error)
                return self._insured([query], answer, tested=True)[0]
            return self._failed([query], error, tested=True)[0]
        return self._test_decision(query, verdict)

    def hit_many(
        self,
        type: str,
        recipients: Iterable[Recipient],
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> list[Decision]:
        """`hit` for each recipient, in the given order. A recipient that is in the list twice counts twice.

        Arguments that cannot be used raise before anything is counted. Same arguments and errors as `hit`.
        """
        if self._is_off():
            return [self._off_decision(type, recipient, cost) for recipient in recipients]
        queries = self._query_each(type, recipients, cost, priority, fields)
        if self._is_insured:
            return self._insured(queries, self._found_insurance().hit_each(self.storage, queries))
        try:
            verdicts = self._acquire_many(queries)
        except StorageError as error:
            return self._failed(queries, error)
        return self._decisions(queries, verdicts)

    def _acquire_many(self, queries: Iterable[Query]) -> Sequence[VerdictLike]:
        from ratelimited_notify.limiter.batch import requests

        asked = requests(queries)
        return self.storage.acquire_many(asked) if asked else []

    def decide(self, batch: Iterable[Notification], patience: FailureBudget = ENDLESS) -> list[Decision | Exception]:
        """A decision for each notification, in the given order, or the error that `hit` would have raised."""
        from ratelimited_notify.limiter.batch import merge_decisions, queries_among

        known = self._queries_for(batch)
        queries = queries_among(known)
        if self._is_insured:
            answer = self._found_insurance().hit_each(self.storage, queries, patience)
            try:
                return merge_decisions(known, self._insured(queries, answer))
            except StorageError as error:
                return merge_decisions(known, self._undecided(queries, error))
        try:
            patience.check()
            answers: Sequence[Decision | Exception] = self._decisions(queries, self._acquire_many(queries))
            patience.answered()
        except StorageError as error:
            patience.failed(error)
            answers = self._decisions_without_storage(queries, error)
        return merge_decisions(known, answers)

    def release(self, decision: Decision) -> bool:
        """Give back the hits of an allowed decision, in every window that still exists. This works once per decision.

        Returns:
            True if anything was given back. False for a refusal, for a second call, and after the windows have ended.

        Raises:
            StorageError: the storage failed. It is unknown whether the hit was given back, and it is not tried again.
        """
        receipt = self._receipt(decision)
        if receipt is None:
            return False
        insurance = self._found_insurance() if self._is_insured else None
        try:
            if insurance is not None:
                insurance.release(receipt)
            storage = insurance.storage if insurance is not None and decision.degraded else self.storage
            decision.released = storage.release(receipt.windows, receipt.keys, receipt.cost, receipt.tokens)
        except StorageError as error:
            self._tell_failure(error, policy="raise")
            raise
        finally:
            self._changed(receipt.windows, receipt.keys)
        return self._tell_release(decision)

    @contextmanager
    def reserve(
        self,
        type: str,
        recipient: Recipient,
        /,
        *,
        cost: int = 1,
        priority: str | None = None,
        **fields: Recipient | None,
    ) -> Generator[Decision]:
        """`hit` as a context manager: if the body raises, the hit is given back, unless the message may have been sent.

        Same arguments and errors as `hit`. `outcome_unknown` says which exceptions keep the hit.
        """
        # Before the body: when that has failed, it may be because no more files can be opened.
        from ratelimited_notify.limiter.outcome import outcome_unknown

        handled = sys.exception()
        decision = self.hit(type, recipient, cost=cost, priority=priority, **fields)
        try:
            yield decision
        except BaseException as error:
            if not outcome_unknown(error, handled=handled):
                give_back(self, [decision])
            raise

    def windows(self, type: str, recipient: Recipient, /, **fields: Recipient | None) -> tuple[WindowState, ...]:
        """The windows that such a notification counts in, as they are now, and the pauses of rules. Nothing is counted."""
        query = self._prepare(type, recipient, 1, None, fields, hit=False)
        if isinstance(query, Decision):
            return ()
        with self._telling_failure():
            verdict = self.storage.peek(query.windows, query.keys, 1)
        return self._test_decision(query, verdict).windows

    def clear(self, type: str, recipient: Recipient, /, *, shared: bool = False, **fields: Recipient | None) -> int:
        """Empty the windows that such a notification counts in.

        Arguments:
            type: the type of the notification.
            recipient: whose windows to empty.
            shared: True empties the windows that it shares with others, too: those of rules that do not count by
                recipient, such as `by="tenant"`, `by="dedupe_key"` or `by=()`. It also ends the pauses of these rules.
                By default they stay as they are.
            fields: further values that rules count by.

        Returns:
            How many windows held anything.
        """
        query = self._prepare(type, recipient, 1, None, fields, hit=False)
        if isinstance(query, Decision):
            return 0
        windows, keys = self._windows_to_clear(query, shared)
        try:
            with self._telling_failure():
                forgotten = self.storage.forget(windows, keys) if windows else 0
            if self._is_insured:
                self._found_insurance().forget(windows, keys)
            return forgotten
        finally:
            self._changed(windows, keys)

    def pause(self, rule: str, seconds: float, /, **fields: Recipient | None) -> datetime | None:
        """Refuse everything that a rule applies to, in all processes that share the storage, for so many seconds from now.

        This is for a provider that says "not before 30 seconds from now". Only a rule that does not count by recipient can
        be paused, also one whose limit is None. A longer pause that is on already stays. The pause ends by itself, by
        `resume`, or by `clear` with `shared=True`. As the limits of the rule, it refuses nothing in shadow mode, and nothing
        whose priority is exempt. It stays if you change the rules, as long as the rule keeps its name.

        Arguments:
            rule: the name of the rule.
            seconds: how long, by the clock of the storage: above 0, and at most 366 days.
            fields: the values of the fields that the rule counts by, such as `tenant="acme"`. `type` is among them, if the
                rule counts by type and is for several.

        Returns:
            When the pause ends, in UTC. None if limiting is off; then nothing is paused.

        Raises:
            TypeError: an argument has the wrong type.
            NotifyError: there is no such rule, it counts by recipient, a field is missing or one too many, or the seconds
                are out of range.
            StorageError: the storage failed. It is unknown whether the rule is paused; you can call it again.
        """
        if self._is_off():
            return None
        from ratelimited_notify.limiter.pauses import duration_of
        from ratelimited_notify.limiter.window_state import utc

        duration = duration_of(seconds)
        window, key = self._pause_window(rule, fields)
        if self._is_insured:
            self._found_insurance().pause(window, key, duration)
        with self._telling_failure():
            return utc(self.storage.pause(window, key, duration))

    def resume(self, rule: str, /, **fields: Recipient | None) -> bool:
        """End a pause. Callers of this process that wait for its end ask at once.

        Arguments:
            rule: the name of the rule.
            fields: the same as for `pause`.

        Returns:
            True if the rule was paused. False if limiting is off.

        Raises:
            TypeError: an argument has the wrong type.
            NotifyError: there is no such rule, it counts by recipient, or a field is missing or one too many.
            StorageError: the storage failed. It is unknown whether the pause has ended; you can call it again.
        """
        if self._is_off():
            return False
        window, key = self._pause_window(rule, fields)
        try:
            with self._telling_failure():
                forgotten = self.storage.forget([window], [key])
            if self._is_insured:
                self._found_insurance().forget([window], [key])
            return forgotten > 0
        finally:
            self._changed([window], [key])

    def wait(self, seconds: float) -> None:
        """Wait this many seconds, by the limiter's clock."""
        check_slept(getattr(self._clock, "sleep", time.sleep)(seconds))

    def close(self) -> None:
        """Close the storage if this limiter opened it. This closes its connections, or forgets its windows in memory.

        If you use the limiter afterwards, a storage of this library connects again, or starts with empty windows, and
        you have to close it again.
        """
        self._leave_source()
        if self._owned and self._storage is not None:
            self._storage.close()
            self._rules_changed()
        if self._insurance is not None and self._insurance.owned:
            self._insurance.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
