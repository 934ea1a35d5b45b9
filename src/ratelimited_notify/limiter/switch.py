"""The off switch: with it everything is sent, everywhere, and nothing is counted."""

from __future__ import annotations

import logging
import os

from ratelimited_notify.errors import NotifyError

VARIABLE = "RATELIMITED_NOTIFY_DISABLED"

_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")

_log = logging.getLogger("ratelimited_notify")


class Switch:
    """Whether limiting is off for the whole process, whatever limiters say."""

    __slots__ = ("_said", "off")

    def __init__(self) -> None:
        self.off = False
        self._said = False

    def read(self) -> bool:
        """Whether the environment turns limiting off.

        Raises:
            NotifyError: the variable is set to something that is neither yes nor no.
        """
        value = os.environ.get(VARIABLE, "").strip().lower()
        if value in _ON:
            return True
        if value in _OFF:
            return False
        raise NotifyError(f"{VARIABLE} is set to something that is neither yes nor no; use 1 or 0.")

    def log_once(self) -> None:
        """Tell the log, once in the life of the process."""
        if not self._said:
            self._said = True
            _log.warning("Rate limiting of notifications is switched off: everything is sent, nothing is counted.")


switch = Switch()
"""The one switch of this process."""
