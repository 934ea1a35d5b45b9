"""The memcached storage for threads, on pymemcache."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from limits.storage import MemcachedStorage as LimitsMemcachedStorage

from ratelimited_notify.errors import MissingExtra, StorageError
from ratelimited_notify.storage.engine import LimitsVerbs, bounded_clock
from ratelimited_notify.storage.memcached import decide, failures
from ratelimited_notify.storage.memcached.hosts import LANES, choose, hosts_of, lane_of

try:
    from pymemcache.client.base import Client  # pyright: ignore[reportMissingTypeStubs]  # annotated, not marked so
    from pymemcache.exceptions import (  # pyright: ignore[reportMissingTypeStubs]  # as above
        MemcacheError,
        MemcacheServerError,
        MemcacheUnexpectedCloseError,
        MemcacheUnknownError,
    )
except ImportError as error:
    raise MissingExtra("memcached", "The memcached storage") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any

    from ratelimited_notify.storage.memcached.decide import Step, Steps, Write
    from ratelimited_notify.storage.memcached.hosts import Address, Host
    from ratelimited_notify.windows import Grant, Request, Token, Window

T = TypeVar("T")

_reopening = threading.Lock()
if hasattr(os, "register_at_fork"):
    # Held by the thread that forks, which alone is there in the child to open it again.
    os.register_at_fork(
        before=_reopening.acquire, after_in_parent=_reopening.release, after_in_child=_reopening.release
    )


# The ignored difference: `incr` of limits' class has one more argument, which only its own sliding window passes.
class MemcachedStorage(  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]  # see above
    LimitsVerbs, LimitsMemcachedStorage
):
    """Windows in memcached, exact under threads, processes and hosts as far as the hosts' clocks agree.

    An item that memcached evicts is forgotten: give it memory enough (`-m`).

    Arguments:
        uri: `memcached://host:port`, several hosts divided by commas, or `memcached:///path/to.sock`. All processes
            must name the hosts alike: by their names each recipient's host is chosen.
        timeout: the most seconds that one call takes, all its attempts together; in `acquire_many`, each request.
        clock: a callable that gives seconds; by default this host's wall clock, which other hosts can agree with.
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
    ) -> None:
        # Past the constructor of limits' class, which would set up a client of its own.
        super(LimitsMemcachedStorage, self).__init__(uri, wrap_exceptions=wrap_exceptions)
        self.timeout = timeout
        # Not the time since the start plus the wall time then: that parts from the clocks of other processes and hosts
        # as soon as anything corrects a wall clock, and here many of them write the same stamps.
        self.now = bounded_clock(clock or time.time)
        self._hosts = hosts_of(uri)
        self._process = os.getpid()
        self._lanes: dict[Host, list[_Lane]] = {}
        self._open()
        weakref.finalize(self, _close, self._lanes)

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return self._run(decide.acquire(windows, keys, cost))

    def acquire_many(self, requests: Sequence[Request]) -> list[Grant]:
        grants: list[Grant] = []
        try:
            for request in requests:
                grants.append(self._run(decide.acquire(*request)))  # noqa: PERF401  # kept for below
        except StorageError:
            self._run(decide.abandon(requests, grants))
            raise
        return grants

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Grant:
        return self._run(decide.peek(windows, keys, cost))

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return self._run(decide.release(windows, keys, cost, tokens))

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return self._run(decide.forget(windows, keys))

    def check(self) -> bool:
        """Whether every host answers."""
        try:
            self.probe()
        except StorageError:
            return False
        return True

    def probe(self) -> None:
        """Make sure that every host answers; raises a `StorageError` that says which does not, and why."""
        deadline = time.monotonic() + self.timeout
        for host in self._hosts:
            with self._reach(host, "", deadline) as lane:
                lane.gets(b"check", deadline)

    def reset(self) -> int | None:
        raise failures.no_reset()

    def close(self) -> None:
        _close(self._lanes)

    def _open(self) -> None:
        self._lanes.update({host: [_Lane(host.address) for _ in range(LANES)] for host in self._hosts})

    def _reopen(self) -> None:
        """After a fork parent and child hold the same sockets and locks. Closing here leaves the parent's open."""
        with _reopening:
            if self._process != os.getpid():
                _close(self._lanes)
                self._open()
                # Not before: until then no thread of the child may use a connection.
                self._process = os.getpid()

    def _run(self, steps: Steps[T]) -> T:
        deadline = time.monotonic() + self.timeout
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
        key = step.head.encode()
        with self._reach(host, step.head, deadline) as lane:
            for attempt in count(1):
                value, unique = lane.gets(key, deadline)
                answer, write = decide.perform(step, value, self.now(), time.time())
                if write is None or lane.store(key, write, unique, deadline):
                    return answer
                pause = decide.pause(attempt)
                if time.monotonic() + pause > deadline:
                    raise failures.contended(host, self.timeout, attempt)
                time.sleep(pause)
        raise AssertionError  # pragma: no cover  # `count` never ends; said for the type checker

    @contextmanager
    def _reach(self, host: Host, head: str, deadline: float) -> Generator[_Lane]:
        """The connection to a host that serves this head, for the caller alone; its failures in words."""
        if self._process != os.getpid():
            self._reopen()
        lane = self._lanes[host][lane_of(head)]
        if not lane.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise failures.late(host, self.timeout)
        try:
            yield lane
        except TimeoutError:
            raise failures.late(host, self.timeout) from None
        except OSError as error:
            raise failures.broken(host, error) from error
        except MemcacheUnexpectedCloseError:
            raise failures.broken(host, ConnectionResetError()) from None
        except MemcacheServerError as error:
            raise failures.refused(host, _said(error)) from None
        except MemcacheError as error:
            # Its words may hold a key, and so a recipient.
            raise failures.refused(host, type(error).__name__) from None
        finally:
            lane.lock.release()


class _Lane:
    """One connection to one host, used by one thread at a time."""

    __slots__ = ("_address", "_client", "lock")

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = Client(address, default_noreply=False)
        self.lock = threading.Lock()

    def gets(self, key: bytes, deadline: float) -> tuple[bytes | None, bytes | None]:
        used_before = self._client.sock is not None
        try:
            return self._gets(key, deadline)
        except TimeoutError:
            raise
        except (OSError, MemcacheUnexpectedCloseError):
            # A server that was started anew has closed what was left open; to read twice does no harm.
            if not used_before:
                raise
        return self._gets(key, deadline)

    def _gets(self, key: bytes, deadline: float) -> tuple[bytes | None, bytes | None]:
        with self._connected(deadline) as client:
            return client.gets(key)

    def store(self, key: bytes, write: Write, unique: bytes | None, deadline: float) -> bool:
        """Whether the value was stored; False if somebody else was quicker. Never sent twice."""
        try:
            with self._connected(deadline) as client:
                if unique is None:
                    return bool(client.add(key, write.value, expire=write.expire))
                return bool(
                    client.cas(  # pyright: ignore[reportUnknownMemberType]  # its arguments are not annotated
                        key, write.value, unique, expire=write.expire
                    )
                )
        except MemcacheServerError as error:
            if _said(error) == failures.TOO_LARGE:
                raise write.outgrown() from None
            raise

    @contextmanager
    def _connected(self, deadline: float) -> Generator[Client]:
        client = self._client
        try:
            if client.sock is None:
                client.sock = _connect(self._address, _left(deadline))
            client.sock.settimeout(_left(deadline))
            yield client
        except (ValueError, KeyError):
            # How pymemcache stumbles over a reply that is none.
            client.close()
            raise MemcacheUnknownError from None
        except BaseException:
            # Its answer may still be on the way, and must not be taken for the next one's.
            client.close()
            raise

    def close(self) -> None:
        self._client.close()


def _connect(address: Address, seconds: float) -> socket.socket:
    # Not left to pymemcache, which tries only the first of the addresses that a host name has.
    if isinstance(address, str):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(seconds)
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection
    connection = socket.create_connection(address, timeout=seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _said(error: MemcacheServerError) -> str:
    said = error.args[0] if error.args else b""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _close(lanes: dict[Host, list[_Lane]]) -> None:
    for of_host in lanes.values():
        for lane in of_host:
            lane.close()
