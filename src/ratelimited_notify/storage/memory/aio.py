"""The memory storage for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limits.aio.storage import Storage as AsyncLimitsStorage

from ratelimited_notify.storage.engine import AsyncLimitsVerbs
from ratelimited_notify.storage.memory.sync import MemoryStorage
from ratelimited_notify.storage.uri import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Request, Shortcut, Token, Verdict, Window


class AsyncMemoryStorage(AsyncLimitsVerbs, AsyncLimitsStorage):
    """A `MemoryStorage` with async methods: the same windows. The methods never wait for I/O."""

    STORAGE_SCHEME = ["async+notify+memory"]

    exact = True

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        windows: MemoryStorage | None = None,
        clock: Callable[[], float] | None = None,
        timeout: float = 0.5,
    ) -> None:
        if uri is not None:
            parse(uri, "memory")
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.windows = MemoryStorage(clock=clock, timeout=timeout) if windows is None else windows
        self.clock = self.windows.clock

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self.windows.acquire(windows, keys, cost)

    async def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        return self.windows.acquire_many(requests)

    def shortcut(self, windows: Sequence[Window], key_parts: Sequence[tuple[str, str]]) -> Shortcut | None:
        return self.windows.shortcut(windows, key_parts) if type(self) is AsyncMemoryStorage else None

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self.windows.peek(windows, keys, cost)

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self.windows.release(windows, keys, cost, tokens)

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self.windows.forget(windows, keys)

    async def pause(self, window: Window, key: str, duration: int) -> int:
        return self.windows.pause(window, key, duration)

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return self.windows.reset()

    async def close(self) -> None:
        self.windows.close()
