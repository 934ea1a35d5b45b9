"""The errors of a memcached host, with messages for the person who has to fix it. No message ever contains a key.

Each message says whether the hit was counted: that nothing was counted, or that it is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.memcached.protocol import UNAUTHENTICATED, OutOfTime, Refusal

if TYPE_CHECKING:
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.memcached.hosts import Host

NOTHING = "Nothing was counted."
UNKNOWN = "Whether the hit was counted is unknown."
KEPT = "It stays counted in the windows that were updated before the failure."


def _counted(*, sent: bool) -> str:
    return UNKNOWN if sent else NOTHING


def _uncounted(message: str) -> StorageError:
    return StorageError(message, nothing_counted=True)


def storage_error(host: Host, seconds: float, error: Exception, *, sent: bool) -> StorageError:
    """An exchange failed.

    Arguments:
        host: the server.
        seconds: the time-out.
        error: one of `protocol.FAILURES`.
        sent: whether a request that changes something was sent, so that the change may have been made.
    """
    if isinstance(error, OutOfTime):
        return out_of_time(host, seconds)
    if isinstance(error, TimeoutError):
        return late(host, seconds, sent=sent)
    if isinstance(error, OSError):
        return _broken(host, error, sent=sent)
    if isinstance(error, Refusal):
        return _refused(host, error.said, sent=sent and not error.is_certain)
    return _garbled(host, sent=sent)


def late(host: Host, seconds: float, *, sent: bool) -> StorageError:
    """No reply came by the deadline. `sent`: the hit was on its way."""
    return StorageError(
        f"memcached at {host.name} gave no answer within {seconds:g} seconds. {_counted(sent=sent)} "
        "Is the server hanging, unreachable or overloaded? A longer timeout= gives it more time.",
        nothing_counted=not sent,
    )


def out_of_time(host: Host, seconds: float) -> StorageError:
    """The deadline passed before a request could be sent."""
    return _uncounted(
        f"The {seconds:g} seconds of timeout= passed before a request to memcached at {host.name} could be sent. {NOTHING} "
        "Is this process overloaded, or is another host slow? A longer timeout= allows more time."
    )


def busy(host: Host, seconds: float) -> StorageError:
    """Other callers of this process used the connection until the deadline."""
    return _uncounted(
        f"Other callers in this process used the connection to memcached at {host.name} for the whole timeout= of "
        f"{seconds:g} seconds. {NOTHING} Is the server slow, or are many hits for one recipient? A longer timeout= allows "
        "more time."
    )


def contended(host: Host, seconds: float, attempts: int) -> StorageError:
    """Another caller wrote the item first in every attempt, until the deadline."""
    return _uncounted(
        f"The same windows in memcached at {host.name} were changed by others {attempts} times within {seconds:g} "
        f"seconds. {NOTHING} Set a longer timeout=, or keep a window that all recipients share in Redis."
    )


def _broken(host: Host, error: OSError, *, sent: bool) -> StorageError:
    """The connection could not be made, or was lost."""
    said = error.strerror or type(error).__name__
    return StorageError(
        f"memcached at {host.name} could not be reached, or the connection was lost: {said}. {_counted(sent=sent)} "
        "Is the server running, without TLS, and may this host connect to it?",
        nothing_counted=not sent,
    )


def _refused(host: Host, said: str, *, sent: bool) -> StorageError:
    """The server could not process the request."""
    if said == UNAUTHENTICATED:
        return _uncounted(
            f"memcached at {host.name} requires a login (-Y or -S), and this storage does not log in. {NOTHING} "
            "Run the server without it, and let only your hosts connect to it."
        )
    return StorageError(
        f"memcached at {host.name} refused: {said}. {_counted(sent=sent)} Check the server's memory (-m) and settings.",
        nothing_counted=not sent,
    )


def _garbled(host: Host, *, sent: bool) -> StorageError:
    """The reply does not match the request."""
    return StorageError(
        f"The server at {host.name} sent something that is not memcached's reply to the request. "
        f"{_counted(sent=sent)} Is it memcached that listens there, and does a proxy in between change replies?",
        nothing_counted=not sent,
    )


def not_asked(host: Host, circuit: Circuit) -> StorageError:
    """The circuit is open."""
    return _uncounted(
        f"memcached at {host.name} was not asked, because it gave no answer {circuit.failures} times in a row. {NOTHING} "
        f"The first call {circuit.pause:g} seconds or more after the last attempt tries again."
    )


def half_counted(error: StorageError) -> StorageError:
    """A hit failed half-way, and could not be given back in the windows that had counted it."""
    said = str(error)
    return StorageError(said.replace(NOTHING, KEPT) if NOTHING in said else f"{said} {KEPT}")


def batch_counted(error: StorageError, requests: int) -> StorageError:
    """A batch failed, and this number of its requests could not be given back."""
    return StorageError(f"{error} {requests} earlier requests of the batch could not be given back and stay counted.")


def no_reset() -> NotifyError:
    """`reset` was called."""
    return NotifyError(
        "memcached cannot list its keys, and flush_all would wipe what other programs keep there too. Clear one "
        "recipient at a time, give the limiter a new namespace=, or send flush_all to the server yourself."
    )
