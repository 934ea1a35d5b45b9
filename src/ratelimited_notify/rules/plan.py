"""Find the windows of a notification. What depends on the rules alone is computed once, before the first notification."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ratelimited_notify.errors import NotifyError, Problem, RuleError, is_name, type_text
from ratelimited_notify.notification.recipient import text_of
from ratelimited_notify.rules.counter import Counter
from ratelimited_notify.rules.rule import overridden_field
from ratelimited_notify.windows.keys import tag_of, tags_of
from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from limits import RateLimitItem

    from ratelimited_notify.notification.recipient import Recipient
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.windows.strategies import Shortcut

    _ShortcutFor: TypeAlias = Callable[["Plan"], Shortcut | None]
    _Counters: TypeAlias = tuple[Sequence[Counter], Sequence[Counter]]

MOST_TYPES = 4096
"""The plans of this many types are cached. With one more, the cache is emptied and filled again."""


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


_ALWAYS = ("type", "recipient")
"""The fields that each notification has."""


class CompiledRule:
    """A rule with its counters, one for each limit and each mode in which the rule can count.

    Raises:
        RuleError: two overrides are for the same recipient after normalization, or a recipient cannot be normalized.
    """

    __slots__ = ("_namespace", "_overridden", "_tiers", "base", "constant", "overrides", "rule")

    def __init__(self, namespace: str, rule: Rule, counted: Callable[[Recipient], str]) -> None:
        self._namespace = namespace
        self.rule = rule
        self.base = self._counters(rule.limits)
        self.constant = not rule.overrides and not rule.tiers and set(rule.by) <= {"type", "recipient"}
        """Whether every recipient has the same counters, and the keys depend on nothing but type and recipient."""
        field = overridden_field(rule.by)
        self.overrides = self._overrides(counted if field == "recipient" else text_of)
        # Where the value that has overrides is among the values of `by`.
        self._overridden = 0 if field is None else rule.by.index(field)
        self._tiers = {tier: self._counters(items) for tier, items in rule.tiers.items()}

    def _counters(self, items: Sequence[RateLimitItem]) -> _Counters:
        mode = Mode.ENFORCE if self.rule.enforce else Mode.SHADOW
        return (
            [Counter(self._namespace, self.rule, item, mode) for item in items],
            [Counter(self._namespace, self.rule, item, Mode.FORCE) for item in items],
        )

    def _overrides(self, counted: Callable[[Recipient], str]) -> dict[str, _Counters]:
        # Recipients are normalized before they are counted, so overrides are looked up by the normalized recipient. Other
        # fields are counted as they are.
        # Thousands of overrides usually have few distinct limits, and each of these is compiled once.
        problems: list[Problem] = []
        made: dict[tuple[RateLimitItem, ...], _Counters] = {}
        read: dict[str, _Counters] = {}
        for index, (recipient, items) in enumerate(self.rule.overrides.items()):
            place = f"overrides[{index}]"
            try:
                name = counted(recipient)
            except Exception as error:  # noqa: BLE001  # normalize= is the user's code and may raise anything
                said = str(error) if isinstance(error, NotifyError) else f"normalize= raised {type(error).__name__}."
                problems.append(Problem(place, said))
                continue
            if name in read:
                problems.append(Problem(place, "is a second override for the same recipient, after normalization."))
            if items not in made:
                made[items] = self._counters(items)
            read[name] = made[items]
        if problems:
            raise RuleError(problems)
        return read

    def counters(self, identifiers: Sequence[str], priority: str | None, tier: str | None) -> Sequence[Counter]:
        """The counters that apply to one notification with these values of `by`."""
        found = self.overrides.get(identifiers[self._overridden]) if self.overrides else None
        if found is None:
            found = self.base if tier is None else self._tiers.get(tier, self.base)
        if priority not in self.rule.exempt:
            return found[0]
        return found[1] if self.rule.count_exempt else ()


class Plan:
    """The windows of one type of notification."""

    __slots__ = ("_compiled_rules", "_exempt", "common_windows", "key_parts", "known", "required", "tiered", "type")

    def __init__(self, type: str, compiled_rules: Sequence[CompiledRule], *, known: bool) -> None:
        self.type = type
        self.known = known
        """Whether a rule or the default applies to this type, and not only caps over all types."""
        self.required = tuple(
            (name, compiled.rule)
            for compiled in compiled_rules
            for name in compiled.rule.required
            if name not in _ALWAYS
        )
        """Fields that a notification must have, each with the rule that requires it."""
        self.tiered = any(compiled.rule.tiers for compiled in compiled_rules)
        self._compiled_rules = compiled_rules
        self._exempt = frozenset[str]().union(*(compiled.rule.exempt for compiled in compiled_rules))
        # If the rules count by nothing but type and recipient, and all recipients have the same limits, then the windows
        # are always the same (unless a field is required: its absence is an error), and each key is the recipient's tag between two constants.
        self.common_windows: tuple[Counter, ...] | None = None
        """The windows of every recipient, unless the priority is exempt. None if recipients have different windows."""
        self.key_parts: list[tuple[str, str]] = []
        """For each of these windows, the parts of its key before and after the recipient."""
        if not self.required and all(compiled.constant for compiled in compiled_rules):
            self.common_windows = tuple(counter for compiled in compiled_rules for counter in compiled.base[0])
            self.key_parts = [self._constants(counter) for counter in self.common_windows]

    def _constants(self, counter: Counter) -> tuple[str, str]:
        """The parts of a key before and after the tag. If the tag is not the recipient, the first part is the whole key."""
        key = counter.key(tuple(self.type if name == "type" else "recipient" for name in counter.by))
        if counter.shared:
            return key, ""
        before, _, after = key.partition("{recipient}")
        return before + "{", "}" + after

    def constant(self, priority: str | None) -> tuple[Counter, ...] | None:
        """The windows of every recipient with this priority, or None if they depend on more than the priority."""
        return None if priority in self._exempt else self.common_windows

    def keys(self, recipient: str) -> list[str]:
        """The keys of the constant windows, for a recipient in the form in which it is counted."""
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

    def windows(
        self, subject: Subject, priority: str | None, tier: str | None
    ) -> tuple[tuple[Counter, ...], list[str]]:
        """The windows of a notification, and their keys."""
        constant = self.constant(priority)
        if constant is not None:
            return constant, self.keys(subject.recipient)
        windows: list[Counter] = []
        keys: list[str] = []
        for compiled in self._compiled_rules:
            identifiers = subject.identifiers(compiled.rule.by)
            if identifiers is not None:
                for counter in compiled.counters(identifiers, priority, tier):
                    windows.append(counter)
                    keys.append(counter.key(identifiers))
        return tuple(windows), keys


class Plans:
    """The plans of a rule set. Each is made when its type first appears.

    Arguments:
        rules: the rules in force.
        namespace: the first part of every key.
        counted: maps a recipient to the string that it is counted as.
        shortcut_for: returns the shortcut for a plan, or None if there is none.

    Raises:
        RuleError: overrides cannot be used because of how `counted` changes their recipients. The error lists all
            problems.
    """

    __slots__ = ("_compiled_rules", "_plans", "_shortcut_for", "origin", "rules", "shortcuts")

    def __init__(
        self,
        rules: RuleSet,
        namespace: str,
        counted: Callable[[Recipient], str],
        shortcut_for: _ShortcutFor | None = None,
    ) -> None:
        self.rules = rules
        self.origin: tuple[RuleSet, Mapping[str, Rule]] = rules, {}
        """The rules that were set, and the limits of decorators by type. `rules` combines them."""
        self.shortcuts: dict[str, Shortcut] = {}
        """By type: decide a notification that has only a type and a recipient, without a plan."""
        self._shortcut_for = shortcut_for
        self._plans: dict[str, Plan] = {}
        self._compiled_rules: dict[Rule, CompiledRule] = {}
        problems: list[Problem] = []
        for index, rule in enumerate(rules):
            try:
                self._compiled_rules[rule] = CompiledRule(namespace, rule, counted)
            except RuleError as error:
                problems += (problem.under(f"rules[{index}]") for problem in error.problems)
        if rules.default is not None:
            self._compiled_rules[rules.default] = CompiledRule(namespace, rules.default, counted)
        if problems:
            raise RuleError(problems)

    def of(self, type: str) -> Plan:
        """The plan of this type.

        Raises:
            NotifyError: the type is empty, or no rule matches it and the rule set has `unknown_type="raise"`.
            TypeError: the type is not a string.
        """
        try:
            plan = self._plans.get(type)
        except TypeError:
            plan = None
        return self._make(type) if plan is None else plan

    def _make(self, type: str) -> Plan:
        if not isinstance(type, str):
            from ratelimited_notify.callables import if_unawaited

            said = f"The type of a notification must be a string such as 'news', not {type.__class__.__name__}."
            raise TypeError(f"{said} {if_unawaited(type)}".rstrip())
        if not type:
            raise NotifyError("The type of a notification is empty; it must be a name such as 'news'.")
        # A plain str, even from a subclass of str: keys are made of it.
        name = str.__str__(type)
        rules = self.rules
        known = rules.default is not None or rules.knows(name)
        if not known and rules.unknown_type == "raise":
            caps = ", ".join(repr(rule.name) for rule in rules.matching(name))
            what = f"Only caps over all types ({caps}) match" if caps else "No rule matches"
            raise NotifyError(
                f"{what} notifications of type {type_text(name)}, and unknown_type='raise' makes that an error. "
                "Add a rule or a default."
            )
        plan = Plan(name, [self._compiled_rules[rule] for rule in rules.matching(name)], known=known)
        if len(self._plans) >= MOST_TYPES:
            self.forget()
        self._plans[name] = plan
        shortcut = None if self._shortcut_for is None else self._shortcut_for(plan)
        if shortcut is not None:
            self.shortcuts[name] = shortcut
        return plan

    def forget(self) -> None:
        """Forget all plans and shortcuts. Each is made again when it is next used."""
        self._plans.clear()
        self.shortcuts.clear()

    def fields(self, given: Mapping[str, Recipient | None]) -> dict[str, str]:
        """The fields of a notification as strings, without the fields that are None.

        Raises:
            NotifyError: a field is not declared, or its value is empty.
            TypeError: a value is not a `str`, `int` or `UUID`.
        """
        check_fields(given, self.rules)
        return {name: text_of(value, name) for name, value in given.items() if value is not None}


def check_fields(names: Iterable[str], rules: RuleSet) -> None:
    """Check that notifications may have fields with these names.

    Raises:
        NotifyError: a field is not declared.
    """
    declared = rules.fields
    for name in names:
        if name not in declared or name in ("type", "recipient"):
            usable = ", ".join(sorted(declared - {"type", "recipient"}))
            if not is_name(name):
                raise NotifyError(
                    f"The name of a field cannot be declared; use {usable}, "
                    "or a name that is valid as a Python argument."
                )
            from ratelimited_notify.rules.table import meant

            raise NotifyError(
                f"{name!r} is not a field of a notification; use {usable}, or declare it: "
                f'fields = ["{name}"] in the rules file, or RuleSet(rules, fields=["{name}"]).'
                + meant(name, usable.split(", "))
            )
