"""Forks: in a forked child every lock of this package is free, and what belongs to the parent is dropped.

A child has only the thread that forked. A lock that another thread held would be copied locked, and no thread of the child
would ever release it. The same is true of the lock of a module that another thread is importing.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import suppress
from operator import methodcaller
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from typing import Any

_LONGEST = 0.5
"""Seconds that a fork waits at most for other threads to finish what they are changing."""

_L = TypeVar("_L")

# Weak references: a lock lives as long as the object that it protects.
_locks: WeakValueDictionary[int, Any] = WeakValueDictionary()  # Any: both kinds of lock
_whole: WeakValueDictionary[int, threading.Lock] = WeakValueDictionary()
_packages: set[str] = set()
_in_children: list[Callable[[], object]] = []


# The locks that were taken for a fork that is under way, and are not released yet. By the call that forks: several threads may
# fork at once, and a signal handler may fork while its thread is about to.
_taken: dict[tuple[int, int], list[threading.Lock]] = {}
# This process, as soon as its locks are free after its fork.
_ready: set[int] = set()
_release_one = methodcaller("release")


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


# A signal handler may raise at any step of what follows. Python then goes on with the fork, and calls what is left to call. So
# a lock is taken and noted in one step, and noted as released and released in one step: Python runs no handler within a call
# of functions that are written in C.


def _before_fork() -> None:
    taken = _taken.setdefault(_calling(), [])
    locks = _alive(_whole)
    taken.extend(filter(methodcaller("acquire", False), locks))
    until = time.monotonic() + _LONGEST
    for lock in _others(taken, locks):
        taken.extend(filter(methodcaller("acquire", True, max(0.0, until - time.monotonic())), [lock]))


def _in_parent() -> None:
    _release(_calling())


def _in_child() -> None:
    if os.getpid() in _ready:
        return
    _ready.clear()
    _forget_unfinished_imports()
    calling = _calling()
    missed = _others(_taken.get(calling, ()), _alive(_whole))
    if not (missed and _is_holding()):
        for lock in missed:
            _renew(lock)
    _release(calling)
    _taken.clear()
    for lock in _alive(_locks):
        _renew(lock)
    for function in _in_children:
        function()
    _ready.add(os.getpid())


def _calling() -> tuple[int, int]:
    """What distinguishes the call of `os.fork` from all others that are under way. It is the same before and after the fork."""
    return get_ident(), id(sys._getframe(1).f_back)  # pyright: ignore[reportPrivateUsage]  # it is documented


def _alive(locks: WeakValueDictionary[int, _L]) -> list[_L]:
    return [lock for reference in locks.valuerefs() if (lock := reference()) is not None]


def _others(taken: Iterable[threading.Lock], locks: Iterable[threading.Lock]) -> list[threading.Lock]:
    """The locks that were not taken."""
    known = set(map(id, taken))
    return [lock for lock in locks if id(lock) not in known]


def _release(calling: tuple[int, int]) -> None:
    taken = _taken.get(calling)
    if taken:
        with suppress(IndexError):
            # Until there is none left.
            deque(map(_release_one, iter(taken.pop, None)), 0)
    _taken.pop(calling, None)


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
    # Once more, for a signal handler that raises in the first ones. Otherwise there is nothing left for them to do.
    os.register_at_fork(after_in_parent=_in_parent, after_in_child=_in_child)
