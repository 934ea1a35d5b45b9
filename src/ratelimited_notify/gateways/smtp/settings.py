"""The connection settings of an SMTP gateway, validated once. Shared by the sync and the async gateway."""

from __future__ import annotations

import ipaddress
import re
import ssl
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypedDict
from urllib.parse import unquote, urlsplit

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.gateways.smtp.conversation import SMTPError
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose
from ratelimited_notify.notification.address import NamedAddress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, Unpack

    from ratelimited_notify.gateways.smtp.mailbox import Addresses
    from ratelimited_notify.gateways.smtp.message import Letter
    from ratelimited_notify.notification.annotations import Recipient

TLS: TypeAlias = Literal["starttls", "implicit"]
"""Encryption: `"starttls"` from the STARTTLS command on, `"implicit"` from the first byte."""

GOODBYE_SECONDS = 1.0
"""The longest wait for the answer to QUIT, in seconds."""

SCHEMES: dict[str, TLS | None] = {"smtp": None, "smtp+starttls": "starttls", "smtps": "implicit"}
"""The URI schemes of a gateway, in lower or upper case, and the encryption that each of them selects."""

_PORTS: dict[TLS | None, int] = {None: 25, "starttls": 587, "implicit": 465}
# `urlsplit` normalizes the URI, which is slow if it is long. A host has at most 253 characters.
_LONGEST_URI = 8192
_HOST = re.compile(r"[^\s/@\x00-\x1f\x7f]+").fullmatch


class Options(TypedDict, total=False):
    """The keyword arguments that `from_uri` passes on."""

    timeout: float
    connections: int
    tls_context: ssl.SSLContext | None
    local_hostname: str | None
    plaintext_login: bool


class SMTPSettings:
    """The common part of `SMTPGateway` and `AsyncSMTPGateway`. `SMTPGateway` documents the arguments."""

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        sender: str,
        username: str | None = None,
        password: str | None = None,
        tls: TLS | None = None,
        timeout: float = 60.0,
        connections: int = 4,
        tls_context: ssl.SSLContext | None = None,
        local_hostname: str | None = None,
        plaintext_login: bool = False,
    ) -> None:
        if tls not in _PORTS:
            raise NotifyError("tls= must be 'starttls', 'implicit' or None")
        self.tls = tls
        self.host = _host(host, "host")
        self.port = _PORTS[tls] if port is None else _whole(port, "port", 65_535)
        self.timeout = _seconds(timeout)
        self._connections = _whole(connections, "connections=", 1_000)
        self._local_hostname = None if local_hostname is None else _host(local_hostname, "local_hostname=")
        self._sender = Mailbox.parse(sender, "the sender")
        self._login = self._credentials(username, password)
        if self._login and tls is None and not plaintext_login and not _is_loopback(host):
            raise NotifyError(
                "The password would cross the network unencrypted. Use smtps:// or smtp+starttls:// (tls='implicit' or "
                "tls='starttls'), or allow it with plaintext_login=True."
            )
        self._tls_context = (tls_context or ssl.create_default_context()) if tls else None
        self._place = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._closed = False
        self._prepare()

    def _prepare(self) -> None:
        """Prepare the connection pools. Subclasses override this."""

    @classmethod
    def from_uri(cls, uri: str, *, sender: str, **options: Unpack[Options]) -> Self:
        """Make a gateway from a URI.

        Arguments:
            uri: `smtp://host:port` (not encrypted, default port 25), `smtp+starttls://` (encrypted from the STARTTLS
                command on, or nothing is sent; default port 587) or `smtps://` (encrypted from the first byte; default
                port 465). If the server needs a login, put `user:password@` before the host, with special characters
                percent-encoded.
            sender: the address that messages come from, as for the class. You can pass the other keyword arguments of
                the class too.

        Raises:
            NotifyError: the URI or an option is invalid. The message never quotes the URI.
        """
        parts = _split(uri)
        if isinstance(parts, str):
            raise NotifyError(f"The SMTP URI cannot be used: {parts}.")
        return cls(
            parts.host,
            parts.port,
            sender=sender,
            username=parts.username,
            password=parts.password,
            tls=parts.tls,
            **options,
        )

    @staticmethod
    def counted_as(recipient: Recipient) -> Recipient:
        """What a notifier counts this recipient as: the address, without a name and without space around it."""
        return NamedAddress.split(recipient).address if isinstance(recipient, str) else recipient

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r}, {self.port}, tls={self.tls!r})"

    def _credentials(self, username: str | None, password: str | None) -> tuple[str, str] | None:
        if username is None and password is None:
            return None
        if not isinstance(username, str) or not isinstance(password, str) or not username:
            raise NotifyError("pass both username and password, as strings, or neither of them")
        return username, password

    def _letter(
        self,
        recipient: str,
        subject: str,
        body: str,
        headers: Mapping[str, str] | None,
        html: str | None,
        cc: Addresses,
        bcc: Addresses,
        reply_to: Addresses,
    ) -> Letter:
        letter = compose(
            self._sender, recipient, subject, body, headers=headers, html=html, cc=cc, bcc=bcc, reply_to=reply_to
        )
        self._check_open()
        return letter

    def _check_open(self) -> None:
        if self._closed:
            raise SMTPError("The SMTP gateway is closed; nothing was sent.")


class _Parts(NamedTuple):
    tls: TLS | None
    host: str
    port: int | None
    username: str | None
    password: str | None

    def __repr__(self) -> str:
        # A tool may show the variables of a traceback.
        return "<_Parts>"


def _split(uri: str) -> _Parts | str:
    """Parse the URI; return its parts, or a message that says what is wrong.

    Nothing is raised, because the errors of `urlsplit` quote the URI.
    """
    encode = "percent-encode special characters in the user and the password"
    if not isinstance(uri, str):
        return f"it must be a string, not {type(uri).__name__}"
    if len(uri) > _LONGEST_URI:
        return f"it is longer than {_LONGEST_URI:,} characters"
    if not uri.isprintable() or " " in uri:
        return "it contains spaces, line breaks or control characters"
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
        username = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
    except ValueError:
        return f"its host, port or login is invalid; {encode}"
    if parts.scheme not in SCHEMES:
        return "it must begin with smtp://, smtp+starttls:// or smtps://"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return f"nothing may come after the port; {encode}"
    if not host:
        return "it has no host; write smtp://host:port"
    return _Parts(SCHEMES[parts.scheme], host, port, username, password)


def _host(text: object, what: str) -> str:
    if not isinstance(text, str) or not _HOST(text):
        raise NotifyError(f"{what} must be a host name or an IP address")
    return text


def _whole(number: object, what: str, most: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= most:
        raise NotifyError(f"{what} must be a whole number from 1 to {most}")
    return number


def _seconds(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < inf:
        raise NotifyError("timeout= must be a finite number of seconds above 0")
    return float(number)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
