"""The input of `ratelimited-notify send`: JSON lines, and the messages that are made of them."""

from __future__ import annotations

import gzip
import json
from io import BytesIO

from target import Target

from ratelimited_notify import Limiter, NotifyError
from ratelimited_notify.cli.input import Input
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose

_SENDER = Mailbox("Shop", "shop@example.com")


def read(content: bytes) -> None:
    """Each line is a notification or is told; what it says is decided about, and written as a message or refused."""
    told: list[int] = []
    limiter = Limiter({"news": "1/day"}, normalize="email")
    try:
        for notification in Input(BytesIO(content), lambda number, _: told.append(number)):
            told.append(int(notification.id or 0))
            try:
                compose(_SENDER, str(notification.recipient), *notification.args, **notification.kwargs)
                limiter.test(notification.type, notification.recipient, cost=notification.cost)
            except NotifyError:
                continue
    except NotifyError:
        # It is something else than JSON lines, or ends too early.
        pass
    assert told == sorted(set(told))


_LINE = {"type": "news", "recipient": "Ana Lee <ana@example.com>", "subject": "Hello", "body": "..."}
_ALL = {
    **_LINE,
    "html": "<p>",
    "headers": {"List-Unsubscribe": "<https://example.com>"},
    "cc": ["bo@example.com"],
    "bcc": '"Lee, Ana" <ana@example.com>, bo@example.com',
    "reply_to": "zoë@exämple.com",
    "priority": "high",
    "cost": 2,
    "fields": {"tenant": "acme", "n": 5, "x": None},
}
_LINES = b"".join(json.dumps(each).encode() + b"\n" for each in (_LINE, _ALL, _LINE))

TARGETS = (
    Target(
        "notifications",
        read,
        (_LINES, json.dumps(_ALL, ensure_ascii=False).encode(), gzip.compress(_LINES), b"\xef\xbb\xbf" + _LINES),
        (
            *(f'"{key}"'.encode() for key in _ALL),
            *b'{ } [ ] : , " \\n \\u0000 \\ud800 \x1f\x8b NaN 1e999 null true'.split(),
        ),
    ),
)
