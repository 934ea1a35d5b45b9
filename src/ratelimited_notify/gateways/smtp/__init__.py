"""Send mail over SMTP with `SMTPGateway`, or with `AsyncSMTPGateway` for asyncio.

    gateway = SMTPGateway.from_uri("smtp+starttls://user:password@mail.example.com", sender="Shop <news@example.com>")
    notifier = Notifier(gateway, rules={"news": "1/day"})
    notifier.send("news", "ana@example.com", "Subject", "Body")

The exception decides whether the hit is given back. The point of no return is the first byte of the message itself, after
the server's 354 (RFC 5321, 3.3). A failure before it, and every refusal, is an `SMTPError`: the message was not sent. If
the connection is lost after it and before the server's last answer, the error is `DeliveryUnknown`. After the server has
accepted the message, nothing raises.

    message.py        build the message             pure
    conversation.py   commands and replies          pure
    settings.py       where and how to connect      shared by both gateways
    sync.py, aio.py   the I/O                       smtplib, aiosmtplib
"""

from __future__ import annotations

from ratelimited_notify.gateways.base import DeliveryUnknown, InvalidMessage
from ratelimited_notify.gateways.smtp.aio import AsyncSMTPGateway
from ratelimited_notify.gateways.smtp.conversation import ServerUnreachable, SMTPError
from ratelimited_notify.gateways.smtp.sync import SMTPGateway

__all__ = ["AsyncSMTPGateway", "DeliveryUnknown", "InvalidMessage", "SMTPError", "SMTPGateway", "ServerUnreachable"]
