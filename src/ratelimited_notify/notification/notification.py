"""One notification: what is to be sent to whom, and what it is counted as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.notification.recipient import check_field_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratelimited_notify.notification.recipient import Recipient


class Notification:
    """What is to be sent to whom, and what it is counted as.

    Arguments:
        type: the type, by which rules are found.
        recipient: who it is for, as the gateway wants it.
        args: positional arguments for the gateway, after the recipient.
        kwargs: keyword arguments for the gateway.
        priority: a name that rules may exempt.
        cost: how many hits it counts for, 1 by default.
        fields: further fields that rules may count by: channel, tenant, dedupe_key, and declared ones.
        id: what tells it from others; by default a random one.

    Raises:
        TypeError: `args` is a text, or the name of a field is none.
        NotifyError: a field is called cost or priority, which are arguments of their own.
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
                f"args= is a {args.__class__.__name__}; it must be a sequence of arguments for the gateway: one text is "
                "written ('Hello',)."
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
        """What tells it from others."""
        if self._id is None:
            from uuid import uuid4

            self._id = uuid4().hex
        return self._id

    def __repr__(self) -> str:
        # Neither the recipient nor the message: both are somebody's.
        return f"Notification({self.type!r}, ..., priority={self.priority!r}, cost={self.cost})"


def check_priority(priority: object) -> None:
    """Make sure that rules can know it by name.

    Raises:
        TypeError: it is not a text.
    """
    if not isinstance(priority, str):
        raise TypeError(f"The priority of a notification is a text or None, not a {type(priority).__name__}.")
