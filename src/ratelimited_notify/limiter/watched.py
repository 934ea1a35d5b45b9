"""How a limiter is watched: who watches it, and what it tells them."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.errors import StorageError, shown_type
from ratelimited_notify.instrumentation import registry
from ratelimited_notify.limiter.places import Places
from ratelimited_notify.storage.breaker import Circuits

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from ratelimited_notify.instrumentation.watcher import Callback, Handle, Watcher
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.options import FailurePolicy
    from ratelimited_notify.limiter.query import Query
    from ratelimited_notify.limiter.watching import Watching
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.storage.base import AsyncStorage, Storage

_S = TypeVar("_S", "Storage", "AsyncStorage")


class Watched(Places[_S], Generic[_S]):
    """The part of a limiter that tells what happens."""

    watching: Watching | None
    """What it tells, and to whom. None if nobody watches; then nothing is made or computed for it."""
    _own_watchers: tuple[Watcher, ...]
    _policy: FailurePolicy

    def watch(self, callback: Callback, *, recipients: bool = False) -> Handle:
        """Call a function for each event of this limiter, and of the notifiers and decorated functions that it decides for.

        `ratelimited_notify.instrumentation.watch` does the same for all limiters of the process.

        Arguments:
            callback: takes an event, such as `Decided` or `Delivered`. It is called in the thread of the sender, so it should be
                quick. What it raises is logged once and never reaches the sender.
            recipients: True tells the recipient too, as it is counted: normalized and pseudonymized.

        Returns:
            A handle. Its `close()` ends the watching.

        Raises:
            NotifyError: the callback cannot be called, or is a coroutine function.
        """
        from ratelimited_notify.instrumentation.watcher import Handle, Watcher

        return Handle.begun(Watcher(callback, recipients=recipients), self._add_watcher, self._remove_watcher)

    def _begin_unwatched(self) -> None:
        object.__setattr__(self, "watching", None)
        self._own_watchers = ()

    def _enroll(self) -> None:
        """Note that there is a limiter. Those who watch the process watch it from now on."""
        registry.enroll(self)
        if registry.watchers():
            self.watchers_changed()

    def _add_watcher(self, watcher: Watcher) -> None:
        self._watched_by(lambda own: (*own, watcher))

    def _remove_watcher(self, watcher: Watcher) -> None:
        self._watched_by(lambda own: tuple(each for each in own if each is not watcher))

    def _watched_by(self, changed: Callable[[tuple[Watcher, ...]], tuple[Watcher, ...]]) -> None:
        # While rules change, shortcuts are taken over that tell nobody.
        with self._editing:
            self._own_watchers = changed(self._own_watchers)
            self._watch()
        self._tell_rules()
        if self.watching is not None and self._storage is not None:
            circuits: object = getattr(self._storage, "circuits", None)
            self.watching.storage_in_use(self._policy, circuits if isinstance(circuits, Circuits) else {})

    def watchers_changed(self) -> None:
        """Note that others watch the whole process."""
        self._watched_by(lambda own: own)

    def _watch(self) -> None:
        watchers = tuple(dict.fromkeys((*registry.watchers(), *self._own_watchers)))
        watching = None
        if watchers:
            from ratelimited_notify.limiter.watching import Watching

            watching = Watching(watchers, self._backend, self._counted_as)
        # Users cannot set it.
        object.__setattr__(self, "watching", watching)
        # The shortcuts tell others from now on, or nobody.
        self.plans.forget()

    def watchers_of(self, server: str) -> tuple[Watcher, ...]:
        """Those who watch this limiter alone, if its storage uses this server."""
        circuits: object = getattr(self._storage, "circuits", ())
        return self._own_watchers if server in circuits else ()  # type: ignore[operator]  # of a storage that others wrote

    @property
    def watchers(self) -> tuple[Watcher, ...]:
        """Those who watch this limiter alone."""
        return self._own_watchers

    def _backend(self) -> str:
        """What holds the windows, in a word."""
        from ratelimited_notify.limiter.location import backend_of

        return backend_of(self._storage)

    def _told(self, decisions: list[Decision], queries: Iterable[Query] | None = None) -> list[Decision]:
        """The decisions, after they were told. `queries` are what they answer, if these may be about exempt priorities."""
        watching = self.watching
        if watching is not None:
            exempt = repeat(False) if queries is None else (query.exempt for query in queries)
            for decision, each in zip(decisions, exempt, strict=False):
                watching.decided(decision, exempt=each)
        return decisions

    def _tell_release(self, decision: Decision) -> bool:
        """Whether a hit was given back, after that was told."""
        if decision.released and self.watching is not None:
            from ratelimited_notify.instrumentation.events import Released

            released = Released(shown_type(decision.type), decision.cost, self._backend())
            self.watching.tell_about(released, decision.recipient)
        return decision.released

    def _tell_failure(self, error: StorageError, number: int = 1, policy: str | None = None) -> None:
        """Tell that the storage failed, about how many notifications it was asked, and what happens then."""
        if self.watching is not None and number:
            from ratelimited_notify.instrumentation.events import StorageFailed

            policy = self._policy if policy is None else policy
            self.watching.tell(StorageFailed(self._backend(), policy, type(error).__name__, number))

    @contextmanager
    def _telling_failure(self) -> Generator[None]:
        """Tell that the storage failed, if the block raises that. The caller gets it, whatever `on_storage_error` says."""
        try:
            yield
        except StorageError as error:
            self._tell_failure(error, policy="raise")
            raise

    def _met_unknown_type(self, type: str) -> None:
        super()._met_unknown_type(type)
        if self.watching is not None:
            from ratelimited_notify.instrumentation.events import UnknownType

            self.watching.tell(UnknownType(shown_type(type)))

    def changed(self) -> None:
        """Note that other rules are in force."""
        super().changed()
        if self.watching is not None:
            from ratelimited_notify.instrumentation.events import RulesChanged

            source = None if self._following is None else repr(self._following.live.source)
            self.watching.tell(RulesChanged(tuple(rule.name for rule in self.rules), source))
        self._tell_rules()

    def declare(self, rule: Rule) -> None:
        """Add the rule of a decorator, as `RuleLookup.declare` says."""
        super().declare(rule)
        self._tell_rules()

    def _tell_rules(self) -> None:
        if self.watching is not None:
            self.watching.rules_in_force(self.plans.every_rule())
