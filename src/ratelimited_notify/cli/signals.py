"""Signals that end a run: they are handled like Ctrl-C, and the last steps of a run are not disturbed by them."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What service managers send, and what a terminal that is closed sends."""


@contextmanager
def terminable() -> Generator[None, None, None]:
    """Let these signals raise `KeyboardInterrupt`, unless they are ignored, as under `nohup`."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with _handled({number: interrupt for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN}):
        yield


@contextmanager
def undisturbed() -> Generator[None, None, None]:
    """Ignore Ctrl-C and these signals."""
    with _handled(dict.fromkeys((signal.SIGINT, *_ENDING), signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: dict[int, Callable[..., object] | signal.Handlers]) -> Generator[None, None, None]:
    if threading.current_thread() is not threading.main_thread():
        # Python can set signal handlers only in the main thread.
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
