"""Threads and tasks that make decisions without a pause, and a record of the decisions and their times."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ratelimited_notify import AsyncLimiter, Limiter, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimited_notify import Decision

CAPPED, COUNTED = "capped", "counted"
"""The types of the decisions: one with a small limit that many callers share, one with a large limit per caller."""

SHARING = 40
"""How many callers share a small limit. With more, there would be too many conflicts on memcached."""

_ENDS_WITHIN = 10.0


class Told(NamedTuple):
    """One decision from the caller's point of view. Times are from the monotonic clock."""

    start: float
    end: float
    type: str
    counted: bool
    """Whether the storage decided. If not, `on_storage_error` did."""
    allowed: bool


@dataclass
class Caller:
    """One thread or task, and all its decisions."""

    number: int
    told: list[Told] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    """Errors instead of decisions. There must be none."""
    since: float = 0.0
    """When the current call began."""
    refused: bool = False
    """Whether the shared limit has refused one of its calls."""
    counted: float = 0.0
    """When its last counted decision was made; 0 for never."""
    ended: bool = False


class Load:
    """Callers that make decisions in a closed loop until they are stopped. Every other decision uses a shared limit.

    Arguments:
        number: the number of callers.
        uri: the URI of the storage.
        recipients: the recipients of the decisions, one for each caller.
        cap: the amount of a shared limit per hour.
        options: options of the limiter.
    """

    kind = ""

    def __init__(self, number: int, uri: str, recipients: Sequence[str], cap: int, **options: Any) -> None:
        self.callers = [Caller(number) for number in range(number)]
        self.recipients = recipients
        self.cap = cap
        self.options = {"on_storage_error": "allow", "timeout": 0.5, **options}
        self.timeout = float(self.options["timeout"])
        self._uri = uri
        self._stopped = False

    @property
    def rules(self) -> list[Rule]:
        """A small limit with a moving window, and a limit that is never reached."""
        return [
            Rule(CAPPED, f"{self.cap}/hour"),
            Rule(COUNTED, "1000000000/day", strategy="fixed-window"),
        ]

    def own(self, caller: Caller) -> str:
        """The recipient that only this caller counts."""
        return self.recipients[caller.number]

    def shared(self, caller: Caller) -> str:
        """The recipient of the small limit, which other callers count too."""
        return self.recipients[caller.number // SHARING]

    def told(self) -> Iterator[Told]:
        """All decisions so far."""
        for caller in self.callers:
            yield from caller.told.copy()

    def warm(self, within: float = 20.0) -> bool:
        """Wait until every caller has had a counted decision, and a refusal by its shared limit.

        Returns:
            False if this did not happen in time, because there are more callers than this machine can serve.
        """
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if all(caller.counted and caller.refused for caller in self.callers):
                return True
            time.sleep(0.02)
        return False

    def counted_since(self, instant: float) -> Told | None:
        """A counted decision that ended after this instant, or None."""
        for caller in self.callers:
            for one in reversed(caller.told):
                if one.end < instant:
                    break
                if one.counted:
                    return one
        return None

    def all_counted_since(self, instant: float) -> bool:
        """Whether every caller has had a counted decision after this instant."""
        return all(caller.counted >= instant for caller in self.callers)

    def stuck(self) -> list[Caller]:
        """The callers whose current call has lasted for ten timeouts."""
        now = time.monotonic()
        return [caller for caller in self.callers if not caller.ended and now - caller.since > 10 * self.timeout]

    def _record(self, caller: Caller, kind: str, decision: Decision) -> None:
        end = time.monotonic()
        counted = decision.error is None
        if counted:
            caller.counted = end
        caller.refused = caller.refused or (counted and not decision.allowed)
        caller.told.append(Told(caller.since, end, kind, counted, decision.allowed))

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError


class ThreadLoad(Load):
    """Threads that share one `Limiter`.

    Between two decisions a thread yields to the others, like a thread that sends a message after each decision.
    """

    kind = "threads"

    def __enter__(self) -> Self:
        self.limiter = Limiter(self.rules, self._uri, **self.options)
        # All threads begin at once: next to hundreds of busy threads, a new one takes long to start.
        self._all_started = threading.Event()
        self._threads = [threading.Thread(target=self._decide, args=(caller,), daemon=True) for caller in self.callers]
        for thread in self._threads:
            thread.start()
        self._all_started.set()
        return self

    def _decide(self, caller: Caller) -> None:
        turns = ((CAPPED, self.shared(caller)), (COUNTED, self.own(caller)))
        self._all_started.wait()
        try:
            while not self._stopped:
                for kind, recipient in turns:
                    caller.since = time.monotonic()
                    self._record(caller, kind, self.limiter.hit(kind, recipient))
                    time.sleep(0)
        except BaseException as error:  # noqa: BLE001  # the test checks for errors of any kind
            caller.raised.append(error)
        caller.ended = True

    def stop(self) -> None:
        """Let every thread finish its call. `stuck` returns those that do not."""
        self._stopped = True
        deadline = time.monotonic() + _ENDS_WITHIN
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.limiter.close()


class TaskLoad(Load):
    """Tasks of one event loop that share one `AsyncLimiter`. The loop runs in a separate thread.

    Between two decisions a task yields to the others. Otherwise a task whose calls never wait would block them.
    """

    kind = "tasks"

    def __enter__(self) -> Self:
        self.limiter = AsyncLimiter(self.rules, self._uri, **self.options)
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), daemon=True)
        self._thread.start()
        return self

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._decide(caller)) for caller in self.callers]
        while not self._stopped:  # noqa: ASYNC110  # another thread sets it
            await asyncio.sleep(0.02)
        _, pending = await asyncio.wait(tasks, timeout=_ENDS_WITHIN)
        for task in pending:
            task.cancel()
        await self.limiter.close()

    async def _decide(self, caller: Caller) -> None:
        turns = ((CAPPED, self.shared(caller)), (COUNTED, self.own(caller)))
        try:
            while not self._stopped:
                for kind, recipient in turns:
                    caller.since = time.monotonic()
                    self._record(caller, kind, await self.limiter.hit(kind, recipient))
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # the test checks for errors of any kind
            caller.raised.append(error)
        caller.ended = True

    def stop(self) -> None:
        """Let every task finish its call. `stuck` returns those that do not."""
        self._stopped = True
        self._thread.join(2 * _ENDS_WITHIN)

    def __exit__(self, *_: object) -> None:
        self.stop()


LOADS: dict[str, type[Load]] = {"threads": ThreadLoad, "tasks": TaskLoad}
"""The loads by kind."""
