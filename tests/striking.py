"""An exception, or a call, at one line of those that are executed: what a signal handler does at the worst moment."""

from __future__ import annotations

import dis
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


_LEAVING = ("LOAD_CONST", "LOAD_CONST", "LOAD_CONST", "CALL")


def only_traced(frame: FrameType) -> bool:
    """Whether no signal handler runs at this line, although tracing has an event for it since Python 3.12.

    There are two such lines: a `with` statement whose block has just ended, before the call of `__exit__`, and the next round of a
    loop. What a trace function raises at a backward jump even skips the handlers around it (3.13.0); signals arrive in the jump.
    """
    at, code = frame.f_lasti, frame.f_code.co_code
    operations = tuple(dis.opname[code[each]] for each in range(at, min(at + 8, len(code)), 2))
    return sys.version_info >= (3, 12) and (operations == _LEAVING or operations[0].startswith("JUMP_BACKWARD"))


class Struck(Exception):
    """An exception that some handlers catch."""


class StruckHard(BaseException):
    """One that nothing may catch for good."""


class Striking:
    """Raises, or calls something, at one line of those that are executed in some files.

    Arguments:
        at: which of them, in the order in which they are executed; 0 only counts them.
        error: what is raised there, or called.
        files: the beginnings of the paths of the files.
    """

    def __init__(self, at: int, error: type[BaseException] | Callable[[], object], files: tuple[str, ...]) -> None:
        self.at = at
        self.error = error
        self.files = files
        self.seen = 0
        self.where = ""

    def follows(self, frame: FrameType) -> bool:
        """Whether the lines of this call count."""
        return frame.f_code.co_filename.startswith(self.files)

    def spares(self, frame: FrameType) -> bool:
        """Whether nothing can happen at this line."""
        return only_traced(frame)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if self.follows(frame) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and not self.spares(frame):
            self.seen += 1
            if self.seen == self.at:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
                if isinstance(self.error, type):
                    raise self.error
                self.error()
        return self._line

    def during(self, call: Callable[[], object]) -> BaseException | None:
        """What the call raised."""
        tracing = sys.gettrace()
        # What is raised in a finalizer goes nowhere, so none may run in between.
        gc.disable()
        sys.settrace(self)
        try:
            call()
        except BaseException as error:  # noqa: BLE001  # handed on as a value
            return error
        finally:
            sys.settrace(tracing)
            gc.enable()
        return None
