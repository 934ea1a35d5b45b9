"""The rules in force, and the windows that a notification counts in. Nothing here asks the storage."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ratelimited_notify.disposal import let_go
from ratelimited_notify.errors import RuleError, type_text
from ratelimited_notify.forking import forkable
from ratelimited_notify.limiter.known_attributes import KnownAttributes
from ratelimited_notify.limiter.query import Query
from ratelimited_notify.log import is_logging
from ratelimited_notify.notification.cost import LARGEST_AMOUNT, checked_cost
from ratelimited_notify.notification.notification import check_priority
from ratelimited_notify.notification.recipient import several
from ratelimited_notify.pickling import NotPickled
from ratelimited_notify.rules.plan import Subject
from ratelimited_notify.rules.plans import Plans
from ratelimited_notify.sources.load import live_rules_from, rules_from, usable_if_on, warn_of_doubts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratelimited_notify.instrumentation.watcher import Watcher
    from ratelimited_notify.limiter.checks import Check, Checks
    from ratelimited_notify.limiter.following import Following
    from ratelimited_notify.limiter.tiers import TierOf, Tiers
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Plan
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.sources.live import LiveRules
    from ratelimited_notify.windows.strategies import Shortcut

_MOST_LOGGED = 1000


class RuleLookup(KnownAttributes, NotPickled, ABC):
    """The rules of a limiter, and the queries that follow from them. The rules can change at any time."""

    _settable = ("rules",)

    plans: Plans
    """The rules in force, compiled; a new object as soon as they change."""

    def __init__(
        self,
        rules: RuleSet,
        namespace: str,
        counted_as: Callable[[Recipient], str],
        tier_of: TierOf | None,
        *,
        off: bool = False,
        live: LiveRules | None = None,
        unused: bool = False,
    ) -> None:
        self._namespace = namespace
        self._counted_as = counted_as
        self._tier_of = tier_of
        self._found_tiers: Tiers | None = None
        if tier_of is not None:
            self._tiers  # noqa: B018  # made now, because it checks the callable
        self._following: Following | None = None
        self._former: list[object] = []
        self._logged: set[tuple[str, ...]] = set()
        # Held while rules change, but not while they are read.
        self._editing: threading.Lock | threading.RLock = forkable(threading.Lock())

        def begin(rules: RuleSet) -> None:
            self._put_in_force(self._planned(rules, {}, None))

        if live is None:
            usable_if_on(rules, begin, off=off)
        else:
            from ratelimited_notify.sources.explaining import explained_in_force

            with explained_in_force(live.source, live.status):
                usable_if_on(rules, begin, off=off)
        warn_of_doubts(self.rules)
        if live is not None:
            self._go_by(live, unused=unused)

    @abstractmethod
    def _shortcut_for(self, plan: Plan) -> Shortcut | None:
        """The fastest way to the windows of a plan, if they are the same for all recipients."""

    @abstractmethod
    def _rules_changed(self) -> None:
        """Let callers ask that wait for a window: the next rules may allow what the last ones refused."""

    @property
    def rules(self) -> RuleSet:
        """The rules in force. Assign new ones in any form that the constructor takes, and the next decision uses them.

        The counters stay, because they belong to the name of a rule and not to its amount. Rules that cannot be used
        raise a `RuleError`, and the rules before them stay in force.
        """
        return self.plans.rules

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        if self._following is not None:
            raise self._following.unassignable()
        configured = rules_from(rules)
        with self._editing:
            self.prepared(configured)()
        self.changed()

    @property
    def watchers(self) -> Sequence[Watcher]:
        """Those who watch this limiter alone."""
        return ()

    @property
    def source(self) -> LiveRules:
        """The live rules, if the rules come from a source: their status, and how to load them now.

        Raises:
            AttributeError: the rules do not come from a source.
        """
        if self._following is None:
            raise AttributeError("The rules of this limiter do not come from a source, such as FileRules.")
        return self._following.live

    def prepared(self, rules: RuleSet) -> Callable[[], None]:
        """Prepare other rules. What you get puts them in force, and cannot fail. Meanwhile no others may be set.

        Raises:
            NotifyError: the rules cannot be used.
        """
        checks, declared = self._checks, self.plans.declared
        # Who comes from now on asks about these rules, too.
        coming = checks.coming(rules)
        try:
            plans = checks.accepted(rules, declared, lambda: self._planned(rules, declared, self.plans))
        except BaseException:
            del coming
            raise
        former = self.plans.parts()

        def put_in_force(_coming: object = coming) -> None:
            self._put_in_force(plans)
            self._former = former

        return put_in_force

    @property
    def _checks(self) -> Checks:
        kept = vars(self)
        found: Checks | None = kept.get("_asked")
        if found is None:
            from ratelimited_notify.limiter.checks import Checks

            # In one step: two threads may get here.
            made: Checks = kept.setdefault("_asked", Checks())
            return made
        return found

    @property
    def reconsiders(self) -> bool:
        """Whether the last refusal may be over."""
        return self._checks.reconsiders(self.plans.declared)

    def changed(self) -> None:
        """Note that other rules are in force."""
        former, self._former = self._former, []
        warn_of_doubts(self.rules)
        self._rules_changed()
        let_go(former)

    @property
    def _tiers(self) -> Tiers:
        # Most programs have no tiers, and load no code for them.
        if self._found_tiers is None:
            from ratelimited_notify.limiter.tiers import Tiers

            self._found_tiers = Tiers(self._tier_of)
        return self._found_tiers

    def _planned(self, rules: RuleSet, declared: Mapping[str, Rule], earlier: Plans | None) -> Plans:
        # The limit of a decorator applies only if no configured rule names the type. Beside a rule for "*" it applies too.
        same_rules = earlier is not None and earlier.rules is rules
        problems = [] if same_rules or not any(rule.tiers for rule in rules) else self._tiers.problems(rules)
        try:
            plans = Plans(rules, declared, self._namespace, self._counted_as, self._shortcut_if_live, earlier)
        except RuleError as error:
            raise RuleError([*problems, *error.problems]) from None
        if problems:
            raise RuleError(problems)
        return plans

    def _put_in_force(self, plans: Plans) -> None:
        # In one step, so that a forked child has all of the old rules or all of the new ones. Users cannot set it.
        object.__setattr__(self, "plans", plans)

    def _shortcut_if_live(self, plan: Plan) -> Shortcut | None:
        # Until the thread of the source runs in this process, each decision goes the long way, which starts it.
        return self._shortcut_for(plan) if self._following is None or self._following.runs else None

    def take_rules(self, rules: Rules) -> None:
        """Go by these rules from now on, also if they are a source."""
        live = live_rules_from(rules)
        if live is None:
            self.rules = rules
        else:
            live.first()
            self._go_by(live)
            self.forget_shortcuts()

    def _go_by(self, live: LiveRules, *, unused: bool = False) -> None:
        from ratelimited_notify.limiter.following import Following

        following = Following(live)
        # If limiting is off, nothing is loaded before it is on again.
        if not unused:
            following.join(self)
        # All that follow change together.
        self._following, self._editing = following, live.editing

    def _leave_source(self) -> None:
        if self._following is not None:
            self._following.leave(self)

    def forget_shortcuts(self) -> None:
        """Make all shortcuts anew. The next decision about each type starts the thread of a source before that."""
        self.plans.forget()

    def register(self, check: Check) -> None:
        """Ask this function about each new rule set, as `Checks.register` says."""
        self._checks.register(check, self)

    def declare(self, rule: Rule) -> None:
        """Add the rule of a decorator, and replace its earlier one. A configured rule that matches the type wins.

        Raises:
            RuleError: the rule cannot be combined with the rules in force. They do not change.
        """
        with self._editing:
            plans = self.plans
            self._put_in_force(self._planned(plans.rules, {**plans.declared, rule.type: rule}, plans))
        self._rules_changed()

    def _query(
        self, type: str, recipient: Recipient, cost: int, priority: str | None, fields: Mapping[str, Recipient | None]
    ) -> Query:
        if cost.__class__ is not int or not 1 <= cost <= LARGEST_AMOUNT:
            cost = checked_cost(cost)
        if priority is not None:
            check_priority(priority)
        plans = self._current_plans()
        plan = plans.of(type)
        subject = Subject(plan.type, self._counted_as(recipient), plans.fields(fields) if fields else {})
        if plan.required:
            self._check_required(plan, subject.fields)
        tier = self._tiers.of(recipient, fields) if plan.tiers else None
        windows, keys = plan.windows(subject, priority, tier)
        if not plan.known:
            self._warn_unknown_type(plan.type, windows)
        query = Query(subject, recipient, cost, windows, keys)
        if priority is not None:
            query.exempt = plan.exempts(priority, subject.fields)
        return query

    def _current_plans(self) -> Plans:
        if self._following is not None and not self._following.runs:
            self._following.begin(self)
        return self.plans

    def _first_shortcut(self, type: str) -> Shortcut | None:
        """The shortcut for a type that has no plan yet. None if it has one, or if there is something to log about it."""
        plans = self._current_plans()
        if type in plans:
            return None
        return plans.shortcuts.get(type) if plans.of(type).known else None

    def _query_each(
        self,
        type: str,
        recipients: Iterable[Recipient],
        cost: int,
        priority: str | None,
        fields: Mapping[str, Recipient | None],
    ) -> Sequence[Query]:
        # Most programs have no batches, and load no code for them.
        from ratelimited_notify.limiter.batch import UniformBatch

        everybody: list[Recipient] = list(several(recipients))
        if not everybody:
            return []
        first = self._query(type, everybody[0], cost, priority, fields)
        plan = self.plans.of(type)
        variant = plan.uniform(priority, first.subject.fields)
        if variant is None:
            return [first, *(self._query(type, recipient, cost, priority, fields) for recipient in everybody[1:])]
        texts = [first.subject.recipient, *map(self._counted_as, everybody[1:])]
        return UniformBatch(plan.type, variant, everybody, texts, first.subject.fields, first.cost)

    def _check_required(self, plan: Plan, fields: Mapping[str, str]) -> None:
        """Check that the notification has the fields that rules require.

        Raises:
            NotifyError: a field is missing that a rule requires. If the rule is in shadow mode, that is only logged.
        """
        for field, rule in plan.required:
            if field in fields:
                continue
            from ratelimited_notify.limiter.remarks import log_missing, missing

            if rule.enforce:
                raise missing(plan.type, field, rule)
            if self._is_new((type_text(plan.type), field, rule.name)):
                log_missing(plan.type, field, rule)

    def _warn_unknown_type(self, type: str, windows: Sequence[Counter]) -> None:
        # Types that are not shown would all be the same line.
        if self._is_new((type_text(type),)):
            from ratelimited_notify.limiter.remarks import log_unlimited

            log_unlimited(type, windows)
            self._met_unknown_type(type)

    def _met_unknown_type(self, type: str) -> None:
        """Note a type that no rule names, the first time."""

    def _is_new(self, about: tuple[str, ...]) -> bool:
        """Whether nothing has been logged about this yet. At most so much is logged that it fills neither log nor memory."""
        if is_logging() or about in self._logged or len(self._logged) >= _MOST_LOGGED:
            return False
        self._logged.add(about)
        return True

    def _windows_to_clear(self, query: Query, shared: object) -> tuple[Sequence[Counter], Sequence[str]]:
        """The windows of this recipient and their keys: its own, or with `shared` all of them.

        Raises:
            TypeError: `shared` is not a bool.
        """
        if not isinstance(shared, bool):
            raise TypeError("shared= must be True or False. A field of this name cannot be passed to clear().")
        if shared:
            return query.windows, query.keys
        own = [(window, key) for window, key in zip(query.windows, query.keys, strict=True) if not window.shared]
        return [window for window, _ in own], [key for _, key in own]

    def _pause_window(self, rule: str, fields: Mapping[str, Recipient | None]) -> tuple[Counter, str]:
        """The window of a rule's pause, and its key. Errors as for `pause_window`."""
        from ratelimited_notify.limiter.pauses import pause_window

        return pause_window(self._current_plans(), self._namespace, rule, fields)
