"""Open the gateway of a URI, or make the one that replaces it in a dry run."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.gateways.smtp import SMTPGateway
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose
from ratelimited_notify.gateways.smtp.settings import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.gateways.smtp.mailbox import Addresses

_KNOWN = f"Use {', '.join(f'{scheme}://host:port' for scheme in SCHEMES)}."
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}").fullmatch


def default_sender() -> str:
    """The default address that messages come from: the name of this command at the name of this host."""
    return f"ratelimited-notify@{socket.gethostname() or 'localhost'}"


def open_gateway(uri: str, sender: str) -> SMTPGateway:
    """Make the gateway for a URI. It does not connect yet.

    Raises:
        NotifyError: there is no gateway for the scheme, or the URI or the sender is invalid. The message never quotes
            the URI.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or not _SCHEME(scheme):
        raise NotifyError(f"The value of --gateway is not a URI. {_KNOWN}")
    if scheme.lower() not in SCHEMES:
        raise NotifyError(f"There is no gateway for {scheme}://. {_KNOWN}")
    return SMTPGateway.from_uri(uri, sender=sender)


class Rehearsal:
    """A gateway that builds each message, to find the invalid ones, but sends nothing.

    Raises:
        NotifyError: the sender is not an e-mail address.
    """

    counted_as = staticmethod(SMTPGateway.counted_as)

    def __init__(self, sender: str) -> None:
        self._sender = Mailbox.parse(sender, "the sender")

    def __call__(
        self,
        recipient: str,
        subject: str,
        body: str,
        *,
        headers: Mapping[str, str] | None = None,
        html: str | None = None,
        cc: Addresses = (),
        bcc: Addresses = (),
        reply_to: Addresses = (),
    ) -> None:
        """Build the message."""
        compose(self._sender, recipient, subject, body, headers=headers, html=html, cc=cc, bcc=bcc, reply_to=reply_to)
