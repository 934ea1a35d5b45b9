"""What is needed to give a hit back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.rules.counter import Counter
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Token, VerdictLike


class Receipt(NamedTuple):
    """What a storage's `release` needs to give a hit back."""

    windows: Sequence[Counter]
    keys: Sequence[str]
    cost: int
    tokens: Sequence[Token | None]
    insured: object = None
    """What the limiter has noted about the hit because of its insurance; None if it has nothing to take back there."""


Held: TypeAlias = "tuple[Storage | AsyncStorage, Sequence[str] | None, object]"
"""The storage that took a hit, the keys if they are at hand, and what the limiter has noted because of its insurance."""

Explanation: TypeAlias = "tuple[str, Sequence[Counter], VerdictLike, Held | None]"
"""The recipient as it is counted, the windows, the verdict, and what `release` needs to give the hit back."""
