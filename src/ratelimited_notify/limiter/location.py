"""Where the windows of a limiter are, in words: for the log and for a repr."""

from __future__ import annotations

from ratelimited_notify.storage.adapter import Adapter, AsyncAdapter
from ratelimited_notify.storage.breaker import Circuits


def place_of(storage: object, argument: object) -> str:
    """Where the servers of a storage are, the same for threads and for asyncio; if that is not known, which storage it is."""
    text = storage_text(storage)
    where = text.partition(" at ")[2]
    if where:
        return where
    if isinstance(argument, str):
        return argument
    return f"{text} {id(storage.storage if isinstance(storage, (Adapter, AsyncAdapter)) else storage)}"


def backend_of(storage: object) -> str:
    """What holds the windows, in a word: `redis`, or the class of a storage that others wrote. Empty without a storage."""
    if storage is None:
        return ""
    kept = storage.storage if isinstance(storage, (Adapter, AsyncAdapter)) else storage
    schemes: object = getattr(kept, "STORAGE_SCHEME", None)
    if isinstance(schemes, list) and schemes and isinstance(schemes[0], str):
        return schemes[0].removeprefix("async+").removeprefix("notify+")
    return type(kept).__name__


def storage_text(storage: object) -> str:
    """The class of a storage, and where its servers are. It uses no repr that others wrote: it may show a password."""
    if getattr(type(storage).__repr__, "__module__", "").startswith("ratelimited_notify."):
        return repr(storage)
    name = type(storage).__name__
    if isinstance(storage, (Adapter, AsyncAdapter)):
        return f"<{name} of {type(storage.storage).__name__}>"
    circuits: object = getattr(storage, "circuits", None)
    servers = ", ".join(circuits) if isinstance(circuits, Circuits) else ""
    return f"<{name} at {servers}>" if servers else f"<{name}>"
