"""The windows of a rule, in the form that storages and `limits` use: items of `limits` that build their own keys."""

from __future__ import annotations

from copy import copy
from functools import cache, lru_cache
from typing import TYPE_CHECKING, cast

from ratelimited_notify.windows.keys import rest_of, tag_of
from ratelimited_notify.windows.strategies import MICROSECONDS, Mode, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limits import RateLimitItem

    from ratelimited_notify.rules.rule import OnLimit, Rule
    from ratelimited_notify.windows.strategies import StrategyName, WindowKind


@lru_cache(maxsize=1024)
def _layout(by: tuple[str, ...]) -> tuple[int | None, tuple[int, ...], str]:
    """Where the recipient is among these fields, the places of the other ones in the order of their names, and their names as
    a part of the key.
    """
    # With their names in the key, a rule that counts by another field from now on does not find the counts of the first one
    # under an equal value. Most keys need none, and are shorter.
    names = sorted(by)
    counted = "" if names == ["recipient", "type"] else "".join(f"+{name}" for name in names) or "+"
    others = tuple(by.index(name) for name in names if name != "recipient")
    return by.index("recipient") if "recipient" in by else None, others, counted


class _Keyed:
    """Mixed into an item of `limits`: its key identifies the window and does not contain the limit's amount."""

    __slots__ = ()

    # The slots for these are in the classes that `_kind` makes: of several bases, only one can have slots.
    by: tuple[str, ...]
    namespace: str
    rule: str
    strategy: WindowKind

    def key_for(self, *identifiers: bytes | str | float) -> str:
        """The storage key of one window.

        Arguments:
            identifiers: the values of the fields in the rule's `by`, in the same order.
        """
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in identifiers]
        recipient, others, counted = _layout(self.by)
        values = [texts[position] for position in others]
        tag = tag_of(":".join((self.rule, *values)) if recipient is None else texts[recipient])
        period = f"{cast('RateLimitItem', self).get_expiry()}{counted}"
        return f"{self.namespace}:{{{tag}}}:{rest_of((self.rule, period, *values), self.strategy)}"

    def __reduce__(self) -> tuple[object, ...]:
        item = cast("RateLimitItem", self)
        base = type(self).__bases__[1]
        return keyed_item, (base(item.amount, item.multiples), self.namespace, self.rule, self.by, self.strategy)


@cache
def _kind(base: type[RateLimitItem]) -> type[RateLimitItem]:
    # The subclass inherits its granularity. If it defined one, `limits` would register it for the whole process.
    return type(f"Keyed{base.__name__}", (_Keyed, base), {"__slots__": ("by", "rule", "strategy")})


def keyed_item(
    item: RateLimitItem, namespace: str, rule: str, by: tuple[str, ...], strategy: WindowKind
) -> RateLimitItem:
    """A copy of the item that builds the keys of a rule's windows."""
    made = _kind(type(item))(item.amount, item.multiples, namespace)
    for name, value in (("rule", rule), ("by", by), ("strategy", strategy)):
        setattr(made, name, value)
    return made


def counted_by(item: RateLimitItem) -> tuple[str, ...]:
    """The fields that the rule of a window counts by, from the window's item."""
    return item.by if isinstance(item, _Keyed) else ()


class Counter(Window):
    """One limit of one rule in one mode: the fields that it counts by, and the keys of its windows."""

    __slots__ = ("_item", "_limit", "_namespace", "by", "on_limit", "rule_strategy")

    def __init__(
        self, namespace: str, rule: Rule, item: RateLimitItem, mode: Mode, kind: WindowKind | None = None
    ) -> None:
        super().__init__(
            kind or rule.strategy,
            item.amount,
            item.get_expiry() * MICROSECONDS,
            mode,
            rule=rule.name,
            shared="recipient" not in rule.by,
        )
        self.by: tuple[str, ...] = rule.by
        self.on_limit: OnLimit | None = rule.on_limit
        self._namespace = namespace
        self._limit = item
        # Made when it is first needed: most decisions need only its keys.
        self._item: RateLimitItem | None = None
        self.rule_strategy: StrategyName = rule.strategy

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        # A copy elsewhere makes the item itself.
        kept = {name: getattr(self, name) for name in (*Window.__slots__, *self.__slots__)}
        return None, {**kept, "_item": None}

    @property
    def item(self) -> RateLimitItem:
        """The limit, as an item of `limits` that builds the keys of the windows."""
        if self._item is None:
            self._item = keyed_item(self._limit, self._namespace, self.rule, self.by, self.strategy)
        return self._item

    def divided(self, share: int) -> Counter:
        """The same windows with this part of the amount, rounded up: what one of so many processes may use."""
        twin = copy(self)
        twin.amount = -(-self.amount // share)
        twin._limit = type(self._limit)(twin.amount, self._limit.multiples)
        return twin

    def in_mode(self, mode: Mode) -> Counter:
        """The same windows for hits in another mode."""
        twin = copy(self)
        twin.mode = mode
        return twin

    def key_parts(self, type: str) -> tuple[str, str]:
        """The parts of the keys of a type before and after the recipient, as it is written in keys. If keys do not depend on
        the recipient, the first part is the whole key.
        """
        by = self.by
        if self.shared:
            return self.item.key_for(*(type,) if "type" in by else ()), ""
        period = f"{self.period // MICROSECONDS}{_layout(by)[2]}"
        parts = (self.rule, period, type) if "type" in by else (self.rule, period)
        return f"{self._namespace}:{{", f"}}:{rest_of(parts, self.strategy)}"

    def key(self, identifiers: Sequence[str]) -> str:
        """The storage key of the window with these values of `by`."""
        return (self._item or self.item).key_for(*identifiers)


def pause_of(namespace: str, rule: Rule, mode: Mode) -> Counter:
    """The window of the rule's pause: as if the limit were 0 while it is paused. The period only has to be always the same."""
    from limits import RateLimitItemPerSecond

    return Counter(namespace, rule, RateLimitItemPerSecond(0), mode, "pause")


def can_be_paused(rule: Rule) -> bool:
    """Whether the rule can be paused: a rule that counts by recipient cannot, because it is of one recipient only."""
    return "recipient" not in rule.by
