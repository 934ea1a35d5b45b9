"""One notification: what to send, to which recipient, and how to count it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import type_text
from ratelimited_notify.notification.recipient import check_field_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratelimited_notify.notification.annotations import Recipient


class Notification:
    """One notification, with everything that a notifier needs to decide about it and to send it.

    Arguments:
        type: the type. Rules apply to types.
        recipient: the recipient, in the form that the gateway expects.
        args: positional arguments for the gateway, after the recipient.
        kwargs: keyword arguments for the gateway.
        priority: a name that rules can exempt; None by default.
        cost: how many hits it counts for, 1 by default.
        fields: more fields that rules can count by: channel, tenant, dedupe_key, and fields that the rules declare.
        id: identifies the notification; random by default.

    Raises:
        TypeError: `args` is a single string, or the name of a field is not a string.
        NotifyError: a field is called cost or priority. These are separate arguments.
    """

    __slots__ = ("_id", "args", "cost", "fields", "kwargs", "priority", "recipient", "type")

    def __init__(
        self,
        type: str,
        recipient: Recipient,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        *,
        priority: str | None = None,
        cost: int = 1,
        fields: Mapping[str, Recipient | None] | None = None,
        id: str | None = None,
    ) -> None:
        if args.__class__ is not tuple and isinstance(args, (str, bytes)):
            raise TypeError(
                f"args= is a {args.__class__.__name__}; it must be a sequence of arguments for the gateway. "
                "For one argument, write ('Hello',)."
            )
        if fields:
            check_field_names(fields)
        self.type = type
        self.recipient = recipient
        self.args = args
        self.kwargs: Mapping[str, object] = {} if kwargs is None else kwargs
        self.priority = priority
        self.cost = cost
        self.fields: Mapping[str, Recipient | None] = {} if fields is None else fields
        self._id = id

    @property
    def id(self) -> str:
        """Identifies the notification."""
        if self._id is None:
            from uuid import uuid4

            self._id = uuid4().hex
        return self._id

    def __repr__(self) -> str:
        # Without the recipient and the message, which are personal data.
        return f"Notification({type_text(self.type)}, ..., priority={self.priority!r}, cost={self.cost})"


def check_priority(priority: object) -> None:
    """Check the type of a priority.

    Raises:
        TypeError: the priority is not a string.
    """
    if not isinstance(priority, str):
        from ratelimited_notify.callables import if_unawaited

        said = f"The priority of a notification must be a string or None, not {type(priority).__name__}."
        raise TypeError(f"{said} {if_unawaited(priority)}".rstrip())
