"""How a limiter is watched: who watches it, and what it tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from ratelimited_notify.errors import HIDDEN_TYPE, type_text
from ratelimited_notify.instrumentation import registry
from ratelimited_notify.limiter.places import Places
from ratelimited_notify.storage.breaker import Circuits

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.errors import StorageError
    from ratelimited_notify.instrumentation.watcher import Callback, Handle, Watcher
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.limiter.options import OnStorageError
    from ratelimited_notify.limiter.watching import Watching
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.storage.base import AsyncStorage, Storage

_S = TypeVar("_S", "Storage", "AsyncStorage")


class Watched(Places[_S], Generic[_S]):
    """The part of a limiter that tells what happens."""

    watching: Watching | None
    """What it tells, and to whom. None if nobody watches; then nothing is made or computed for it."""
    _own_watchers: tuple[Watcher, ...]
    _on_storage_error: OnStorageError

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
            self.watching.storage_in_use(self._on_storage_error, circuits if isinstance(circuits, Circuits) else {})

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

    def _told(self, decisions: list[Decision]) -> list[Decision]:
        """The decisions, after they were told."""
        watching = self.watching
        if watching is not None:
            for decision in decisions:
                watching.decided(decision)
        return decisions

    def _tell_release(self, decision: Decision) -> bool:
        """Whether a hit was given back, after that was told."""
        if decision.released and self.watching is not None:
            from ratelimited_notify.instrumentation.events import Released

            self.watching.tell_about(Released(decision.type, decision.cost, self._backend()), decision.recipient)
        return decision.released

    def _tell_failure(self, error: StorageError, number: int = 1) -> None:
        """Tell that the storage failed, and about how many notifications it was asked."""
        if self.watching is not None:
            from ratelimited_notify.instrumentation.events import StorageFailed

            self.watching.tell(StorageFailed(self._backend(), self._on_storage_error, type(error).__name__, number))

    def _met_unknown_type(self, type: str) -> None:
        super()._met_unknown_type(type)
        if self.watching is not None:
            from ratelimited_notify.instrumentation.events import UnknownType

            # A type that looks like a recipient is probably one, and is in no event.
            self.watching.tell(UnknownType(HIDDEN_TYPE if type_text(type) == HIDDEN_TYPE else type))

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
