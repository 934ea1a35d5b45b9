"""The errors of a Redis server that has rules, with messages for the person who has to fix it."""

from __future__ import annotations

import re

from ratelimited_notify.errors import MissingExtra, NotifyError, RuleError

try:
    from redis import exceptions
except ImportError as missing:
    raise MissingExtra("redis", "A source of rules in Redis") from missing

_command = re.compile(r"run the '([\w|]{1,30})' command").search

_LOGINS = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
)

_UNREACHED = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ChildDeadlockedError, OSError)


def failure(error: Exception, where: str, timeout: float) -> NotifyError:
    """The error for anything that redis-py raises. It shows no key and no user.

    Arguments:
        error: the error of redis-py.
        where: the server.
        timeout: the time-out, in seconds.

    Returns:
        A `RuleError` if the server answered and refused; otherwise another `NotifyError`: it is worth waiting for.
    """
    text = str(error)
    refusal = _refusal(error, text)
    if refusal is not None:
        return RuleError(f"{refusal} [Redis at {where}]")
    return NotifyError(f"{_unreached(error, text, timeout)} [Redis at {where}]")


def _refusal(error: Exception, text: str) -> str | None:
    if isinstance(error, _LOGINS) or text.startswith(("Authentication required", "NOAUTH")):
        if "without any password configured" in text:
            return "Redis has no password for this user, and the URI has one. Leave it out."
        return "Redis refused the user or password, or the URI has none. Special characters in it are percent-encoded."
    if isinstance(error, exceptions.NoPermissionError) or text.startswith("NOPERM"):
        return _permission(text)
    if isinstance(error, exceptions.ClusterError) or text.startswith(("MOVED", "ASK", "CLUSTERDOWN")):
        return (
            "This server is part of a cluster. Rules are read from one server that is not, since a cluster moves keys."
        )
    if "WRONGTYPE" in text:
        return (
            "The key holds a value of another type, and rules are a hash with the fields version and document. Name another "
            "key=, and write rules with: ratelimited-notify rules push"
        )
    if isinstance(error, exceptions.ReadOnlyError) or text.startswith("READONLY"):
        return "This server is a read-only replica. Write to its primary."
    if isinstance(error, exceptions.BusyLoadingError) or not isinstance(error, exceptions.ResponseError):
        return None
    if "out of range" in text and "DB" in text:
        return "The server does not have the database that the URI names."
    # After these words Redis quotes the command, with keys.
    return f"Redis returned an error: {text.partition(', with args')[0]}."


def _permission(text: str) -> str:
    found = _command(text)
    what = f"run {found[1].upper()}" if found else "use this channel" if "channel" in text else "use this key"
    return (
        f"The Redis user may not {what}. To read rules, its ACL has to allow HGET, HMGET, HSTRLEN, SUBSCRIBE and PING on the key "
        "and on the channel that has the name of the key; to write them also WATCH, MULTI, EXEC, HSET and PUBLISH; for a database "
        "other than 0 also SELECT."
    )


def _unreached(error: Exception, text: str, timeout: float) -> str:
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return (
            f"Redis gave no answer within {timeout:g} seconds. Is the server overloaded, stopped or unreachable? The option "
            "timeout= sets the time."
        )
    if isinstance(error, exceptions.BusyLoadingError):
        return "Redis is still loading its data."
    if "max number of clients" in text:
        return "The Redis server accepts no more connections (maxclients)."
    if isinstance(error, _UNREACHED) and not isinstance(error, exceptions.InvalidResponse):
        return (
            f"Redis cannot be reached: {text.rstrip('.') or type(error).__name__}. Is it running, and are host, port and TLS "
            "(rediss://) right?"
        )
    return "Redis sent a reply that is not understood. Is another program listening there, or does the port expect TLS?"
