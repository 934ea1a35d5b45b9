"""The errors of a Redis server, with messages for the person who has to fix it. No message ever contains a key."""

from __future__ import annotations

from typing import Any

from ratelimited_notify.errors import StorageError

# After `options`, which says what to install where redis is missing.
from ratelimited_notify.storage.redis import access, options as options, stopped  # isort: skip
from redis import exceptions  # isort: skip

_TOO_MANY = "max number of clients reached"

FAILURES = (exceptions.RedisError, exceptions.ChildDeadlockedError, OSError)
"""The errors that redis-py raises."""

_REFUSALS = (
    exceptions.AskError,
    exceptions.BusyLoadingError,
    exceptions.ClusterCrossSlotError,
    exceptions.ClusterDownError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
)
"""Errors after which nothing was counted: a script reads all windows before its first write, and these come before it."""

_REFUSED = ("NOTIFYVERSION", "OOM", "READONLY", "NOREPLICAS", "MISCONF", "BUSY ", "MASTERDOWN")
"""What such errors begin with if redis-py has no class for them."""

GARBLED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    exceptions.InvalidResponse,
)
"""The errors that its parsers raise for bytes that are not a reply."""


class NothingSent(StorageError):
    """The request had no effect: it did not leave this process, or the server refused it before it ran."""

    nothing_counted = True


class AccessRefused(NothingSent):
    """The server refused the user, the password, a command, the keys or TLS. The next attempt will be refused too."""


class NotAsked(NothingSent):
    """The circuit of the server is open."""


class OutOfTime(NothingSent):
    """Other callers of this process used up the time. This says nothing about the server."""


class NoHandshake(exceptions.TimeoutError):
    """There was no connection with TLS in time, often because the server does not speak TLS at this port."""


class NeverAnswered(exceptions.ConnectionError):
    """A connection without TLS broke before the server had sent anything."""


class NoMaster(exceptions.ConnectionError):
    """No Sentinel names a running master."""

    def __init__(self, message: str, *, is_silent: bool) -> None:
        super().__init__(message)  # pyright: ignore[reportUnknownMemberType]  # redis-py does not say
        self.is_silent = is_silent
        """Whether the master is down or no Sentinel can be reached, rather than that the Sentinels refuse."""


class UnexpectedReply(StorageError):
    """The reply does not match the request."""

    def __init__(self, where: str = "") -> None:
        # pickle recreates the error from `args`, so they hold the argument and not the message.
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return (
            "Redis sent a reply that this library does not understand, so it is not known whether this took effect. "
            "Is another program listening there, does the port expect TLS (rediss://), or does a proxy change replies?"
            + (f" [Redis at {self.where}]" if self.where else "")
        )


def failure(error: Exception, where: str, timeout: float, *, sent: bool) -> StorageError:
    """The `StorageError` for an error of redis-py, with a message that says what to do.

    redis-py's own message is left out if it may contain a key.

    Arguments:
        error: the error that redis-py raised.
        where: the server, see `address`.
        timeout: how long the caller waited for a reply, in seconds.
        sent: whether the request may have reached the server.
    """
    refusal = access.said(error)
    if refusal is not None:
        return AccessRefused(f"{refusal} [Redis at {where}]")
    if isinstance(error, NoMaster):
        return (NothingSent if error.is_silent else AccessRefused)(f"{error} [Redis at {where}]")
    # A server with too many clients refuses the first command before it runs.
    kind = StorageError if sent and _TOO_MANY not in str(error) else NothingSent
    return kind(f"{_said(error, timeout, sent)} [Redis at {where}]", nothing_counted=_is_refusal(error))


def _is_refusal(error: Exception) -> bool:
    """Whether the server says that it does not run the script, or that it refused its first write."""
    return isinstance(error, _REFUSALS) or str(error).startswith(_REFUSED)


def storage_error(where: str, timeout: float, error: Exception, sent: bool) -> StorageError:
    """The `StorageError` for any error that ends a connection, for the callers that wait for its replies."""
    return UnexpectedReply(where) if isinstance(error, UnexpectedReply) else failure(error, where, timeout, sent=sent)


def out_of_time(where: str, timeout: float, error: Exception) -> StorageError:
    """Nothing was sent: when this caller got a place, there was no time left to connect."""
    return OutOfTime(f"{_said(error, timeout, sent=False)} [Redis at {where}]")


def ended_batch(error: StorageError, *, first: bool) -> None:
    """Note that an error ended a batch of several round trips.

    Arguments:
        error: what went wrong.
        first: whether nothing was decided before.
    """
    if not first or not isinstance(error, NothingSent) or isinstance(error, AccessRefused):
        # The round trip before may have been counted.
        error.nothing_counted = False


def has_more(inner: Any) -> bool:  # Any: a connection of redis-py's
    """Whether the parser holds data beyond the last reply: then replies and requests no longer match."""
    parser = inner._parser
    unread = getattr(getattr(parser, "_buffer", None), "unread_bytes", None)
    if unread is not None:
        return bool(unread())
    reader = getattr(parser, "_reader", None)
    return reader is not None and bool(reader.has_data())


def no_free_connection(where: str, connections: int) -> StorageError:
    """Nothing was sent: every connection was busy for too long."""
    return OutOfTime(
        f"All {connections} connections to Redis were busy for too long, so nothing was sent. Raise max_connections, "
        f"or reduce the number of concurrent callers. [Redis at {where}]"
    )


def not_asked(where: str, hint: str = "") -> StorageError:
    """Nothing was sent: the circuit is open. `hint`: what may be the reason."""
    return NotAsked(
        "Redis is not asked, because the last attempts got no answer, so nothing was sent. Requests resume when it answers a "
        f"PING. Is the server overloaded, stopped or unreachable? {hint}{' ' * bool(hint)}The option circuit= sets when to "
        f"stop. [Redis at {where}]"
    )


def still_silent(where: str, seconds: float, hint: str = "") -> StorageError:
    """Nothing was sent: a PING got no reply either. `hint`: what may be the reason."""
    return NothingSent(
        f"Redis did not answer a PING within {seconds:g} seconds either, so nothing was sent. "
        f"{hint}{' ' * bool(hint)}[Redis at {where}]"
    )


def is_silence(error: Exception) -> bool:
    """Whether there was no reply at all: a time-out or a lost connection, rather than a refusal."""
    if isinstance(error, exceptions.TimeoutError):
        return True
    if isinstance(error, NoMaster):
        return error.is_silent
    if access.said(error) is not None:
        return False
    if isinstance(error, exceptions.ConnectionError):
        # redis-py raises some refusals as subclasses of its connection error.
        return type(error) in (exceptions.ConnectionError, NeverAnswered) and _TOO_MANY not in str(error)
    return isinstance(error, OSError)


def hint(error: Exception) -> str:
    """What may be the reason why there was no reply, if TLS may be it; otherwise empty."""
    if isinstance(error, NoHandshake):
        return access.PLAIN_PORT
    return access.TLS_PORT if isinstance(error, NeverAnswered) else ""


def has_timed_out(error: Exception) -> bool:
    """Whether the error is a time-out, rather than a lost connection."""
    return isinstance(error, exceptions.TimeoutError | TimeoutError)


def redirected_in_circles(where: str) -> StorageError:
    """A request was redirected too often: each server redirected it to another one."""
    return StorageError(
        f"The servers of the Redis cluster redirect in circles, so nothing was counted. [Redis at {where}]",
        nothing_counted=True,
    )


def _said(error: Exception, timeout: float, sent: bool) -> str:
    text = str(error)
    known = stopped.said(text)
    if known is not None:
        return known
    if isinstance(error, NoHandshake):
        return (
            f"Redis did not begin TLS in time, so nothing was sent (the time-out is {timeout} seconds). {access.PLAIN_PORT} "
            "Or is the server overloaded, stopped or unreachable?"
        )
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        what = (
            f"Redis gave no answer within {timeout} seconds, so it is not known whether this took effect."
            if sent
            else f"Redis accepted no connection in time, so nothing was sent (the time-out is {timeout} seconds)."
        )
        return f"{what} Is the server overloaded or stopped? The option timeout= sets the time."
    if isinstance(error, exceptions.BusyLoadingError):
        return "Redis is still loading its data; try again when that is done."
    if _TOO_MANY in text:
        return (
            "The Redis server accepts no more connections (maxclients), so nothing was sent. Raise its maxclients, or "
            "lower max_connections here and in other programs that use it."
        )
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return "Redis has no memory left and evicts nothing (maxmemory), so no hit can be counted. Give it more memory."
    if isinstance(error, exceptions.ReadOnlyError) or "READONLY" in text:
        return "This Redis server is a read-only replica. Connect to the primary."
    if text.startswith("NOTIFYVERSION"):
        return (
            "The Redis server is older than version 7, the first version in which the time does not change while a script "
            "runs. Update it, or use Valkey."
        )
    if "WRONGTYPE" in text:
        return (
            "A key of the rate limits holds a value of another type. Give the limits a database or a namespace of their own, "
            "which nothing else writes to."
        )
    if isinstance(error, exceptions.ResponseError):
        return _refused(error, text)
    reason = text.rstrip(".") or type(error).__name__
    if sent:
        return (
            f"The connection to Redis broke before the answer came ({reason}), "
            "so it is not known whether this took effect."
            + (f" {access.TLS_PORT}" if isinstance(error, NeverAnswered) else "")
        )
    return f"Redis cannot be reached: {reason}. Is it running, and are host, port and TLS (rediss://) right?"


def _refused(error: exceptions.ResponseError, text: str) -> str:
    """The message for a server that refused to run a script."""
    if isinstance(error, exceptions.ClusterDownError):
        return f"The Redis cluster is not ready, so nothing was counted: {text}. Is it complete, or failing over?"
    if isinstance(error, exceptions.TryAgainError):
        return "The slot of this recipient is on its way to another server of the cluster, so nothing was counted."
    # In redis-py, the error for MOVED is a subclass of the one for ASK.
    if isinstance(error, exceptions.AskError | exceptions.ClusterCrossSlotError):
        return (
            "This server is part of a cluster, where windows are spread over several servers, so nothing was counted. "
            "Use redis+cluster:// for it."
        )
    if "NOREPLICAS" in text:
        return "Redis has fewer in-sync replicas than its min-replicas-to-write asks for, so nothing was counted."
    # After these words Redis quotes the command, including keys.
    return f"Redis returned an error: {text.partition(', with args')[0]}."
