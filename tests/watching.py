"""What a watcher was told, for tests about events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ratelimited_notify.instrumentation import Decided, Delivered

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation import Event

_E = TypeVar("_E")


class Told(list[Any]):
    """A callback that keeps what it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        """The events of one kind."""
        return [event for event in self if isinstance(event, kind)]

    @property
    def verdicts(self) -> list[str]:
        """What was decided, in order."""
        return [event.verdict for event in self.of(Decided)]

    @property
    def rules(self) -> list[str | None]:
        """The rules that refused, in order."""
        return [event.rule for event in self.of(Decided)]

    @property
    def statuses(self) -> list[str]:
        """What became of the notifications, in order."""
        return [event.status for event in self.of(Delivered)]

    def taken(self) -> list[Any]:
        """What was told since the last call."""
        taken = list(self)
        self.clear()
        return taken
