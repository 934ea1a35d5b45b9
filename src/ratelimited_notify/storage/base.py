"""What the limiter needs from a storage. Every backend of this package implements one of the two protocols below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimited_notify.windows.strategies import Request, Shortcut, Token, Verdict, VerdictLike, Window


@runtime_checkable
class WithShortcut(Protocol):
    """A storage so fast that the calls leading to it would cost more than the decision."""

    def shortcut(self, windows: Sequence[Window], key_parts: Sequence[tuple[str, str]]) -> Shortcut | None:
        """A shortcut to these windows, if there is one. `key_parts` holds what each key has before and after the recipient."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Where windows are kept. Any thread may call it. Every call is bounded in time and raises `StorageError` if it fails.

    `windows`, `keys` and `tokens` are parallel: the n-th items belong to the same window.
    """

    exact: bool
    """True if several windows are taken all or none, hits can be given back, and no race lets one hit too many through."""

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        """Count a hit in all windows, or in none if an enforced window has no room. Never sent twice."""
        ...

    def acquire_many(self, requests: Sequence[Request]) -> Sequence[VerdictLike]:
        """`acquire` for each request, in the given order. Earlier requests count for later ones."""
        ...

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        """The verdict that `acquire` would return, without changing anything."""
        ...

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        """Give back the hit of `cost` that these tokens identify, in every window that still exists. True if any did."""
        ...

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        """Empty these windows. Returns how many held anything. A pause that is forgotten has ended."""
        ...

    def pause(self, window: Window, key: str, duration: int) -> int:
        """Pause a rule for `duration` microseconds from now, by the clock of the storage. Returns the instant of the end.

        The window is one of the strategy `"pause"`. If it is paused for longer already, it stays so. Queries about a rule
        that can be paused contain this window, behind the rule's others and with a key of the same tag. It has the reading
        of `windows.strategies.Pause`: until the instant, count 1 and that instant as `retry_at` and `reset_at`; afterwards
        0, `FITS` and now. It never has a token, because no hit is counted in it.
        """
        ...

    def close(self) -> None:
        """Close all connections. The storage must not be used afterwards."""
        ...


@runtime_checkable
class AsyncStorage(Protocol):
    """`Storage` for asyncio. One object serves several event loops, one after another or at the same time."""

    exact: bool

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict: ...

    async def acquire_many(self, requests: Sequence[Request]) -> Sequence[VerdictLike]: ...

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict: ...

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool: ...

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int: ...

    async def pause(self, window: Window, key: str, duration: int) -> int: ...

    async def close(self) -> None: ...
