"""When a batch is given up because the storage fails."""

from __future__ import annotations

from ratelimited_notify.errors import StorageError


class FailureBudget:
    """Ends a batch that the storage does not decide: after two groups in a row have failed, it is not asked again.

    Arguments:
        endless: True never ends it, for batches that have no end.
    """

    __slots__ = ("_endless", "_failed", "_last")

    def __init__(self, *, endless: bool = False) -> None:
        self._endless = endless
        self._failed = 0
        self._last: StorageError | None = None

    def check(self) -> None:
        """Raise an error if two groups in a row have failed."""
        if self._last is not None and self._failed > 1:
            raise StorageError(
                "The two groups of this batch before failed, so the storage was not asked about this one, and nothing was "
                f"counted. The last failure: {self._last}",
                nothing_counted=True,
            )

    def answered(self) -> None:
        """The storage decided a group."""
        self._failed = 0

    def failed(self, error: StorageError) -> None:
        """The storage failed to decide a group."""
        if not self._endless:
            self._failed, self._last = self._failed + 1, error


ENDLESS = FailureBudget(endless=True)
