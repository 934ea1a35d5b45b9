"""Which windows a notification falls into: everything that can be known from the rules is worked out once per type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.keys import tag_of
from ratelimited_notify.recipient import text_of
from ratelimited_notify.rules.counter import Counter
from ratelimited_notify.windows import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limits import RateLimitItem

    from ratelimited_notify.recipient import Recipient
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet

MOST_TYPES = 4096
"""How many types a book of plans remembers; with more it starts over."""


class Asked:
    """Who and what a decision is about, as far as windows count by it."""

    __slots__ = ("fields", "recipient", "type")

    def __init__(self, type: str, recipient: str, fields: Mapping[str, str]) -> None:
        self.type = type
        self.recipient = recipient
        """As it is counted: normalised, and a pseudonym where the limiter makes them."""
        self.fields = fields

    def identifiers(self, by: Sequence[str]) -> tuple[str, ...] | None:
        """The values of these fields; None where one is not set."""
        values = []
        for name in by:
            value = self.recipient if name == "recipient" else self.type if name == "type" else self.fields.get(name)
            if value is None:
                return None
            values.append(value)
        return tuple(values)


class _Step:
    """One rule on the way, with its counters in every mode in which it can count."""

    __slots__ = ("base", "by", "count_exempt", "exempt", "overrides", "tiers")

    def __init__(self, namespace: str, rule: Rule, counted: Callable[[Recipient], str]) -> None:
        def counters(items: Sequence[RateLimitItem]) -> tuple[Sequence[Counter], Sequence[Counter]]:
            mode = Mode.ENFORCE if rule.enforce else Mode.SHADOW
            return (
                [Counter(namespace, rule, item, mode) for item in items],
                [Counter(namespace, rule, item, Mode.FORCE) for item in items],
            )

        self.by = rule.by
        self.base = counters(rule.limits)
        # Recipients are counted normalised, so their overrides are looked up that way.
        self.overrides = {counted(recipient): counters(items) for recipient, items in rule.overrides.items()}
        self.tiers = {tier: counters(items) for tier, items in rule.tiers.items()}
        self.exempt = rule.exempt
        self.count_exempt = rule.count_exempt

    def counters(self, recipient: str, priority: str | None, tier: str | None) -> Sequence[Counter]:
        found = self.overrides.get(recipient)
        if found is None:
            found = self.base if tier is None else self.tiers.get(tier, self.base)
        if priority not in self.exempt:
            return found[0]
        return found[1] if self.count_exempt else ()


class Plan:
    """The windows of one type of notification."""

    __slots__ = ("_around", "_exempt", "_steps", "_windows", "known", "tiered", "type")

    def __init__(
        self, type: str, rules: Sequence[Rule], namespace: str, counted: Callable[[Recipient], str], *, known: bool
    ) -> None:
        self.type = type
        self.known = known
        """Whether a rule, or the default, is for this type."""
        self.tiered = any(rule.tiers for rule in rules)
        self._steps = [_Step(namespace, rule, counted) for rule in rules]
        self._exempt = frozenset[str]().union(*(rule.exempt for rule in rules))
        # Where only type and recipient count and all recipients have one limit, the windows are always the same, and each
        # key is the recipient's tag between two constants.
        self._windows: tuple[Counter, ...] | None = None
        self._around: list[tuple[str, str]] = []
        if all(not rule.overrides and not rule.tiers and set(rule.by) <= {"type", "recipient"} for rule in rules):
            self._windows = tuple(counter for step in self._steps for counter in step.base[0])
            self._around = [self._constants(counter) for counter in self._windows]

    def _constants(self, counter: Counter) -> tuple[str, str]:
        """A key's part before and after the tag; all of it before, where the tag is not the recipient."""
        key = counter.key(tuple(self.type if name == "type" else "recipient" for name in counter.by))
        if counter.shared:
            return key, ""
        before, _, after = key.partition("{recipient}")
        return before + "{", "}" + after

    def windows(self, asked: Asked, priority: str | None, tier: str | None) -> tuple[tuple[Counter, ...], list[str]]:
        """The windows that a notification falls into, and their keys."""
        if self._windows is not None and priority not in self._exempt:
            tag = tag_of(asked.recipient)
            return self._windows, [f"{before}{tag}{after}" if after else before for before, after in self._around]
        windows: list[Counter] = []
        keys: list[str] = []
        for step in self._steps:
            identifiers = asked.identifiers(step.by)
            if identifiers is not None:
                for counter in step.counters(asked.recipient, priority, tier):
                    windows.append(counter)
                    keys.append(counter.key(identifiers))
        return tuple(windows), keys


class Plans:
    """The plans of a rule set, made as types are met."""

    __slots__ = ("_counted", "_namespace", "_plans", "rules")

    def __init__(self, rules: RuleSet, namespace: str, counted: Callable[[Recipient], str]) -> None:
        self.rules = rules
        self._namespace = namespace
        self._counted = counted
        self._plans: dict[str, Plan] = {}

    def of(self, type: str) -> Plan:
        """The plan of this type.

        Raises:
            NotifyError: no rule is for the type, and the rule set says `unknown_type="raise"`.
            TypeError: the type is not a text.
        """
        plan = self._plans.get(type)
        return self._make(type) if plan is None else plan

    def _make(self, type: str) -> Plan:
        if not isinstance(type, str):
            raise TypeError(f"The type of a notification is a text such as 'news', not a {type.__class__.__name__}.")
        if not type:
            raise NotifyError("The type of a notification is empty; name it, as rules do: 'news'.")
        rules = self.rules
        known = rules.default is not None or rules.knows(type)
        if not known and rules.unknown_type == "raise":
            raise NotifyError(
                f"No rule is for notifications of type {type!r}, and unknown_type='raise' makes that an error. "
                "Add a rule, or a default."
            )
        plan = Plan(type, rules.matching(type), self._namespace, self._counted, known=known)
        if len(self._plans) >= MOST_TYPES:
            self._plans.clear()
        self._plans[type] = plan
        return plan

    def fields(self, given: Mapping[str, Recipient | None]) -> dict[str, str]:
        """The fields of a notification as text, without those that are None.

        Raises:
            NotifyError: a field is not declared.
            TypeError: a value is neither a text nor an id.
        """
        declared = self.rules.fields
        read = {}
        for name, value in given.items():
            if name not in declared or name in ("type", "recipient"):
                usable = ", ".join(sorted(declared - {"type", "recipient"}))
                raise NotifyError(
                    f"{name!r} is not a field of a notification; use {usable}, "
                    f"or declare it: RuleSet(rules, fields=[{name!r}])."
                )
            if value is not None:
                read[name] = text_of(value, name)
        return read
