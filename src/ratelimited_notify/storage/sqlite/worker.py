"""The thread in which an asyncio storage waits for locks and disks, so that the event loop does not.

Decisions that wait for the thread are made together, in one transaction: it costs as much as four decisions in it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from ratelimited_notify.forking import forkable, in_children
from ratelimited_notify.storage.event_loop import running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Request, Verdict

    Together: TypeAlias = Callable[[Sequence[Request]], Sequence[Verdict | Exception]]

T = TypeVar("T")

_MOST = 250
"""How many decisions are made together."""


class Late(Exception):
    """A job was not done in time. Whatever it has changed is undone when it ends."""


class _Job(Generic[T]):
    """Something to do in the worker's thread, whose result is awaited in an event loop.

    Arguments:
        undo: is called with its result if nobody awaits it any more.
    """

    __slots__ = ("_claims", "_future", "_loop", "_results", "_undo")

    def __init__(self, undo: Callable[[T], object] | None) -> None:
        self._undo = undo
        self._loop = running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()
        self._claims: dict[str, str] = {}
        self._results: list[T] = []

    def begin(self) -> bool:
        """Whether it has not been given up. One of `begin` and `give_up` comes first, in one step of the interpreter."""
        return self._claims.setdefault("first", "begun") == "begun"

    def give_up(self) -> bool:
        """Make sure that it never begins. False if it has begun."""
        return self._claims.setdefault("first", "given up") == "given up"

    def done(self, error: BaseException | None) -> None:
        """Have the result or the error delivered to who awaits it."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, error)
        except RuntimeError:
            # The event loop is closed.
            self.undo()

    def undo(self) -> None:
        """Undo what it did, in the worker's thread, after it has run."""
        if self._undo is not None and self._results:
            # Nobody is there to hear of an error, and a hit that stays counted lets nothing through.
            with suppress(Exception):
                self._undo(self._results.pop())

    def _deliver(self, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(self._results[0])
        else:
            self._future.set_exception(error)

    async def result(self, seconds: float) -> T:
        """The result.

        Raises:
            TimeoutError: it was not there after so many seconds.
        """
        async with asyncio.timeout(seconds):
            return await self._future


class _Call(_Job[T]):
    """One call.

    Arguments:
        work: the call.
        undo: as above.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], T], undo: Callable[[T], object] | None) -> None:
        super().__init__(undo)
        self._work = work

    def run(self) -> None:
        """Make the call, in the worker's thread."""
        if not self.begin():
            return
        error: BaseException | None = None
        try:
            self._results.append(self._work())
        except BaseException as raised:  # noqa: BLE001  # it is raised where the result is awaited
            error = raised
        self.done(error)


class _Decision(_Job["Verdict"]):
    """A decision, which can be made together with others.

    Arguments:
        request: what is to be decided.
        undo: as above.
    """

    __slots__ = ("request",)

    def __init__(self, request: Request, undo: Callable[[Verdict], object]) -> None:
        super().__init__(undo)
        self.request = request

    def end(self, result: Verdict | BaseException) -> None:
        """Deliver this."""
        if isinstance(result, BaseException):
            self.done(result)
        else:
            self._results.append(result)
            self.done(None)


_Queued: TypeAlias = "Callable[[], object] | _Decision | None"
"""A job; None ends the thread."""

_workers: WeakSet[Worker] = WeakSet()


class Worker:
    """A thread that runs jobs one after another. It begins with the first job, and keeps no process from exiting.

    Arguments:
        together: makes several decisions. It returns a verdict or an error for each.
    """

    def __init__(self, together: Together) -> None:
        self._together = together
        self._jobs: SimpleQueue[_Queued] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Several event loops may begin or end the thread at once.
        self._changing = forkable(threading.RLock())
        _workers.add(self)

    async def run(self, work: Callable[[], T], seconds: float, undo: Callable[[T], object] | None = None) -> T:
        """The result of a call that is made in the thread.

        If the caller is cancelled, or the time is over, before the call has begun, it is not made. Later, its result is undone.

        Arguments:
            work: the call. It raises what is to be raised here.
            seconds: how long to wait for the result.
            undo: takes the result, in the thread.

        Raises:
            Late: the result was not there in time.
        """
        job = _Call(work, undo)
        return await self._result(job, job.run, seconds)

    async def decide(self, request: Request, seconds: float, undo: Callable[[Verdict], object]) -> Verdict:
        """The verdict on a request, as `run` returns the result of a call."""
        job = _Decision(request, undo)
        return await self._result(job, job, seconds)

    async def _result(self, job: _Job[T], queued: _Queued, seconds: float) -> T:
        self._jobs.put(queued)
        if self._thread is None:
            self._start()
        try:
            return await job.result(seconds)
        except (TimeoutError, asyncio.CancelledError) as error:
            if not job.give_up():
                # The thread does one after another, so this comes after the job.
                self._jobs.put(job.undo)
            if isinstance(error, TimeoutError):
                raise Late from None
            raise

    def stop(self) -> None:
        """End the thread after the jobs that wait. The next job begins another one."""
        with self._changing:
            if self._thread is not None:
                self._thread = None
                self._jobs.put(None)

    def forget(self) -> None:
        """Begin anew in a forked child: the thread and its jobs are the parent's."""
        self._jobs = SimpleQueue()
        self._thread = None

    def _start(self) -> None:
        with self._changing:
            if self._thread is not None:
                return
            # The thread keeps the queue, not this object.
            thread = threading.Thread(
                target=_run_all, args=(self._jobs, self._together), name="ratelimited-notify SQLite", daemon=True
            )
            thread.start()
            self._thread = thread


def _run_all(jobs: SimpleQueue[_Queued], together: Together) -> None:
    while True:
        job = jobs.get()
        while isinstance(job, _Decision):
            job = _decide(job, jobs, together)
        if job is None:
            return
        job()
        # Not kept until the next one comes.
        del job


def _decide(first: _Decision, jobs: SimpleQueue[_Queued], together: Together) -> _Queued:
    """Make this decision, and those that wait behind it. Returns the next job that is something else, or one too many."""
    waiting = [first]
    following: _Queued = _nothing
    with suppress(Empty):
        while isinstance(following := jobs.get_nowait(), _Decision) and len(waiting) < _MOST:
            waiting.append(following)
            following = _nothing
    decided = [each for each in waiting if each.begin()]
    if decided:
        results: Sequence[Verdict | BaseException]
        try:
            results = together([each.request for each in decided])
        except BaseException as error:  # noqa: BLE001  # it is raised where the results are awaited
            results = [error] * len(decided)
        for each, result in zip(decided, results, strict=True):
            each.end(result)
    return following


def _nothing() -> None:
    """Do nothing."""


def _forget_all() -> None:
    for worker in tuple(_workers):
        worker.forget()


in_children(_forget_all)
