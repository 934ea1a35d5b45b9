"""Errors that the gateways of this package share. They say whether a message was sent.

A gateway is any callable `gateway(recipient, *args, **kwargs)`; there is no base class to inherit from. A gateway reports
failure by raising. The notifier gives the hit back after an error, unless the message may have been sent anyway.

A class of gateways can have a method `counted_as(recipient)`, which returns what a notifier counts the recipient as. The
gateway itself gets the recipient unchanged.
"""

from __future__ import annotations

from ratelimited_notify.errors import NotifyError


class InvalidMessage(NotifyError, ValueError):
    """The message is invalid and was not sent, for example because of a line break in a header or two recipients.

    The error message says what is wrong. It never contains the address.
    """


class DeliveryUnknown(NotifyError, ConnectionError):
    """The connection was lost while the message was being sent. The message may or may not arrive.

    Because this is a `ConnectionError`, a notifier keeps the hit: one message too few rather than one too many.
    """
