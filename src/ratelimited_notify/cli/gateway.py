"""The gateway that a URI names, and what takes its place in a dry run."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.gateways.smtp import SMTPGateway
from ratelimited_notify.gateways.smtp.message import Mailbox, compose
from ratelimited_notify.gateways.smtp.settings import SCHEMES

if TYPE_CHECKING:
    from collections.abc import Callable

_KNOWN = f"Known are {', '.join(f'{scheme}://host:port' for scheme in SCHEMES)}."
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}").fullmatch


def default_sender() -> str:
    """The address that messages come from where none is given: this command on this host."""
    return f"ratelimited-notify@{socket.gethostname() or 'localhost'}"


def open_gateway(uri: str, sender: str) -> SMTPGateway:
    """The gateway that a URI names; nothing is connected yet.

    Raises:
        NotifyError: no gateway is of that name, or the URI or the sender cannot be used; the text never quotes the URI.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or not _SCHEME(scheme):
        raise NotifyError(f"The gateway is not a URI. {_KNOWN}")
    if scheme.lower() not in SCHEMES:
        raise NotifyError(f"There is no gateway for {scheme}://. {_KNOWN}")
    return SMTPGateway.from_uri(uri, sender=sender)


def rehearsal(sender: str) -> Callable[[str, str, str], None]:
    """A gateway that makes each message, so that those which cannot be sent are found, and sends none.

    Raises:
        NotifyError: the sender is not an address.
    """
    mailbox = Mailbox.parse(sender, "the sender")

    def rehearse(recipient: str, subject: str, body: str) -> None:
        compose(mailbox, recipient, subject, body)

    return rehearse
