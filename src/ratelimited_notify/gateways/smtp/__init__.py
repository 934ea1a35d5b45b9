"""Mail over SMTP: `SMTPGateway`, and `AsyncSMTPGateway` for asyncio.

    gateway = SMTPGateway.from_uri("smtp+starttls://user:password@mail.example.com", sender="Shop <news@example.com>")
    notifier = Notifier(gateway, rules={"news": "1/day"})
    notifier.send("news", "ana@example.com", "Subject", "Body")

What a gateway raises decides whether the hit is given back. The point of no return is the first byte of the message
itself, after the server's 354 (RFC 5321, 3.3). What fails before it, and every refusal, is an `SMTPError`: the message
was not sent. A connection lost after it and before the server's last answer is a `DeliveryUnknown`. Once the server has
taken the message nothing raises.

    message.py        what is sent                  pure
    conversation.py   what is said, what it means   pure
    settings.py       where and how to connect      shared by both gateways
    sync.py, aio.py   the shells                    smtplib, aiosmtplib
"""

from __future__ import annotations

from ratelimited_notify.gateways.base import DeliveryUnknown, InvalidMessage
from ratelimited_notify.gateways.smtp.aio import AsyncSMTPGateway
from ratelimited_notify.gateways.smtp.conversation import ServerUnreachable, SMTPError
from ratelimited_notify.gateways.smtp.sync import SMTPGateway

__all__ = ["AsyncSMTPGateway", "DeliveryUnknown", "InvalidMessage", "SMTPError", "SMTPGateway", "ServerUnreachable"]
