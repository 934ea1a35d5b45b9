"""The circuit of a server: one that does not answer is left alone for a while, so that callers do not wait for it in turn.

It opens after some time-outs or lost connections in a row. While it is open nobody waits: calls fail at once. Every
`pause` seconds one caller sends a PING, never a hit, since a hit that timed out may still count later. The first answer
closes the circuit. There is one per process and server, however many limiters use the server.

The pattern: Nygard, "Release It!", 2007. Nothing here does I/O, and no lock is held during a call.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from ratelimited_notify.circuit import Circuit

State: TypeAlias = Literal["closed", "open", "half-open"]
"""Closed: the server is asked. Open: it is not. Half-open: one caller waits for the answer to a PING."""

_PATIENT = 4
"""Every PING of so many may take all of the time-out."""

_YIELD_EVERY = 4
_YIELD = 1e-4
"""Seconds: long enough that another thread runs, which a pause of 0 does not guarantee."""


class Breaker:
    """The circuit of one server.

    `is_open` and `failures` are read on every call; everything else happens only when something is wrong.

    Arguments:
        circuit: when to open and when to try again; None never opens.
    """

    __slots__ = (
        "__weakref__",
        "_circuit",
        "_closed_at",
        "_lock",
        "_pings",
        "_probe_at",
        "_probing",
        "_refused",
        "failures",
        "is_open",
    )

    def __init__(self, circuit: Circuit | None) -> None:
        self._circuit = circuit
        # Reentrant: a signal handler may decide about a notification while its thread holds it.
        self._lock = threading.RLock()
        self.failures = 0
        """How many calls in a row got no answer."""
        self.is_open = False
        self._probing = False
        self._probe_at = 0.0
        self._closed_at = float("-inf")
        self._refused = 0
        self._pings = 0

    @property
    def state(self) -> State:
        """Where the circuit stands."""
        if not self.is_open:
            return "closed"
        return "half-open" if self._probing else "open"

    def failed(self, began: float, *, timed_out: bool) -> None:
        """A call got no answer.

        Arguments:
            began: when it began, by `time.monotonic`.
            timed_out: whether it waited in vain, rather than lost its connection.
        """
        circuit = self._circuit
        # What began before the circuit was last closed says nothing about the server as it is now.
        if circuit is None or began < self._closed_at:
            return
        with self._lock:
            self.failures += 1
            self._probing = False
            if self.failures >= circuit.failures and not self.is_open:
                # A lost connection may have been just that, and trying again costs nobody any time.
                self._probe_at = time.monotonic() + (circuit.pause if timed_out else 0)
                self.is_open = True

    def answered(self) -> None:
        """The server answered, whatever it said. Needs to be called only if there are `failures`."""
        with self._lock:
            self.failures = 0
            if self.is_open:
                self._closed_at = time.monotonic()
                self.is_open = self._probing = False

    def may_probe(self) -> bool:
        """Whether this caller is the one to send a PING now; the pause until the next one begins with it."""
        circuit = self._circuit
        if circuit is None or time.monotonic() < self._probe_at:
            return False
        with self._lock:
            now = time.monotonic()
            if now < self._probe_at or not self.is_open:
                return False
            self._probe_at = now + circuit.pause
            self._probing = True
            return True

    def ping_time(self, timeout: float) -> float:
        """Seconds that the PING may take which `may_probe` has allowed.

        Half of the pause at most, or a single caller would wait for one PING after another. On a slow link that may be too
        little to connect, so now and then it is all of the time-out.
        """
        pause = timeout if self._circuit is None else self._circuit.pause
        self._pings += 1
        return timeout if self._pings % _PATIENT == 0 else min(timeout, pause) / 2

    def refused(self) -> None:
        """A call failed at once. Busy threads give way now and then, or the one with the PING would not get to run."""
        self._refused += 1
        if self._probing and self._refused % _YIELD_EVERY == 0:
            time.sleep(_YIELD)

    def forked(self) -> None:
        """Start anew in a child process, with what is known of the server."""
        # Another thread of the parent may have held the lock, and only the parent's callers can end a probe.
        self._lock = threading.RLock()
        self._probing = False


# The breakers that are in use, by server and settings.
_breakers: WeakValueDictionary[tuple[str, Circuit], Breaker] = WeakValueDictionary()
_making = threading.RLock()


def breaker_for(server: str, circuit: Circuit | None) -> Breaker:
    """The one breaker that this process has for a server; limiters with the same settings share it.

    Arguments:
        server: its address.
        circuit: the settings; None gives a breaker that never opens.
    """
    if circuit is None:
        return Breaker(None)
    with _making:
        found = _breakers.get((server, circuit))
        if found is None:
            found = _breakers[server, circuit] = Breaker(circuit)
        return found


def _after_fork() -> None:
    global _making  # noqa: PLW0603  # a lock that a thread of the parent held stays locked for ever
    _making = threading.RLock()
    for reference in _breakers.valuerefs():
        breaker = reference()
        if breaker is not None:
            breaker.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Circuits(Mapping[str, State]):
    """The state of each server's circuit, as it is when you look.

    Arguments:
        breakers: the servers by address; what is added later is seen too.
    """

    __slots__ = ("_breakers",)

    def __init__(self, breakers: Mapping[str, Breaker]) -> None:
        self._breakers = breakers

    def __getitem__(self, server: str) -> State:
        return self._breakers[server].state

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._breakers))

    def __len__(self) -> int:
        return len(self._breakers)

    def __repr__(self) -> str:
        return repr(dict(self))
