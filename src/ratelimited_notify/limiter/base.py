"""What the limiter for threads and the one for asyncio share: everything but asking the storage."""

from __future__ import annotations

import logging
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.batch import NormalizingShortcut, Query, UniformBatch, is_uniform
from ratelimited_notify.limiter.decision import Decision, decided
from ratelimited_notify.limiter.lookup import RuleLookup
from ratelimited_notify.limiter.options import check_options
from ratelimited_notify.limiter.refusals import RefusalCache
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.notification.cost import ONE
from ratelimited_notify.notification.recipient import counting_as, text_of
from ratelimited_notify.sources.load import rules_if_on
from ratelimited_notify.storage.base import WithShortcut
from ratelimited_notify.storage.circuit import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratelimited_notify.errors import StorageError
    from ratelimited_notify.limiter.decision import Explanation, Receipt
    from ratelimited_notify.limiter.options import OnStorageError
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Plan
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.windows.strategies import Outcome, Shortcut, VerdictLike

_S = TypeVar("_S", "Storage", "AsyncStorage")

_log = logging.getLogger("ratelimited_notify")


class BaseLimiter(RuleLookup, Generic[_S]):
    """What both limiters are made of: rules, and the questions and decisions that follow from them."""

    def __init__(
        self,
        rules: Rules | None = None,
        storage: str | _S | Storage = "memory://",
        *,
        namespace: str = "notify",
        normalize: str | Callable[[str], str] | None = None,
        tier_of: Callable[[Recipient], str | None] | None = None,
        pseudonymize: bytes | None = None,
        on_storage_error: OnStorageError = "raise",
        timeout: float = 0.5,
        clock: Callable[[], float] | None = None,
        enabled: bool = True,
        remember_refusals: bool = False,
        circuit: Circuit | None = DEFAULT,
    ) -> None:
        """Make a limiter.

        Arguments:
            rules: what may be sent: a mapping from type to limit (`{"news": "1/day"}`), rules, a `RuleSet`, or the path of a
                TOML file.
            storage: where windows are kept: a URI, or a storage to be shared. `"memory://"`, the default, is this limiter's own.
                Threads and asyncio can share windows in memory: an `AsyncLimiter` takes the storage of a `Limiter` on it.
            namespace: how every key begins; limiters of one namespace on one server count together.
            normalize: `"email"`, or a callable from text to text, that makes the spellings of a recipient one. By default each
                spelling is a recipient of its own.
            tier_of: a callable from the recipient, as passed, to the name of its tier, or None.
            pseudonymize: a secret of 1 to 64 bytes; with it, keys hold a keyed hash instead of the recipient.
            on_storage_error: `"raise"` (the default) raises `StorageError`; `"allow"` and `"deny"` decide, uncounted.
            timeout: the most seconds that a decision waits for the storage, 0.5 by default. For a storage opened by its URI.
            clock: a callable that gives seconds, for windows in memory and on memcached; by default this machine's time. One
                that has a method `sleep(seconds)` is also what waiting is done by.
            enabled: False sends everything and counts nothing.
            remember_refusals: True answers a recipient who was refused a moment ago without asking the storage again: until
                the time that it said, and 5 seconds at the most. What others give back, clear or edit meanwhile is not seen.
                For a storage on a server, where a recipient may be asked about again and again.
            circuit: when to stop asking a server that does not answer; by default after 3 time-outs or lost connections in
                a row, and then one PING every 0.5 seconds until one is answered. None never stops. For a storage opened by
                its URI.

        Raises:
            RuleError: the rules cannot be used; all problems are named, each with its place.
            NotifyError: another argument cannot be used.
            MissingExtra: the client of the storage is not installed.
        """
        check_options(
            namespace=namespace, tier_of=tier_of, on_storage_error=on_storage_error, timeout=timeout, clock=clock,
            enabled=enabled, remember_refusals=remember_refusals, circuit=circuit,
        )  # fmt: skip
        counted = counting_as(normalize, pseudonymize)
        self._on_storage_error: OnStorageError = on_storage_error
        self._timeout = timeout
        self._clock = clock
        self._circuit = circuit
        self._refusals = RefusalCache() if remember_refusals else None
        off = self._off = not enabled or switch.read()
        super().__init__(rules_if_on(rules, off=off), namespace, counted, tier_of)
        self._storage_argument: str | _S | Storage = storage
        self._owned = isinstance(storage, str)
        # With the switch off nothing is opened, so that nothing needs to be installed or running.
        self._storage: _S | None = None if off or switch.off else self._open_storage()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def summary(self) -> str:
        """The rules and the storage in a few words, for a repr."""
        rules, storage = self.plans.rules, self._storage
        text = "1 rule" if len(rules) == 1 else f"{len(rules)} rules"
        if rules.default is not None:
            text += " and a default"
        if self._off or switch.off:
            return f"{text}, switched off"
        return f"{text} on {'a storage that is not open yet' if storage is None else _storage_text(storage)}"

    @abstractmethod
    def _open(self, storage: str | _S | Storage) -> _S:
        """The storage that is meant."""

    def _check_clock_of(self, storage: object) -> None:
        if self._clock not in (None, getattr(storage, "clock", None)):
            raise NotifyError("clock= goes with a storage that the limiter opens; give it to the storage instead.")

    def _open_storage(self) -> _S:
        self._storage = self._open(self._storage_argument)
        return self._storage

    @property
    def storage(self) -> _S:
        """The storage that is asked: a storage of `limits` too, for `limits`' own strategies."""
        return self._open_storage() if self._storage is None else self._storage

    def _shortcut_for(self, plan: Plan) -> Shortcut | None:
        storage, shortcut = self.storage, None
        if plan.common_windows and isinstance(storage, WithShortcut):
            shortcut = storage.shortcut(plan.common_windows, plan.key_parts)
        elif plan.common_windows and self._refusals is not None:
            shortcut = self._refusals.shortcut(plan.common_windows, plan.key_parts)
        return (
            shortcut if shortcut is None or self._counted is text_of else NormalizingShortcut(shortcut, self._counted)
        )

    def _decide_by_shortcut(
        self, type: str, recipient: Recipient, cost: int, priority: str | None, fields: Mapping[str, Recipient | None]
    ) -> Decision | None:
        """The decision about a hit where limiting is off, or a shortcut leads to it; otherwise None."""
        if self._is_off():
            return Decision(type, recipient, cost, True)
        # A cost that is no such number takes the long way, which says what is wrong with it.
        if cost is not ONE or fields or priority is not None or type.__class__ is not str:
            return None
        shortcut = self.plans.shortcuts.get(type)
        if shortcut is None or recipient.__class__ is not str:
            return None
        outcome = shortcut.decide(recipient)  # pyright: ignore[reportArgumentType]  # a text
        if outcome is None:
            return None
        return decided(type, recipient, self, shortcut, outcome)  # pyright: ignore[reportArgumentType]  # a text

    def decision_from(
        self, type: str, recipient: object, shortcut: Shortcut | None, outcome: Outcome | None
    ) -> Decision | None:
        """The decision that follows from what a shortcut said; None where it said nothing."""
        if shortcut is None or outcome is None or not isinstance(recipient, str):
            return None
        return decided(type, recipient, self, shortcut, outcome)

    def explanation(self, recipient: str, shortcut: Shortcut, outcome: Outcome) -> Explanation:
        """Why a shortcut decided as it did."""
        text = recipient if self._counted is text_of else self._counted(recipient)
        return text, shortcut.windows, shortcut.explain(outcome), (self.storage, None) if outcome[0] else None

    @property
    def raises(self) -> bool:
        """Whether a failure of the storage is raised, rather than decided about."""
        return self._on_storage_error == "raise"

    def _is_off(self) -> bool:
        if self._off or switch.off:
            switch.log_once()
            return True
        return False

    def _prepare(
        self,
        type: str,
        recipient: Recipient,
        cost: int,
        priority: str | None,
        fields: Mapping[str, Recipient | None],
        *,
        hit: bool,
    ) -> Query | Decision:
        """What to ask the storage; or the decision, if there is nothing to ask.

        That is so if limiting is off, if no rule applies, and for a hit also if the same was refused a moment ago.
        """
        if self._is_off():
            return Decision(type, recipient, cost, True)
        query = self._query(type, recipient, cost, priority, fields)
        if not query.windows:
            return self._unlimited(query)
        if hit and self._refusals is not None:
            refusal = self._refusals.find(query.windows, query.keys, query.cost)
            if refusal is not None:
                return self._decision(query, refusal)
            query.asked = self._refusals.asked_at()
        return query

    def _hit_decision(self, query: Query, verdict: VerdictLike) -> Decision:
        """The decision about a hit. A refusal is remembered, if refusals are."""
        if self._refusals is not None and query.asked is not None:
            self._refusals.remember(query.windows, query.keys, query.cost, verdict, query.asked)
        return self._decision(query, verdict)

    def _decision(self, query: Query, verdict: VerdictLike) -> Decision:
        """The decision that follows from what the storage took, or refused."""
        granted = verdict.granted
        return Decision(
            query.subject.type, query.recipient, query.cost, granted,
            subject=query.subject, windows=query.windows, verdict=verdict,
            receipt=(self.storage, query.keys) if granted else None,
        )  # fmt: skip

    def _test_decision(self, query: Query, verdict: VerdictLike) -> Decision:
        """The decision that would follow; there is nothing to give back."""
        subject = query.subject
        return Decision(
            subject.type, query.recipient, query.cost, verdict.granted,
            subject=subject, windows=query.windows, verdict=verdict,
        )  # fmt: skip

    def _unlimited(self, query: Query) -> Decision:
        return Decision(query.subject.type, query.recipient, query.cost, True, subject=query.subject)

    def _failed(self, queries: Sequence[Query], error: StorageError, *, tested: bool = False) -> list[Decision]:
        """The decisions without the storage, where the user chose what they are; where they are only tested, none is logged."""
        if self.raises:
            try:
                raise error
            finally:
                del error  # Or it and this frame, which is in its traceback, keep each other.
        allowed, said = (True, "allowed") if self._on_storage_error == "allow" else (False, "refused")
        if not tested:
            uncounted = sum(1 for query in queries if query.windows)
            _log.warning("Notifications %s uncounted (%d), as the storage failed: %s", said, uncounted, error)
        return [
            Decision(query.subject.type, query.recipient, query.cost, allowed, subject=query.subject, error=str(error))
            if query.windows
            else self._unlimited(query)
            for query in queries
        ]

    def _forget_refusals(self, windows: Sequence[Counter], keys: Sequence[str]) -> None:
        """What was remembered of these windows no longer holds."""
        if self._refusals is not None:
            self._refusals.drop(windows, keys)

    def _receipt(self, decision: Decision) -> Receipt | None:
        """What it takes to give a decision's hit back, the first time that it is asked for.

        Raises:
            NotifyError: another storage granted it.
        """
        granted_by = decision.granted_by
        if granted_by is not None and granted_by is not self.storage:
            raise NotifyError("The decision was made by a limiter with another storage; release it with that one.")
        return decision.take_receipt()

    def _query_for(self, notification: Notification) -> Query | Decision | Exception:
        """What the storage is to be asked, or what is known without asking."""
        if self._is_off():
            return Decision(notification.type, notification.recipient, notification.cost, True)
        try:
            query = self._query(
                notification.type,
                notification.recipient,
                notification.cost,
                notification.priority,
                notification.fields,
            )
        except Exception as error:  # noqa: BLE001  # normalize and tier_of are the user's, and may raise anything
            return error
        return query

    def _queries_for(self, notifications: Iterable[Notification]) -> Sequence[Query | Decision | Exception]:
        """`_query_for` for each; in less time where only recipients differ, as they mostly do."""
        batch = list(notifications)
        if len(batch) > 1 and is_uniform(batch) and not self._is_off():
            first = batch[0]
            recipients = [notification.recipient for notification in batch]
            # What cannot be asked about keeps the others from nothing, so then each is asked about by itself.
            with suppress(Exception):
                subject = self._query_each(first.type, recipients, first.cost, first.priority, first.fields)
                if isinstance(subject, UniformBatch):
                    return subject
        return [self._query_for(notification) for notification in batch]

    def _decisions(self, queries: Iterable[Query], verdicts: Iterable[VerdictLike]) -> list[Decision]:
        """The decisions, from what the storage said to those that fall into windows."""
        if isinstance(queries, UniformBatch):
            return queries.answers(verdicts, self.storage)
        upcoming = iter(verdicts)
        return [self._decision(query, next(upcoming)) if query.windows else self._unlimited(query) for query in queries]

    def _decisions_without_storage(
        self, queries: Sequence[Query], error: StorageError
    ) -> Sequence[Decision | Exception]:
        """What comes of each question when the storage failed."""
        if not self.raises:
            return self._failed(queries, error)
        return [error if query.windows else self._unlimited(query) for query in queries]


def _storage_text(storage: object) -> str:
    """The class of a storage, and where its servers are. The repr of a storage that others wrote may show a password."""
    from ratelimited_notify.storage.adapter import Adapter, AsyncAdapter
    from ratelimited_notify.storage.breaker import Circuits

    if getattr(type(storage).__repr__, "__module__", "").startswith("ratelimited_notify."):
        return repr(storage)
    name = type(storage).__name__
    if isinstance(storage, (Adapter, AsyncAdapter)):
        return f"<{name} of {type(storage.storage).__name__}>"
    circuits: object = getattr(storage, "circuits", None)
    servers = ", ".join(circuits) if isinstance(circuits, Circuits) else ""
    return f"<{name} at {servers}>" if servers else f"<{name}>"
