"""The circuit of a server: one that does not answer is left alone for a while, so that callers do not wait for it in turn.

It opens after some time-outs or lost connections in a row. While it is open nobody waits: calls fail at once. Every
`pause` seconds one caller sends a PING, never a hit, since a hit that timed out may still count later. The first answer
closes the circuit. There is one per process and server, however many limiters use the server.

The pattern: Nygard, "Release It!", 2007. Nothing here does I/O, and nothing takes a lock: one that an interrupt or a fork
leaves locked would stop every caller. What has to happen once is claimed by `dict.setdefault`, which is one step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from ratelimited_notify.storage.circuit import Circuit

State: TypeAlias = Literal["closed", "open", "half-open"]
"""Closed: the server is asked. Open: it is not. Half-open: one caller waits for the answer to a PING."""

_PATIENT = 4
"""Every PING of so many may take all of the time-out."""

_CLAIMS = 8

_YIELD = 2.5e-4
"""Seconds: long enough that another thread runs, which a pause of 0 does not guarantee."""

_LONGEST_YIELD = 0.25


class _Claim:
    """Who is to send the PING that is due."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at


class Breaker:
    """The circuit of one server.

    `is_open` and `failures` are read on every call; everything else happens only when something is wrong.

    Arguments:
        circuit: when to open and when to try again; None never opens.
    """

    __slots__ = (
        "__weakref__",
        "_circuit",
        "_claims",
        "_closed_at",
        "_pings",
        "_probe_at",
        "_probing",
        "_refused_last",
        "_yielding",
        "failures",
        "is_open",
    )

    def __init__(self, circuit: Circuit | None) -> None:
        self._circuit = circuit
        self.failures = 0
        """How many calls in a row got no answer."""
        self.is_open = False
        self._probing = False
        self._probe_at = 0.0
        self._closed_at = float("-inf")
        self._refused_last = 0
        self._yielding: set[int] = set()
        self._pings = 0
        self._claims: dict[float, _Claim] = {}

    @property
    def state(self) -> State:
        """Where the circuit stands."""
        if not self.is_open:
            return "closed"
        # Who sent the PING may have been interrupted.
        return "half-open" if self._probing and time.monotonic() < self._probe_at else "open"

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
        self.failures += 1
        self._probing = False
        if self.failures >= circuit.failures and not self.is_open:
            # A lost connection may have been just that, and trying again costs nobody any time.
            self._probe_at = time.monotonic() + (circuit.pause if timed_out else 0)
            self.is_open = True

    def answered(self) -> None:
        """The server answered, whatever it said. Needs to be called only if there are `failures`."""
        if self.is_open:
            self._closed_at = time.monotonic()
            self.is_open = self._probing = False
        # Last: an interrupt before it leaves failures, so that the next answer comes here again.
        self.failures = 0

    def may_probe(self) -> bool:
        """Whether this caller is the one to send a PING now; the pause until the next one begins with it."""
        circuit, due, now = self._circuit, self._probe_at, time.monotonic()
        if circuit is None or now < due or not self.is_open:
            return False
        claim = _Claim(now)
        first = self._claims.setdefault(due, claim)
        if first is not claim:
            if now > first.at + circuit.pause:
                # Who had it was interrupted before it could say so.
                self._claims = {}
            return False
        self._probe_at = now + circuit.pause
        self._probing = True
        # Some may have been interrupted before they said that they go on.
        self._yielding = set()
        if len(self._claims) > _CLAIMS:
            # Those who come late still find this one.
            self._claims = {due: claim}
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
        """A thread's call failed at once: give way where others ask too, or the one that sends the PING would not run."""
        caller = get_ident()
        seconds = self._yields(caller)
        if seconds:
            try:
                time.sleep(seconds)
            finally:
                self._yielding.discard(caller)

    async def refused_task(self) -> None:
        """The same for a task."""
        import asyncio

        caller = id(asyncio.current_task())
        seconds = self._yields(caller)
        if seconds:
            try:
                await asyncio.sleep(seconds)
            finally:
                self._yielding.discard(caller)

    def _yields(self, caller: int) -> float:
        """For how many seconds a caller gives way; 0 for one that asks alone.

        The more there are, the longer each: all together come back some four thousand times a second, however many they are.
        """
        alone = caller == self._refused_last and not self._yielding
        self._refused_last = caller
        if alone:
            return 0.0
        self._yielding.add(caller)
        return min(_YIELD * len(self._yielding), _LONGEST_YIELD)

    def forked(self) -> None:
        """Go on in a child process, with what is known of the server: only the parent's callers can end its PING."""
        self._probing = False
        self._claims = {}
        self._yielding = set()


# The breakers that are in use, by server and settings.
_breakers: dict[tuple[str, Circuit], ref[Breaker]] = {}


def breaker_for(server: str, circuit: Circuit | None) -> Breaker:
    """The one breaker that this process has for a server; limiters with the same settings share it.

    Arguments:
        server: its address.
        circuit: the settings; None gives a breaker that never opens.
    """
    made = Breaker(circuit)
    if circuit is None:
        return made
    for gone in [key for key, reference in _breakers.copy().items() if reference() is None]:
        _forget(gone)
    mine, found = ref(made), None
    while found is None:
        found = _breakers.setdefault((server, circuit), mine)()
        if found is None:
            # Nobody has used it since just now.
            _forget((server, circuit))
    return found


def _forget(key: tuple[str, Circuit]) -> None:
    reference = _breakers.pop(key, None)
    if reference is not None and reference() is not None:
        # Somebody else was quicker, and this is a new one.
        _breakers.setdefault(key, reference)


def _after_fork() -> None:
    for reference in _breakers.copy().values():
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
        # Not a tuple: to make one may start the garbage collector, and so let another thread add a server meanwhile.
        return iter(list(self._breakers))

    def __len__(self) -> int:
        return len(self._breakers)

    def __repr__(self) -> str:
        return repr(dict(self))
