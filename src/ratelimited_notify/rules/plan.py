"""Find the windows of a notification. What depends on the rules alone is computed once, before the first notification."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.errors import NotifyError, Problem, RuleError
from ratelimited_notify.notification.recipient import text_of
from ratelimited_notify.rules.counter import Counter, can_be_paused, pause_of
from ratelimited_notify.rules.overrides import Overrides
from ratelimited_notify.rules.rule import overridden_field
from ratelimited_notify.windows.keys import tag_of, tags_of
from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from limits import RateLimitItem

    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.rule import Rule

    _Limits: TypeAlias = tuple[RateLimitItem, ...]

_NOTHING = frozenset[str]()
_ALWAYS = frozenset({"type", "recipient"})
"""The fields that each notification has."""

MOST_VARIANTS = 1024
"""So many combinations of limits are kept for one type. Further ones are put together anew for each notification."""


class Subject:
    """The values that windows can count by: type, recipient and fields of one notification."""

    __slots__ = ("fields", "recipient", "type")

    def __init__(self, type: str, recipient: str, fields: Mapping[str, str]) -> None:
        self.type = type
        self.recipient = recipient
        """The recipient as it is counted: normalized, and replaced by a pseudonym if the limiter has `pseudonymize=`."""
        self.fields = fields

    def identifiers(self, by: Sequence[str]) -> tuple[str, ...] | None:
        """The values of these fields, or None if one of them is not set."""
        values: list[str] = []
        for name in by:
            value = self.recipient if name == "recipient" else self.type if name == "type" else self.fields.get(name)
            if value is None:
                return None
            values.append(value)
        return tuple(values)


@lru_cache(maxsize=1024)
def _kind_of(by: tuple[str, ...]) -> tuple[bool, str | None, int]:
    """Whether a rule that counts by these fields counts by nothing but type and recipient, the field whose values overrides are
    for, and its place.
    """
    field = overridden_field(by)
    return _ALWAYS.issuperset(by), field, 0 if field is None else by.index(field)


class CompiledRule:
    """A rule, with what must be known to find its windows quickly.

    Arguments:
        namespace: the first part of every key.
        rule: the rule.
        counted_as: maps a recipient to the string that it is counted as.

    Raises:
        RuleError: two overrides are for the same recipient after normalization, or a recipient cannot be normalized.
    """

    __slots__ = ("_counters", "_namespace", "_overridden", "overrides", "plain", "rule")

    plain: bool
    """Whether the rule counts by nothing but type and recipient."""

    def __init__(self, namespace: str, rule: Rule, counted_as: Callable[[Recipient], str]) -> None:
        self._namespace = namespace
        self.rule = rule
        self.plain, field, self._overridden = _kind_of(rule.by)
        self.overrides = rule.overrides
        """Other limits, by the recipient as it is counted, or by the value of another field."""
        if rule.overrides and field == "recipient" and counted_as is not text_of:
            self.overrides = _normalized(rule, counted_as)
        # By the identity of the limits, which the rule keeps alive: thousands of overrides usually have few distinct limits.
        self._counters: dict[tuple[int, bool], tuple[Counter, ...]] = {}

    def limits(self, value: str, tier: str | None) -> _Limits:
        """The limits that apply to a value of the field that can have overrides."""
        number = self.overrides.numbers.get(value)
        if number is not None:
            return self.overrides.kinds[number]
        rule = self.rule
        return rule.limits if tier is None else rule.tiers.get(tier, rule.limits)

    def counters(self, limits: _Limits, *, forced: bool = False) -> tuple[Counter, ...]:
        """The windows of these limits of the rule, and its pause if it can be paused. Forced windows count a hit even if it is
        over the limit.
        """
        counters = self._counters.get((id(limits), forced))
        if counters is None:
            mode = Mode.FORCE if forced else Mode.ENFORCE if self.rule.enforce else Mode.SHADOW
            made = tuple([Counter(self._namespace, self.rule, item, mode) for item in limits])
            if can_be_paused(self.rule):
                made += (pause_of(self._namespace, self.rule, mode),)
            # Of two threads, both get what the first one made.
            counters = self._counters.setdefault((id(limits), forced), made)
        return counters

    def counters_of(self, identifiers: Sequence[str], priority: str | None, tier: str | None) -> Sequence[Counter]:
        """The windows of one notification with these values of `by`."""
        rule = self.rule
        exempt = priority in rule.exempt
        if exempt and not rule.count_exempt:
            return ()
        value = identifiers[self._overridden] if identifiers else ""
        return self.counters(self.limits(value, tier), forced=exempt)


def _normalized(rule: Rule, counted_as: Callable[[Recipient], str]) -> Overrides:
    """The overrides by the recipient as it is counted: recipients are normalized before they are looked up."""
    problems: list[Problem] = []
    read: dict[str, int] = {}
    for index, (recipient, number) in enumerate(rule.overrides.numbers.items()):
        place = f"overrides[{index}]"
        try:
            name = counted_as(recipient)
        except Exception as error:  # noqa: BLE001  # normalize= is the user's code and may raise anything
            said = str(error) if isinstance(error, NotifyError) else f"normalize= raised {type(error).__name__}."
            problems.append(Problem(place, said))
            continue
        if name in read:
            problems.append(Problem(place, "is a second override for the same recipient, after normalization."))
        read[name] = number
    if problems:
        raise RuleError(problems)
    return Overrides(read, rule.overrides.kinds, rule.overrides.suspicious)


class Variant:
    """The windows of all recipients for whom the same limits apply, and how their keys are made."""

    __slots__ = ("key_parts", "windows")

    def __init__(self, type: str, windows: tuple[Counter, ...]) -> None:
        self.windows = windows
        self.key_parts = tuple([window.key_parts(type) for window in windows])
        """For each of these windows, the parts of its key before and after the recipient."""

    def keys(self, recipient: str) -> list[str]:
        """The keys of the windows, for a recipient in the form in which it is counted."""
        tag = tag_of(recipient)
        return [f"{before}{tag}{after}" if after else before for before, after in self.key_parts]

    def keys_of_each(self, recipients: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """`keys` for many recipients, faster than one call for each."""
        tags = tags_of(recipients)
        return zip(
            *(
                [before + tag + after for tag in tags] if after else [before] * len(tags)
                for before, after in self.key_parts
            ),
            strict=True,
        )


class Plan:
    """The windows of one type of notification.

    Arguments:
        type: the type.
        compiled_rules: the rules that match it, in the order in which they count.
        known: whether a rule or the default applies to this type, and not only caps over all types.
    """

    __slots__ = (
        "_exempt", "_fields", "_plain_rules", "_variants", "common", "compiled_rules", "known", "overriding", "required",
        "tiers", "type",
    )  # fmt: skip

    def __init__(self, type: str, compiled_rules: Sequence[CompiledRule], *, known: bool) -> None:
        self.type = type
        self.known = known
        self.compiled_rules = compiled_rules
        required: list[tuple[str, Rule]] = []
        exempt = tiers = fields = _NOTHING
        plain: list[CompiledRule] = []
        overriding: list[Mapping[str, int]] = []
        windows: list[Counter] = []
        for compiled in compiled_rules:
            rule = compiled.rule
            # Most rules have none of these.
            if rule.required:
                required += ((name, rule) for name in rule.required if name not in _ALWAYS)
            if rule.exempt:
                exempt |= rule.exempt
            if rule.tiers:
                tiers = tiers.union(rule.tiers)
            if not compiled.plain:
                fields = fields.union(rule.by) - _ALWAYS
                continue
            plain.append(compiled)
            if compiled.overrides.numbers:
                overriding.append(compiled.overrides.numbers)
            windows += compiled.counters(rule.limits)
        self.required = tuple(required)
        """Fields that a notification must have, each with the rule that requires it."""
        self.tiers = tiers
        """The tiers that the windows depend on."""
        self.overriding = overriding
        """For each rule with overrides, which of them a recipient has. Recipients with the same ones have the same windows."""
        self._exempt = exempt
        self._fields = fields
        # A notification without any of these fields is counted by the other rules alone.
        self._plain_rules = plain if fields else compiled_rules
        self.common = Variant(type, tuple(windows))
        """The windows of a notification without fields, for recipients without an override or a tier, unless the priority
        is exempt."""
        # By the identity of the limits of each rule, which keeps them alive.
        self._variants: dict[tuple[int, ...], Variant] = {}
        if overriding or tiers:
            self._variants[tuple(id(compiled.rule.limits) for compiled in self._plain_rules)] = self.common

    def variant(self, recipient: str, tier: str | None) -> Variant:
        """The windows of a recipient in the form in which it is counted, unless the priority is exempt, for a notification
        without any of the fields that rules count by.
        """
        if not self.overriding and not self.tiers:
            return self.common
        limits = [compiled.limits(recipient, tier) for compiled in self._plain_rules]
        key = tuple(map(id, limits))
        variant = self._variants.get(key)
        if variant is None:
            variant = Variant(
                self.type,
                tuple(
                    window
                    for compiled, each in zip(self._plain_rules, limits, strict=True)
                    for window in compiled.counters(each)
                ),
            )
            if len(self._variants) < MOST_VARIANTS:
                variant = self._variants.setdefault(key, variant)
        return variant

    def uniform(self, priority: str | None, fields: Mapping[str, str]) -> Variant | None:
        """The windows of every recipient of a notification with this priority and these fields, or None if they differ."""
        if self.overriding or self.tiers or priority in self._exempt or not self._fields.isdisjoint(fields):
            return None
        return self.common

    def exempts(self, priority: str, fields: Mapping[str, str]) -> bool:
        """Whether a rule that applies to a notification with these fields exempts this priority, and does not count it."""
        return priority in self._exempt and any(
            priority in rule.exempt and not rule.count_exempt and not {*rule.by}.difference(_ALWAYS, fields)
            for rule in (compiled.rule for compiled in self.compiled_rules)
        )

    def windows(
        self, subject: Subject, priority: str | None, tier: str | None
    ) -> tuple[tuple[Counter, ...], list[str]]:
        """The windows of a notification, and their keys."""
        if priority not in self._exempt and self._fields.isdisjoint(subject.fields):
            variant = self.variant(subject.recipient, tier)
            return variant.windows, variant.keys(subject.recipient)
        windows: list[Counter] = []
        keys: list[str] = []
        for compiled in self.compiled_rules:
            identifiers = subject.identifiers(compiled.rule.by)
            if identifiers is not None:
                for window in compiled.counters_of(identifiers, priority, tier):
                    windows.append(window)
                    keys.append(window.key(identifiers))
        return tuple(windows), keys
