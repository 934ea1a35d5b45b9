"""The common part of both limiters: everything except the calls of the storage."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.decision import Decision, decided
from ratelimited_notify.limiter.degrading import Degrading
from ratelimited_notify.limiter.failures import StorageFailures, failures_at
from ratelimited_notify.limiter.options import check_options, policy_of
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.log import is_debugging
from ratelimited_notify.notification.cost import ONE
from ratelimited_notify.notification.recipient import counting_as, text_of
from ratelimited_notify.rules.ruleset import RuleSet
from ratelimited_notify.sources.load import live_rules_from, rules_if_on
from ratelimited_notify.storage.base import WithShortcut
from ratelimited_notify.storage.circuit import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratelimited_notify.limiter.insurance import Insurance
    from ratelimited_notify.limiter.options import OnStorageError
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.receipt import Explanation
    from ratelimited_notify.limiter.refusals import RefusalCache
    from ratelimited_notify.limiter.tiers import TierOf
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Plan
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.windows.strategies import ExplainingShortcut, Outcome, Shortcut

_S = TypeVar("_S", "Storage", "AsyncStorage")


class BaseLimiter(Degrading[_S], Generic[_S]):
    """The base of both limiters. It makes queries from notifications, and decisions from what the storage answers."""

    def __init__(
        self,
        rules: Rules | None = None,
        storage: str | _S | Storage = "memory://",
        *,
        namespace: str = "notify",
        normalize: str | Callable[[str], str] | None = None,
        tier_of: TierOf | None = None,
        pseudonymize: bytes | None = None,
        on_storage_error: OnStorageError = "raise",
        insurance_share: int = 1,
        timeout: float = 0.5,
        clock: Callable[[], float] | None = None,
        enabled: bool = True,
        remember_refusals: bool = False,
        circuit: Circuit | None = DEFAULT,
    ) -> None:
        """Make a limiter.

        Arguments:
            rules: what may be sent: a mapping from type to limit (`{"news": "1/day"}`), a list of rules or dicts, a
                `RuleSet`, the path of a file, or a source such as `FileRules`.
            storage: where windows are kept: a URI, or a storage to share. With `"memory://"`, the default, each limiter
                has windows of its own. To share windows in memory between threads and asyncio, pass the storage of a
                `Limiter` to an `AsyncLimiter`.
            namespace: the first part of every key. Limiters with the same namespace on one server count together.
            normalize: `"email"`, or a callable from string to string, so that all spellings of a recipient count as
                one. `"email"` ignores a name, surrounding spaces, and upper and lower case. It does not know that a domain
                in another script and its `xn--` form are the same. By default each spelling is a recipient of its own.
            tier_of: a callable that takes the recipient as you passed it, and returns the name of its tier, or None. If it
                has a parameter called `fields`, it gets a mapping of the notification's fields too. Rules with tiers
                need it.
            pseudonymize: a secret of 1 to 64 bytes. With it, keys contain a keyed hash instead of the recipient.
            on_storage_error: `"raise"` (the default) raises `StorageError`. `"allow"` and `"deny"` decide without
                counting. The log says so: at once, then once in 10 seconds with the number, and once when it is over.
                A storage, or its URI such as `"memory://"`, is an insurance: it counts what the storage allows, and decides
                by its own windows while the storage fails.
            insurance_share: the number of processes that share the storage, 1 by default. The insurance of each divides the
                amounts by it, rounded up.
            timeout: the longest time in seconds that a decision waits for the storage, 0.5 by default. It applies to a
                storage that the limiter opens by its URI.
            clock: a callable that returns seconds, for windows in memory, memcached and SQLite. By default this machine's
                time. If it has a method `sleep(seconds)`, the limiter waits with it. `time.time` follows freezegun and
                time-machine.
            enabled: False sends everything and counts nothing.
            remember_refusals: True refuses a recipient who was refused a moment ago without asking the storage again:
                until the time at which the storage said it would allow it, but at most 5 seconds. Meanwhile the limiter
                does not see what others give back, clear, resume or change. This is for a storage on a server, if the
                same recipient is asked for again and again.
            circuit: when to stop asking a server that does not answer. By default that is after 3 time-outs or lost
                connections in a row. From then on, the server gets one PING every 0.5 seconds until it answers one.
                None never stops asking. It applies to a storage that the limiter opens by its URI.

        Raises:
            RuleError: the rules cannot be used. The error lists all problems, each with its place.
            NotifyError: another argument cannot be used.
            MissingExtra: the client of the storage is not installed.
        """
        check_options(
            namespace=namespace, tier_of=tier_of, on_storage_error=on_storage_error, insurance_share=insurance_share,
            timeout=timeout, clock=clock, enabled=enabled, remember_refusals=remember_refusals, circuit=circuit,
        )  # fmt: skip
        counted_as = counting_as(normalize, pseudonymize)
        self._begin_unwatched()
        self._on_storage_error = on_storage_error
        self._policy = policy_of(on_storage_error)
        self._share = insurance_share
        self._is_insured = self._policy == "insurance"
        self._insurance: Insurance[_S] | None = None
        self._timeout = timeout
        self._clock = clock
        self._circuit = circuit
        self._failures = StorageFailures(self._policy)
        self._refusals: RefusalCache | None = None
        if remember_refusals:
            from ratelimited_notify.limiter.refusals import RefusalCache

            self._refusals = RefusalCache()
        # Loaded now: if a process forks while one of its threads loads a module, the child can never load it.

        off = self._off = not enabled or switch.read()
        live = live_rules_from(rules, off=off)
        unused = off or switch.off
        super().__init__(
            rules_if_on(rules, off=off) if live is None else RuleSet() if unused else live.first(),
            namespace, counted_as, tier_of, off=off, live=live, unused=unused,
        )  # fmt: skip
        self._storage_argument: str | _S | Storage = storage
        self._owned = isinstance(storage, str)
        # If limiting is off, nothing is opened, so nothing has to be installed or running.
        self._to = None
        self._storage: _S | None = None if unused else self._open_storage()
        self._enroll()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def summary(self) -> str:
        """The rules and the storage in a few words, for a repr."""
        number, rules, storage = self.plans.number, self.plans.rules, self._storage
        text = "1 rule" if number == 1 else f"{number} rules"
        if rules.default is not None:
            text += " and a default"
        if self._off or switch.off:
            return f"{text}, switched off"
        if storage is None:
            return f"{text} on a storage that is not open yet"
        from ratelimited_notify.limiter.location import storage_text

        insured = "" if self._insurance is None else f", insured by {storage_text(self._insurance.storage)}"
        return f"{text} on {storage_text(storage)}{insured}"

    @abstractmethod
    def _open(self, storage: str | _S | Storage) -> _S:
        """The storage to use."""

    @abstractmethod
    def _insured_by(self) -> type[Insurance[_S]]:
        """The class of the insurance."""

    def _check_clock_of(self, storage: object) -> None:
        if self._clock not in (None, getattr(storage, "clock", None)):
            raise NotifyError("clock= is for a storage that the limiter opens. Pass the clock to the storage instead.")

    def _open_storage(self) -> _S:
        storage = self._open(self._storage_argument)
        self._to = storage.shortcut if isinstance(storage, WithShortcut) else None  # asked once, since it takes long
        insurance: _S | None = None
        if self._is_insured:
            from ratelimited_notify.limiter.insuring import check_insurance

            insurance = self._open(self._on_storage_error)  # type: ignore[arg-type]  # it is checked when it is opened
            check_insurance(insurance, storage)
        self._storage = storage
        if self._to is None:
            from ratelimited_notify.limiter.location import place_of

            self._failures = failures_at(place_of(storage, self._storage_argument), self._policy)
        if insurance is not None:
            from ratelimited_notify.storage.engine import bounded_clock

            # Windows in memory would have to count everything twice, and fail only if a signal handler asks.
            self._insurance = self._insured_by()(
                insurance, self._share, owned=isinstance(self._on_storage_error, str), copies=self._to is None,
                line=self._failures.uninsured, now=bounded_clock(self._clock),
            )  # fmt: skip
        return storage

    @property
    def storage(self) -> _S:
        """The storage in use. It is also a storage of `limits`, so the strategies of `limits` can use it."""
        return self._open_storage() if self._storage is None else self._storage

    def _shortcut_for(self, plan: Plan) -> Shortcut | None:
        self.storage  # noqa: B018  # opens it
        common, to = plan.common, self._to
        # A field that is required is missing without fields. That is an error.
        if plan.required or not common.windows:
            return None
        if to is None and self._refusals is not None and not plan.tiers:
            # Most hits are not refused. With tiers, `tier_of=` would be asked twice about them.
            to = self._refusals.shortcut
        if to is None:
            return None
        shortcut = to(common.windows, common.key_parts)
        if shortcut is not None and (self._counted_as is not text_of or plan.overriding or plan.tiers):
            # Most programs need none of this.
            from ratelimited_notify.limiter.shortcuts import choosing

            shortcut = choosing(plan, shortcut, to, self._counted_as, self._tiers.plain)
        watching = self.watching
        if watching is not None and watching.surrounds:
            # What surrounds a delivery begins before the decision. It takes much longer than the long way.
            return None
        # Asked once for each type: it would make each call of a function that drops slower.
        if shortcut is not None and is_debugging() and (watching is None or not watching.logs_suppressions):
            from ratelimited_notify.limiter.shortcuts import ReconsideringShortcut

            shortcut = ReconsideringShortcut(shortcut)
        return shortcut if watching is None or shortcut is None else watching.shortcut(plan.type, shortcut)

    def _decide_by_shortcut(
        self, type: str, recipient: Recipient, cost: int, priority: str | None, fields: Mapping[str, Recipient | None]
    ) -> Decision | None:
        """The decision about a hit if limiting is off or a shortcut knows it; otherwise None."""
        if self._is_off():
            return self._off_decision(type, recipient, cost)
        # Any other cost takes the long way, which also checks it.
        if cost is not ONE or fields or priority is not None or type.__class__ is not str:
            return None
        if recipient.__class__ is not str:
            return None
        shortcut = self.plans.shortcuts.get(type)
        if shortcut is None:
            return self._decide_first(type, recipient)  # pyright: ignore[reportArgumentType]  # a text
        outcome = shortcut.decide(recipient)  # pyright: ignore[reportArgumentType]  # a text
        if outcome is None:
            return None
        return decided(type, recipient, self, outcome)  # pyright: ignore[reportArgumentType]  # a text

    def _decide_first(self, type: str, recipient: str) -> Decision | None:
        """The decision about the first hit of a type, if its plan has a shortcut to the storage."""
        # While the storage fails, the long way notices that it works again.
        if self._to is None or self._failures.uncounted.event.ongoing:
            return None
        shortcut = self._first_shortcut(type)
        return None if shortcut is None else self.decision_from(type, recipient, shortcut.decide(recipient))

    def decision_from(self, type: str, recipient: object, outcome: Outcome | None) -> Decision | None:
        """The decision from the outcome of a shortcut; None if there is no outcome."""
        if outcome is None or not isinstance(recipient, str):
            return None
        return decided(type, recipient, self, outcome)

    def explanation(self, recipient: str, outcome: Outcome) -> Explanation:
        """The reasons for a decision by a shortcut."""
        shortcut: ExplainingShortcut = outcome[-1]
        text = recipient if self._counted_as is text_of else self._counted_as(recipient)
        return text, shortcut.windows, shortcut.explain(outcome), (self.storage, None, None) if outcome[0] else None

    @property
    def off(self) -> bool:
        """Whether limiting is off, for this limiter or for the whole process."""
        return self._off or switch.off

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
        """The query for the storage, or the decision if there is nothing to ask.

        There is nothing to ask if limiting is off, or no rule applies, or if a hit was refused a moment ago and that is
        remembered.
        """
        watching = self.watching if hit else None
        if self._is_off():
            return self._off_decision(type, recipient, cost) if hit else Decision(type, recipient, cost, True)
        query = self._query(type, recipient, cost, priority, fields)
        if not query.windows:
            unlimited = self._unlimited(query)
            if watching is not None:
                watching.decided(unlimited, exempt=query.exempt)
            return unlimited
        if hit and self._refusals is not None:
            refusal = self._refusals.find(query.windows, query.keys, query.cost)
            if refusal is not None:
                refused = self._decision(query, refusal)
                if watching is not None:
                    watching.decided(refused, exempt=query.exempt)
                return refused
            query.asked = self._refusals.asked_at()
        if watching is not None:
            query.began = watching.now()
        return query

    def _off_decision(self, type: str, recipient: Recipient, cost: int) -> Decision:
        """The decision while limiting is off."""
        return self._told([Decision(type, recipient, cost, True)])[0]

    def _rules_changed(self) -> None:
        if self._refusals is not None:
            self._refusals.clear()
        if self._insurance is not None:
            self._insurance.forget_rules()
        super()._rules_changed()

    def _changed(self, windows: Sequence[Counter], keys: Sequence[str]) -> None:
        """Forget what is remembered about these windows, and let waiting callers ask: something was given back or cleared."""
        if self._refusals is not None:
            self._refusals.drop(windows, keys)
        self._call_waiting(keys)

    def _query_for(self, notification: Notification) -> Query | Decision | Exception:
        """The query about a notification, or what is known without asking the storage."""
        if self._is_off():
            return self._off_decision(notification.type, notification.recipient, notification.cost)
        try:
            query = self._query(
                notification.type, notification.recipient, notification.cost, notification.priority, notification.fields
            )
        except Exception as error:  # noqa: BLE001  # normalize and tier_of are the user's code and may raise anything
            return error
        return query

    def _queries_for(self, notifications: Iterable[Notification]) -> Sequence[Query | Decision | Exception]:
        """`_query_for` for each notification. It is faster if only the recipients differ, as they mostly do."""
        from ratelimited_notify.limiter.batch import UniformBatch, is_uniform

        batch = list(notifications)
        if len(batch) > 1 and is_uniform(batch) and not self._is_off():
            first = batch[0]
            recipients = [notification.recipient for notification in batch]
            # A notification that cannot be used must not affect the others, so then each gets a query of its own.
            with suppress(Exception):
                queries = self._query_each(first.type, recipients, first.cost, first.priority, first.fields)
                if isinstance(queries, UniformBatch):
                    return queries
        return [self._query_for(notification) for notification in batch]
