"""Check the storage of an insurance."""

from __future__ import annotations

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.storage.breaker import Circuits


def check_insurance(insurance: object, storage: object) -> None:
    """Check that the insurance does not fail together with the storage.

    Raises:
        NotifyError: they are the same, or on the same server.
    """
    if _windows_of(insurance) is _windows_of(storage) or _places_of(insurance) & _places_of(storage):
        raise NotifyError(
            "on_storage_error= is the storage itself, or on the same server, and fails together with it. Pass another one, "
            "such as 'memory://'."
        )


def _windows_of(storage: object) -> object:
    """What the storage shares with those of other limiters."""
    return getattr(storage, "windows", getattr(storage, "storage", storage))


def _places_of(storage: object) -> set[str]:
    """The servers or the file of a storage, as far as it says where they are."""
    path: object = getattr(storage, "path", None)
    circuits: object = getattr(storage, "circuits", None)
    return set(circuits) if isinstance(circuits, Circuits) else set() if path is None else {str(path)}
