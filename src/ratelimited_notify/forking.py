"""Forks: in a forked child every lock of this package is free, and what belongs to the parent is dropped.

A child has only the thread that forked. A lock that another thread held would be copied locked, and no thread of the child
would ever release it. The same is true of the lock of a module that another thread is importing.
"""

from __future__ import annotations

import os
import sys
import time
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

_LONGEST = 0.5
"""Seconds that a fork waits at most for other threads to finish what they are changing."""

_L = TypeVar("_L")

# Weak references: a lock lives as long as the object that it protects.
_locks: WeakValueDictionary[int, Any] = WeakValueDictionary()  # Any: both kinds of lock
_whole: WeakValueDictionary[int, threading.Lock] = WeakValueDictionary()
_packages: set[str] = set()
_in_children: list[Callable[[], object]] = []


class _Fork(NamedTuple):
    """A fork that is under way."""

    taken: list[threading.Lock]
    missed: list[threading.Lock]
    """The locks that could not be taken in time."""


# By thread, because several may fork at once. The newest is last: a signal handler may fork while this thread is about to.
_forks: dict[int, list[_Fork]] = {}


def forkable(lock: _L) -> _L:
    """Return this lock, which from now on is free in every forked child.

    What it protects must be usable in the child even if another thread was in the middle of changing it.
    """
    _locks[id(lock)] = lock
    return lock


def copied_whole(lock: threading.Lock, package: str) -> threading.Lock:
    """Return this lock, which from now on is taken before each fork, so that no change is copied half done.

    If another thread holds it for too long, the fork goes on without it, and the lock is free in the child.

    Arguments:
        lock: threads hold it only for short times, and take no other lock meanwhile.
        package: the package of all code that holds it. If this code forks (from a signal handler), the lock is left to it in
            the child: it goes on there, and releases the lock.
    """
    _whole[id(lock)] = lock
    _packages.add(package)
    return lock


def in_children(function: Callable[[], object]) -> None:
    """Call a function in every forked child, before any other code runs there. All locks are free by then."""
    _in_children.append(function)


def holds(lock: Any) -> bool:  # Any: the type of an RLock has no public name for this
    """Whether this thread holds this RLock."""
    # Not a public name, see `_renew`.
    return bool(lock._is_owned())


def _before_fork() -> None:
    fork = _Fork([], [])
    _forks.setdefault(get_ident(), []).append(fork)
    until = time.monotonic() + _LONGEST
    for reference in _whole.valuerefs():
        lock = reference()
        if lock is not None:
            taken = lock.acquire(timeout=max(0.0, until - time.monotonic()))
            (fork.taken if taken else fork.missed).append(lock)


def _in_parent() -> None:
    _release(_ended())


def _in_child() -> None:
    _forget_unfinished_imports()
    fork = _ended()
    _forks.clear()
    if not (fork.missed and _is_holding()):
        for lock in fork.missed:
            _renew(lock)
    _release(fork)
    for each in _locks.valuerefs():
        forkable_lock = each()
        if forkable_lock is not None:
            _renew(forkable_lock)
    for function in _in_children:
        function()


def _ended() -> _Fork:
    forks = _forks.get(get_ident())
    fork = forks.pop() if forks else _Fork([], [])
    if not forks:
        _forks.pop(get_ident(), None)
    return fork


def _release(fork: _Fork) -> None:
    for lock in fork.taken:
        lock.release()


def _renew(lock: Any) -> None:  # Any: as above
    # These names are not public, but every Python has them: `threading` and `logging` use them for the same purpose. The
    # object stays the same, because compiled code and other objects refer to it.
    if hasattr(lock, "_is_owned") and holds(lock):
        # This thread forked while it held an RLock. It goes on in the child, and releases the lock.
        return
    lock._at_fork_reinit()


def _forget_unfinished_imports() -> None:
    """Treat imports that other threads had begun as failed, so that this process can begin them anew.

    Python frees only the lock of the whole import system in a child. An import of a module that another thread of the parent
    was importing would wait for ever.
    """
    # Not public names: without them, nothing changes.
    system = sys.modules.get("_frozen_importlib")
    locks: dict[str, Any] = getattr(system, "_module_locks", {})  # Any: its type is not public
    for name, reference in list(locks.items()):
        lock = reference()
        if getattr(lock, "owner", None) in (None, get_ident()):
            continue
        del locks[name]
        module = sys.modules.get(name)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            del sys.modules[name]


def _is_holding() -> bool:
    """Whether the thread that forked is in the middle of code that holds such a lock."""
    frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]  # it is documented
    while frame.f_back is not None:
        frame = frame.f_back
        if str(frame.f_globals.get("__name__")).rpartition(".")[0] in _packages:
            return True
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
