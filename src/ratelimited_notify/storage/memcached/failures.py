"""What can go wrong with a memcached host, in words for the person who has to mend it. No key is ever part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError, StorageError

if TYPE_CHECKING:
    from ratelimited_notify.storage.memcached.hosts import Host

TOO_LARGE = "object too large for cache"
"""What memcached says of an item above its limit."""


def late(host: Host, seconds: float) -> StorageError:
    """The deadline passed, while waiting for a turn, a connection or an answer."""
    return StorageError(
        f"memcached at {host.name} gave no answer within {seconds:g} seconds. Whether the hit was counted is unknown. "
        "Is the server hanging, out of reach or overloaded? A longer timeout= allows it more time."
    )


def contended(host: Host, seconds: float, attempts: int) -> StorageError:
    """Others were quicker each time, until the deadline."""
    return StorageError(
        f"The same windows in memcached at {host.name} were changed by others {attempts} times within {seconds:g} "
        "seconds, so no hit was counted. Allow a longer timeout=, or keep a window that all recipients share in Redis."
    )


def broken(host: Host, error: OSError) -> StorageError:
    """The connection could not be made, or was lost."""
    said = error.strerror or type(error).__name__
    return StorageError(
        f"memcached at {host.name} could not be reached, or the connection was lost: {said}. Is the server running, "
        "and may this host connect to it? Whether a hit was counted is unknown if it was lost in mid-decision."
    )


def refused(host: Host, said: str) -> StorageError:
    """The server answered something other than what was asked for."""
    return StorageError(
        f"memcached at {host.name} refused: {said}. Nothing was counted. Look at the server's memory (-m) and settings."
    )


def no_reset() -> NotifyError:
    """`reset` was asked for."""
    return NotifyError(
        "memcached cannot list what it holds, and flush_all would wipe what other programs keep there too. Clear one "
        "recipient at a time, give the limiter a new namespace=, or send flush_all to the server yourself."
    )
