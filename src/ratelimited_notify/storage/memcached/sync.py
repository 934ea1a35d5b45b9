"""The memcached storage for threads."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from limits.storage import MemcachedStorage as LimitsMemcachedStorage

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.breaker import Circuits, breaker_for
from ratelimited_notify.storage.circuit import DEFAULT
from ratelimited_notify.storage.engine import WALL_CLOCK, LimitsVerbs, bounded_clock
from ratelimited_notify.storage.memcached import decide, failures
from ratelimited_notify.storage.memcached.connection import Holder, Lanes, nobody
from ratelimited_notify.storage.memcached.forking import this_process
from ratelimited_notify.storage.memcached.hosts import choose, hosts_of
from ratelimited_notify.storage.memcached.protocol import Gets, Store, TooLarge, Version
from ratelimited_notify.storage.timeout import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ratelimited_notify.storage.breaker import Breaker
    from ratelimited_notify.storage.circuit import Circuit
    from ratelimited_notify.storage.memcached.connection import Connection, Lane
    from ratelimited_notify.storage.memcached.decide import Step, Steps
    from ratelimited_notify.storage.memcached.hosts import Host
    from ratelimited_notify.windows.strategies import Request, Token, Verdict, Window

T = TypeVar("T")

_VERSION = Version()


# The ignored difference: `incr` of limits' class has one more argument, which only its own sliding window passes.
class MemcachedStorage(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]  # see above
    LimitsVerbs, LimitsMemcachedStorage
):
    """Windows in memcached, exact across threads, processes and hosts as far as the hosts' clocks agree.

    An item that memcached evicts is forgotten: give memcached enough memory (`-m`).

    Arguments:
        uri: `memcached://host:port`, several hosts separated by commas, or `memcached:///path/to.sock`. All processes must
            write the host names in the same way, because a recipient's host is chosen by name.
        timeout: the longest time that one call takes, including all attempts, in seconds; 0.5 by default. In `acquire_many`
            it applies to each group of 250 requests. The system's name resolver has no deadline: use IP addresses if it
            is slow.
        clock: a callable that returns seconds; by default this host's wall clock, which other hosts can agree with.
        circuit: when to stop sending requests to a host that does not answer, and when to try again; None never stops.
    """

    STORAGE_SCHEME = ["notify+memcached"]

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
        # Not the wall time at the start plus the time since: that drifts apart from the clocks of other processes and hosts
        # as soon as a wall clock is corrected, and here many of them write stamps into the same windows.
        self.now = bounded_clock(clock or WALL_CLOCK)
        self._hosts = hosts_of(uri)
        self._circuit = circuit
        self._breakers = {host.name: breaker_for(host.name, circuit) for host in self._hosts}
        self.circuits = Circuits(self._breakers)
        """The state of each host's circuit, by its name."""
        self._lanes = self._new_lanes()

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._run(decide.acquire(windows, keys, cost), self._deadline())

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        deadline = 0.0
        try:
            for request in requests:
                if len(verdicts) % decide.GROUP == 0:
                    deadline = self._deadline()
                verdicts.append(self._run(decide.acquire(*request), deadline))
        except StorageError as error:
            kept = self._run(decide.abandon(requests, verdicts), self._deadline())
            if kept:
                raise failures.batch_counted(error, kept) from error
            raise
        return verdicts

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        return self._run(decide.peek(windows, keys, cost), self._deadline())

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self._run(decide.release(windows, keys, cost, tokens), self._deadline())

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self._run(decide.forget(windows, keys), self._deadline())

    def pause(self, window: Window, key: str, duration: int) -> int:
        return self._run(decide.pause(window, key, duration), self._deadline())

    def check(self) -> bool:
        """Whether every host replies."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Check that every host replies. Raises a `StorageError` that says which host does not, and why."""
        deadline = self._deadline()
        for host in self._hosts:
            # The PING is sent even if the circuit is open, and updates the circuit. It counts nothing.
            self._on_connection(host, "", deadline, None, is_probe=True)

    def reset(self) -> int | None:
        raise failures.no_reset()

    def close(self) -> None:
        lanes, self._lanes = self._lanes, self._new_lanes()
        lanes.close()

    def _new_lanes(self) -> Lanes:
        return Lanes(self._hosts, self._breakers, self.timeout)

    def _deadline(self) -> float:
        return time.monotonic() + self.timeout

    def _run(self, steps: Steps[T], deadline: float) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._perform(step, deadline)
                except StorageError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def _perform(self, step: Step, deadline: float) -> Any:  # Any: as in `Step`
        host = choose(self._hosts, step.head)
        breaker = self._breakers[host.name]
        is_probe = breaker.is_open and breaker.may_probe()
        if breaker.is_open and not is_probe:
            raise self._not_asked(host, breaker, deadline)
        return self._on_connection(host, step.head, deadline, step, is_probe=is_probe)

    def _on_connection(
        self, host: Host, head: str, deadline: float, step: Step | None, *, is_probe: bool
    ) -> Any:  # Any: as in `Step`
        """Run a step, if there is one, on the connection that serves this key head, and return its answer."""
        if self._lanes.process is not this_process():
            # This is a forked child. Threads that get here at the same time each make new lanes; the last ones stay.
            self._lanes = self._new_lanes()
        if time.monotonic() >= deadline:
            raise failures.out_of_time(host, self.timeout)
        holder = Holder()
        lane = self._lanes.take(host, head, deadline)
        if lane is None:
            raise failures.busy(host, self.timeout)
        try:
            lane.is_held_by(holder, deadline)
            if is_probe:
                until = deadline if step is None else time.monotonic() + lane.breaker.ping_time(self.timeout)
                self._ping(host, lane, min(deadline, until))
            elif lane.breaker.is_open:
                # The circuit opened while this thread waited for the connection.
                raise self._not_asked(host, lane.breaker, deadline)
            return None if step is None else self._swap(host, lane.connection, deadline, step)
        finally:
            # Signal handlers run after calls, and the release is the first call here: none can run before the lock is free.
            lane.holder = nobody
            lane.lock.release()

    def _ping(self, host: Host, lane: Lane, deadline: float) -> None:
        """Check that the server replies."""
        try:
            lane.connection.ask(_VERSION, deadline)
        except StorageError as error:
            # A refusal is a reply, and closes the circuit.
            if lane.breaker.is_open:
                raise failures.not_asked(host, self._circuit or DEFAULT) from error
            raise

    def _swap(self, host: Host, connection: Connection, deadline: float, step: Step) -> Any:  # Any: as in `Step`
        """Read an item and write it back; repeat if another caller has written it in between."""
        key = step.head.encode()
        gets = Gets(key)
        for attempt in count(1):
            value, unique = connection.ask(gets, deadline)
            answer, write = decide.perform(step, value, self.now(), time.time())
            if write is None:
                return answer
            try:
                if connection.ask(Store(key, write.value, write.expire, unique), deadline):
                    return answer
            except TooLarge:
                raise write.outgrown() from None
            pause = decide.backoff(attempt)
            if time.monotonic() + pause > deadline:
                raise failures.contended(host, self.timeout, attempt)
            time.sleep(pause)
        raise AssertionError  # pragma: no cover  # `count` never ends; for the type checker

    def _not_asked(self, host: Host, breaker: Breaker, deadline: float) -> StorageError:
        breaker.refused(deadline - time.monotonic())
        return failures.not_asked(host, self._circuit or DEFAULT)
