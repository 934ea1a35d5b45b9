"""What the gateways of this package share: the errors that say whether a message went out.

A gateway is any callable `gateway(recipient, *args, **kwargs)`; nothing here has to be subclassed. What counts is what
it raises: a notifier gives the hit back after any error, except where the message may have gone out all the same.
"""

from __future__ import annotations

from ratelimited_notify.errors import NotifyError


class InvalidMessage(NotifyError, ValueError):
    """The message cannot be sent as it is, and nothing was: a line break in its subject, two recipients in one, ...

    The text names what is wrong, never the address.
    """


class DeliveryUnknown(NotifyError, ConnectionError):
    """The message was on its way when the connection was lost: it may arrive, or not.

    A `ConnectionError`, so a notifier keeps the hit: one message too few rather than one too many.
    """
