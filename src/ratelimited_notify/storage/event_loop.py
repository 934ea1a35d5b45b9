"""The event loop that a storage runs on."""

from __future__ import annotations

import asyncio

from ratelimited_notify.errors import NotifyError


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop of asyncio that is running.

    Raises:
        NotifyError: none is, because this runs under trio or in no event loop at all.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NotifyError(
            "AsyncLimiter and AsyncNotifier run on asyncio, and no event loop of asyncio is running here. Under trio, use "
            "Limiter in a thread (trio.to_thread.run_sync), or run under anyio with its asyncio backend."
        ) from None
