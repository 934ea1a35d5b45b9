"""Gateways that send nothing and record what they were called with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Sent(NamedTuple):
    """One message in an outbox: its recipient, and the other arguments of the gateway."""

    # The repr shows everything, the recipient too, so that a failed assertion says what was sent: it is test data.
    recipient: object
    args: tuple[object, ...]
    kwargs: Mapping[str, object]


class _Recording(list[Sent]):
    """The common part of both outboxes."""

    error: BaseException | type[BaseException] | None = None
    """An exception that calls raise instead of recording: `outbox.error = ConnectionRefusedError()`. None ends this."""

    @property
    def recipients(self) -> list[object]:
        """The recipients of the messages, in the order in which the messages were sent."""
        return [sent.recipient for sent in self]

    def _record(self, recipient: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        if self.error is not None:
            raise self.error
        self.append(Sent(recipient, args, kwargs))


class Outbox(_Recording):
    """A gateway that sends nothing, and the list of the messages that it was called with, oldest first."""

    def __call__(self, recipient: object = None, /, *args: object, **kwargs: object) -> None:
        """Record a message, or raise `error`.

        Arguments:
            recipient: the first positional argument. None if all arguments are passed by name.
        """
        self._record(recipient, args, kwargs)


class AsyncOutbox(_Recording):
    """An `Outbox` for asyncio."""

    async def __call__(self, recipient: object = None, /, *args: object, **kwargs: object) -> None:
        """The same as `Outbox.__call__`."""
        self._record(recipient, args, kwargs)
