"""How many hits one notification counts for."""

from __future__ import annotations

from ratelimited_notify.errors import NotifyError

LARGEST_AMOUNT = 1_000_000_000
"""The largest amount of a limit, and the largest cost of a hit."""

ONE = 1
"""The cost of a hit by default, and mostly: Python has one object for it."""


def checked_cost(cost: object) -> int:
    """The cost as a plain number.

    Raises:
        TypeError: it is not a whole number.
        NotifyError: it is out of 1 to `LARGEST_AMOUNT`.
    """
    if isinstance(cost, bool) or not isinstance(cost, int):
        raise TypeError(f"The cost of a notification is a whole number, not a {type(cost).__name__}.")
    if not 1 <= cost <= LARGEST_AMOUNT:
        # Python refuses to write out very many digits.
        said = f"is {cost}" if abs(cost) < 10**20 else "has too many digits"
        raise NotifyError(f"The cost of a notification {said}; it must be 1 to {LARGEST_AMOUNT:,}.")
    return int(cost)
