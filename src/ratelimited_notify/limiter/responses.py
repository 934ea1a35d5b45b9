"""What a response says: its HTTP status, or the code of a gRPC call.

An exception may hold a response, or have the same attributes. No client is imported, so everything is read by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ratelimited_notify.errors import SendFailed

RESPONSES = ("response", "resp", "http_response")
"""Where an exception has the response."""
_STATUSES = ("status_code", "status", "http_status", "_http_status")
_KEYS = ("status_code", "statusCode", "status")


def attribute(thing: object, name: str) -> object:
    """An attribute, or None. Reading an attribute of a client's object can raise anything."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  # a property of any client
        return None


def class_names(thing: object) -> str:
    """The names of a thing's class and its bases, in lower case."""
    return " ".join(kind.__name__ for kind in type(thing).__mro__).lower()


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that an exception tells of, or None."""
    if isinstance(error, SendFailed):
        return status_of_response(error.result)
    names = class_names(error)
    if "smtp" in names:  # Its codes look like statuses of HTTP, and mean something else.
        return None
    for name in RESPONSES:
        status = status_of_response(attribute(error, name))
        if status is not None:
            return status
    has_code = "http" in names or "api" in names
    if "resenderror" in names:  # It makes up a code if there was no answer; its cause says why.
        has_code = attribute(error, "error_type") != "HttpClientError"
    return _status(error, has_code and not isinstance(attribute(error, "status"), int))


def status_of_response(response: object) -> int | None:
    """The HTTP status of a response of any client, or None if this does not look like one."""
    if response is None or isinstance(response, (bool, int, str, bytes, BaseException)):
        return None
    status = _status_in(response)
    if status is not None:
        return status
    names = class_names(response)
    return _status(response, "http" in names or "response" in names)


def _status_in(response: object) -> int | None:
    """The status among the items of a response that is a mapping."""
    if not isinstance(response, Mapping):
        return None
    said = cast("Mapping[object, object]", response)
    metadata = said.get("ResponseMetadata")
    if isinstance(metadata, Mapping):
        return _valid(cast("Mapping[object, object]", metadata).get("HTTPStatusCode"))
    return next((status for key in _KEYS if (status := _valid(said.get(key))) is not None), None)


def _status(thing: object, has_code: bool) -> int | None:
    # Many libraries give `code` a meaning of their own.
    for name in (*_STATUSES, "code") if has_code else _STATUSES:
        status = _valid(attribute(thing, name))
        if status is not None:
            return status
    return None


def _valid(status: object) -> int | None:
    if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
        return int(status)
    return None


def grpc_code(error: BaseException) -> str | None:
    """The name of the gRPC status code of an exception, such as `UNAVAILABLE`, or None."""
    code = attribute(error, "grpc_status_code")  # of google.api_core
    if code is None and "rpcerror" in class_names(error):
        code = attribute(error, "code")
        try:
            code = code() if callable(code) else None
        except Exception:  # noqa: BLE001  # an exception of any client
            return None
    name = attribute(code, "name")
    return name if isinstance(name, str) else None


def grpc_details(error: BaseException) -> str:
    """What a gRPC call says about its failure, in lower case; empty if it says nothing."""
    details = attribute(error, "details")
    try:
        return str(details()).lower() if callable(details) else ""
    except Exception:  # noqa: BLE001  # an exception of any client
        return ""
