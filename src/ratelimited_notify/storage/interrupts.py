"""Exceptions of the caller's own, raised by a signal handler or a callback in the middle of a call to a server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_LIBRARIES = frozenset(("hiredis", "limits", "ratelimited_notify", "redis"))


def of_the_caller(error: BaseException) -> BaseException | None:
    """The exception that the caller's own code raised on the way to this one, if it did.

    A signal handler that raises `TimeoutError` looks like a server that does not answer, but for the frame that it comes from.
    """
    seen: BaseException | None = error
    while seen is not None:
        modules = _modules(seen.__traceback__)
        if modules and not _is_library(modules[0]):
            # What the caller was dealing with when it called.
            return None
        if modules and not _is_library(modules[-1]):
            return seen
        seen = seen.__context__
    return None


def _modules(traceback: TracebackType | None) -> list[str]:
    """Where the frames of a traceback are, outermost first."""
    found: list[str] = []
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        traceback = traceback.tb_next
    return found


def _is_library(module: str) -> bool:
    return module in _LIBRARIES or module in sys.stdlib_module_names
