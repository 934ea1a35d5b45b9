"""The decisions from what the storage answers, and from its failure."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratelimited_notify.errors import StorageError
    from ratelimited_notify.limiter.failures import StorageFailures
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.refusals import RefusalCache
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import Shortcut, VerdictLike

_S = TypeVar("_S", "Storage", "AsyncStorage")


class Answers(Watched[_S], Generic[_S]):
    """The part of a limiter that makes decisions from the verdicts of the storage. Nothing here asks the storage."""

    _failures: StorageFailures
    _refusals: RefusalCache | None
    _to: Callable[..., Shortcut | None] | None
    """Returns shortcuts, if the storage has some; otherwise None."""

    @property
    @abstractmethod
    def storage(self) -> _S:
        """The storage in use."""

    @property
    def raises(self) -> bool:
        """Whether a failure of the storage raises an error. If not, `on_storage_error` decides."""
        return self._policy == "raise"

    def _hit_decision(self, query: Query, verdict: VerdictLike) -> Decision:
        """The decision about a hit. A refusal is remembered if `remember_refusals` is on."""
        if self._failures.uncounted.event.ongoing:
            self._log_counted_again()
        if self._refusals is not None and query.asked is not None:
            self._refusals.remember(query.windows, query.keys, query.cost, verdict, query.asked)
        decision = self._decision(query, verdict)
        if self.watching is not None:
            self.watching.decided(decision, query.began, exempt=query.exempt)
        return decision

    def _decision(self, query: Query, verdict: VerdictLike) -> Decision:
        """The decision from the verdict on a hit."""
        granted = verdict.granted
        return Decision(
            query.subject.type, query.recipient, query.cost, granted,
            subject=query.subject, windows=query.windows, verdict=verdict,
            receipt=(self.storage, query.keys, None) if granted else None,
        )  # fmt: skip

    def _test_decision(self, query: Query, verdict: VerdictLike) -> Decision:
        """The decision from the verdict on a test, which took nothing that could be given back."""
        subject = query.subject
        return Decision(
            subject.type, query.recipient, query.cost, verdict.granted,
            subject=subject, windows=query.windows, verdict=verdict,
        )  # fmt: skip

    def _unlimited(self, query: Query) -> Decision:
        return Decision(query.subject.type, query.recipient, query.cost, True, subject=query.subject)

    def _failed(self, queries: Sequence[Query], error: StorageError, *, tested: bool = False) -> list[Decision]:
        """The decisions that `on_storage_error` makes when the storage failed. Nothing is said about those about tests."""
        self._tell_failure(error, sum(1 for query in queries if query.windows))
        if self.raises:
            try:
                raise error
            finally:
                del error  # Otherwise it and this frame, which is in its traceback, keep each other alive.
        allowed = self._policy == "allow"
        if not tested:
            self._log_uncounted(sum(1 for query in queries if query.windows), str(error))
        decisions = [
            Decision(query.subject.type, query.recipient, query.cost, allowed, subject=query.subject, error=str(error))
            if query.windows
            else self._unlimited(query)
            for query in queries
        ]
        return decisions if tested else self._told(decisions, queries)

    def _log_uncounted(self, number: int, cause: str) -> None:
        if number:
            self._failures.uncounted.happened(cause, number)
            self._go_the_long_way()

    def _log_counted_again(self) -> None:
        uncounted = self._failures.uncounted
        uncounted.ended()
        if uncounted.event.ongoing:
            # It is too early for another line.
            self._go_the_long_way()

    def _go_the_long_way(self) -> None:
        # A decision by the shortcut of a storage cannot notice that it is the first one that is counted again.
        if self._to is not None:
            self.plans.forget()

    @property
    def failures(self) -> StorageFailures:
        """What the log says while the storage fails."""
        return self._failures

    def _decisions(self, queries: Sequence[Query], verdicts: Iterable[VerdictLike]) -> list[Decision]:
        """The decisions about all queries. There are verdicts only for those that have windows."""
        if self._failures.uncounted.event.ongoing and any(query.windows for query in queries):
            self._log_counted_again()
        from ratelimited_notify.limiter.batch import UniformBatch

        if isinstance(queries, UniformBatch):
            return self._told(queries.answers(verdicts, self.storage))
        upcoming = iter(verdicts)
        return self._told(
            [self._decision(query, next(upcoming)) if query.windows else self._unlimited(query) for query in queries],
            queries,
        )

    def _decisions_without_storage(
        self, queries: Sequence[Query], error: StorageError
    ) -> Sequence[Decision | Exception]:
        """The result of each query when the storage failed."""
        if not self.raises:
            return self._failed(queries, error)
        self._tell_failure(error, sum(1 for query in queries if query.windows))
        return [error if query.windows else self._told([self._unlimited(query)], [query])[0] for query in queries]
