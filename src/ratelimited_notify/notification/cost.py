"""The cost of a notification: the number of hits that it counts for."""

from __future__ import annotations

from ratelimited_notify.errors import NotifyError

LARGEST_AMOUNT = 1_000_000_000
"""The largest amount of a limit, and the largest cost of a hit."""

ONE = 1
"""The default cost. Most costs are this one, and Python has a single object for it, so `is` finds it."""


def checked_cost(cost: object) -> int:
    """The cost as a plain `int`.

    Raises:
        TypeError: the cost is not a whole number.
        NotifyError: the cost is not between 1 and `LARGEST_AMOUNT`.
    """
    if isinstance(cost, bool) or not isinstance(cost, int):
        from ratelimited_notify.callables import if_unawaited

        raise TypeError(
            f"The cost of a notification must be a whole number, not {type(cost).__name__}. {if_unawaited(cost)}".rstrip()
        )
    if not 1 <= cost <= LARGEST_AMOUNT:
        # Python refuses to convert very long numbers to text.
        said = f"is {cost}" if abs(cost) < 10**20 else "has too many digits"
        raise NotifyError(f"The cost of a notification {said}; it must be 1 to {LARGEST_AMOUNT:,}.")
    return int(cost)
