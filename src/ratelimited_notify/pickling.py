"""Objects that belong to one process: their connections, locks and windows in memory cannot go to another one."""

from __future__ import annotations


class NotPickled:
    """A base class whose objects cannot be pickled or copied. The error says what to do instead.

    A subclass may define how it is pickled, with `__reduce__` or `__getstate__`.
    """

    __slots__ = ()

    _belongings = "connections, locks and windows in memory"
    """What belongs to this process."""
    _instead = " They count together if the storage is a server, such as redis://localhost:6379/0."
    """What several of them have in common; the end of the message."""

    def __getstate__(self) -> object:
        name = type(self).__name__
        raise TypeError(
            f"{'An' if name[0] in 'AEIOU' else 'A'} {name} cannot be pickled or copied, because its {self._belongings} belong to this "
            "process. Threads can share it as it is. For other processes, make one in each process, for example in the module "
            f"that uses it.{self._instead}"
        )
