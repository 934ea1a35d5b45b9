"""What can go wrong with a memcached host, in words for the person who has to mend it. No key is ever part of them.

Each says what is so: that nothing was counted, or that it is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.storage.memcached.protocol import OutOfTime, Refusal

if TYPE_CHECKING:
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.memcached.hosts import Host

NOTHING = "Nothing was counted."
UNKNOWN = "Whether the hit was counted is unknown."
KEPT = "It stays counted in those of its windows that had been asked before."


def _so(*, sent: bool) -> str:
    return UNKNOWN if sent else NOTHING


def storage_error(host: Host, seconds: float, error: Exception, *, sent: bool) -> StorageError:
    """An exchange failed.

    Arguments:
        host: where.
        seconds: the time-out.
        error: one of `protocol.FAILURES`.
        sent: whether a change was asked for, which may have been made.
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
    """No answer came by the deadline. `sent`: the hit was on its way."""
    return StorageError(
        f"memcached at {host.name} gave no answer within {seconds:g} seconds. {_so(sent=sent)} "
        "Is the server hanging, out of reach or overloaded? A longer timeout= allows it more time."
    )


def out_of_time(host: Host, seconds: float) -> StorageError:
    """The deadline had passed before the server could be asked."""
    return StorageError(
        f"The {seconds:g} seconds of timeout= were over before memcached at {host.name} could be asked. {NOTHING} "
        "Does this process have more to do than it can, or is another host slow? A longer timeout= allows more time."
    )


def busy(host: Host, seconds: float) -> StorageError:
    """Others of this process used the connection until the deadline."""
    return StorageError(
        f"Others in this process used the connection to memcached at {host.name} for all of {seconds:g} seconds. "
        f"{NOTHING} Is the server slow, or are many asking about one recipient? A longer timeout= allows more time."
    )


def contended(host: Host, seconds: float, attempts: int) -> StorageError:
    """Others were quicker each time, until the deadline."""
    return StorageError(
        f"The same windows in memcached at {host.name} were changed by others {attempts} times within {seconds:g} "
        f"seconds. {NOTHING} Allow a longer timeout=, or keep a window that all recipients share in Redis."
    )


def _broken(host: Host, error: OSError, *, sent: bool) -> StorageError:
    """The connection could not be made, or was lost."""
    said = error.strerror or type(error).__name__
    return StorageError(
        f"memcached at {host.name} could not be reached, or the connection was lost: {said}. {_so(sent=sent)} "
        "Is the server running, and may this host connect to it?"
    )


def _refused(host: Host, said: str, *, sent: bool) -> StorageError:
    """The server could not do what was asked."""
    return StorageError(
        f"memcached at {host.name} refused: {said}. {_so(sent=sent)} Look at the server's memory (-m) and settings."
    )


def _garbled(host: Host, *, sent: bool) -> StorageError:
    """What came is no reply to what was asked."""
    return StorageError(
        f"What answers at {host.name} sent something that is no reply of memcached's to what it was asked. "
        f"{_so(sent=sent)} Is it memcached that listens there, and is nothing in between that changes replies?"
    )


def not_asked(host: Host, circuit: Circuit) -> StorageError:
    """The circuit is open."""
    return StorageError(
        f"memcached at {host.name} was not asked, because it gave no answer {circuit.failures} times in a row. {NOTHING} "
        f"The next call that comes {circuit.pause:g} seconds after the last try tries again."
    )


def half_counted(error: StorageError) -> StorageError:
    """A hit failed half-way, and what it had taken could not be given back."""
    said = str(error)
    return StorageError(said.replace(NOTHING, KEPT) if NOTHING in said else f"{said} {KEPT}")


def batch_counted(error: StorageError, requests: int) -> StorageError:
    """A batch failed, and so many of its requests could not be given back."""
    return StorageError(f"{error} {requests} requests before it in the batch could not be given back and stay counted.")


def no_reset() -> NotifyError:
    """`reset` was asked for."""
    return NotifyError(
        "memcached cannot list what it holds, and flush_all would wipe what other programs keep there too. Clear one "
        "recipient at a time, give the limiter a new namespace=, or send flush_all to the server yourself."
    )
