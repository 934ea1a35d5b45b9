"""The windows of a rule, in the form that storages and `limits` use: items of `limits` that build their own keys."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

from ratelimited_notify.windows.keys import rest_of, tag_of
from ratelimited_notify.windows.strategies import MICROSECONDS, Mode, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limits import RateLimitItem

    from ratelimited_notify.rules.rule import OnLimit, Rule
    from ratelimited_notify.windows.strategies import StrategyName


class _Keyed:
    """Mixed into an item of `limits`: its key identifies the window and does not contain the limit's amount."""

    __slots__ = ()

    # The slots for these are in the classes that `_kind` makes: of several bases, only one can have slots.
    by: tuple[str, ...]
    namespace: str
    rule: str
    strategy: StrategyName

    def key_for(self, *identifiers: bytes | str | float) -> str:
        """The storage key of one window.

        Arguments:
            identifiers: the values of the fields in the rule's `by`, in the same order.
        """
        others = [value.decode() if isinstance(value, bytes) else str(value) for value in identifiers]
        if "recipient" in self.by:
            tag = tag_of(others.pop(self.by.index("recipient")))
        else:
            tag = tag_of(":".join((self.rule, *others)))
        period = cast("RateLimitItem", self).get_expiry()
        return f"{self.namespace}:{{{tag}}}:{rest_of((self.rule, str(period), *others), self.strategy)}"

    def __reduce__(self) -> tuple[object, ...]:
        item = cast("RateLimitItem", self)
        base = type(self).__bases__[1]
        return keyed_item, (base(item.amount, item.multiples), self.namespace, self.rule, self.by, self.strategy)


@cache
def _kind(base: type[RateLimitItem]) -> type[RateLimitItem]:
    # The subclass inherits its granularity. If it defined one, `limits` would register it for the whole process.
    return type(f"Keyed{base.__name__}", (_Keyed, base), {"__slots__": ("by", "rule", "strategy")})


def keyed_item(
    item: RateLimitItem, namespace: str, rule: str, by: tuple[str, ...], strategy: StrategyName
) -> RateLimitItem:
    """A copy of the item that builds the keys of a rule's windows."""
    made = _kind(type(item))(item.amount, item.multiples, namespace)
    for name, value in (("rule", rule), ("by", by), ("strategy", strategy)):
        setattr(made, name, value)
    return made


class Counter(Window):
    """One limit of one rule in one mode: the fields that it counts by, and the keys of its windows."""

    __slots__ = ("by", "item", "on_limit")

    def __init__(self, namespace: str, rule: Rule, item: RateLimitItem, mode: Mode) -> None:
        super().__init__(
            rule.strategy,
            item.amount,
            item.get_expiry() * MICROSECONDS,
            mode,
            rule=rule.name,
            shared="recipient" not in rule.by,
        )
        self.by: tuple[str, ...] = rule.by
        self.on_limit: OnLimit | None = rule.on_limit
        self.item: RateLimitItem = keyed_item(item, namespace, rule.name, rule.by, rule.strategy)

    def key(self, identifiers: Sequence[str]) -> str:
        """The storage key of the window with these values of `by`."""
        return self.item.key_for(*identifiers)
