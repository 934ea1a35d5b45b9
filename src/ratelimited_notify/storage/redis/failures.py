"""What can go wrong with a Redis server, in words for the person who has to mend it. No key is ever part of them."""

from __future__ import annotations

from typing import Any

from ratelimited_notify.errors import StorageError

# After `options`, which says what to install where redis is missing.
from ratelimited_notify.storage.redis import options as options, stopped  # isort: skip
from redis import exceptions  # isort: skip

_TOO_MANY = "max number of clients reached"

FAILURES = (exceptions.RedisError, exceptions.ChildDeadlockedError, OSError)
"""What redis-py raises."""

GARBLED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    exceptions.InvalidResponse,
)
"""How its parsers stumble over bytes that are no reply."""


class NothingSent(StorageError):
    """The question did not leave this process, so it took no effect and may be put to another server."""


class OutOfTime(NothingSent):
    """Other callers of this process used up the time, which says nothing about the server."""


class UnexpectedReply(StorageError):
    """What came is no answer to what was asked."""

    def __init__(self, where: str = "") -> None:
        # The argument, and not the words, is what a copy is made from (by pickle).
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return (
            "Redis answered something that this library does not understand, so it is not known whether this took "
            "effect. Does something else listen there, or a proxy that changes replies?"
            + (f" [Redis at {self.where}]" if self.where else "")
        )


def failure(error: Exception, where: str, timeout: float, *, sent: bool) -> StorageError:
    """What happened and what to do, from an error of redis-py; its own words stay out where they may show a key.

    Arguments:
        error: what redis-py raised.
        where: the server, see `address`.
        timeout: how long an answer was waited for, in seconds.
        sent: whether the question may have reached the server.
    """
    # A server that is full refuses the first command before it runs.
    kind = StorageError if sent and _TOO_MANY not in str(error) else NothingSent
    return kind(f"{_said(error, timeout, sent)} [Redis at {where}]")


def storage_error(where: str, timeout: float, error: Exception, sent: bool) -> StorageError:
    """The same for whatever a connection ends with, for those who wait for its replies."""
    return UnexpectedReply(where) if isinstance(error, UnexpectedReply) else failure(error, where, timeout, sent=sent)


def out_of_time(where: str, timeout: float, error: Exception) -> StorageError:
    """Nothing was sent: there was no time left to connect when it was this caller's turn."""
    return OutOfTime(f"{_said(error, timeout, sent=False)} [Redis at {where}]")


def has_more(inner: Any) -> bool:  # Any: a connection of redis-py's
    """Whether its parser has read more than it was asked for: then replies and questions no longer match."""
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
        f"or let fewer callers ask at once. [Redis at {where}]"
    )


def not_asked(where: str) -> StorageError:
    """Nothing was sent: the circuit is open."""
    return NothingSent(
        "Redis is not asked, because the last attempts got no answer, so nothing was sent. It is asked again when it answers "
        f"a PING. Is the server overloaded, stopped or out of reach? The option circuit= sets when. [Redis at {where}]"
    )


def still_silent(where: str, seconds: float) -> StorageError:
    """Nothing was sent: a PING had no answer either."""
    return NothingSent(
        f"Redis is still silent: it did not answer a PING within {seconds:g} seconds, so nothing was sent. [Redis at {where}]"
    )


def is_silence(error: Exception) -> bool:
    """Whether there was no answer at all: a time-out or a lost connection, rather than a refusal."""
    if isinstance(error, exceptions.TimeoutError):
        return True
    if isinstance(error, exceptions.ConnectionError):
        # redis-py makes some refusals connection errors.
        return type(error) is exceptions.ConnectionError and _TOO_MANY not in str(error)
    return isinstance(error, OSError)


def has_timed_out(error: Exception) -> bool:
    """Whether somebody waited in vain, rather than lost the connection."""
    return isinstance(error, exceptions.TimeoutError | TimeoutError)


def redirected_in_circles(where: str) -> StorageError:
    """A question was sent on from server to server, and each knew another one to ask."""
    return StorageError(
        "The servers of the Redis cluster send each other's callers round in circles, so nothing was counted. "
        f"[Redis at {where}]"
    )


def _said(error: Exception, timeout: float, sent: bool) -> str:
    text = str(error)
    known = stopped.said(text)
    if known is not None:
        return known
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        what = (
            f"Redis gave no answer within {timeout} seconds, so it is not known whether this took effect."
            if sent
            else f"Redis let nobody connect in time, so nothing was sent (the time-out is {timeout} seconds)."
        )
        return f"{what} Is the server overloaded or stopped? The option timeout= sets the time."
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return (
            "Redis refused the user or password, or does not let this user run scripts (EVALSHA, EVAL; on a cluster "
            "CLUSTER SLOTS, too). "
            "Check the credentials in the storage's URI and the user's ACL."
        )
    if isinstance(error, exceptions.BusyLoadingError):
        return "Redis is still loading its data; it will answer when that is done."
    if _TOO_MANY in text:
        return (
            "The Redis server accepts no more connections (maxclients), so nothing was sent. Raise its maxclients, or "
            "lower max_connections here and in other programs that use it."
        )
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return "Redis has no memory left and evicts nothing (maxmemory), so no hit can be counted. Give it more."
    if isinstance(error, exceptions.ReadOnlyError) or "READONLY" in text:
        return "This Redis server is a read-only replica. Connect to the primary."
    if text.startswith("NOTIFYVERSION"):
        return (
            "The Redis server is older than version 7; only since then does time stand still inside a script. "
            "Update it, or use Valkey."
        )
    if "WRONGTYPE" in text:
        return (
            "A key of the rate limits holds something else. Give them a database or a namespace of their own, "
            "which nothing else writes to."
        )
    if isinstance(error, exceptions.ResponseError):
        return _refused(error, text)
    reason = text.rstrip(".") or type(error).__name__
    if sent:
        return (
            f"The connection to Redis broke before the answer came ({reason}), "
            "so it is not known whether this took effect."
        )
    return f"Redis cannot be reached: {reason}. Is it running, and are host, port and TLS right?"


def _refused(error: exceptions.ResponseError, text: str) -> str:
    """What the server says instead of running a script."""
    if isinstance(error, exceptions.ClusterDownError):
        return f"The Redis cluster is not ready, so nothing was counted: {text}. Is it complete, or failing over?"
    if isinstance(error, exceptions.TryAgainError):
        return "The slot of this recipient is on its way to another server of the cluster, so nothing was counted."
    # MOVED is an ASK to redis-py.
    if isinstance(error, exceptions.AskError | exceptions.ClusterCrossSlotError):
        return (
            "This server is part of a cluster, where windows lie on several servers, so nothing was counted. "
            "Use redis+cluster:// for it."
        )
    if "NOREPLICAS" in text:
        return "Redis has fewer replicas in step than its min-replicas-to-write asks for, so nothing was counted."
    # Behind these words Redis quotes the command, keys and all.
    return f"Redis answered with an error: {text.partition(', with args')[0]}."
