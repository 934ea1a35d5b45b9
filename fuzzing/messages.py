"""E-mail addresses, and everything that becomes a header of a message or of an HTTP response."""

from __future__ import annotations

import re
from email.utils import formataddr

from target import Target

from ratelimited_notify import Limiter, NotifyError, Rule
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose
from ratelimited_notify.notification.recipient import email

_SENDER = Mailbox("Shop", "shop@example.com")
_FIELD = re.compile(rb"([!-9;-~]+):").match
_BETWEEN = "\x1f"
"""Between the parts of a message. No part can hold it."""
_PARTS = 8

_WRITTEN = {
    *(b"from", b"to", b"cc", b"subject", b"date", b"message-id", b"reply-to", b"mime-version", b"content-type"),
    b"content-transfer-encoding",
}
"""The headers that a message has whatever the caller says."""


def read_address(content: bytes) -> None:
    """An address is counted, and sent to, as one; or it is refused."""
    text = content.decode("utf-8", "surrogateescape")
    counted = email(text)
    assert email(counted) == counted
    for parse in (Mailbox.parse, Mailbox.parse_all):
        try:
            parse(text, "the recipient")
        except NotifyError as error:
            assert len(text) < 8 or text not in str(error)
    try:
        letter = compose(_SENDER, text, "S", "B", cc=text, reply_to=text)
    except NotifyError:
        return
    for address in (letter.recipient, *letter.copies):
        assert address.isprintable()
        assert not set(address) & set(' ,<>"')


def read_message(content: bytes) -> None:
    """A message has the headers that it should have and no others, or it is refused; a decision's headers are one line each."""
    parts = content.decode("utf-8", "surrogateescape").split(_BETWEEN)
    subject, name, value, sender, recipient, copy, body, html = (*parts, *[""] * _PARTS)[:_PARTS]
    _check_response(subject or "news")
    try:
        letter = compose(
            Mailbox.parse(sender, "the sender"),
            recipient,
            subject,
            body,
            headers={name: value} if name else None,
            html=html or None,
            cc=copy or (),
            bcc=copy or (),
            reply_to=copy or (),
        )
    except NotifyError:
        return
    head = letter.content.partition(b"\r\n\r\n")[0]
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert b"\r" not in head.replace(b"\r\n", b"")
    for line in head.split(b"\r\n"):
        # A folded line goes on with a space.
        if not line.startswith((b" ", b"\t")):
            field = _FIELD(line)
            assert field is not None
            assert field[1].lower() in _WRITTEN | {name.encode("utf-8", "surrogateescape").lower()}


def _check_response(name: str) -> None:
    try:
        limiter = Limiter([Rule("news", "1/day; 2/hour", name=name)])
    except NotifyError:
        return
    for _ in range(2):
        for value in limiter.hit("news", "ana").headers(ratelimit=True).values():
            assert value.isascii()
            assert value.isprintable()


_ADDRESSES = tuple(
    text.encode()
    for text in (
        "ana@example.com",
        "Ana Lee <ana@example.com>",
        '"Lee, \\"Ana\\"" <ana@example.com>, bo@example.com',
        formataddr(("Zoë", "ana@example.com")),
        "zoë@exämple.com",
        "<ANA@EXAMPLE.COM >",
        "=?utf-8?b?WsOr?= <a@b.c>",
    )
)
_MESSAGES = (
    _BETWEEN.join(
        ("Hello", "X-Tag", "value", "Shop <shop@example.com>", "ana@example.com", "bo@example.com", "Body", "<p>")
    ).encode(),
    _BETWEEN.join(
        (
            "Hëllo " * 30,
            "List-Unsubscribe",
            "<https://example.com/" + "x" * 900 + ">",
            "s@example.com",
            "zoë@exämple.com",
        )
    ).encode(),
)
_WORDS = (
    *b'< > @ , ; : " \\ ( ) =?utf-8?q?=0ABcc:_x?= =?utf-7?q?+AAo-?= =?idna?q?xn--?= =?punycode?b?AA==?= =?hex?q?00?= xn--'.split(),
    *(
        text.encode()
        for text in ("\u2028", "\x85", "\uff20", "\uff0c", "\u0338", "\u0130", "\u212b", "\u00df", "\u200d", _BETWEEN)
    ),
    b"\r\nBcc: x@example.com",
    b"\n ",
)

TARGETS = (
    Target("e-mail address", read_address, _ADDRESSES, _WORDS),
    Target("message", read_message, _MESSAGES, (*_WORDS, *_ADDRESSES)),
)
