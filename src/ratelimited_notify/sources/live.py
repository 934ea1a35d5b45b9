"""Live rules: a source, the rules of it that are in force, and the limiters that go by them."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, cast
from weakref import WeakSet, ref

from ratelimited_notify.disposal import let_go
from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.forking import forkable, in_children
from ratelimited_notify.log import lines_held, warning

# The first two are loaded now: if a process forks while the thread of a source loads a module, the child can never load it.
from ratelimited_notify.rules import difference as difference, override_notation as override_notation
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.rules.ruleset import RuleSet
from ratelimited_notify.sources.asking import asking
from ratelimited_notify.sources.base import RefreshedHere, RuleSource, checked
from ratelimited_notify.sources.callbacks import Callbacks
from ratelimited_notify.sources.emptiness import check_not_empty
from ratelimited_notify.sources.explaining import explained_by, explained_in_force
from ratelimited_notify.sources.follower import may_accept
from ratelimited_notify.sources.load import fallback_from
from ratelimited_notify.sources.refreshing import Refresher
from ratelimited_notify.sources.rejection import tell_rejection
from ratelimited_notify.sources.status import LiveState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimited_notify.sources.callbacks import OnChange
    from ratelimited_notify.sources.follower import Follower
    from ratelimited_notify.sources.status import SourceStatus
    from ratelimited_notify.sources.stop_signal import StopSignal

_START_AGAIN = 30.0
"""Seconds until it is tried again to start a thread, where none could be started."""

_PATIENCE = 1.0
"""Seconds until a thread that waits for another one looks whether it is still needed."""

_NO_RULES = RuleSet()


class LiveRules(RefreshedHere):
    """The rules of a source, kept up to date by one thread. You get it as `limiter.source`.

    The thread starts with the first decision, never keeps the process from exiting, and ends when all limiters that go by the
    rules are closed or gone. A forked child starts its own.
    """

    def __init__(self, source: RuleSource) -> None:
        self.source = source
        """The source of the rules."""
        # These may be taken again: a signal handler may refresh, or decide, wherever its thread is.
        self.editing = forkable(threading.RLock())
        """Held while the rules of those that follow change, but not while the source is asked."""
        self._state: LiveState = LiveState()
        self._said: str | None = None
        # Replaced as a whole by the thread that holds `editing`, so that every thread can read it.
        self._followers: tuple[ref[Follower], ...] = ()
        # Whether a version that could not be used may be usable by now.
        self._again = False
        self._refusing: ref[Follower] | None = None
        # Held while the source is asked. A decision never waits for it.
        self._refreshing = forkable(threading.RLock())
        self._callbacks = Callbacks(self._refreshing, self.editing)
        self._starting = forkable(threading.RLock())
        self._refresher: Refresher | None = None
        self._start_after = 0.0
        _all.add(self)

    def __repr__(self) -> str:
        return f"<LiveRules of {self.source!r}>"

    @property
    def rules(self) -> RuleSet:
        """The rules in force."""
        rules = self._state.rules
        return _NO_RULES if rules is None else rules

    @property
    def status(self) -> SourceStatus:
        """What is known about the source at this moment."""
        return self._state.at(time.monotonic())

    def first(self) -> RuleSet:
        """Load the rules for the first time, or return those in force.

        Raises:
            RuleError: the source failed or its rules cannot be used, it has no fallback, and it is not to start without rules.
        """
        if self._state.rules is not None:
            # Without waiting for a source that is just being asked.
            return self.rules
        with lines_held(), asking(self._refreshing, self.editing) as is_asking:
            if is_asking and self._state.rules is None:
                options = self.source.options
                fallback = None if options.fallback is None else fallback_from(options.fallback)
                try:
                    self._refresh(Exception)
                except NotifyError as error:
                    if fallback is None and options.wait:
                        raise
                    self._fail(error)
                    self._state = self._state._replace(rules=fallback or _NO_RULES)
        self._callbacks.tell(Exception)
        return self.rules

    def refresh(self) -> bool:
        """Ask the source now, in this thread.

        Returns:
            Whether the rules changed. False also if another thread is just asking, and waits for what a signal handler interrupted.

        Raises:
            RuleError: the source failed, or its rules cannot be used. The rules before them stay in force.
        """
        self._again = True
        try:
            with lines_held(), asking(self._refreshing, self.editing) as is_asking:
                try:
                    return is_asking and self._refresh(Exception)
                except NotifyError as error:
                    self._fail(error)
                    raise
        finally:
            self._callbacks.tell(Exception)

    def attempt(self, stopped: StopSignal) -> None:
        """Ask the source now, in the thread that keeps the rules up to date. A failure is logged and shown by `status`."""
        with suppress(NotifyError):
            self.refresh_aside(stopped, again=False)

    def refresh_aside(self, stopped: StopSignal, *, again: bool = True) -> bool:
        """`refresh` in a thread of this library, which nothing may end: no exception of the source or a callback.

        Arguments:
            stopped: ends waiting for another thread that is just asking.
            again: whether to load a version again that could not be used.
        """
        if again:
            self._again = True
        try:
            with lines_held():
                while not self._refreshing.acquire(timeout=_PATIENCE):
                    if stopped.is_set():
                        return False
                try:
                    return not stopped.is_set() and self._refresh(BaseException)
                except NotifyError as error:
                    self._fail(error)
                    raise
                except BaseException as error:
                    # A document that is no plain one, say, or `normalize=` of a limiter.
                    failure = RuleError(
                        f"The rules of {self.source!r} cannot be used: {type(error).__name__} was raised."
                    )
                    self._fail(failure)
                    raise failure from error
                finally:
                    self._refreshing.release()
        finally:
            self._callbacks.tell(BaseException)

    def on_change(self, callback: OnChange) -> Callable[[], None]:
        """Call a function after each change of the rules, in the thread that noticed it.

        Arguments:
            callback: takes the rules before, the rules after, and the changes in words. What it raises is logged.

        Returns:
            A function that ends this.
        """
        return self._callbacks.add(callback)

    def follow(self, follower: Follower) -> None:
        """Put these rules and every change of them in force for this follower, as long as it lives and does not `leave`.

        Raises:
            NotifyError: it cannot go by the rules in force. It gets the next ones all the same.
        """
        if self._state.rules is None:
            self._begin()
        with explained_in_force(self.source, self.status), self.editing:
            self._followers = *(each for each in self._followers if each() not in (None, follower)), ref(follower)
            if late := follower.rules is not self.rules:
                follower.prepared(self.rules)()
        if late:
            follower.changed()

    def leave(self, follower: Follower) -> None:
        """Follow the rules no longer. When the last follower has left, the thread ends and the source is closed."""
        with self.editing:
            self._followers = tuple(each for each in self._followers if each() not in (None, follower))
            self._again = True
        if not self._followers:
            self.close()

    def close(self) -> None:
        """End the thread, and close the source. The next decision starts both again."""
        refresher, self._refresher, self._start_after = self._refresher, None, 0.0
        if refresher is not None:
            refresher.stop()
        for follower in self._following():
            follower.forget_shortcuts()
        try:
            self.source.close()
        except Exception as error:  # noqa: BLE001  # the source is somebody else's code and may raise anything
            warning("Closing %r raised %s.", self.source, type(error).__name__)

    @property
    def unreached(self) -> int:
        """How many attempts in a row have not reached the source."""
        return self._state.unreached

    @property
    def running(self) -> bool:
        """Whether the thread runs in this process."""
        refresher = self._refresher
        return refresher is not None and refresher.runs

    def start(self) -> None:
        """Start the thread, unless it runs. Where it cannot be started, that is logged, and tried again later."""
        if time.monotonic() < self._start_after:
            return
        with self._starting:
            if self.running:
                return
            self._refresher = refresher = Refresher(self)
            refresher.start()
            if not refresher.begun:
                self._start_after = time.monotonic() + _START_AGAIN
        refresher.warn_if_hindered()

    def keeps(self, refresher: Refresher) -> bool:
        """Whether this thread is the one that keeps the rules up to date, and a limiter goes by them."""
        with self._starting:
            if self._refresher is not refresher or self._following():
                return self._refresher is refresher
            self._refresher = None
        # Somebody may have come meanwhile.
        for follower in self._following():
            follower.forget_shortcuts()
        return False

    def forked(self) -> None:
        """Forget the thread in a forked child, where it does not run."""
        self._refresher, self._start_after = None, 0.0
        for follower in self._following():
            follower.forget_shortcuts()

    def _following(self) -> list[Follower]:
        return [follower for each in self._followers if (follower := each()) is not None]

    def _begin(self) -> None:
        """Load the rules for those that were made while limiting was switched off. A failure is only logged."""
        try:
            self.first()
        except NotifyError as error:
            with lines_held(), asking(self._refreshing, self.editing) as is_asking:
                if is_asking:
                    self._fail(error)
                    self._state = self._state._replace(rules=_NO_RULES)

    def _refresh(self, caught: type[BaseException]) -> bool:
        """Ask the source.

        Arguments:
            caught: what somebody else's code may raise. In a thread of a user, a signal handler's exception is passed on.
        """
        loaded = self._loaded(caught)
        if loaded is None:
            self._state = self._state.reached()
            if (refusal := self._state.refusal) is not None:
                raise refusal.error()
            self._succeed()
            return False
        self._state = self._state._replace(unreached=0)
        version, document = loaded
        try:
            with explained_by(self.source):
                rules = rule_set_of(document)
            parts = list(cast("list[object]", document.get("rules", [])))
            del loaded, document
            let_go(parts)
            return self._accept(version, rules)
        except NotifyError as error:
            self._state = self._state.refusing(version, error)
            raise

    def _accept(self, version: str, rules: RuleSet) -> bool:
        state, before = self._state, self._state.rules
        if before is not None and rules == before:
            self._state = state._replace(version=version, refused=None)
            self._succeed()
            return False
        check_not_empty(self.source, before, rules)
        with explained_by(self.source):
            self._put_in_force(state._replace(rules=rules, version=version, refused=None, loaded_at=time.time()), rules)
        self._succeed()
        if before is not None:
            self._callbacks.note(before, rules)
        return True

    def _put_in_force(self, state: LiveState, rules: RuleSet) -> None:
        """Put rules in force for all followers or for none: what one of them cannot use, none of them gets."""
        with self.editing:
            followers = self._following()
            # Nothing keeps the first ones if one of them refuses.
            ready = [self._prepared(follower, rules) for follower in followers]
            self._refusing = None
            try:
                self._state = state
                for put_in_force in ready:
                    put_in_force()
            except BaseException:
                # A signal handler raised. What was begun is finished, so that all go by the same rules.
                self._state = state
                for put_in_force in ready:
                    put_in_force()
                raise
        for follower in followers:
            follower.changed()

    def _prepared(self, follower: Follower, rules: RuleSet) -> Callable[[], None]:
        self._refusing = ref(follower)
        return follower.prepared(rules)

    def _catch_up(self) -> None:
        """Put the rules in force for followers that an exception left behind."""
        for follower in self._following():
            if follower.rules is not self.rules:
                # One that cannot use them said so when it was asked.
                with suppress(NotifyError):
                    self.follow(follower)

    def _loaded(self, caught: type[BaseException]) -> tuple[str, Mapping[str, object]] | None:
        source, state = self.source, self._state
        if again := self._again or may_accept(self._refusing):
            self._again, self._refusing = False, None
        try:
            loaded: object = source.load(state.version if state.refused is None else None if again else state.refused)
        except RuleError as error:
            self._state = state._replace(unreached=0)
            raise RuleError(error.problems, source.place or None) from error.__cause__
        except NotifyError:
            self._state = state._replace(unreached=state.unreached + 1)
            raise
        except caught as error:
            self._state = state._replace(unreached=state.unreached + 1)
            # The source is somebody else's code, and its message may hold a password or an address.
            raise RuleError(f"{source!r} failed with {type(error).__name__}.") from error
        return None if loaded is None else checked(source, loaded)

    def _succeed(self) -> None:
        self._state = self._state._replace(
            checked=time.monotonic(), checked_at=time.time(), error=None, problems=(), failures=0
        )
        self._catch_up()
        if self._said is not None:
            self._said = None
            warning("The rules are loaded from %r again.", self.source)

    def _fail(self, error: NotifyError) -> None:
        said, failures = str(error), self._state.failures + 1
        problems = error.problems if isinstance(error, RuleError) else ()
        self._state = self._state._replace(error=said, problems=problems, failures=failures)
        self._callbacks.note_rejection(lambda: tell_rejection(self.source, self._following, said, len(problems)))
        if said != self._said and failures > self.source.patience:
            # Once per change, however long it lasts.
            self._said = said
            what = "The rules in force stay" if self.rules else "No rules are in force, so nothing is limited"
            warning("%s, because new ones cannot be used or loaded: %s", what, said)


_all: WeakSet[LiveRules] = WeakSet()


def _forked() -> None:
    for live in list(_all):
        live.forked()


in_children(_forked)

_makings = forkable(threading.RLock())


def live_rules_of(source: RuleSource) -> LiveRules:
    """The live rules of a source: the same for all limiters that were made with this source."""
    with _makings:
        live = None if source.live is None else source.live()
        if live is None:
            live = LiveRules(source)
            source.live = ref(live)
        return live
