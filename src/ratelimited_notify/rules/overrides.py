"""The overrides of a rule: other limits for single recipients. There may be 100,000 of them, and most have the same few limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limits import RateLimitItem

    Limits: TypeAlias = tuple[RateLimitItem, ...]


class Overrides(Mapping[str, "Limits"]):
    """Limits by recipient, or by the value of another field. Read-only.

    They are kept as numbers of the distinct limits. So there is nothing in them that the garbage collector has to look at.

    Arguments:
        numbers: by recipient, the position of its limits in `kinds`.
        kinds: the distinct limits.
        suspicious: whether a recipient may be a pattern, see `is_suspicious`.
    """

    __slots__ = ("kinds", "numbers", "suspicious")

    def __init__(self, numbers: dict[str, int], kinds: Sequence[Limits], suspicious: bool) -> None:
        self.numbers = numbers
        self.kinds = kinds
        self.suspicious = suspicious

    @classmethod
    def of(cls, limits: Mapping[str, Limits]) -> Overrides:
        """Make overrides from the limits themselves."""
        from ratelimited_notify.rules.doubt import is_suspicious

        numbers: dict[str, int] = {}
        kinds: list[Limits] = []
        known: dict[int, int] = {}
        for name, each in limits.items():
            number = known.setdefault(id(each), len(kinds))
            if number == len(kinds):
                kinds.append(each)
            numbers[name] = number
        return cls(numbers, tuple(kinds), is_suspicious(numbers))

    def __getitem__(self, name: str) -> Limits:
        return self.kinds[self.numbers[name]]

    def __contains__(self, name: object) -> bool:
        return name in self.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Overrides) and self.numbers == other.numbers and self.kinds == other.kinds:
            return True
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as for every mapping

    def __repr__(self) -> str:
        # Without the recipients.
        return f"<{len(self)} overrides>"


NO_OVERRIDES = Overrides({}, (), False)
"""Most rules have none, and share these."""
