"""Get a document by HTTP, within a time."""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from ratelimited_notify._version import __version__
from ratelimited_notify.errors import NotifyError

WITHIN = 5.0
"""Seconds that an answer may take."""

_LARGEST = 64 * 1024 * 1024
_PART = 64 * 1024


class Unanswered(NotifyError):
    """There is no usable answer. The message says why, and does not contain the URL."""


class Address:
    """The address of a document. Its text has no password and no query: both may be secret.

    Arguments:
        url: an http or https URL, which may have `user:password@` before the host.
        option: the option that it was given with, for the message.

    Raises:
        NotifyError: it is no such URL.
    """

    def __init__(self, url: str, option: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = parts = None
        if parts is None or not host or parts.scheme not in ("http", "https"):
            raise NotifyError(f"{option} must be an http or https URL, such as http://localhost:9090.")
        place = f"[{host}]" if ":" in host else host
        place += "" if port is None else f":{port}"
        self._url = urllib.parse.urlunsplit((parts.scheme, place, parts.path, parts.query, ""))
        self._text = urllib.parse.urlunsplit((parts.scheme, place, parts.path, "", ""))
        self._login: str | None = None
        if parts.username is not None:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._login = base64.b64encode(login.encode()).decode()

    def __str__(self) -> str:
        return self._text

    def under(self, path: str, **query: str) -> Address:
        """The address of a document under this one."""
        parts = urllib.parse.urlsplit(self._url)
        made = Address.__new__(Address)
        made._login = self._login
        made._text = self._text
        made._url = urllib.parse.urlunsplit(
            (parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{path}", urllib.parse.urlencode(query), "")
        )
        return made

    def get(self, accept: str) -> bytes:
        """The document.

        Raises:
            Unanswered: there is no answer in time, or it is an error.
        """
        deadline = time.monotonic() + WITHIN
        request = urllib.request.Request(  # noqa: S310  # the scheme is http or https
            self._url, headers={"Accept": accept, "User-Agent": f"ratelimited-notify/{__version__}"}
        )
        if self._login is not None:
            # Not sent to another host that this one may redirect to.
            request.add_unredirected_header("Authorization", f"Basic {self._login}")
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as answer:  # noqa: S310  # likewise
                return _read(answer, deadline)
        except urllib.error.HTTPError as error:
            error.close()
            raise Unanswered(f"answers with HTTP status {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unanswered(_why(error)) from None


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(_PART):
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise Unanswered(f"answers with more than {_LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def _why(error: Exception) -> str:
    """Why there is no answer. The message of the system, which shows no URL."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"does not answer within {WITHIN:g} seconds"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"cannot be trusted: {reason.verify_message}"
    if isinstance(reason, OSError) and reason.strerror:
        return f"cannot be reached: {reason.strerror}"
    return "does not answer as HTTP does"
