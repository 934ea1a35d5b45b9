"""The answers to very many requests, so that each costs next to nothing until somebody looks at it.

An object for each answer would have the garbage collector go through all of them, which takes as long as deciding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, overload

from ratelimited_notify.windows.strategies import VerdictLike

if TYPE_CHECKING:
    from collections.abc import Iterator


class LazyVerdicts(Sequence[VerdictLike]):
    """The answers to several requests, each of them made when somebody asks for it."""

    __slots__ = ("granted",)

    granted: Sequence[bool]
    """Whether it was, for each of them."""


class GroupedVerdicts(Sequence[VerdictLike]):
    """The answers to many requests, on pages of one length but the last."""

    __slots__ = ("pages",)

    def __init__(self, pages: Sequence[LazyVerdicts]) -> None:
        self.pages = pages

    def __len__(self) -> int:
        return sum(map(len, self.pages))

    def __iter__(self) -> Iterator[VerdictLike]:
        return chain.from_iterable(self.pages)

    @overload
    def __getitem__(self, at: int) -> VerdictLike: ...

    @overload
    def __getitem__(self, at: slice) -> list[VerdictLike]: ...

    def __getitem__(self, at: int | slice) -> VerdictLike | list[VerdictLike]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        page, place = divmod(range(len(self))[at], len(self.pages[0]))
        return self.pages[page][place]
