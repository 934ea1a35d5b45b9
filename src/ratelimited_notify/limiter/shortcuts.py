"""Shortcuts for types whose recipients do not all have the same limits, or are counted under another string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from ratelimited_notify.limiter.tiers import checked_tier
from ratelimited_notify.notification.recipient import text_of
from ratelimited_notify.rules.plan import MOST_VARIANTS
from ratelimited_notify.windows.keys import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.plan import Plan, Variant
    from ratelimited_notify.windows.strategies import Outcome, Shortcut

    _Windows: TypeAlias = tuple[Any, ...]  # Any: windows of the kind that the storage takes
    _To: TypeAlias = Callable[[_Windows, Sequence[tuple[str, str]]], Shortcut | None]

MOST_TIERS = 64
"""A type with more tiers has no shortcut: one for each tier is made before its first decision."""


def choosing(
    plan: Plan,
    common: Shortcut,
    to: _To,
    counted_as: Callable[[Recipient], str],
    tier_of: Callable[[Recipient], str | None],
) -> Shortcut | None:
    """The shortcut for a type whose recipients do not all have the same limits, or are counted under another string. None if
    there is no good one.

    Arguments:
        plan: the plan of the type.
        common: the shortcut for recipients without an override or a tier.
        to: returns the shortcut to these windows, or None if there is none. It takes the parts of their keys too.
        counted_as: returns the string that a recipient is counted as.
        tier_of: returns the tier of a recipient. It may return something else by mistake.
    """
    if len(plan.tiers) > MOST_TIERS:
        return None
    if plan.tiers:
        alone = not plan.overriding and counted_as is text_of
        by_tier = (ShortcutByTierAlone if alone else ShortcutByTier)(plan, common, to, counted_as, tier_of)
        return by_tier if by_tier.complete else None
    if not plan.overriding:
        return NormalizingShortcut(common, counted_as)
    if len(plan.overriding) == 1 and counted_as is text_of:
        return ShortcutByOverride(plan, common, to, counted_as)
    return ShortcutByLimits(plan, common, to, counted_as)


def _shortcut_to(variant: Variant, to: _To) -> Shortcut | None:
    return to(variant.windows, variant.key_parts) if variant.windows else None


class ReconsideringShortcut:
    """A shortcut that refuses nothing: what it would refuse is decided the long way, which logs it.

    Arguments:
        shortcut: decides.
    """

    def __init__(self, shortcut: Shortcut) -> None:
        self._shortcut = shortcut

    def decide(self, recipient: str, /) -> Outcome | None:
        """The outcome if it is allowed. A refusal has taken nothing, so it can be asked for again."""
        outcome = self._shortcut.decide(recipient)
        return outcome if outcome is None or outcome[0] else None


class NormalizingShortcut:
    """A shortcut for recipients that are counted under another string: normalized, or pseudonymized.

    Arguments:
        shortcut: decides about that string.
        counted_as: returns the string that a recipient is counted as.
    """

    def __init__(self, shortcut: Shortcut, counted_as: Callable[[Recipient], str]) -> None:
        self._shortcut = shortcut
        self._counted_as = counted_as

    def decide(self, recipient: str, /) -> Outcome | None:
        """The outcome for the recipient as it is counted."""
        return self._shortcut.decide(self._counted_as(recipient))


class ShortcutByLimits:
    """A shortcut for a type with overrides: a shortcut for each combination of limits, and the choice of one.

    Arguments:
        plan: the plan of the type.
        common: the shortcut for recipients without an override or a tier.
        to: returns the shortcut to these windows, or None if there is none. It takes the parts of their keys too.
        counted_as: returns the string that a recipient is counted as.
    """

    def __init__(self, plan: Plan, common: Shortcut, to: _To, counted_as: Callable[[Recipient], str]) -> None:
        self._plan = plan
        self._to = to
        self._counted_as = None if counted_as is text_of else counted_as
        self._common = common
        self._by_variant: dict[Variant, Shortcut | None] = {plan.common: common}

    def decide(self, recipient: str, /) -> Outcome | None:
        """The outcome by the limits that apply to this recipient."""
        text = recipient if self._counted_as is None else self._counted_as(recipient)
        shortcut: Shortcut | None = self._common
        for overrides in self._plan.overriding:
            if text in overrides:
                shortcut = self._found(self._plan.variant(text, None))
                break
        return None if shortcut is None else shortcut.decide(text)

    def _found(self, variant: Variant) -> Shortcut | None:
        try:
            return self._by_variant[variant]
        except KeyError:
            shortcut = _shortcut_to(variant, self._to)
            if len(self._by_variant) < MOST_VARIANTS:
                self._by_variant[variant] = shortcut
            return shortcut


class ShortcutByOverride(ShortcutByLimits):
    """The most frequent case: the overrides of one rule, and recipients that are counted as they are. It needs one look-up for
    most recipients.
    """

    def __init__(self, plan: Plan, common: Shortcut, to: _To, counted_as: Callable[[Recipient], str]) -> None:
        super().__init__(plan, common, to, counted_as)
        self._numbers = plan.overriding[0]
        self._by_number: dict[int, Shortcut | None] = {}

    def decide(self, recipient: str, /) -> Outcome | None:
        """The outcome by the limits that apply to this recipient."""
        number = self._numbers.get(recipient)
        if number is None:
            shortcut: Shortcut | None = self._common
        else:
            try:
                shortcut = self._by_number[number]
            except KeyError:
                shortcut = self._found(self._plan.variant(recipient, None))
                if len(self._by_number) < MOST_VARIANTS:
                    self._by_number[number] = shortcut
        return None if shortcut is None else shortcut.decide(recipient)


class ShortcutByTier(ShortcutByLimits):
    """A shortcut for a type with tiers.

    It asks for the tier only if it is sure to have a shortcut. Otherwise the long way asks for it: nobody expects to be asked
    twice about one notification.

    Arguments:
        plan, common, to, counted_as: as for `ShortcutByLimits`.
        tier_of: returns the tier of a recipient. It may return something else by mistake.
    """

    def __init__(
        self,
        plan: Plan,
        common: Shortcut,
        to: _To,
        counted_as: Callable[[Recipient], str],
        tier_of: Callable[[Recipient], str | None],
    ) -> None:
        super().__init__(plan, common, to, counted_as)
        self._tier_of = tier_of
        self._by_overrides: dict[tuple[int | None, ...], Mapping[str | None, Shortcut] | None] = {}
        self._by_tier: Mapping[str | None, Shortcut] = self._by_tier_for("") or {}
        self.complete = bool(self._by_tier)
        """Whether there is a shortcut for each tier."""

    def decide(self, recipient: str, /) -> Outcome | None:
        """The outcome by the limits that apply to this recipient."""
        text = recipient if self._counted_as is None else self._counted_as(recipient)
        if not plain(text):
            return None
        by_tier = self._by_tier
        for numbers in self._plan.overriding:
            if text in numbers:
                found = self._by_tier_for(text)
                if found is None:
                    return None
                by_tier = found
                break
        tier = checked_tier(self._tier_of(recipient))
        return by_tier[tier if tier in by_tier else None].decide(text)

    def _by_tier_for(self, text: str) -> Mapping[str | None, Shortcut] | None:
        """The shortcut for each tier, and for no tier, of recipients with the overrides of this one. None if one is missing."""
        overrides = tuple(numbers.get(text) for numbers in self._plan.overriding)
        try:
            return self._by_overrides[overrides]
        except KeyError:
            tiers = (None, *self._plan.tiers)
            if (len(self._by_overrides) + 1) * len(tiers) > MOST_VARIANTS:
                return None
            found = {tier: self._found(self._plan.variant(text, tier)) for tier in tiers}
            by_tier = {tier: shortcut for tier, shortcut in found.items() if shortcut is not None}
            self._by_overrides[overrides] = by_tier if len(by_tier) == len(tiers) else None
            return self._by_overrides[overrides]


class ShortcutByTierAlone(ShortcutByTier):
    """The most frequent case: tiers without overrides, and recipients that are counted as they are."""

    def decide(self, recipient: str, /) -> Outcome | None:
        """The outcome by the limits that apply to this recipient."""
        if not plain(recipient):
            return None
        tier = self._tier_of(recipient)
        if tier is None:
            return self._common.decide(recipient)
        if tier.__class__ is not str:
            checked_tier(tier)
        return self._by_tier.get(tier, self._common).decide(recipient)
