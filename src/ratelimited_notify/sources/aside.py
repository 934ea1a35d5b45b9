"""Refresh live rules from asyncio, beside the loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.sources.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.sources.live import LiveRules


async def refreshed(live: LiveRules) -> bool:
    """Ask the source now, and let other tasks run meanwhile.

    If it is cancelled, a source that is just being asked goes on, and what it yields comes into force.

    Returns:
        Whether the rules changed.

    Raises:
        RuleError: the source failed, or its rules cannot be used. The rules before them stay in force.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()
    stopped = StopSignal()

    def tell(how: Callable[[], None]) -> None:
        if not done.done():
            how()

    def run() -> None:
        try:
            changed = live.refresh_aside(stopped)
        except BaseException as error:  # noqa: BLE001  # handed on
            failure = error if isinstance(error, NotifyError) else NotifyError(f"{type(error).__name__} was raised.")
            how = partial(done.set_exception, failure)
        else:
            how = partial(done.set_result, changed)
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, how)

    # Not a thread of the loop's pool: the process would not exit before a source that hangs.
    thread = threading.Thread(target=copy_context().run, args=(run,), name="ratelimited-notify refresh", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise NotifyError(f"No thread can be started ({error}). Call limiter.source.refresh() instead.") from None
    try:
        return await done
    finally:
        stopped.set()
