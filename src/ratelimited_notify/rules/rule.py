"""One rule: the types that it applies to, its limits, and the fields that it counts by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.glob import matches, plain_type
from ratelimited_notify.rules.limit import limits_at, pairs
from ratelimited_notify.rules.overrides import NO_OVERRIDES, Overrides
from ratelimited_notify.rules.wording import quoted
from ratelimited_notify.windows.strategies import StrategyName

if TYPE_CHECKING:
    from limits import RateLimitItem

    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.annotations import LimitNotation

OnLimit: TypeAlias = Literal["raise", "drop", "wait"]
"""What happens to a notification over the limit."""

FIELDS = ("type", "recipient", "channel", "tenant", "dedupe_key")
"""The fields that every notification can have. A rule set can declare more."""

_STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
_ON_LIMIT: tuple[str, ...] = get_args(OnLimit)
_LATER = ("defer", "digest")
_BY = ("type", "recipient")
# Thousands of rules share these.
_NO_LIMITS: Mapping[str, tuple[RateLimitItem, ...]] = MappingProxyType({})
_NO_TEXTS = frozenset[str]()
_set = object.__setattr__
_LONGEST = 100
"""So much of the name of a tier is shown in a place."""


def on_limit_problem(value: object) -> str | None:
    """A message that says what is wrong with a value of `on_limit`, or None."""
    if value in _ON_LIMIT:
        return None
    if value in _LATER:
        return f"{value!r} needs the queue of deferred notifications, which this version does not have; use 'drop'."
    return f"{quoted(value)} is not known; use one of {', '.join(map(repr, _ON_LIMIT))}."


@dataclass(frozen=True, slots=True, init=False)
class Rule:
    """Allows at most `limit` for each combination of values of the fields in `by`.

    Arguments:
        type: the type of notification, or a glob over types (`"marketing.*"`, `"*"`). Case-sensitive.
        limit: one or several amounts per period in the notation of `limits`: `"1/day"`, `"3/hour; 10/day"`. None is no
            limit. An amount of 0 lets nothing through.
        by: the fields that the rule counts by, one string or several; `("type", "recipient")` by default. `"recipient"`
            makes a frequency cap over all matching types, and `()` is one window for everybody. The rule does not apply
            to a notification that leaves one of the fields unset.
        strategy: `"moving-window"` (the default, exact), `"fixed-window"` or `"sliding-window-counter"`.
        name: identifies the counters of the rule. By default it is made of `type` and `by`, so the counts are kept when
            you edit a limit.
        on_limit: what happens when this rule refuses: `"raise"`, `"drop"` or `"wait"`. By default the notifier or the
            decorator decides.
        overrides: other limits for single recipients: `{"vip@example.com": "50/day"}`. If the rule does not count by
            recipient, they are for the values of the one field besides the type that it counts by: with `by="tenant"`,
            `{"acme": "50/day"}`.
        tiers: other limits for the recipients that the limiter's `tier_of=` puts in a tier: `{"gold": "20/day"}`. If the
            rule counts by other fields instead, `tier_of=` needs a parameter called `fields`. If the rules for a type have
            more than 64 tiers, decisions about it take longer.
        exempt: priorities that always pass, one string or several.
        count_exempt: whether exempt notifications are counted too, up to twice the amount. True by default.
        enforce: False is shadow mode: the rule counts, and reports what it would refuse, but refuses nothing.
        required: fields that a notification must set, one string or several. Without one of them it is an error, and
            nothing is counted. In shadow mode it is sent, and logged once.

    Raises:
        RuleError: an argument cannot be used. The error lists all problems.
    """

    type: str
    limits: tuple[RateLimitItem, ...]
    by: tuple[str, ...]
    strategy: StrategyName
    name: str
    on_limit: OnLimit | None
    overrides: Overrides = field(repr=False, hash=False)
    tiers: Mapping[str, tuple[RateLimitItem, ...]] = field(hash=False)
    exempt: frozenset[str]
    count_exempt: bool
    enforce: bool
    required: tuple[str, ...]

    def __init__(
        self,
        type: str,
        limit: LimitNotation,
        *,
        by: str | Iterable[str] = _BY,
        strategy: StrategyName = "moving-window",
        name: str | None = None,
        on_limit: OnLimit | None = None,
        overrides: Mapping[Recipient, LimitNotation] | None = None,
        tiers: Mapping[str, LimitNotation] | None = None,
        exempt: str | Iterable[str] = (),
        count_exempt: bool = True,
        enforce: bool = True,
        required: str | Iterable[str] = (),
    ) -> None:
        problems: list[Problem] = []
        type = _text("type", type, problems)
        if not plain_type(type) and (wrong := _wrong_type(type)):
            problems.append(Problem("type", wrong))
        if strategy not in _STRATEGIES:
            known = ", ".join(map(repr, _STRATEGIES))
            problems.append(Problem("strategy", f"{quoted(strategy)} is not known; use one of {known}."))
        if on_limit is not None and (wrong := on_limit_problem(on_limit)):
            problems.append(Problem("on_limit", wrong))
        for option, value in (("count_exempt", count_exempt), ("enforce", enforce)):
            if not isinstance(value, bool):
                problems.append(Problem(option, "must be true or false."))
        counted_by, overridden = (_BY, "recipient") if by is _BY else _counted_by(by, overrides, tiers, problems)
        limits = limits_at("limit", limit, problems)
        if name is None:
            name = type if counted_by is _BY else _name(type, counted_by)
        else:
            name = _text("name", name, problems)
        others = NO_OVERRIDES if overrides is None else _overrides(overrides, overridden or "recipient", problems)
        by_tier = _read_only(_tiers(tiers, problems)) if tiers is not None else _NO_LIMITS
        priorities = frozenset(_texts("exempt", exempt, problems)) or _NO_TEXTS
        needed = _texts("required", required, problems)
        if problems:
            raise RuleError(problems)
        # One by one: a large rule set makes thousands of rules.
        _set(self, "type", type)
        _set(self, "limits", limits)
        _set(self, "by", counted_by)
        _set(self, "strategy", strategy)
        _set(self, "name", name)
        _set(self, "on_limit", on_limit)
        _set(self, "overrides", others)
        _set(self, "tiers", by_tier)
        _set(self, "exempt", priorities)
        _set(self, "count_exempt", count_exempt)
        _set(self, "enforce", enforce)
        _set(self, "required", needed)

    def __getstate__(self) -> dict[str, object]:
        # Read-only mappings cannot be pickled, so their contents are.
        state: dict[str, object] = {each.name: getattr(self, each.name) for each in fields(self)}
        state.update(overrides=dict(self.overrides), tiers=dict(self.tiers))
        return state

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for attribute, value in state.items():
            if isinstance(value, dict):
                read = cast("dict[str, tuple[RateLimitItem, ...]]", value)
                value = Overrides.of(read) if attribute == "overrides" else _read_only(read)
            _set(self, attribute, value)

    @property
    def is_cap(self) -> bool:
        """Whether this is a cap over all types: a rule for exactly `"*"` that does not count by type."""
        return self.type == "*" and "type" not in self.by

    @property
    def is_for_every_type(self) -> bool:
        """Whether the rule matches each type, and is not a cap over all types. Then no type is without a rule."""
        return not self.type.strip("*") and not self.is_cap

    def matches(self, type: str) -> bool:
        """Whether the rule applies to notifications of this type."""
        return matches(self.type, type)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is hardly meant as it is written, such as a regular expression as a type. Each has its place."""
        if plain_type(self.type) and not (self.exempt or self.tiers or self.overrides.suspicious):
            return ()
        from ratelimited_notify.rules.doubt import doubtful_names, doubtful_overrides, doubtful_type

        found = [Problem("type", said) for said in doubtful_type(self.type)]
        for option, names in (("exempt", sorted(self.exempt)), ("tiers", self.tiers)):
            found += (Problem(option, said) for said in doubtful_names(names))
        if self.overrides.suspicious:
            from ratelimited_notify.rules.override_notation import SINGLE

            advice = SINGLE.format(overridden_field(self.by))
            found += (
                Problem(f"overrides[{index}]", f"looks like a pattern, {advice}")
                for index in doubtful_overrides(self.overrides)
            )
        return tuple(found)


def overridden_field(by: Sequence[str]) -> str | None:
    """The field whose values overrides are for: the recipient, or else the one field besides the type.

    None if there is no such field, or more than one.
    """
    if "recipient" in by:
        return "recipient"
    others = [name for name in by if name != "type"]
    return others[0] if len(others) == 1 else None


# Most rules are plain, and most programs load no code for others.


def _wrong_type(type: str) -> str | None:
    from ratelimited_notify.rules.doubt import wrong_type

    return wrong_type(type)


def _overrides(given: object, field: str, problems: list[Problem]) -> Overrides:
    if not given and given.__class__ is dict:
        return NO_OVERRIDES
    from ratelimited_notify.rules.override_notation import overrides_of

    return overrides_of(given, field, problems)


def _counted_by(
    by: object, overrides: object, tiers: object, problems: list[Problem]
) -> tuple[tuple[str, ...], str | None]:
    """The fields that a rule counts by, and the one whose values overrides are for."""
    before = len(problems)
    counted_by = _texts("by", by, problems)
    if len(set(counted_by)) < len(counted_by):
        problems.append(Problem("by", "names a field twice."))
    overridden = overridden_field(counted_by)
    if len(problems) > before:
        return counted_by, overridden
    if overrides and overridden is None:
        others = "several" if set(counted_by) - {"type"} else "none"
        said = "need a rule that counts by recipient or by one other field besides the type; it counts by"
        problems.append(Problem("overrides", f"{said} {others}."))
    if tiers and set(counted_by) <= {"type"}:
        problems.append(Problem("tiers", "need a rule that counts by recipient or by another field."))
    return counted_by, overridden


def _read_only(limits: dict[str, tuple[RateLimitItem, ...]]) -> Mapping[str, tuple[RateLimitItem, ...]]:
    return MappingProxyType(limits) if limits else _NO_LIMITS


def _name(type: str, by: tuple[str, ...]) -> str:
    return type if by == ("type", "recipient") else f"{type} by {'+'.join(by) or 'all'}"


def _text(place: str, value: object, problems: list[Problem]) -> str:
    if isinstance(value, str) and value:
        # A plain str, even from a subclass of str, as for recipients: keys and names are made of it.
        return str.__str__(value)
    problems.append(Problem(place, "must be a non-empty string such as 'news'."))
    return "?"


def _texts(place: str, value: object, problems: list[Problem]) -> tuple[str, ...]:
    """One string or several, as a tuple."""
    if value.__class__ is tuple and not value:
        return ()
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, Iterable):
        texts = tuple(cast("Iterable[object]", value))
        if all(isinstance(text, str) and text for text in texts):
            plain = [str.__str__(cast("str", text)) for text in texts]
            # The order is part of the rule's name, and a set can have another order in another process.
            return tuple(sorted(plain) if isinstance(value, AbstractSet) else plain)
    problems.append(Problem(place, "must be one string or several, and none may be empty."))
    return ()


def _tiers(tiers: object, problems: list[Problem]) -> dict[str, tuple[RateLimitItem, ...]]:
    read: dict[str, tuple[RateLimitItem, ...]] = {}
    for tier, notation in pairs("tiers", tiers, problems):
        if isinstance(tier, str) and tier:
            name = str.__str__(tier)
            shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
            read[name] = limits_at(f"tiers.{shown}", notation, problems)
        else:
            problems.append(Problem("tiers", f"has a name that is empty or not a string: {quoted(tier)}."))
    return read
