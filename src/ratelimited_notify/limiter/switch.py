"""The off switch: it makes every limiter of the process send everything and count nothing."""

from __future__ import annotations

import os

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.log import is_logging, warning

VARIABLE = "RATELIMITED_NOTIFY_DISABLED"

_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")


class Switch:
    """Whether limiting is off for the whole process, whatever a limiter has as `enabled=`."""

    __slots__ = ("_said", "off")

    def __init__(self) -> None:
        self.off = False
        self._said = False

    def read(self) -> bool:
        """Whether the environment turns limiting off.

        Raises:
            NotifyError: the variable has a value that is neither yes nor no.
        """
        value = os.environ.get(VARIABLE, "").strip().lower()
        if value in _ON:
            return True
        if value in _OFF:
            return False
        raise NotifyError(f"{VARIABLE} has a value that means neither yes nor no; use 1 or 0.")

    def log_once(self) -> None:
        """Write to the log that limiting is off, once in the life of the process."""
        if not self._said and not is_logging():
            self._said = True
            warning("Rate limiting of notifications is switched off: everything is sent, nothing is counted.")


switch = Switch()
"""The switch of this process."""
