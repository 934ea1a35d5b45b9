"""What watchers are told: one frozen, typed event for each thing that happens.

No event shows a recipient, except to those who ask for it with `recipients=True`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

VerdictName: TypeAlias = Literal[
    "allowed", "refused", "exempt", "would_refuse", "unlimited", "failed_open", "failed_closed"
]
"""What was decided, and why.

- `allowed`: all rules allow it.
- `refused`: a rule refuses it.
- `exempt`: its priority is exempt from a rule, and no other rule refuses it.
- `would_refuse`: it may be sent, but a rule in shadow mode would refuse it.
- `unlimited`: no rule applies, or limiting is off.
- `failed_open`: the storage failed, and `on_storage_error="allow"` allowed it.
- `failed_closed`: the storage failed, and `on_storage_error="deny"` refused it.
"""

DeliveryStatus: TypeAlias = Literal["sent", "suppressed", "failed", "deferred"]
"""What became of a message, in the words of `Status`."""


class Event(Struct, frozen=True):
    """The base of all events."""


class Decided(Event, frozen=True):
    """A limiter decided about a notification that somebody wants to send. `test` makes no event."""

    type: str
    """The type of the notification."""
    verdict: VerdictName
    """What was decided, and why."""
    rule: str | None = None
    """The first rule, in the order of the rules, that refuses it or would refuse it. `decision.blocked_by` is the window that
    holds it longest, so it can name another rule."""
    degraded: bool = False
    """Whether the insurance decided, because the storage failed."""
    cost: int = 1
    """How many hits it counts as."""
    backend: str = "memory"
    """What holds the windows: `memory`, `redis`, `redis+cluster`, `redis+sentinel`, `memcached`, `sqlite`, or the class of a
    storage of your own."""
    seconds: float | None = None
    """How long the storage took. None in memory, in a batch, and if the storage was not asked."""
    recipient: str | None = None
    """The recipient as it is counted: normalized and pseudonymized. Only for watchers with `recipients=True`."""


class Delivered(Event, frozen=True):
    """A notifier or a decorated function is done with a notification."""

    type: str
    """The type of the notification."""
    status: DeliveryStatus
    """What became of it."""
    error: str | None = None
    """The class of the exception, if it failed."""
    seconds: float | None = None
    """How long the gateway, or the function, took. None if it was not called, or if no watcher measures it."""
    rule: str | None = None
    """If it is suppressed, the first rule that refuses it, as in `Decided`. None if no rule does, or if no watcher asks."""
    recipient: str | None = None
    """As for `Decided`."""


class Released(Event, frozen=True):
    """A hit was given back."""

    type: str
    cost: int
    """How many hits it counted as."""
    backend: str
    """As for `Decided`."""
    recipient: str | None = None
    """As for `Decided`."""


class Waited(Event, frozen=True):
    """A notification waited for its turn, because of `on_limit="wait"`."""

    type: str
    seconds: float
    """How long it waited."""
    allowed: bool
    """Whether it may be sent now. False if the wait was given up."""
    recipient: str | None = None
    """As for `Decided`."""


class UnknownType(Event, frozen=True):
    """A limiter met a type for the first time that no rule names."""

    type: str


class StorageFailed(Event, frozen=True):
    """A storage failed. While its circuit is open, each question to it fails."""

    backend: str
    """As for `Decided`."""
    policy: str
    """What the limiter does then: its `on_storage_error`, or `insurance` if that is a storage. What decides about no notification raises in any case: `release`,
    `windows`, `clear`, `pause` and `resume`. That is `raise`."""
    error: str
    """The class of the exception."""
    number: int = 1
    """How many notifications it was about."""


class CircuitOpened(Event, frozen=True):
    """A server did not answer several times in a row. It is not asked until it answers a PING."""

    server: str
    """Its address, as in `storage.circuits`."""


class CircuitClosed(Event, frozen=True):
    """A server answers again."""

    server: str
    """Its address, as in `storage.circuits`."""


class RulesChanged(Event, frozen=True):
    """A limiter goes by other rules."""

    rules: tuple[str, ...]
    """The names of the rules in force, in order."""
    source: str | None = None
    """The source that they come from; None if they were assigned."""


class RulesRejected(Event, frozen=True):
    """A source of rules failed, or has rules that cannot be used. The rules before them stay in force."""

    source: str
    """The source."""
    problems: int
    """How many problems were found; 0 if the source failed in another way."""
    error: str
    """What is wrong, as in `source.status.error`."""
