"""Threads and tasks that decide without a pause, and what each of them was told when."""

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
"""The types of what is decided: a small limit that many callers share, and a large one for each."""

SHARING = 40
"""So many callers share a small limit: on memcached more would get into each other's way."""

_ENDS_WITHIN = 10.0


class Told(NamedTuple):
    """One decision as its caller saw it; times are of the monotonic clock."""

    start: float
    end: float
    type: str
    counted: bool
    """Whether the storage decided, and not `on_storage_error`."""
    allowed: bool


@dataclass
class Caller:
    """One thread or task, and all that it was told."""

    number: int
    told: list[Told] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    """What may not happen: an error that is no decision."""
    since: float = 0.0
    """When the call that it is in was begun."""
    refused: bool = False
    """Whether it was told that the shared limit is used up."""
    counted: float = 0.0
    """When it was last told something that was counted; 0 for never."""
    ended: bool = False


class Load:
    """Callers that decide in a closed loop until they are stopped; every other decision is about the shared limit.

    Arguments:
        number: how many callers.
        uri: the storage.
        recipients: whom to decide about, one for each caller.
        cap: how much a shared limit allows in an hour.
        options: of the limiter.
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
        """A small limit in a moving window, and one that is never reached."""
        return [
            Rule(CAPPED, f"{self.cap}/hour"),
            Rule(COUNTED, "1000000000/day", strategy="fixed-window"),
        ]

    def own(self, caller: Caller) -> str:
        """The recipient whom only this caller counts."""
        return self.recipients[caller.number]

    def shared(self, caller: Caller) -> str:
        """The recipient of the small limit, whom others decide about too."""
        return self.recipients[caller.number // SHARING]

    def told(self) -> Iterator[Told]:
        """All that was told so far."""
        for caller in self.callers:
            yield from caller.told.copy()

    def warm(self, within: float = 20.0) -> bool:
        """Wait until every caller was told something that was counted, and the shared limits are used up.

        Returns:
            Whether that came to be; False where there are more callers than this machine can serve in time.
        """
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if all(caller.counted and caller.refused for caller in self.callers):
                return True
            time.sleep(0.02)
        return False

    def counted_since(self, instant: float) -> Told | None:
        """A decision that was counted, and ended after this instant."""
        for caller in self.callers:
            for one in reversed(caller.told):
                if one.end < instant:
                    break
                if one.counted:
                    return one
        return None

    def all_counted_since(self, instant: float) -> bool:
        """Whether every caller was told something that was counted, after this instant."""
        return all(caller.counted >= instant for caller in self.callers)

    def stuck(self) -> list[Caller]:
        """Who has been in one call for many time-outs."""
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

    Between two decisions a thread gives way to the others, as one that sends what it decided about does.
    """

    kind = "threads"

    def __enter__(self) -> Self:
        self.limiter = Limiter(self.rules, self._uri, **self.options)
        # All begin at once: a thread that is started beside hundreds of busy ones takes long to come up.
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
        except BaseException as error:  # noqa: BLE001  # the test is to see it, whatever it is
            caller.raised.append(error)
        caller.ended = True

    def stop(self) -> None:
        """Let every thread end its call; who does not is found by `stuck`."""
        self._stopped = True
        deadline = time.monotonic() + _ENDS_WITHIN
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.limiter.close()


class TaskLoad(Load):
    """Tasks of one event loop that share one `AsyncLimiter`; the loop runs in a thread of its own.

    Between two decisions a task gives way to the others: one that is answered without waiting would not otherwise.
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
        except BaseException as error:  # noqa: BLE001  # the test is to see it, whatever it is
            caller.raised.append(error)
        caller.ended = True

    def stop(self) -> None:
        """Let every task end its call; who does not is found by `stuck`."""
        self._stopped = True
        self._thread.join(2 * _ENDS_WITHIN)

    def __exit__(self, *_: object) -> None:
        self.stop()


LOADS: dict[str, type[Load]] = {"threads": ThreadLoad, "tasks": TaskLoad}
"""By kind."""
