"""The rules in force, and the windows that a notification counts in. Nothing here asks the storage."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, RuleError, type_text
from ratelimited_notify.forking import forkable
from ratelimited_notify.limiter.batch import Query, UniformBatch
from ratelimited_notify.limiter.known_attributes import KnownAttributes
from ratelimited_notify.limiter.tiers import Tiers
from ratelimited_notify.log import is_logging, warning
from ratelimited_notify.notification.cost import LARGEST_AMOUNT, checked_cost
from ratelimited_notify.notification.notification import check_priority
from ratelimited_notify.notification.recipient import several
from ratelimited_notify.pickling import NotPickled
from ratelimited_notify.rules.plan import Subject
from ratelimited_notify.rules.plans import Plans
from ratelimited_notify.sources.load import rules_from, usable_if_on, warn_of_doubts
from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratelimited_notify.limiter.tiers import TierOf
    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Plan
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.annotations import Rules
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
        counted: Callable[[Recipient], str],
        tier_of: TierOf | None,
        *,
        off: bool = False,
    ) -> None:
        self._namespace = namespace
        self._counted = counted
        self._tiers = Tiers(tier_of)
        self._logged: set[tuple[str, ...]] = set()
        # Held while rules change, but not while they are read.
        self._editing = forkable(threading.Lock())
        usable_if_on(rules, lambda rules: self._plan(rules, {}, None), off=off)
        warn_of_doubts(self.rules)

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
        configured = rules_from(rules)
        with self._editing:
            self._plan(configured, self.plans.declared, self.plans)
        warn_of_doubts(configured)
        self._rules_changed()

    def _plan(self, rules: RuleSet, declared: Mapping[str, Rule], earlier: Plans | None) -> None:
        # The limit of a decorator applies only if no configured rule names the type. Beside a rule for "*" it applies too.
        same_rules = earlier is not None and earlier.rules is rules
        problems = [] if same_rules else self._tiers.problems(rules)
        try:
            plans = Plans(rules, declared, self._namespace, self._counted, self._shortcut_for, earlier)
        except RuleError as error:
            raise RuleError([*problems, *error.problems]) from None
        if problems:
            raise RuleError(problems)
        # In one step, so that a forked child has all of the old rules or all of the new ones. Users cannot set it.
        object.__setattr__(self, "plans", plans)

    def declare(self, rule: Rule) -> None:
        """Add the rule of a decorator, and replace its earlier one. A configured rule that matches the type wins.

        Raises:
            RuleError: the rule cannot be combined with the rules in force. They do not change.
        """
        with self._editing:
            plans = self.plans
            self._plan(plans.rules, {**plans.declared, rule.type: rule}, plans)
        self._rules_changed()

    def _query(
        self, type: str, recipient: Recipient, cost: int, priority: str | None, fields: Mapping[str, Recipient | None]
    ) -> Query:
        if cost.__class__ is not int or not 1 <= cost <= LARGEST_AMOUNT:
            cost = checked_cost(cost)
        if priority is not None:
            check_priority(priority)
        plans = self.plans
        plan = plans.of(type)
        subject = Subject(plan.type, self._counted(recipient), plans.fields(fields) if fields else {})
        if plan.required:
            self._check_required(plan, subject.fields)
        tier = self._tiers.of(recipient, fields) if plan.tiers else None
        windows, keys = plan.windows(subject, priority, tier)
        if not plan.known:
            self._warn_unknown_type(plan.type, windows)
        return Query(subject, recipient, cost, windows, keys)

    def _query_each(
        self,
        type: str,
        recipients: Iterable[Recipient],
        cost: int,
        priority: str | None,
        fields: Mapping[str, Recipient | None],
    ) -> Sequence[Query]:
        everybody: list[Recipient] = list(several(recipients))
        if not everybody:
            return []
        first = self._query(type, everybody[0], cost, priority, fields)
        plan = self.plans.of(type)
        variant = plan.uniform(priority, first.subject.fields)
        if variant is None:
            return [first, *(self._query(type, recipient, cost, priority, fields) for recipient in everybody[1:])]
        counted = [first.subject.recipient, *map(self._counted, everybody[1:])]
        return UniformBatch(plan.type, variant, everybody, counted, first.subject.fields, first.cost)

    def _check_required(self, plan: Plan, fields: Mapping[str, str]) -> None:
        """Check that the notification has the fields that rules require.

        Raises:
            NotifyError: a field is missing that a rule requires. If the rule is in shadow mode, that is only logged.
        """
        for field, rule in plan.required:
            if field in fields:
                continue
            if rule.enforce:
                raise NotifyError(
                    f"A notification of type {type_text(plan.type)} has no {field}, but the rule {rule.name!r} requires it. "
                    f"Set this field on every notification of this type: write notifier.bind({field}=...).send(...), "
                    f"limiter.hit(..., {field}=...), or fields={{{field!r}: ...}} on a decorator."
                )
            if self._is_new((type_text(plan.type), field, rule.name)):
                warning(
                    "A notification of type %s has no %s. The rule %r requires it, but is in shadow mode.",
                    type_text(plan.type),
                    field,
                    rule.name,
                )

    def _warn_unknown_type(self, type: str, windows: Sequence[Counter]) -> None:
        # Types that are not shown would all be the same line.
        shown = type_text(type)
        if not self._is_new((shown,)):
            return
        caps = ", ".join(dict.fromkeys(repr(window.rule) for window in windows if window.mode is not Mode.SHADOW))
        if caps:
            warning(
                "Only caps over all types (%s) match notifications of type %s, so they are sent without a limit of their own. "
                "Add a rule or a default.",
                caps,
                shown,
            )
        else:
            warning(
                "No rule matches notifications of type %s, so they are sent without a limit of their own. "
                "Add a rule or a default.",
                shown,
            )

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
