"""Objects that belong to one process: their connections, locks and windows in memory cannot go to another one."""

from __future__ import annotations


class NotPickled:
    """A base class whose objects cannot be pickled or copied. The error says what to do instead.

    A subclass may define how it is pickled, with `__reduce__` or `__getstate__`.
    """

    __slots__ = ()

    def __getstate__(self) -> object:
        name = type(self).__name__
        raise TypeError(
            f"{'An' if name[0] in 'AEIOU' else 'A'} {name} cannot be pickled or copied, because its connections, locks and "
            "windows in memory belong to this process. Threads can share it as it is. For other processes, make one in each "
            "process, for example in the module that uses it. They count together if the storage is a server, such as "
            "redis://localhost:6379/0."
        )
