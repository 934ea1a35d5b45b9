"""When to stop asking a storage server that does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimited_notify.errors import NotifyError


@dataclass(frozen=True, slots=True)
class Circuit:
    """When to stop asking a server that does not answer, and when to try it again.

    Arguments:
        failures: how many time-outs or lost connections in a row open the circuit, 3 by default.
        pause: seconds from one PING to the next while it is open, 0.5 by default.

    Raises:
        NotifyError: one of them cannot be used.
    """

    failures: int = 3
    pause: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise NotifyError("Circuit(failures=…) must be a whole number of at least 1, such as 3.")
        if isinstance(self.pause, bool) or not isinstance(self.pause, (int, float)) or not 0 < self.pause < 3600:
            raise NotifyError("Circuit(pause=…) must be a number of seconds above 0 and below 3600, such as 0.5.")


DEFAULT: Final = Circuit()
"""What a storage uses unless you say otherwise."""
