"""Messages for a server that answers and refuses: the user, the password, a command, the keys, or TLS. Pure.

A refusal is an answer. It had no effect, it does not open a circuit, and asking another server or again does not help.
"""

from __future__ import annotations

import re

from ratelimited_notify.storage.redis import options as options, stopped

# After `options`, which says what to install where redis is missing.
from redis import exceptions  # isort: skip

_LOGINS = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
)

# The server's answers to a command without a login: to a short one, to one with many arguments, to one with a long argument.
_UNAUTHENTICATED = ("Authentication required", "Protocol error: unauthenticated")

_distrust = re.compile(r"certificate verify failed: ([^(]{1,200}?)\.? *\(").search

# What OpenSSL says about a server that does not speak TLS.
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
# And about one that wants to see another certificate of the client, or one at all.
_UNKNOWN_CLIENT = ("ALERT_CERTIFICATE_REQUIRED", "ALERT_HANDSHAKE_FAILURE", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE")

PLAIN_PORT = (
    "Does this port speak TLS? If not, use redis://, redis+cluster:// or redis+sentinel://, without the second s."
)
"""A hint."""

TLS_PORT = (
    "If this port expects TLS, use rediss://, rediss+cluster:// or rediss+sentinel://. If the server requires a password, put "
    "it into the storage's URI."
)
"""A hint. A server that requires a password closes the connection if it is sent a batch without one."""


def is_login(error: object) -> bool:
    """Whether the server refused the user or the password."""
    return isinstance(error, _LOGINS) or str(error).startswith(_UNAUTHENTICATED)


def is_permission(error: object) -> bool:
    """Whether the server does not let this user run a command, or use a key."""
    return isinstance(error, exceptions.NoPermissionError)


def said(error: Exception) -> str | None:
    """The message for a refusal: what was refused and what to do; None for any other error."""
    text = str(error)
    if is_login(error):
        return f"Redis refused the user or password, so nothing was counted: {login(text)}"
    if is_permission(error):
        return f"{permission(text)} Nothing was counted."
    return tls(text)


def login(text: str) -> str:
    """Why the server refused the user or password, and what to do."""
    if "without any password configured" in text:
        return "it has no password for this user, and the storage's URI has one. Leave it out."
    if text.startswith(_UNAUTHENTICATED):
        return "it requires a password, and the storage's URI has none. Write redis://:password@host or redis://user:password@host."
    return "they are wrong, or the user is disabled. Check the credentials in the storage's URI; special characters are percent-encoded."


def permission(text: str) -> str:
    """What the server does not let this user do, and how to allow it."""
    command = stopped.refused_command(text)
    if not command:
        return (
            "The Redis user may not use the keys of the limits. Its ACL has to allow to read and write them: ~notify:* if "
            "the limiter has the default namespace=."
        )
    return (
        f"The Redis user may not run {command}. Its ACL has to allow {stopped.COMMANDS} on the keys "
        "of the limits; CLUSTER SLOTS and ASKING on a cluster; SELECT for a database other than 0."
    )


def tls(text: str) -> str | None:
    """Why there is no TLS connection, and what to do; None if it is not known that TLS is the reason."""
    distrusted = _distrust(text)
    if distrusted is not None:
        return (
            f"The certificate of the Redis server is not trusted ({distrusted[1]}), so nothing was sent. Name the file of its "
            "authority with ?ssl_ca_certs=/path/to/ca.pem, and the host as the certificate does."
        )
    text = text.upper().replace(" ", "_")
    if "_SSL" not in text:
        return None
    if any(word in text for word in _PLAIN):
        return f"This port of the Redis server does not speak TLS, so nothing was sent. {PLAIN_PORT}"
    if any(word in text for word in _UNKNOWN_CLIENT):
        return (
            "The Redis server requires a certificate of the client, or does not trust it, so nothing was counted. Name the files "
            "with ?ssl_certfile= and ?ssl_keyfile=, or set the server's tls-auth-clients to no."
        )
    return None
