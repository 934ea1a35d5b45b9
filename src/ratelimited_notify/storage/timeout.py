"""The longest time that a decision waits for a storage, and which values it may have."""

from __future__ import annotations

from typing import cast

from ratelimited_notify.errors import NotifyError

MOST_SECONDS = 3600

ALLOWED = f"a number of seconds above 0 and below {MOST_SECONDS}"
"""For messages."""


def is_timeout(value: object) -> bool:
    """Whether the value can be used as a time-out in seconds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < MOST_SECONDS


def checked_timeout(value: object, name: str = "timeout") -> float:
    """The time-out.

    Arguments:
        value: seconds.
        name: the name of the argument, for the message.

    Raises:
        NotifyError: it is no number, or not in range.
    """
    if not is_timeout(value):
        raise NotifyError(f"{name}= must be {ALLOWED}, such as 0.5.")
    return cast("float", value)
