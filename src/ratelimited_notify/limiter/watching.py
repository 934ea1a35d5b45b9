"""What a limiter tells those who watch it. A limiter that nobody watches has none of this.

Most decisions and deliveries are alike: of the same type, allowed, sent. What is told about them is prepared once for each type,
so that a counter costs little more than its increment.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, final

from msgspec.structs import replace

from ratelimited_notify.errors import shown_type
from ratelimited_notify.instrumentation.events import Decided, Delivered, Released, Waited
from ratelimited_notify.limiter.judgement import judged, refusing_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ratelimited_notify.instrumentation.events import Event
    from ratelimited_notify.instrumentation.watcher import Watcher
    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.notification.annotations import Recipient
    from ratelimited_notify.rules.rule import Rule
    from ratelimited_notify.windows.strategies import Outcome, Shortcut

    _Tell: TypeAlias = Callable[[], object]

_MOST_TYPES = 4096
"""What is told about so many types is prepared. With more types, all of it is prepared anew."""


@final
class Watching:
    """What a limiter tells its watchers.

    Arguments:
        watchers: those who watch the process, and those who watch this limiter.
        backend: returns the name of what holds the windows.
        counted_as: returns the string that a recipient is counted as. It may raise anything.
    """

    __slots__ = (
        "_backend", "_counted_as", "_decided", "_find_backend", "_informed", "_names_rules", "_shown", "_uninformed", "_watchers",
        "attempts", "logs_suppressions", "surrounders", "surrounds", "times_decisions", "times_deliveries",
    )  # fmt: skip

    def __init__(
        self, watchers: Sequence[Watcher], backend: Callable[[], str], counted_as: Callable[[Recipient], str]
    ) -> None:
        self._watchers = watchers
        self._informed = [watcher for watcher in watchers if watcher.recipients]
        self._uninformed = [watcher for watcher in watchers if not watcher.recipients]
        self._find_backend = backend
        self._backend = ""
        self._counted_as = counted_as
        self.times_decisions = any(watcher.times_decisions for watcher in watchers)
        """Whether to measure how long the storage takes."""
        self.times_deliveries = any(watcher.times_deliveries for watcher in watchers)
        """Whether to measure how long gateways take."""
        self.logs_suppressions = any(watcher.logs_suppressions for watcher in watchers)
        """Whether suppressed deliveries are logged, so that no line at the level DEBUG is needed."""
        self.surrounders = [watcher for watcher in watchers if watcher.surrounds]
        """Those who surround deliveries with something."""
        self.surrounds = bool(self.surrounders)
        """Whether there are some. Then no shortcut decides."""
        self._names_rules = any(watcher.names_rules for watcher in watchers)
        self.attempts: dict[str, Attempt] = {}
        """By type: what tells of a delivery, if that is the same for all deliveries of the type."""
        self._shown: dict[str, str] = {}
        # What tells of decisions that were made without a shortcut.
        self._decided: dict[tuple[object, ...], Callable[[Any], object]] = {}  # Any: seconds, or None

    def rules_in_force(self, rules: Sequence[Rule]) -> None:
        """Tell which rules are in force to those who prepare something for each."""
        for watcher in self._watchers:
            watcher.rules_in_force(rules)

    def storage_in_use(self, policy: str, circuits: Mapping[str, str]) -> None:
        """Tell which storage is in use to those who prepare something for its failures.

        Arguments:
            policy: what the limiter does if it fails.
            circuits: the state of the circuit of each server.
        """
        for watcher in self._watchers:
            watcher.storage_in_use(self.backend, policy, circuits)

    @property
    def backend(self) -> str:
        """What holds the windows, in a word."""
        if not self._backend:
            self._backend = self._find_backend()
        return self._backend

    def tell(self, event: Event) -> None:
        """Tell an event that is about no recipient."""
        for watcher in self._watchers:
            watcher.tell(event)

    def tell_about(self, event: Decided | Delivered | Released | Waited, recipient: Recipient) -> None:
        """Tell an event about this recipient. Only those who asked for recipients get it."""
        for watcher in self._uninformed:
            watcher.tell(event)
        if self._informed:
            informed = replace(event, recipient=self._counted(recipient))
            for watcher in self._informed:
                watcher.tell(informed)

    def _counted(self, recipient: Recipient) -> str | None:
        try:
            return self._counted_as(recipient)
        except Exception:  # noqa: BLE001  # `normalize` may raise anything. The sender has got that error already.
            return None

    def shown(self, type: object) -> str:
        """The type as events show it: not if it looks like a recipient."""
        if not isinstance(type, str):
            return shown_type(type)
        shown = self._shown.get(type)
        if shown is None:
            if len(self._shown) >= _MOST_TYPES:
                self._shown = {}
            shown = self._shown[type] = shown_type(type)
        return shown

    def prepared(self, event: Event) -> _Tell:
        """A function that tells an event which happens often and is about no recipient. What it raises, `raised` takes."""
        if len(self._watchers) == 1:
            return self._watchers[0].prepared(event)
        pairs = [(watcher, watcher.prepared(event)) for watcher in self._watchers]

        def tell_all() -> None:
            for watcher, tell in pairs:
                try:
                    tell()
                except Exception as error:  # noqa: BLE001  # a watcher may be somebody else's code
                    watcher.raised(error)

        return tell_all

    def raised(self, error: Exception) -> None:
        """Take what a function that was `prepared` raised. It does not reach the sender, unless a signal handler raised it."""
        # With several watchers, each of them has taken what was its fault.
        if len(self._watchers) > 1:
            raise error
        self._watchers[0].raised(error)

    def now(self) -> float:
        """The time in seconds by which the storage is measured; 0 if it is not. Windows in memory take less than a look at it."""
        return perf_counter() if self.times_decisions and self.backend != "memory" else 0.0

    def decided(self, decision: Decision, began: float = 0.0, *, exempt: bool = False) -> None:
        """Tell about a decision.

        Arguments:
            decision: the decision.
            began: when the storage was asked, by `now`; 0 if it was not asked, or if that is not measured.
            exempt: whether a rule exempts the notification and does not count it, so that the decision does not tell.
        """
        seconds = perf_counter() - began if began else None
        verdict, rule = judged(decision, exempt=exempt)
        type, cost, backend = self.shown(decision.type), decision.cost, self.backend
        degraded = decision.degraded
        if self._informed:
            self.tell_about(Decided(type, verdict, rule, degraded, cost, backend, seconds), decision.recipient)
            return
        alike = type, verdict, rule, degraded, cost, seconds is None
        tell = self._decided.get(alike)
        if tell is None:
            if len(self._decided) >= _MOST_TYPES:
                self._decided = {}
            event = Decided(type, verdict, rule, degraded, cost, backend)
            tell = self._decided[alike] = self._prepared_decision(event, timed=seconds is not None)
        try:
            tell(seconds)
        except Exception as error:  # noqa: BLE001  # it must not reach the sender
            self.raised(error)

    def _prepared_decision(self, event: Decided, *, timed: bool) -> Callable[[Any], object]:  # Any: seconds, or None
        """A function that tells this decision, and how long the storage took. It takes the seconds, or None if `timed` is False."""
        if timed and len(self._watchers) == 1:
            return self._watchers[0].prepared_decision(event)
        if timed:
            return lambda seconds: self.tell(replace(event, seconds=seconds))
        tell = self.prepared(event)
        return lambda _: tell()

    def shortcut(self, type: str, shortcut: Shortcut) -> Shortcut:
        """A shortcut that tells what it decides about notifications of this type."""
        return WatchedShortcut(shortcut, self.shown(type), self, informed=bool(self._informed))

    def attempt(self, type: str, recipient: Recipient) -> Attempt:
        """The beginning of a delivery. Say to it how the delivery ends."""
        if self.times_deliveries or self._informed:
            return TimedAttempt(self, self.shown(type), recipient)
        attempt = self.attempts.get(type)
        if attempt is None:
            if len(self.attempts) >= _MOST_TYPES:
                self.attempts = {}
            attempt = self.attempts[type] = Attempt(self, self.shown(type))
        return attempt

    def suppressed(self, type: str, recipient: Recipient, decision: Decision | None) -> None:
        """Tell that a notification is not sent, because it was refused. An error that was pickled has no decision."""
        rule = judged(decision)[1] if self._names_rules and decision is not None else None
        self.tell_about(Delivered(self.shown(type), "suppressed", rule=rule), recipient)

    def dropped(self, type: str, recipient: Recipient, outcome: Outcome) -> None:
        """Tell that a notification is not sent, because a shortcut refused it."""
        rule = _rule_of(outcome) if self._names_rules else None
        self.tell_about(Delivered(self.shown(type), "suppressed", rule=rule), recipient)

    def waited(self, type: str, recipient: Recipient, seconds: float, *, allowed: bool) -> None:
        """Tell that a notification has waited for its turn."""
        self.tell_about(Waited(self.shown(type), seconds, allowed), recipient)

    def undecided(self, type: str, recipient: Recipient, error: BaseException) -> None:
        """Tell that a notification is not sent, because there is no decision about it."""
        # The type may be what is wrong. Then it is shown as its class.
        self.tell_about(Delivered(self.shown(type), "failed", type_name(error)), recipient)


def type_name(error: BaseException) -> str:
    """The class of an exception, without its module."""
    return error.__class__.__name__


class WatchedShortcut:
    """A shortcut that tells what it decides.

    Arguments:
        shortcut: decides.
        type: the type of the notifications.
        watching: whom to tell.
        informed: whether somebody wants to know the recipients.
    """

    def __init__(self, shortcut: Shortcut, type: str, watching: Watching, *, informed: bool) -> None:
        self._type = type
        self._watching = watching
        self._backend = watching.backend
        self._refused: dict[str | None, _Tell] = {}
        make = self._telling_all if informed else self._telling
        self.decide: Callable[[str], Outcome | None] = make(shortcut.decide)

    def _telling(self, decide: Callable[[str], Outcome | None]) -> Callable[[str], Outcome | None]:
        tell_allowed = self._watching.prepared(Decided(self._type, "allowed", backend=self._backend))
        tell_refused, raised = self._tell_refused, self._watching.raised

        # A closure: attributes would take longer.
        def decide_and_tell(recipient: str) -> Outcome | None:
            outcome = decide(recipient)
            if outcome is None:
                return None
            try:
                if outcome[0]:
                    tell_allowed()
                else:
                    tell_refused(outcome)
            except Exception as error:  # noqa: BLE001  # it must not reach the sender
                raised(error)
            return outcome

        return decide_and_tell

    def _tell_refused(self, outcome: Outcome) -> None:
        rule = _rule_of(outcome)
        tell = self._refused.get(rule)
        if tell is None:
            tell = self._refused[rule] = self._watching.prepared(
                Decided(self._type, "refused", rule, backend=self._backend)
            )
        tell()

    def _telling_all(self, decide: Callable[[str], Outcome | None]) -> Callable[[str], Outcome | None]:
        type, watching, backend = self._type, self._watching, self._backend

        def decide_and_tell(recipient: str) -> Outcome | None:
            outcome = decide(recipient)
            if outcome is None:
                return None
            if outcome[0]:
                event = Decided(type, "allowed", backend=backend)
            else:
                event = Decided(type, "refused", _rule_of(outcome), backend=backend)
            watching.tell_about(event, recipient)
            return outcome

        return decide_and_tell


def _rule_of(outcome: Outcome) -> str | None:
    """The first rule that refused."""
    shortcut = outcome[-1]
    windows = shortcut.windows
    if len(windows) == 1:
        name: str = windows[0].rule
        return name
    return refusing_rule(windows, shortcut.explain(outcome).readings)


class Attempt:
    """A delivery that has begun. It does not know when, nor for whom, so that one object serves all deliveries of a type.

    Arguments:
        watching: whom to tell.
        type: the type of the notification, as it is shown.
    """

    __slots__ = ("_type", "_watching", "sent")

    def __init__(self, watching: Watching, type: str) -> None:
        self._watching = watching
        self._type = type
        self.sent: Callable[[], object] = _guarded(watching.prepared(Delivered(type, "sent")), watching)
        """Tell that it was sent."""

    def failed(self, error: BaseException | None) -> None:
        """Tell that it failed with this exception; None if it was given up before it began."""
        self._watching.tell(Delivered(self._type, "failed", None if error is None else type_name(error)))


def _guarded(tell: _Tell, watching: Watching) -> _Tell:
    """A function that tells something, and keeps from the sender what that raises."""

    # A closure, as above.
    def told() -> None:
        try:
            tell()
        except Exception as error:  # noqa: BLE001  # it must not reach the sender
            watching.raised(error)

    return told


class TimedAttempt(Attempt):
    """A delivery that has begun just now, for this recipient."""

    __slots__ = ("_began", "_recipient")

    def __init__(self, watching: Watching, type: str, recipient: Recipient) -> None:
        self._watching = watching
        self._type = type
        self._recipient = recipient
        self._began = perf_counter()

    def sent(self) -> None:
        """Tell that it was sent."""
        self._tell(Delivered(self._type, "sent", None, perf_counter() - self._began))

    def failed(self, error: BaseException | None) -> None:
        """Tell that it failed with this exception; None if it was given up before it began."""
        name = None if error is None else type_name(error)
        self._tell(Delivered(self._type, "failed", name, perf_counter() - self._began))

    def _tell(self, event: Delivered) -> None:
        self._watching.tell_about(event, self._recipient)
