"""The thread that keeps live rules up to date."""

from __future__ import annotations

import atexit
import random
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakSet, ref

from ratelimited_notify.forking import in_children
from ratelimited_notify.log import is_logging, warning
from ratelimited_notify.sources.base import waits
from ratelimited_notify.sources.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.sources.base import RuleSource

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, however often the source has failed."""

_JITTER = 0.2
"""The part of a pause that is left to chance, so that a fleet does not ask all at once."""

_SLICE = 1.0
"""Seconds that the thread waits at a time."""

_LEAST = 0.02
"""Seconds between two attempts at least, however often a source says that something has changed."""


class Refreshed(Protocol):
    """What the thread keeps up to date."""

    @property
    def source(self) -> RuleSource: ...

    @property
    def unreached(self) -> int: ...

    def keeps(self, refresher: Refresher, /) -> bool: ...

    def attempt(self, stopped: StopSignal, /) -> None: ...


class Refresher:
    """A daemon thread that asks a source once per interval, or when the source says that something has changed.

    The thread does not keep the rules alive: when nobody else does, it ends.

    Arguments:
        live: what to keep up to date.
    """

    def __init__(self, live: Refreshed) -> None:
        self.live = ref(live)
        self.source = live.source
        self.stopped = StopSignal()
        self._why: str | None = None
        self._thread = threading.Thread(target=_run, args=(self,), name="ratelimited-notify rules", daemon=True)

    @property
    def begun(self) -> bool:
        """Whether the thread has begun to run."""
        return self._thread.ident is not None

    @property
    def runs(self) -> bool:
        """Whether the thread runs. An exception of a signal handler while it was started may have ended it."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, if one can be started."""
        _refreshers.add(self)
        try:
            self._thread.start()
        except RuntimeError as error:
            # There are too many already, or the process is about to end.
            self._why = str(error)
        except KeyError as error:
            # A signal handler raised while Python was noting that the thread has begun, and Python does not expect that.
            raise (error.__context__ or error) from None

    def stop(self) -> None:
        """End the thread soon. Returns without waiting for a source that is just being asked."""
        self.stopped.set()

    def warn_if_hindered(self) -> None:
        """Log that rules are not kept up to date in this process, once, if that is so."""
        global _has_warned  # noqa: PLW0603  # what the process has said
        if _has_warned or is_logging():
            return
        options = _options_of_uwsgi()
        if self._why is not None:
            why = f"No thread can be started ({self._why})"
        elif not self.begun:
            why = "Threads do not run in this process"
        elif options is not None and not _allows_threads(options):
            why = "uWSGI runs no threads without enable-threads"
        else:
            return
        _has_warned = True
        warning(
            "%s, so the rules of %r are not kept up to date here. Start uWSGI with enable-threads, or call "
            "limiter.source.refresh() regularly; limiter.source.status.age says how old the rules are.",
            why,
            self.source,
        )


_refreshers: WeakSet[Refresher] = WeakSet()

# A forked child has no thread of its parent.
in_children(_refreshers.clear)

_has_warned = False


@atexit.register
def _stop_all() -> None:
    # What a source needs may be gone already, and nothing should be logged about that.
    with suppress(RuntimeError):
        # Another thread may just be starting one.
        for refresher in list(_refreshers):
            refresher.stop()


def _options_of_uwsgi() -> Mapping[object, object] | None:
    """The options of uWSGI, if this process runs in it."""
    # Not imported: a program of this name may be somebody's own.
    options: object = getattr(sys.modules.get("uwsgi"), "opt", None)
    return cast("Mapping[object, object]", options) if isinstance(options, dict) else None


def _allows_threads(options: Mapping[object, object]) -> bool:
    names = {name.decode() if isinstance(name, bytes) else name for name in options}
    return bool(names & {"enable-threads", "threads"})


def _run(refresher: Refresher) -> None:
    """Refresh until the thread is stopped, or nobody needs the rules any more. Nothing that is raised ends it."""
    while True:
        try:
            if not _turn(refresher):
                break
        except BaseException:  # noqa: BLE001  # somebody else's logging handler, say; what can be told has been logged
            with suppress(BaseException):
                refresher.stopped.wait(min(refresher.source.options.interval, LONGEST_PAUSE))
    with suppress(BaseException):
        source = refresher.source
        live = None if source.live is None else source.live()
        if live is None or not live.running:
            # The limiters may be gone without having been closed, or this thread opened something after that.
            source.close()


def _turn(refresher: Refresher) -> bool:
    """Wait, and ask the source. Returns whether the thread is needed any longer."""
    live, source, stopped = refresher.live(), refresher.source, refresher.stopped
    if stopped.is_set() or live is None or not live.keeps(refresher):
        return False
    failures = live.unreached
    # Not kept alive while the thread waits.
    del live
    _wait(refresher, pause(source.options.interval, failures), told=not failures and waits(source))
    live = refresher.live()
    if stopped.is_set() or live is None or not live.keeps(refresher):
        return False
    live.attempt(stopped)
    return True


def pause(interval: float, failures: int) -> float:
    """Seconds until the next attempt: the interval, and twice as long each time the source was not reached, up to a minute."""
    longest = max(interval, LONGEST_PAUSE)
    seconds = min(longest, interval * 2.0 ** min(failures, 30))
    return seconds * random.uniform(1 - _JITTER, 1) if failures else seconds  # noqa: S311  # no secret


def _wait(refresher: Refresher, seconds: float, *, told: bool) -> None:
    """Wait until the time is over, the thread is stopped, or nobody needs the rules; if it is told, until something may have
    changed.
    """
    began = time.monotonic()
    stopped = refresher.stopped
    # In slices, since nothing wakes the thread when the rules are no longer needed: whatever the collector calls may run while
    # this thread holds a lock.
    while (left := began + seconds - (now := time.monotonic())) > 0 and refresher.live() is not None:
        if stopped.is_set():
            return
        slice_ = min(left, _SLICE)
        if not told:
            stopped.wait(slice_)
            continue
        try:
            changed = refresher.source.wait(slice_)
        except BaseException:  # noqa: BLE001  # the source is somebody else's code; the interval is the net
            told = False
            continue
        waited = time.monotonic()
        if changed:
            stopped.wait(max(0.0, began + _LEAST - waited))
            return
        # It may have returned at once, without waiting.
        stopped.wait(min(_LEAST, max(0.0, slice_ - (waited - now))))
