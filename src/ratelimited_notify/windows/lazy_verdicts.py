"""Verdicts of large batches. Each verdict is computed when a caller reads it.

One object per verdict would make the garbage collector go through all of them, which takes as long as deciding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, overload

from ratelimited_notify.windows.strategies import VerdictLike

if TYPE_CHECKING:
    from collections.abc import Iterator


class LazyVerdicts(Sequence[VerdictLike]):
    """The verdicts on several requests, each computed when a caller reads it."""

    __slots__ = ("granted",)

    granted: Sequence[bool]
    """For each request, whether it was granted."""


class GroupedVerdicts(Sequence[VerdictLike]):
    """The verdicts on many requests, as groups of lazy verdicts. All groups but the last have the same length."""

    __slots__ = ("groups",)

    def __init__(self, groups: Sequence[LazyVerdicts]) -> None:
        self.groups = groups

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __iter__(self) -> Iterator[VerdictLike]:
        return chain.from_iterable(self.groups)

    @overload
    def __getitem__(self, at: int) -> VerdictLike: ...

    @overload
    def __getitem__(self, at: slice) -> list[VerdictLike]: ...

    def __getitem__(self, at: int | slice) -> VerdictLike | list[VerdictLike]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        group, place = divmod(range(len(self))[at], len(self.groups[0]))
        return self.groups[group][place]
