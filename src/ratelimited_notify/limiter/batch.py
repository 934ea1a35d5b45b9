"""Batches: what to ask the storage about many notifications, and their decisions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, overload

from ratelimited_notify.limiter.decision import Decision
from ratelimited_notify.limiter.query import Query
from ratelimited_notify.rules.plan import Subject
from ratelimited_notify.windows.lazy_verdicts import GroupedVerdicts
from ratelimited_notify.windows.strategies import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.rules.plan import Variant
    from ratelimited_notify.storage.base import AsyncStorage, Storage
    from ratelimited_notify.windows.strategies import VerdictLike


class UniformBatch(Sequence[Query]):
    """Queries about many recipients that all have the same windows.

    What differs is made on demand, one part at a time, so that a storage can prepare the next part while the server
    decides the one before.
    """

    def __init__(
        self,
        type: str,
        variant: Variant,
        recipients: Sequence[Recipient],
        texts: Sequence[str],
        fields: Mapping[str, str],
        cost: int,
    ) -> None:
        self._type = type
        self._variant = variant
        self._recipients = recipients
        self._texts = texts
        self._fields = fields
        self._cost = cost

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, at: int) -> Query: ...

    @overload
    def __getitem__(self, at: slice) -> list[Query]: ...

    def __getitem__(self, at: int | slice) -> Query | list[Query]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        text = self._texts[at]
        subject = Subject(self._type, text, self._fields)
        return Query(subject, self._recipients[at], self._cost, self._variant.windows, self._variant.keys(text))

    def requests(self) -> Sequence[Request]:
        """What to ask the storage, in order."""
        return _Requests(self._variant, self._texts, self._cost) if self._variant.windows else ()

    def answers(self, verdicts: Iterable[VerdictLike], storage: Storage | AsyncStorage) -> list[Decision]:
        """The decisions from the verdicts of the storage."""
        type, cost, fields, windows = self._type, self._cost, self._fields, self._variant.windows
        subject: Sequence[Subject | str] = (
            self._texts if not fields else [Subject(type, text, fields) for text in self._texts]
        )
        if not windows:
            return [
                Decision(type, recipient, cost, True, each)
                for recipient, each in zip(self._recipients, subject, strict=True)
            ]
        receipt = (storage, None, None)
        if isinstance(verdicts, GroupedVerdicts):
            waiting = zip(self._recipients, subject, strict=True)
            return [
                Decision(
                    type, recipient, cost, granted, each, windows, None, None, receipt if granted else None, group, at
                )
                for group in verdicts.groups
                for at, (granted, (recipient, each)) in enumerate(zip(group.granted, waiting, strict=False))
            ]
        return [
            Decision(type, recipient, cost, True, each, windows, verdict, None, receipt)
            if verdict.granted
            else Decision(type, recipient, cost, False, each, windows, verdict)
            for recipient, each, verdict in zip(self._recipients, subject, verdicts, strict=True)
        ]


class _Requests(Sequence[Request]):
    def __init__(self, variant: Variant, texts: Sequence[str], cost: int) -> None:
        self._variant = variant
        self._texts = texts
        self._cost = cost

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Request]:
        return iter(self[:])

    @overload
    def __getitem__(self, at: int) -> Request: ...

    @overload
    def __getitem__(self, at: slice) -> list[Request]: ...

    def __getitem__(self, at: int | slice) -> Request | list[Request]:
        windows, cost = self._variant.windows, self._cost
        if isinstance(at, slice):
            keys = self._variant.keys_of_each(self._texts[at])
            return list(map(Request, repeat(windows), keys, repeat(cost)))
        return Request(windows, self._variant.keys(self._texts[at]), cost)


def is_uniform(notifications: Sequence[Notification]) -> bool:
    """Whether the notifications differ only in their recipients, as far as the decision is concerned."""
    first = notifications[0]
    type, cost, priority, fields = first.type, first.cost, first.priority, first.fields
    return all(
        other.type is type
        and other.cost is cost
        and other.priority is priority
        and (other.fields is fields or (not other.fields and not fields))
        for other in notifications
    )


def requests(queries: Iterable[Query]) -> Sequence[Request]:
    """What to ask the storage, in order."""
    if isinstance(queries, UniformBatch):
        return queries.requests()
    return [query.request() for query in queries if query.windows]


def queries_among(known: Sequence[Query | Decision | Exception]) -> Sequence[Query]:
    """The queries among these: what is not known without asking the storage."""
    if isinstance(known, UniformBatch):
        return known
    return [each for each in known if isinstance(each, Query)]


def merge_decisions(
    known: Sequence[Query | Decision | Exception], answers: Iterable[Decision | Exception]
) -> list[Decision | Exception]:
    """What is known, with the answers in place of the queries."""
    if isinstance(known, UniformBatch):
        return list(answers)
    upcoming = iter(answers)
    return [next(upcoming) if isinstance(each, Query) else each for each in known]
