"""The table of outcomes: what an exception says about the message, row by row.

A row is about one exception, without what is behind it. `outcome.py` looks along its causes.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, cast

from ratelimited_notify.errors import NotifyError, SendFailed
from ratelimited_notify.limiter.responses import attribute, grpc_code, grpc_details, status_of
from ratelimited_notify.limiter.retried import earlier_attempts, frames, was_retried

if TYPE_CHECKING:
    from collections.abc import Callable


class Outcome(Enum):
    """What an exception says about the message."""

    NEVER_CONNECTED = "was not sent: no connection was made"
    NOT_SENT = "was not sent"
    SENT = "was sent"
    UNKNOWN = "may have been sent"
    WRAPPED = "may have been sent, unless its causes all say that no connection was made"

    @property
    def kept(self) -> bool:
        """Whether the hit stays counted."""
        return self not in (Outcome.NEVER_CONNECTED, Outcome.NOT_SENT)


class Row(NamedTuple):
    """One row of the table."""

    key: str
    raised: str
    """What the gateway raised, in words."""
    outcome: Outcome
    names: tuple[str, ...] = ()
    """Classes, by their own name or the name of a base class: `Name` of any library, or `library.Name`.

    Clients are not imported: most of them are not installed. Their classes share nothing but their names.
    """
    matches: Callable[[BaseException], bool] = lambda error: False


def _interrupts(error: BaseException) -> bool:
    return not isinstance(error, Exception)


def _refused_by_us(error: BaseException) -> bool:
    # `DeliveryUnknown` is a `ConnectionError`.
    return isinstance(error, NotifyError) and not isinstance(error, (SendFailed, ConnectionError))


_LOST = frozenset((errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ESHUTDOWN, errno.ETIMEDOUT))


def _refused_by_system(error: BaseException) -> bool:
    if _is_ssl(error):
        # Its reason does not tell: that of a server without TLS is also that of a connection that broke later.
        return any(frame.f_code.co_name == "do_handshake" for frame in frames(error))
    return isinstance(error, OSError) and (
        isinstance(error, ConnectionRefusedError) or error.errno == errno.ECONNREFUSED
    )


def _lost(error: BaseException) -> bool:
    if isinstance(error, (TimeoutError, EOFError)) or _is_ssl(error):
        return True
    if isinstance(error, OSError) and error.errno in _LOST:
        return True
    # `ConnectionError` itself is what people raise for everything: another row looks inside.
    return isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError))


def _is_ssl(error: BaseException) -> bool:
    # By its name, because importing `ssl` takes longer than importing this package.
    return "ssl.sslerror" in names_of(error)


def _tornado_is_connecting(error: BaseException) -> bool:
    # All its time-outs are one class. Only the message tells them apart.
    phases = (
        "Timeout while connecting",
        "Timeout while resolving",
        "Timeout in request queue",
        "Timeout during TLS handshake",
    )
    return "tornado.httptimeouterror" in names_of(error) and str(error).startswith(phases)


def _curl_is_connecting(error: BaseException) -> bool:
    # Its error is a class for everything, with libcurl's number: of a proxy or host that cannot be resolved, of a refused
    # connection, of a failed handshake, of a certificate that is not trusted.
    return "pycurl.error" in names_of(error) and error.args[:1] in ((5,), (6,), (7,), (35,), (60,))


def _grpc_is_unreachable(error: BaseException) -> bool:
    unreachable = ("failed to connect to all addresses", "dns resolution failed", "name resolution failure")
    return grpc_code(error) == "UNAVAILABLE" and grpc_details(error).startswith(unreachable)


def _grpc_failed(error: BaseException) -> bool:
    return grpc_code(error) is not None


_GRPC_REFUSED = frozenset(
    (
        "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "OUT_OF_RANGE", "UNIMPLEMENTED", "UNAUTHENTICATED",
    )
)  # fmt: skip


def _grpc_refused(error: BaseException) -> bool:
    # If the answer is too large for the client, this is RESOURCE_EXHAUSTED too.
    return grpc_code(error) in _GRPC_REFUSED and "received message larger" not in grpc_details(error)


def _retried(error: BaseException) -> bool:
    attempts = earlier_attempts(error)
    rows = [row_of(attempt) for attempt in attempts if isinstance(attempt, BaseException)]
    never_connected = [row for row in rows if row is not None and row.outcome is Outcome.NEVER_CONNECTED]
    return len(never_connected) < len(attempts) or was_retried(error)


_CODE = re.compile(r"[a-z0-9_]+").fullmatch


def _slack_error(error: BaseException) -> object:
    """The code of the error that Slack gives in an answer with the status 200; None if this is no such answer."""
    if "slacksdk.slackapierror" not in names_of(error) or status_of(error) != 200:
        return None
    response = attribute(error, "response")
    for answer in (response, attribute(response, "data")):
        if isinstance(answer, Mapping):
            return cast("Mapping[str, object]", answer).get("error")
    return None


def _slack_refused(error: BaseException) -> bool:
    said = _slack_error(error)
    if not isinstance(said, str) or said in ("fatal_error", "internal_error", "service_unavailable"):
        return False
    return _CODE(said) is not None  # slack_sdk puts an answer that it cannot read there


def _unreadable_status(error: BaseException) -> bool:
    # aiohttp gives an answer that it cannot parse the status 400.
    return "aiohttp.httpprocessingerror" in names_of(error.__cause__)


def _answered(accepted: Callable[[int], bool]) -> Callable[[BaseException], bool]:
    def matches(error: BaseException) -> bool:
        status = status_of(error)
        return status is not None and accepted(status)

    return matches


def _successful(error: BaseException) -> bool:
    # If `failed=` says that such a response is a failure, it knows better.
    return not isinstance(error, SendFailed) and _answered(lambda status: 200 <= status < 300)(error)


def _says(*parts: str) -> Callable[[BaseException], bool]:
    return lambda error: any(part in name for name in names_of(error) for part in parts)


def _is_exactly(name: str) -> Callable[[BaseException], bool]:
    # For a class whose subclasses say something else.
    return lambda error: _with_library(type(error)) == _plain(name)


def _any(*matches: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    return lambda error: any(each(error) for each in matches)


TABLE = (
    Row(
        "interrupted",
        "a cancellation, an interrupt, anything that is not an `Exception`",
        Outcome.UNKNOWN,
        matches=_interrupts,
    ),
    Row(
        "time limit",
        "the end of a job's time, or of its worker",
        Outcome.UNKNOWN,
        (
            "SoftTimeLimitExceeded", "TimeLimitExceeded", "Terminated", "WorkerLostError", "JobTimeoutException", "StopRequested",
            "TaskTimeout", "stopit.TimeoutException", "timeout_decorator.TimeoutError", "wrapt_timeout_decorator.TimeoutError",
            "BrokenExecutor", "ProcessExpired", "MaybeEncodingError", "CancelledError", "FutureCancelledError",
        ),
    ),
    Row(
        "own refusal",
        "an error of this library that says that nothing was sent, such as `RateLimitExceeded` or `SMTPError`",
        Outcome.NOT_SENT,
        matches=_refused_by_us,
    ),
    Row(
        "connect phase",
        "an error of a client that could not connect",
        Outcome.NEVER_CONNECTED,
        (
            "ConnectTimeout", "ConnectTimeoutError", "PoolTimeout", "ConnectError", "NewConnectionError", "NameResolutionError",
            "EndpointConnectionError", "ProxyConnectionError", "urllib3.ProxyError", "httpx.ProxyError", "httpx2.ProxyError",
            "httpcore.ProxyError", "httpcore2.ProxyError", "EmptyPoolError", "ClosedPoolError",
            "ClientConnectorError", "ClientConnectorCertificateError", "ClientHttpProxyError", "ConnectionTimeoutError",
            "ServerFingerprintMismatch", "SMTPConnectError", "SMTPConnectTimeoutError",
        ),
        _any(_tornado_is_connecting, _curl_is_connecting),
    ),
    Row(
        "refused",
        "a refused connection, a name that cannot be resolved, a failed TLS handshake, from the system",
        Outcome.NEVER_CONNECTED,
        ("gaierror", "herror", "SSLCertVerificationError"),
        _refused_by_system,
    ),
    Row(
        "grpc unreachable",
        "gRPC's `UNAVAILABLE`, if its details say that it could not connect",
        Outcome.NEVER_CONNECTED,
        matches=_grpc_is_unreachable,
    ),
    Row(
        "retried",
        "the last of several attempts that the client made by itself (botocore, urllib3 under requests, tenacity, backoff)",
        Outcome.WRAPPED,
        matches=_retried,
    ),
    Row(
        "grpc refused",
        "gRPC's " + ", ".join(f"`{code}`" for code in sorted(_GRPC_REFUSED)),
        Outcome.NOT_SENT,
        matches=_grpc_refused,
    ),
    Row(
        "grpc",
        "any other code of gRPC, such as `DEADLINE_EXCEEDED`, `UNKNOWN`, `INTERNAL`, `ABORTED`, `CANCELLED` and `UNAVAILABLE`",
        Outcome.UNKNOWN,
        matches=_grpc_failed,
    ),
    Row(
        "unreadable status",
        "an answer that aiohttp could not parse, although its error then has the status 400",
        Outcome.UNKNOWN,
        ("aiohttp.HttpProcessingError",),
        _unreadable_status,
    ),
    Row(
        "slack refused",
        "Slack's `SlackApiError` with status 200, except `fatal_error`, `internal_error` and `service_unavailable`",
        Outcome.NOT_SENT,
        matches=_slack_refused,
    ),
    Row(
        "answer refused",
        "an answer with an HTTP status from 400 to 499 other than 408, so 429 too; one that rejects all recipients",
        Outcome.NOT_SENT,
        ("AnymailRecipientsRefused",),
        _answered(lambda status: 400 <= status < 500 and status != 408),
    ),
    Row(
        "answer unreadable",
        "an answer with an HTTP status from 200 to 299, if it cannot be read or is no success to the client",
        Outcome.SENT,
        matches=_successful,
    ),
    Row(
        "answer unknown",
        "an answer with any other HTTP status: 408, 500, 502, 503, 504 and all above, and redirects; a class whose name says "
        "server error or redirect, or is one of these",
        Outcome.UNKNOWN,
        ("PusherBadStatus",),
        _any(_answered(lambda status: not 200 <= status < 300), _says("servererror", "redirect")),
    ),
    Row(
        "decoding",
        "an answer whose body cannot be decoded",
        Outcome.SENT,
        (
            "DecodingError", "ContentDecodingError", "urllib3.DecodeError", "msgspec.DecodeError", "google.DecodeError",
            "JSONDecodeError", "UnicodeDecodeError", "ResponseParserError", "xml.ParseError", "ExpatError", "XMLSyntaxError",
            "BadGzipFile", "zlib.error",
        ),
    ),
    Row(
        "lost",
        "a time-out or a lost connection, from the system: a `TimeoutError`, a `ConnectionError` such as `ConnectionResetError` "
        "or `BrokenPipeError`, an `OSError` with the number of one, an `EOFError`, an `ssl.SSLError` after the handshake",
        Outcome.UNKNOWN,
        matches=_lost,
    ),
    Row(
        "lost by client",
        "what clients raise when they lose the connection in the middle, or cannot read the head of the answer: "
        "`http.client.HTTPException` itself, a class whose name says disconnected, or is one of these",
        Outcome.UNKNOWN,
        (
            "ReadTimeout", "ReadTimeoutError", "WriteTimeout", "SocketTimeoutError", "ReadError", "WriteError", "CloseError",
            "ProtocolError", "RemoteProtocolError", "ConnectionClosedError", "ConnectionClosed", "IncompleteRead",
            "IncompleteReadError", "ChunkedEncodingError", "ClientPayloadError", "ClientOSError", "BadStatusLine", "LineTooLong",
            "UnknownTransferEncoding", "StreamClosedError", "EndOfStream", "BrokenResourceError", "ConnectionLost",
            "ConnectionDone", "DeadlineExceeded", "ResponseNeverReceived", "ResponseFailed", "RequestTransmissionFailed",
            "UnsatisfiableReadError", "StreamLostError", "zmq.Again", "ratelimited_notify.DeliveryUnknown",
        ),
        _any(_is_exactly("http.HTTPException"), _says("disconnected")),
    ),
    Row(
        "wrapped",
        "an error around another one, of a client that may have tried several times: `telegram.error.NetworkError` itself, a class "
        "whose name, or the name of a base class, says time-out or is one of these",
        Outcome.WRAPPED,
        (
            "ConnectionError", "MaxRetryError", "RetryError", "MaxAttemptsExceeded", "HTTPClientError", "SSLError", "ProxyError",
            "pycurl.error",
        ),
        _any(_is_exactly("telegram.NetworkError"), _says("timeout", "timedout")),
    ),
)  # fmt: skip
"""The first row that matches an exception says what became of the message."""


def names_of(thing: object) -> frozenset[str]:
    """The names of a thing's class and its bases, alone and after the name of their library, as `Row.names` has them."""
    names: set[str] = set()
    for kind in type(thing).__mro__:
        names |= {_plain(kind.__name__), _with_library(kind)}
    return frozenset(names)


def _with_library(kind: type) -> str:
    return _plain(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


_NAMES = tuple((row, frozenset(map(_plain, row.names))) for row in TABLE)


def row_of(error: BaseException) -> Row | None:
    """The row of the table for this exception, without a look at its causes; None if the table does not know it."""
    own = names_of(error)
    for row, names in _NAMES:
        if not own.isdisjoint(names) or row.matches(error):
            return row
    return None
