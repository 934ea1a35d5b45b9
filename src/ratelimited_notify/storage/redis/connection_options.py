"""The options of connections: which of them a URI may have, how it writes them, and which numbers are allowed. Pure."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.storage.timeout import ALLOWED, is_timeout
from ratelimited_notify.storage.uri import MOST_DATABASES, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimited_notify.storage.uri import Kind

MOST_CONNECTIONS = 4096
"""The most connections of one storage, also for a given pool without a limit of its own (in redis-py before 8 it is 2^31)."""

_decimal = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?").fullmatch
_whole = re.compile(r"-?[0-9]{1,20}").fullmatch

_TRUE = frozenset(("true", "yes", "1", "t", "y"))
_FALSE = frozenset(("false", "no", "0", "f", "n"))


class _Number(NamedTuple):
    """The numbers that an option may have."""

    allowed: str
    """For the message."""
    fits: Callable[[Any], bool]  # Any: the value that the caller passed
    optional: bool = False
    """Whether None, the default, may be passed."""
    whole: bool = True


def _whole_number(least: int, most: int, *, optional: bool = False) -> _Number:
    def fits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return _Number(f"a whole number from {least} to {most}", fits, optional)


def _is_interval(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


_SECONDS = _Number(ALLOWED, is_timeout, optional=True, whole=False)

_NUMBERS: Mapping[str, _Number] = {
    "timeout": _SECONDS,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "health_check_interval": _Number("a number of seconds, 0 or more", _is_interval, whole=False),
    "max_connections": _whole_number(1, MOST_CONNECTIONS, optional=True),
    "db": _whole_number(0, MOST_DATABASES - 1, optional=True),
    "port": _whole_number(1, 65535),
    "socket_read_size": _whole_number(1, 2**24),
    "protocol": _whole_number(2, 3, optional=True),
    # ssl.TLSVersion has these numbers for TLS 1.0 to TLS 1.3.
    "ssl_min_version": _whole_number(769, 772, optional=True),
}

_SWITCHES = frozenset(("ssl", "socket_keepalive", "ssl_check_hostname", "retry_on_timeout", "decode_responses"))

# Programs share a URI with other clients, so it may have these, although replies are not decoded here.
_ENCODINGS = {"encoding": ("utf-8", "utf8"), "encoding_errors": ("strict",)}

_TEXTS = frozenset(
    (
        *("username", "password", "client_name", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs"),
        *("ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_ciphers"),
    )
)

_OF_URIS = sorted({*_NUMBERS, *_SWITCHES, *_ENCODINGS, *_TEXTS} - {"port"})


def check_numbers(options: Mapping[str, Any]) -> None:  # Any: whatever redis-py takes
    """Check the options that are numbers.

    Raises:
        NotifyError: one of them is not allowed. The message says what is.
    """
    for name, number in _NUMBERS.items():
        if name not in options:
            continue
        value = options[name]
        if not (number.fits(value) or (value is None and number.optional)):
            raise NotifyError(f"{name}= of the Redis storage must be {number.allowed}.")


def from_uri(options: Mapping[str, str], kind: Kind) -> dict[str, Any]:  # Any: as above
    """The options of a URI, with their values.

    Raises:
        NotifyError: there is no such option, or its value is not allowed.
    """
    return {name: _value(name, text, kind) for name, text in options.items()}


def _value(name: str, text: str, kind: Kind) -> Any:  # Any: as above
    if name in _TEXTS:
        return text
    if name in _SWITCHES:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise refused(kind, f"its option {name} must be true or false")
    if name in _ENCODINGS:
        if text.lower() in _ENCODINGS[name]:
            return text
        raise refused(kind, f"its option {name} must be {_ENCODINGS[name][0]}")
    number = _NUMBERS.get(name)
    if number is None or name == "port":
        # The unknown name is not shown: it may be part of a password.
        meant = get_close_matches(name, _OF_URIS, n=1)
        raise refused(
            kind,
            "an option in it is unknown"
            + (f" (is {meant[0]} meant?)" if meant else "")
            + f"; a URI may have {', '.join(_OF_URIS)}, and all others are arguments of the storage's class",
        )
    value: float | None = None
    if number.whole:
        value = int(text) if _whole(text) else None
    elif _decimal(text):
        value = float(text)
    if value is None or not number.fits(value):
        raise refused(kind, f"its option {name} must be {number.allowed}")
    return value
