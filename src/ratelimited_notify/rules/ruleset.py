"""A set of rules: immutable, and validated as a whole."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from ratelimited_notify.errors import MOST_SHOWN, Problem, RuleError
from ratelimited_notify.notification.recipient import ARGUMENTS
from ratelimited_notify.rules.limit import is_limit
from ratelimited_notify.rules.rule import FIELDS, Rule
from ratelimited_notify.rules.table import is_rule_table, meant, rule_of
from ratelimited_notify.rules.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify.rules.annotations import LimitNotation
    from ratelimited_notify.rules.index import TypeIndex

_MOST_NAMED = 20
"""So many fields are named in one message."""

UnknownType: TypeAlias = Literal["send", "raise"]
"""What happens to notifications of a type that no rule matches."""


class RuleSet:
    """The rules that a limiter applies together.

    Arguments:
        rules: a mapping from type to limit, or a list. Each rule in the list is a `Rule`, or a dict with the arguments of
            `Rule`: `{"type": "news", "limit": "1/day"}`. In a dict, the limit `"none"` means no limit.
        fields: names of further fields that notifications may have. type, recipient, channel, tenant and dedupe_key
            always exist.
        default: a limit per recipient for each type that no rule matches. A cap over all types, that is a rule for
            exactly `"*"` that does not count by type, is not a match. With None, the default, `unknown_type` decides about
            such types.
        unknown_type: `"send"` (the default) sends notifications of such a type and logs each type once. `"raise"` makes
            them an error, and cannot be combined with `default`.

    Raises:
        RuleError: something in the rules cannot be used. The error lists all problems, each with its place
            (`rules[3].limit`).
    """

    __slots__ = ("_index", "_periods", "default", "fields", "rules", "unknown_type")

    _index: TypeIndex
    _periods: dict[tuple[str, int], str]
    rules: tuple[Rule, ...]
    fields: frozenset[str]
    default: Rule | None
    unknown_type: UnknownType

    def __init__(
        self,
        rules: Iterable[Rule | Mapping[str, object]] | Mapping[str, LimitNotation] = (),
        *,
        fields: Iterable[str] = (),
        default: LimitNotation = None,
        unknown_type: UnknownType = "send",
    ) -> None:
        problems: list[Problem] = []
        listed = _listed(rules, problems)
        declared = _declared(fields, problems)
        fallback = None
        if default is not None:
            try:
                fallback = Rule("*", default, name="default")
            except RuleError as error:
                problems += (Problem("default", problem.message) for problem in error.problems)
        if unknown_type not in ("send", "raise"):
            problems.append(Problem("unknown_type", f"{quoted(unknown_type)} is not known; use 'send' or 'raise'."))
        elif unknown_type == "raise" and default is not None:
            problems.append(
                Problem("unknown_type", "'raise' cannot be combined with a default: no type would be unknown.")
            )
        if fallback is not None:
            problems += _useless_default(listed)
        problems += _undeclared(listed, declared)
        periods: dict[tuple[str, int], str] = {}
        for place, rule in [*listed, ("default", fallback)] if fallback else listed:
            problems += _twice(place, rule, periods, add=True)
        if problems:
            raise RuleError(problems)
        _fill(self, tuple(rule for _, rule in listed), declared, fallback, unknown_type)
        object.__setattr__(self, "_periods", periods)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A rule set is immutable; make a new one to change {name!r}.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A rule set is immutable; make a new one without {name!r}.")

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RuleSet):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[tuple[Rule, ...], frozenset[str], Rule | None, UnknownType]:
        return self.rules, self.fields, self.default, self.unknown_type

    def __repr__(self) -> str:
        return (
            f"RuleSet({list(self.rules)!r}, fields={sorted(self.fields)!r}, "
            f"default={self.default!r}, unknown_type={self.unknown_type!r})"
        )

    def __reduce__(self) -> str | tuple[object, ...]:
        return _restored, self._content()

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is hardly meant as it is written, each with its place (`rules[3].type`). A limiter logs it once.

        For example, a type that looks like a regular expression, or an override for a pattern of recipients.
        """
        return tuple(
            problem.under(f"rules[{index}]") for index, rule in enumerate(self.rules) for problem in rule.warnings
        )

    def knows(self, type: str) -> bool:
        """Whether a rule matches the type. A cap over all types is not a match (see `Rule.is_cap`)."""
        return any(not rule.is_cap for rule in self._found(type))

    def names(self, type: str) -> bool:
        """Whether a rule is for this type, and not for each and every type. Such a rule wins over a decorator's limit."""
        return any(rule.type != "*" for rule in self._found(type))

    def matching(self, type: str) -> tuple[Rule, ...]:
        """The rules that apply to the type. The default is one of them if no rule matches (see `knows`)."""
        found = self._found(type)
        if self.default is not None and all(rule.is_cap for rule in found):
            found.append(self.default)
        return tuple(found)

    def _found(self, type: str) -> list[Rule]:
        rules = self.rules
        return [rules[position] for position in self.index.find(type)]

    @property
    def index(self) -> TypeIndex:
        """The positions of rules, by the types that they match. It is made when it is first used."""
        try:
            return self._index
        except AttributeError:
            from ratelimited_notify.rules.index import TypeIndex

            object.__setattr__(self, "_index", TypeIndex([rule.type for rule in self.rules]))
            return self._index

    def extended(self, rules: Iterable[Rule]) -> RuleSet:
        """A new rule set that has these rules too."""
        default = None if self.default is None else self.default.limits
        return RuleSet(
            (*self.rules, *rules), fields=self.fields - set(FIELDS), default=default, unknown_type=self.unknown_type
        )

    def clashes(self, rule: Rule) -> list[Problem]:
        """Why a rule cannot be added: it would share its counters with one of these, and apply another limit to them."""
        return _twice(f"rules[{len(self.rules)}]", rule, self._periods, add=False)


def _restored(
    rules: tuple[Rule, ...], fields: frozenset[str], default: Rule | None, unknown_type: UnknownType
) -> RuleSet:
    made = RuleSet.__new__(RuleSet)
    _fill(made, rules, fields, default, unknown_type)
    periods: dict[tuple[str, int], str] = {}
    for index, rule in enumerate(rules):
        _twice(f"rules[{index}]", rule, periods, add=True)
    if default is not None:
        _twice("default", default, periods, add=True)
    object.__setattr__(made, "_periods", periods)
    return made


def _fill(
    made: RuleSet, rules: tuple[Rule, ...], fields: frozenset[str], default: Rule | None, unknown_type: UnknownType
) -> None:
    for name, value in (("rules", rules), ("fields", fields), ("default", default), ("unknown_type", unknown_type)):
        object.__setattr__(made, name, value)


def _listed(rules: object, problems: list[Problem]) -> list[tuple[str, Rule]]:
    """The rules, each with its place for messages."""
    listed: list[tuple[str, Rule]] = []
    if isinstance(rules, Mapping):
        limits = cast("Mapping[object, LimitNotation]", rules)
        wrong = _other_mapping(limits)
        if wrong:
            problems.append(Problem("rules", wrong))
            return []
        for name, limit in limits.items():
            place = f"rules[{quoted(name)}]"
            try:
                listed.append((place, Rule(cast("str", name), limit)))
            except RuleError as error:
                problems += (problem.under(place) for problem in error.problems)
    elif isinstance(rules, Iterable) and not isinstance(rules, str):
        for index, rule in enumerate(cast("Iterable[object]", rules)):
            place = f"rules[{index}]"
            if isinstance(rule, Rule):
                listed.append((place, rule))
            elif isinstance(rule, Mapping):
                listed.append((place, rule_of(cast("object", rule), place, problems)))
            else:
                problems.append(Problem(place, f"is a {type(rule).__name__}, not a Rule or a dict."))
    else:
        problems.append(
            Problem("rules", f"is a {type(rules).__name__}; use a mapping from type to limit, or a list of rules.")
        )
    return listed


def _other_mapping(rules: Mapping[object, object]) -> str | None:
    """What is wrong with a mapping that is not one from type to limit, but a rule, or a document of rules."""
    if is_rule_table(rules) and not is_limit(rules["type"]):
        return "is one rule; write it in a list: [{'type': ..., 'limit': ...}]."
    inner = rules.get("rules")
    if isinstance(inner, (list, tuple)) and any(isinstance(each, Mapping) for each in cast("Iterable[object]", inner)):
        return "is a document with rules in it; write RuleSet(**document)."
    return None


def _declared(fields: object, problems: list[Problem]) -> frozenset[str]:
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        problems.append(Problem("fields", "must be a list of names."))
        return frozenset(FIELDS)
    names = tuple(cast("Iterable[object]", fields))
    for index, name in enumerate(names):
        place = f"fields[{index}]"
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            problems.append(Problem(place, f"{quoted(name)} is not a valid name for an argument."))
        elif name in ARGUMENTS or name in FIELDS:
            problems.append(Problem(place, f"{quoted(name)} exists already and cannot be declared."))
    return frozenset(FIELDS).union(name for name in names if isinstance(name, str))


def _useless_default(listed: list[tuple[str, Rule]]) -> list[Problem]:
    for_all = next((place for place, rule in listed if rule.is_for_every_type), None)
    if for_all is None:
        return []
    return [Problem("default", f"is never used, because {for_all} is for every type. Remove one of them.")]


def _undeclared(listed: list[tuple[str, Rule]], declared: frozenset[str]) -> list[Problem]:
    problems: list[Problem] = []
    known = sorted(declared)
    usable = ", ".join(known if len(known) <= _MOST_NAMED else [*known[:_MOST_NAMED], "..."])
    for place, rule in listed:
        for option, names in (("by", rule.by), ("required", rule.required)):
            for name in names:
                if name not in declared:
                    said = f"{quoted(name)} is not a field; use {usable}, or declare it: fields=[{quoted(name)}]."
                    # To search for a similar name takes longest, and only so many problems are shown.
                    similar = meant(name, known) if len(problems) < MOST_SHOWN else ""
                    problems.append(Problem(f"{place}.{option}", said + similar))
    return problems


def _twice(place: str, rule: Rule, periods: dict[tuple[str, int], str], *, add: bool) -> list[Problem]:
    """Find out whether the rule has the name and a period of another one: they would share their counters, and apply
    different limits to them.

    Arguments:
        place: where the rule is, for messages.
        periods: the places of earlier rules, by name and period in seconds.
        add: whether to add this rule.
    """
    problems: list[Problem] = []
    # Thousands of overrides usually have few distinct limits.
    kinds = {id(items): items for items in (rule.limits, *rule.overrides.values(), *rule.tiers.values())}
    for period in sorted({item.get_expiry() for items in kinds.values() for item in items}):
        name = rule.name, period
        first = periods.setdefault(name, place) if add else periods.get(name, place)
        if first != place:
            problems.append(
                Problem(
                    place,
                    f"has the same name ({quoted(rule.name)}) and period ({period} seconds) as {first}; "
                    "give one of them another name=.",
                )
            )
    return problems
