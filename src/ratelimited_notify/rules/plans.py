"""The plans of a rule set, made when their types first appear, and carried over when the rules change."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ratelimited_notify.errors import NotifyError, Problem, RuleError, is_name, type_text
from ratelimited_notify.notification.recipient import text_of
from ratelimited_notify.rules.plan import CompiledRule, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.windows.strategies import Shortcut

    _ShortcutFor: TypeAlias = Callable[[Plan], Shortcut | None]

_K = TypeVar("_K")
_V = TypeVar("_V")

MOST_TYPES = 4096
"""The plans of this many types are kept. With one more, the oldest is dropped."""


class Plans:
    """The plans of a rule set and of the limits of decorators.

    Arguments:
        rules: the rules that were set.
        declared: the limits of decorators, by type. Each applies if no rule names its type.
        namespace: the first part of every key.
        counted_as: maps a recipient to the string that it is counted as.
        shortcut_for: returns the shortcut for a plan, or None if there is none.
        earlier: the plans that these replace. What has not changed is taken over. The other plans of the types in use are
            made at once, so that no decision has to wait for them.

    Raises:
        RuleError: overrides cannot be used because of how `counted_as` changes their recipients, or a limit of a decorator
            cannot be combined with the rules. The error lists all problems.
    """

    __slots__ = (
        "_compiled_rules", "_counted_as", "_namespace", "_order", "_plans", "_shortcut_for", "_standing_in", "declared", "rules",
        "shortcuts",
    )  # fmt: skip

    def __init__(
        self,
        rules: RuleSet,
        declared: Mapping[str, Rule],
        namespace: str,
        counted_as: Callable[[Recipient], str],
        shortcut_for: _ShortcutFor | None = None,
        earlier: Plans | None = None,
    ) -> None:
        self.rules = rules
        self.declared = declared
        self.shortcuts: dict[str, Shortcut] = {}
        """By type: decide a notification that has only a type and a recipient, without a plan."""
        self._namespace = namespace
        self._counted_as = counted_as
        self._shortcut_for = shortcut_for
        self._plans: dict[str, Plan] = {}
        # The types of these plans, the oldest first. If two threads made the plan of a type, it is there twice.
        self._order: deque[str] = deque()
        # By position; that of the default is behind all rules.
        self._compiled_rules: dict[int, CompiledRule] = {}
        if earlier is not None and earlier.rules is rules:
            self._compiled_rules = earlier._compiled_rules
            self._standing_in = self._standing(earlier)
            self._take_over_all(earlier)
        else:
            known = {} if earlier is None else earlier._by_name()
            self._compile_normalized(known)
            self._standing_in = self._standing(None)
            if earlier is not None:
                self._take_over(earlier, known)

    def _by_name(self) -> dict[str, list[CompiledRule]]:
        by_name: dict[str, list[CompiledRule]] = {}
        for _, compiled in _snapshot(self._compiled_rules):
            by_name.setdefault(compiled.rule.name, []).append(compiled)
        return by_name

    def _compile_normalized(self, known: Mapping[str, list[CompiledRule]]) -> None:
        """Compile the rules of which it is not known yet whether they can be used: those whose overrides are normalized."""
        # All others are compiled when their types appear.
        self.rules.index  # noqa: B018  # made now, so that no decision has to wait for it
        if self._counted_as is text_of:
            return
        problems: list[Problem] = []
        for position, rule in enumerate(self.rules):
            if rule.overrides:
                try:
                    self._compiled(position, rule, known)
                except RuleError as error:
                    problems += (problem.under(f"rules[{position}]") for problem in error.problems)
        if problems:
            raise RuleError(problems)

    def _compiled(self, position: int, rule: Rule, known: Mapping[str, list[CompiledRule]]) -> CompiledRule:
        """The compiled rule, taken from those that are known by name if one of them is for an equal rule."""
        compiled = self._compiled_rules.get(position)
        if compiled is None:
            made: CompiledRule | None = None
            if known:
                made = next((each for each in known.get(rule.name, ()) if each.rule is rule or each.rule == rule), None)
            if made is None:
                made = CompiledRule(self._namespace, rule, self._counted_as)
            # Of two threads, both get what the first one made.
            compiled = self._compiled_rules.setdefault(position, made)
        return compiled

    def _standing(self, earlier: Plans | None) -> dict[str, CompiledRule]:
        """The limits of decorators that apply, by type. Those that were checked with the same rules are not checked again."""
        standing = {} if earlier is None else earlier._standing_in.copy()
        checked: Mapping[str, Rule] = {} if earlier is None else earlier.declared
        problems: list[Problem] = []
        for type, rule in self.declared.items():
            if checked.get(type) is rule or self.rules.names(type):
                continue
            problems += self.rules.clashes(rule)
            standing[type] = CompiledRule(self._namespace, rule, self._counted_as)
        if problems:
            raise RuleError(problems)
        return standing

    def _take_over(self, earlier: Plans, known: Mapping[str, list[CompiledRule]]) -> None:
        for type, plan in _snapshot(earlier._plans):
            found, is_known = self._matching(type, known)
            if not is_known:
                # The next decision logs it, or is an error. It goes the long way for that, which it only does without a plan.
                continue
            if plan.known == is_known and plan.compiled_rules == found:
                self._keep(plan, earlier.shortcuts.get(type))
            else:
                self._keep(Plan(type, found, known=is_known))

    def _take_over_all(self, earlier: Plans) -> None:
        """Take over the plans of the same rules, but for types with another limit of a decorator than before."""
        changed = {type for type, rule in self._standing_in.items() if earlier._standing_in.get(type) is not rule}
        found = _snapshot(earlier._plans)
        plans = self._plans = {type: plan for type, plan in found if plan.known and type not in changed}
        self._order.extend(plans)
        self.shortcuts.update((type, each) for type, each in _snapshot(earlier.shortcuts) if type in plans)
        for type, plan in plans.items() if len(self.shortcuts) < len(plans) else ():
            if type not in self.shortcuts:
                # There is none, or another thread was about to make it.
                self._add_shortcut(plan, self.shortcuts)
        for type in changed.intersection(type for type, _ in found):
            self._keep(Plan(type, self._matching(type, {})[0], known=True))

    def _add_shortcut(self, plan: Plan, shortcuts: dict[str, Shortcut]) -> None:
        shortcut = None if self._shortcut_for is None else self._shortcut_for(plan)
        if shortcut is not None:
            shortcuts[plan.type] = shortcut

    @property
    def number(self) -> int:
        """How many rules there are, with the limits of decorators that apply, and without the default."""
        return len(self.rules) + len(self._standing_in)

    def named(self, name: str) -> list[Rule]:
        """The rules with this name, in order. The default and the limits of decorators that apply are among them."""
        return [rule for rule in self.every_rule() if rule.name == name]

    def every_rule(self) -> list[Rule]:
        """The rules in order, the limits of decorators that apply, and the default."""
        every = [*self.rules, *(compiled.rule for _, compiled in _snapshot(self._standing_in))]
        return every if self.rules.default is None else [*every, self.rules.default]

    def __contains__(self, type: str) -> bool:
        """Whether the plan of this type is made."""
        return type in self._plans

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
        found, known = self._matching(name, {})
        if not known and self.rules.unknown_type == "raise":
            caps = ", ".join(repr(compiled.rule.name) for compiled in found)
            what = f"Only caps over all types ({caps}) match" if caps else "No rule matches"
            raise NotifyError(
                f"{what} notifications of type {type_text(name)}, and unknown_type='raise' makes that an error. "
                "Add a rule or a default."
            )
        return self._keep(Plan(name, found, known=known))

    def _matching(self, type: str, known: Mapping[str, list[CompiledRule]]) -> tuple[list[CompiledRule], bool]:
        """The rules for a type, and whether they are more than caps over all types."""
        rules = self.rules
        found = [self._compiled(position, rules.rules[position], known) for position in rules.index.find(type)]
        standing_in = self._standing_in.get(type)
        if standing_in is not None:
            return [*found, standing_in], True
        for compiled in found:
            if not compiled.rule.is_cap:
                return found, True
        if rules.default is not None:
            return [*found, self._compiled(len(rules), rules.default, known)], True
        return found, False

    def _keep(self, plan: Plan, shortcut: Shortcut | None = None) -> Plan:
        type = plan.type
        # If all are forgotten meanwhile, this one is, too.
        shortcuts = self.shortcuts
        while len(self._plans) >= MOST_TYPES and self._order:
            # Another thread may just be forgetting all of them.
            with suppress(IndexError):
                oldest = self._order.popleft()
                self.shortcuts.pop(oldest, None)
                self._plans.pop(oldest, None)
        # In this order, so that an exception of a signal handler in between leaves no plan that is never dropped.
        self._order.append(type)
        self._plans[type] = plan
        if shortcut is None:
            self._add_shortcut(plan, shortcuts)
        else:
            shortcuts[type] = shortcut
        if shortcuts is not self.shortcuts:
            # It was made for those before, and would never get a shortcut among those of today.
            self._plans.pop(type, None)
        return plan

    def parts(self) -> list[object]:
        """What the plans consist of. To let go of it bit by bit does not hold up other threads, see `let_go`."""
        return [
            *self.rules,
            *(compiled for _, compiled in _snapshot(self._compiled_rules)),
            *(plan for _, plan in _snapshot(self._plans)),
            *(shortcut for _, shortcut in _snapshot(self.shortcuts)),
        ]

    def forget(self) -> None:
        """Forget all plans and shortcuts. Each is made again when it is next used."""
        # First: a plan that another thread makes just now knows by this that it has no shortcut.
        self.shortcuts = {}
        self._order.clear()
        self._plans.clear()

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


def _snapshot(shared: dict[_K, _V]) -> list[tuple[_K, _V]]:
    """The items of a dict that other threads change."""
    while True:
        try:
            return list(shared.items())
        except RuntimeError:
            # The collector ran while the list was made, and let another thread add something.
            continue
