"""Exceptions that the caller's own code raised (a signal handler, a callback) in the middle of a call to a server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_LIBRARIES = frozenset(("hiredis", "limits", "redis"))
_OURS = "ratelimited_notify.storage"


def raised_by_caller(error: BaseException) -> BaseException | None:
    """The exception in this error's chain that the caller's own code raised, if there is one.

    A signal handler that raises `TimeoutError` looks like a server that does not answer. Only the frame that raised it
    makes the difference.
    """
    seen: BaseException | None = error
    while seen is not None:
        modules = _modules(seen.__traceback__)
        if modules and not _is_library(modules[0]):
            # From here on the chain holds exceptions that the caller was already handling before this call.
            return None
        if modules and not _is_library(modules[-1]):
            return seen
        seen = seen.__context__
    return None


def _modules(traceback: TracebackType | None) -> list[str]:
    """The modules of a traceback's frames, outermost first."""
    found: list[str] = []
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    return found


def _is_library(module: str) -> bool:
    # Above the storages, what is being handled is what a gateway raised: its hit is being given back.
    if module.startswith(_OURS):
        return True
    top = module.partition(".")[0]
    return top in _LIBRARIES or top in sys.stdlib_module_names
