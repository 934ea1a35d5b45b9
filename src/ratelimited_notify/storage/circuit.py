"""When to stop sending requests to a storage server that does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimited_notify.errors import NotifyError


@dataclass(frozen=True, slots=True)
class Circuit:
    """When to stop sending requests to a server that does not answer, and when to try it again.

    Arguments:
        failures: how many time-outs or lost connections in a row open the circuit, 3 by default.
        pause: seconds between two PINGs while the circuit is open, 0.5 by default.

    Raises:
        NotifyError: an argument is out of range.
    """

    failures: int = 3
    pause: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise NotifyError("Circuit(failures=…) must be a whole number of at least 1, such as 3.")
        if isinstance(self.pause, bool) or not isinstance(self.pause, (int, float)) or not 0 < self.pause < 3600:
            raise NotifyError("Circuit(pause=…) must be a number of seconds above 0 and below 3600, such as 0.5.")


DEFAULT: Final = Circuit()
"""The circuit that a storage uses by default."""
