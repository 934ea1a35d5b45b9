"""The rules in force, and the windows that a notification counts in. Nothing here asks the storage."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ratelimited_notify.forking import forkable
from ratelimited_notify.limiter.batch import Query, UniformBatch
from ratelimited_notify.limiter.known_attributes import KnownAttributes
from ratelimited_notify.notification.cost import LARGEST_AMOUNT, checked_cost
from ratelimited_notify.notification.notification import check_priority
from ratelimited_notify.notification.recipient import several
from ratelimited_notify.rules.plan import Plans, Subject
from ratelimited_notify.sources.load import rules_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.rules.plan import Plan
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.annotations import Rules
    from ratelimited_notify.windows.strategies import Shortcut

_MOST_UNKNOWN_TYPES = 1000

_log = logging.getLogger("ratelimited_notify")


class RuleLookup(KnownAttributes, ABC):
    """The rules of a limiter, and the queries that follow from them. The rules can change at any time."""

    _settable = ("rules",)

    plans: Plans
    """The rules in force, compiled; a new object as soon as they change."""

    def __init__(
        self,
        rules: RuleSet,
        namespace: str,
        counted: Callable[[Recipient], str],
        tier_of: Callable[[Recipient], str | None] | None,
    ) -> None:
        self._namespace = namespace
        self._counted = counted
        self._tier_of = tier_of
        self._unknown: set[str] = set()
        # Held while rules change, but not while they are read.
        self._editing = forkable(threading.Lock())
        self._plan(rules, {})

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
        return self.plans.origin[0]

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        configured = rules_from(rules)
        with self._editing:
            self._plan(configured, self.plans.origin[1])
        self._rules_changed()

    def _plan(self, configured: RuleSet, declared: Mapping[str, Rule]) -> None:
        # The limit of a decorator applies only if no configured rule matches the type.
        standing_in = [rule for rule in declared.values() if not configured.knows(rule.type)]
        rules = configured.extended(standing_in) if standing_in else configured
        plans = Plans(rules, self._namespace, self._counted, self._shortcut_for)
        plans.origin = configured, declared
        # In one step, so that a forked child has all of the old rules or all of the new ones. Users cannot set it.
        object.__setattr__(self, "plans", plans)

    def declare(self, rule: Rule) -> None:
        """Add the rule of a decorator, and replace its earlier one. A configured rule that matches the type wins.

        Raises:
            RuleError: the rule cannot be combined with the rules in force. They do not change.
        """
        with self._editing:
            configured, declared = self.plans.origin
            self._plan(configured, {**declared, rule.type: rule})
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
        if not plan.known:
            self._warn_unknown_type(plan.type)
        tier = self._tier(recipient) if plan.tiered else None
        windows, keys = plan.windows(subject, priority, tier)
        return Query(subject, recipient, cost, windows, keys)

    def _tier(self, recipient: Recipient) -> str | None:
        tier = None if self._tier_of is None else self._tier_of(recipient)
        if tier is not None and not isinstance(tier, str):
            raise TypeError(f"tier_of= returned a {type(tier).__name__}; it must return the name of a tier, or None.")
        return tier

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
        windows = plan.constant(priority)
        if windows is None:
            return [first, *(self._query(type, recipient, cost, priority, fields) for recipient in everybody[1:])]
        counted = [first.subject.recipient, *map(self._counted, everybody[1:])]
        return UniformBatch(plan, windows, everybody, counted, first.subject.fields, first.cost)

    def _warn_unknown_type(self, type: str) -> None:
        if type not in self._unknown and len(self._unknown) < _MOST_UNKNOWN_TYPES:
            self._unknown.add(type)
            _log.warning(
                "No rule matches notifications of type %r, so they are sent without a limit of their own. "
                "Add a rule or a default.",
                type,
            )

    def _own_windows(self, query: Query) -> tuple[list[Counter], list[str]]:
        """The windows that belong to this recipient alone, and their keys."""
        own = [(window, key) for window, key in zip(query.windows, query.keys, strict=True) if not window.shared]
        return [window for window, _ in own], [key for _, key in own]
