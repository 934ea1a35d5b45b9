"""The memcached storage for asyncio."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary, finalize

from limits.aio.storage import MemcachedStorage as LimitsMemcachedStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.engine import WALL_CLOCK, AsyncLimitsVerbs, bounded_clock
from ratelimited_notify.storage.event_loop import running_loop
from ratelimited_notify.storage.memcached import decide, failures
from ratelimited_notify.storage.memcached.connection_aio import AsyncConnection, Idle
from ratelimited_notify.storage.memcached.hosts import choose, hosts_of, lane_of
from ratelimited_notify.storage.memcached.protocol import FAILURES, Gets, Store, TooLarge, Version
from ratelimited_notify.storage.timeout import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ratelimited_notify.storage.breaker import Breaker
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.memcached.decide import Step, Steps
    from ratelimited_notify.storage.memcached.hosts import Host
    from ratelimited_notify.storage.memcached.protocol import Exchange
    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

T = TypeVar("T")

_VERSION = Version()


# The ignored difference: `incr` of limits' class has one more argument, which only its own sliding window passes.
class AsyncMemcachedStorage(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]  # see above
    AsyncLimitsVerbs, LimitsMemcachedStorage
):
    """Windows in memcached for asyncio: the same items and the same arguments as `MemcachedStorage`.

    One object serves any number of event loops, one after another or at the same time.
    """

    STORAGE_SCHEME = ["async+notify+memcached"]

    exact = True

    def __init__(
        self,
        uri: str,
        wrap_exceptions: bool = False,
        *,
        timeout: float = 0.5,
        clock: Callable[[], float] | None = None,
        circuit: Circuit | None = DEFAULT,
    ) -> None:
        # Skips the constructor of limits' class, which would set up a client of its own.
        super(LimitsMemcachedStorage, self).__init__(uri, wrap_exceptions=wrap_exceptions)
        self.timeout = checked_timeout(timeout)
        # `MemcachedStorage` says why this is the wall clock.
        self.now = bounded_clock(clock or WALL_CLOCK)
        self._hosts = hosts_of(uri)
        self._circuit = circuit
        self._breakers = {host.name: breaker_for(host.name, circuit) for host in self._hosts}
        self.circuits = Circuits(self._breakers)
        """The state of each host's circuit, by its name."""
        self._idle = Idle()
        # A lock is tied to its event loop, so it lives only as long as a task holds or awaits it.
        self._locks: WeakValueDictionary[tuple[int, Host, int], asyncio.Lock] = WeakValueDictionary()
        finalize(self, self._idle.close)

    async def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(decide.acquire(windows, keys, cost), self._deadline())

    async def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        deadline = 0.0
        try:
            for request in requests:
                if len(verdicts) % decide.GROUP == 0:
                    deadline = self._deadline()
                verdicts.append(await self._run(decide.acquire(*request), deadline))
        except StorageError as error:
            kept = await self._run(decide.abandon(requests, verdicts), self._deadline())
            if kept:
                raise failures.batch_counted(error, kept) from error
            raise
        return verdicts

    async def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return await self._run(decide.peek(windows, keys, cost), self._deadline())

    async def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return await self._run(decide.release(windows, keys, cost, tokens), self._deadline())

    async def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return await self._run(decide.forget(windows, keys), self._deadline())

    async def pause(self, window: Window, key: str, duration: int) -> int:
        return await self._run(decide.pause(window, key, duration), self._deadline())

    async def check(self) -> bool:
        """Whether every host replies."""
        deadline = self._deadline()
        try:
            for host in self._hosts:
                # The PING is sent even if the circuit is open, and updates the circuit. It counts nothing.
                await self._on_connection(host, "", deadline, None, is_probe=True)
        except StorageError:
            return False
        return True

    async def reset(self) -> int | None:
        raise failures.no_reset()

    async def close(self) -> None:
        self._idle.close()

    def _deadline(self) -> float:
        return running_loop().time() + self.timeout

    async def _run(self, steps: Steps[T], deadline: float) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._perform(step, deadline)
                except StorageError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _perform(self, step: Step, deadline: float) -> Any:  # Any: as in `Step`
        host = choose(self._hosts, step.head)
        breaker, is_probe = self._breakers[host.name], False
        if breaker.is_open:
            # A task that calls again and again must not starve the task that waits for the reply to its PING.
            await asyncio.sleep(0)
            is_probe = breaker.may_probe()
            if breaker.is_open and not is_probe:
                await breaker.refused_task(deadline - asyncio.get_running_loop().time())
                raise failures.not_asked(host, self._circuit or DEFAULT)
        return await self._on_connection(host, step.head, deadline, step, is_probe=is_probe)

    async def _on_connection(
        self, host: Host, head: str, deadline: float, step: Step | None, *, is_probe: bool
    ) -> Any:  # Any: as in `Step`
        """Run a step, if there is one, under the lock of this key head, until the deadline, and return its answer.

        Every failure is a `StorageError`.
        """
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline:
            raise failures.out_of_time(host, self.timeout)
        lock = self._locks.setdefault((id(loop), host, lane_of(head)), asyncio.Lock())
        session = _Session(host, self._breakers[host.name], self._idle, self.timeout, deadline)
        try:
            async with asyncio.timeout_at(deadline), lock:
                session.has_lock = True
                try:
                    return await self._ask(session, step, is_probe=is_probe)
                finally:
                    # After a cancellation too: a reply may be pending, and the next task must not read it.
                    session.end()
        except TimeoutError:
            raise session.late() from None

    async def _ping(self, session: _Session, deadline: float) -> None:
        """Check that the server replies."""
        try:
            async with asyncio.timeout_at(deadline):
                await session.ask(_VERSION)
        except (TimeoutError, StorageError) as error:
            failure = session.late() if isinstance(error, TimeoutError) else error
            # A refusal is a reply, and closes the circuit.
            if session.breaker.is_open:
                raise failures.not_asked(session.host, self._circuit or DEFAULT) from error
            raise failure from None

    async def _ask(self, session: _Session, step: Step | None, *, is_probe: bool) -> Any:  # Any: as in `Step`
        if is_probe:
            until = asyncio.get_running_loop().time() + session.breaker.ping_time(self.timeout)
            await self._ping(session, session.deadline if step is None else min(session.deadline, until))
        elif session.breaker.is_open:
            # The circuit opened while this task waited for the lock.
            await asyncio.sleep(0)
            raise failures.not_asked(session.host, self._circuit or DEFAULT)
        if step is None:
            return None
        key = step.head.encode()
        gets = Gets(key)
        for attempt in count(1):
            value, unique = await session.ask(gets)
            answer, write = decide.perform(step, value, self.now(), time.time())
            if write is None:
                return answer
            try:
                if await session.ask(Store(key, write.value, write.expire, unique)):
                    return answer
            except TooLarge:
                raise write.outgrown() from None
            pause = decide.backoff(attempt)
            if asyncio.get_running_loop().time() + pause > session.deadline:
                raise failures.contended(session.host, self.timeout, attempt)
            await asyncio.sleep(pause)
        raise AssertionError  # pragma: no cover  # `count` never ends; for the type checker


class _Session:
    """The exchanges of one task with a host, on one connection.

    Arguments:
        host: the host.
        breaker: its circuit breaker.
        idle: the idle connections.
        timeout: the longest time that a decision takes, in seconds.
        deadline: by the event loop's clock.
    """

    __slots__ = (
        "_began",
        "_connection",
        "_has_sent",
        "_idle",
        "_left",
        "_timeout",
        "breaker",
        "deadline",
        "has_lock",
        "host",
    )

    def __init__(self, host: Host, breaker: Breaker, idle: Idle, timeout: float, deadline: float) -> None:
        self.host = host
        self.breaker = breaker
        self.deadline = deadline
        self.has_lock = False
        self._idle = idle
        self._timeout = timeout
        self._connection: AsyncConnection | None = None
        # The exchange that has no answer yet: when it began, how many seconds it had, whether it changes anything.
        self._began: float | None = None
        self._left = 0.0
        self._has_sent = False

    async def ask(self, exchange: Exchange[T]) -> T:
        """Send a request and return the answer; take an idle connection or open one if needed.

        Raises:
            StorageError: there is no answer.
            TooLarge: the value to be stored is too large for the server.
        """
        self._began = time.monotonic()
        self._left = self.deadline - asyncio.get_running_loop().time()
        self._has_sent = exchange.changes
        try:
            connection = self._connection
            answer = await (self._first(exchange) if connection is None else connection.ask(exchange))
        except TooLarge:
            self.breaker.answered()
            raise
        except FAILURES as error:
            if isinstance(error, OSError):
                self._failed(is_late=isinstance(error, TimeoutError))
            else:
                self.breaker.answered()
            raise failures.storage_error(self.host, self._timeout, error, sent=exchange.changes) from None
        self._began = None
        if self.breaker.failures:
            self.breaker.answered()
        return answer

    async def _first(self, exchange: Exchange[T]) -> T:
        """The answer to the first request, which only reads."""
        kept = self._connection = self._idle.take(self.host)
        if kept is not None:
            try:
                return await kept.ask(exchange)
            except TimeoutError:
                raise
            except OSError:
                # A restarted server has closed its idle connections.
                kept.close()
        connection = self._connection = await AsyncConnection.open(self.host.address, self.deadline)
        return await connection.ask(exchange)

    def late(self) -> StorageError:
        """The error to raise when the deadline has passed."""
        if not self.has_lock:
            return failures.busy(self.host, self._timeout)
        if self._began is None:
            return failures.out_of_time(self.host, self._timeout)
        # A blocked event loop could not have read the reply, so this does not count against the server.
        if asyncio.get_running_loop().time() - self.deadline < self._timeout / 2:
            self._failed(is_late=True)
        return failures.late(self.host, self._timeout, sent=self._has_sent)

    def _failed(self, *, is_late: bool) -> None:
        # If the server had little time, a time-out does not count against it.
        if self._began is not None and (not is_late or self._left >= self._timeout / 2):
            self.breaker.failed(self._began, timed_out=is_late)

    def end(self) -> None:
        """Keep the connection for reuse if it is clean."""
        if self._connection is not None:
            self._idle.put(self.host, self._connection)
