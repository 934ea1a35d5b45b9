"""What a limiter does about its insurance, apart from asking it. Most limiters have none, and load no code for it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.answers import Answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratelimited_notify.errors import StorageError
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.insurance import Answer, Insurance
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.receipt import Receipt
    from ratelimited_notify.storage.base import AsyncStorage, Storage

_S = TypeVar("_S", "Storage", "AsyncStorage")


class Degrading(Answers[_S], Generic[_S]):
    """The part of a limiter that makes decisions of its insurance. Nothing here asks a storage."""

    _is_insured: bool

    @abstractmethod
    def _found_insurance(self) -> Insurance[_S]:
        """The insurance. Ask for it only if there is one."""

    @property
    def insurance(self) -> _S | None:
        """The storage that decides while the other one fails. None if `on_storage_error` is no storage, and as long as limiting
        is off.

        It is also a storage of `limits`.
        """
        return self._found_insurance().storage if self._is_insured and self._storage is not None else None

    def _insured(self, queries: Sequence[Query], answer: Answer, *, tested: bool = False) -> list[Decision]:
        """The decisions from the answers of the storage, or of the insurance.

        Raises:
            StorageError: both failed.
        """
        error = answer.error
        if error is None:
            decisions = (
                [self._hit_decision(queries[0], answer.verdicts[0])]
                if len(queries) == len(answer.verdicts) == 1
                else self._decisions(queries, answer.verdicts)
            )
            for number, note in answer.notes:
                decisions[number].note_insured(note)
            return decisions
        number = sum(1 for query in queries if query.windows)
        self._tell_failure(error, number)
        if answer.failed is not None:
            try:
                raise answer.failed from error
            finally:
                del answer, error  # Otherwise they and this frame, which is in the traceback, keep each other alive.
        if not tested:
            self._log_uncounted(number, str(error))
        decisions = self._found_insurance().decisions(queries, answer, self._unlimited, tested=tested)
        return decisions if tested else self._told(decisions, queries)

    def _undecided(self, queries: Iterable[Query], error: StorageError) -> list[Decision | Exception]:
        """The result of each query when both the storage and the insurance failed."""
        return [error if query.windows else self._told([self._unlimited(query)], [query])[0] for query in queries]

    def _receipt(self, decision: Decision) -> Receipt | None:
        """What `release` needs to give a hit back, the first time it is asked for.

        Raises:
            NotifyError: another storage allowed it.
        """
        granted_by = decision.granted_by
        if granted_by is not None and granted_by is not (self.insurance if decision.degraded else self.storage):
            raise NotifyError("The decision was made by a limiter with another storage. Release it with that limiter.")
        return decision.take_receipt()
