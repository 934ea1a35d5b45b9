"""What the limiter asks of a storage. Every backend in this package answers to one of the two protocols below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.windows.strategies import Request, Shortcut, Token, Verdict, VerdictLike, Window


@runtime_checkable
class WithShortcut(Protocol):
    """A storage that is so quick that what leads to it would cost more than the decision."""

    def shortcut(self, windows: Sequence[Window], key_parts: Sequence[tuple[str, str]]) -> Shortcut | None:
        """A shortcut to these windows, if there is one; `key_parts` is what each key has before and behind the recipient."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Where windows are kept. Any thread may call; each call is bounded in time and raises `StorageError` when it fails.

    `windows`, `keys` and `tokens` run in parallel: the n-th of each belongs to the same window.
    """

    exact: bool
    """True where several windows are taken all or none, hits can be given back and no race lets one too many through."""

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        """Count a hit in all windows, or in none where an enforced window has no room; never sent twice."""
        ...

    def acquire_many(self, requests: Sequence[Request]) -> Sequence[VerdictLike]:
        """`acquire` for each request, in the order given; earlier ones count for later ones."""
        ...

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        """What `acquire` would say, changing nothing."""
        ...

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        """Give back the hit of `cost` that left these tokens, wherever its window still is. True if anything was."""
        ...

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        """Empty these windows; returns how many held anything."""
        ...

    def close(self) -> None:
        """Let go of connections; the storage may not be used afterwards."""
        ...


@runtime_checkable
class AsyncStorage(Protocol):
    """The same, awaited. One object serves several event loops, one after another and at once."""

    exact: bool

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict: ...

    async def acquire_many(self, requests: Sequence[Request]) -> Sequence[VerdictLike]: ...

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict: ...

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool: ...

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int: ...

    async def close(self) -> None: ...
