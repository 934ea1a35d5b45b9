"""A set of rules: immutable, and validated as a whole."""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from ratelimited_notify.errors import MOST_SHOWN, Problem, RuleError
from ratelimited_notify.notification.recipient import ARGUMENTS
from ratelimited_notify.rules.limit import is_limit
from ratelimited_notify.rules.rule import FIELDS, Rule
from ratelimited_notify.rules.table import is_rule_table, meant, rule_of
from ratelimited_notify.rules.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    __slots__ = ("_index", "_named", "default", "fields", "rules", "unknown_type")

    _index: TypeIndex
    _named: dict[str, tuple[int, ...]]
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
        listed, places = _listed(rules, problems)
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
            problems += _useless_default(listed, places)
        problems += _undeclared(listed, places, declared)
        problems += _repeated([*listed, fallback], [*places, None]) if fallback else _repeated(listed, places)
        if problems:
            raise RuleError(problems)
        _fill(self, tuple(listed), declared, fallback, unknown_type)

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
        number = len(self.rules)
        rules = self.rules if self.default is None else (*self.rules, self.default)
        same = self._by_name.get(rule.name, ())
        places = [None if position == number else position for position in same]
        return _repeated([*(rules[position] for position in same), rule], [*places, number])

    @property
    def _by_name(self) -> dict[str, tuple[int, ...]]:
        """The positions of rules by their names. That of the default is behind all rules."""
        try:
            return self._named
        except AttributeError:
            named: dict[str, list[int]] = {}
            for position, rule in enumerate((*self.rules, *filter(None, [self.default]))):
                named.setdefault(rule.name, []).append(position)
            # The collector has nothing to do with tuples of numbers.
            object.__setattr__(self, "_named", {name: tuple(positions) for name, positions in named.items()})
            return self._named


def _restored(
    rules: tuple[Rule, ...], fields: frozenset[str], default: Rule | None, unknown_type: UnknownType
) -> RuleSet:
    made = RuleSet.__new__(RuleSet)
    _fill(made, rules, fields, default, unknown_type)
    return made


def _fill(
    made: RuleSet, rules: tuple[Rule, ...], fields: frozenset[str], default: Rule | None, unknown_type: UnknownType
) -> None:
    for name, value in (("rules", rules), ("fields", fields), ("default", default), ("unknown_type", unknown_type)):
        object.__setattr__(made, name, value)


def _place(place: int | str | None) -> str:
    """A place for messages, by the number of a rule or its name. None is the default."""
    return "default" if place is None else f"rules[{quoted(place)}]"


def _listed(rules: object, problems: list[Problem]) -> tuple[list[Rule], list[int | str]]:
    """The rules, and the number or the name of each for messages."""
    listed: list[Rule] = []
    places: list[int | str] = []
    if isinstance(rules, Mapping):
        limits = cast("Mapping[object, LimitNotation]", rules)
        wrong = _other_mapping(limits)
        if wrong:
            problems.append(Problem("rules", wrong))
            return [], []
        for name, limit in cast("Mapping[str, LimitNotation]", limits).items():
            try:
                listed.append(Rule(name, limit))
                places.append(name)
            except RuleError as error:
                problems += (problem.under(f"rules[{quoted(name)}]") for problem in error.problems)
    elif isinstance(rules, Iterable) and not isinstance(rules, str):
        for index, rule in enumerate(cast("Iterable[object]", rules)):
            if isinstance(rule, Mapping):
                rule = rule_of(cast("object", rule), _place(index), problems)
            elif not isinstance(rule, Rule):
                problems.append(Problem(_place(index), f"is a {type(rule).__name__}, not a Rule or a dict."))
                continue
            listed.append(rule)
            places.append(index)
    else:
        problems.append(
            Problem("rules", f"is a {type(rules).__name__}; use a mapping from type to limit, or a list of rules.")
        )
    return listed, places


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


def _useless_default(listed: list[Rule], places: list[int | str]) -> list[Problem]:
    for_all = next((place for place, rule in zip(places, listed, strict=True) if rule.is_for_every_type), None)
    if for_all is None:
        return []
    return [Problem("default", f"is never used, because {_place(for_all)} is for every type. Remove one of them.")]


def _undeclared(listed: list[Rule], places: list[int | str], declared: frozenset[str]) -> list[Problem]:
    problems: list[Problem] = []
    if declared.issuperset(name for names in _fields_of(listed) for name in names):
        return problems
    known = sorted(declared)
    usable = ", ".join(known if len(known) <= _MOST_NAMED else [*known[:_MOST_NAMED], "..."])
    for place, rule in zip(places, listed, strict=True):
        for option, names in (("by", rule.by), ("required", rule.required)):
            for name in names:
                if name not in declared:
                    said = f"{quoted(name)} is not a field; use {usable}, or declare it: fields=[{quoted(name)}]."
                    # To search for a similar name takes longest, and only so many problems are shown.
                    similar = meant(name, known) if len(problems) < MOST_SHOWN else ""
                    problems.append(Problem(f"{_place(place)}.{option}", said + similar))
    return problems


def _fields_of(listed: list[Rule]) -> set[tuple[str, ...]]:
    """The combinations of fields that rules count by or require. Thousands of rules have few."""
    return {rule.by for rule in listed} | {rule.required for rule in listed}


def _repeated(rules: Sequence[Rule], places: Sequence[int | str | None]) -> list[Problem]:
    """Find the rules that have the name and a period of an earlier one: they would share their counters, and apply different
    limits to them.

    Arguments:
        rules: the rules.
        places: where each rule is, for messages.
    """
    number = Counter(rule.name for rule in rules)
    if len(number) == len(rules):
        return []
    problems: list[Problem] = []
    seen: dict[tuple[str, int], int | str | None] = {}
    for place, rule in zip(places, rules, strict=True):
        if number[rule.name] == 1:
            continue
        # Thousands of overrides usually have few distinct limits.
        kinds = (rule.limits, *rule.overrides.kinds, *rule.tiers.values())
        for period in sorted({item.get_expiry() for items in kinds for item in items}):
            first = seen.setdefault((rule.name, period), place)
            if first != place:
                said = f"has the same name ({quoted(rule.name)}) and period ({period} seconds) as {_place(first)}"
                problems.append(Problem(_place(place), f"{said}; give one of them another name=."))
    return problems
