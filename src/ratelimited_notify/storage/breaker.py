"""The circuit breaker of a server: after repeated failures, calls fail at once instead of waiting for the server one by one.

The circuit opens after some time-outs or lost connections in a row. While it is open no caller waits: calls fail at once.
Every `pause` seconds one caller sends a PING. It never sends a hit, because a hit that timed out may still be counted
later. The first reply closes the circuit. There is one circuit per process and server, however many limiters use the server.

The pattern is from Nygard, "Release It!", 2007. Nothing here does I/O or takes a lock: a lock left locked by an interrupt or
a fork would block every caller. Work that must happen once is claimed by `dict.setdefault`, which is one atomic step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Literal, TypeAlias
from weakref import ref

from ratelimited_notify.forking import in_children
from ratelimited_notify.instrumentation import registry

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation.events import Event
    from ratelimited_notify.storage.circuit import Circuit

State: TypeAlias = Literal["closed", "open", "half-open"]
"""Closed: requests are sent. Open: no requests are sent. Half-open: one caller waits for the reply to a PING."""

_PATIENT = 4
"""One PING in this many may take the whole time-out."""

_CLAIMS = 8

_YIELD = 2.5e-4
"""Seconds: long enough for another thread to run, which a pause of 0 does not guarantee."""

_LONGEST_YIELD = 0.25


class _Claim:
    """One caller's claim to send the PING that is due."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at


class _Telling:
    """One caller that tells those who watch. It is gone when the caller is done, however that ended."""

    __slots__ = ("__weakref__",)


class Breaker:
    """The circuit of one server.

    `is_open` and `failures` are read on every call. Everything else runs only when something is wrong.

    Arguments:
        circuit: when to open and when to try again; None never opens.
        server: the address of the server, for those who watch.
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
        "_telling",
        "_told_open",
        "_yielding",
        "failures",
        "hint",
        "is_open",
        "server",
    )

    def __init__(self, circuit: Circuit | None, server: str = "") -> None:
        self._circuit = circuit
        self.server = server
        self.failures = 0
        """How many calls in a row got no reply."""
        self.is_open = False
        self.hint = ""
        """What may be the reason, for a message."""
        self._probing = False
        self._probe_at = 0.0
        self._closed_at = float("-inf")
        self._refused_last = 0
        self._yielding: set[int] = set()
        self._pings = 0
        self._claims: dict[float, _Claim] = {}
        # What was told last, and the caller that tells just now.
        self._told_open = False
        self._telling: dict[None, ref[_Telling]] = {}

    @property
    def state(self) -> State:
        """The state of the circuit."""
        if not self.is_open:
            return "closed"
        # The caller that sent the PING may have been interrupted.
        return "half-open" if self._probing and time.monotonic() < self._probe_at else "open"

    def failed(self, began: float, *, timed_out: bool, hint: str = "") -> None:
        """Note that a call got no reply.

        Arguments:
            began: when the call began, by `time.monotonic`.
            timed_out: True if the call timed out, False if it lost its connection.
            hint: what may be the reason, in a sentence; empty if nothing is known.
        """
        circuit = self._circuit
        # A call that began before the circuit was last closed says nothing about the server as it is now.
        if circuit is None or began < self._closed_at:
            return
        self.failures += 1
        self.hint = hint
        self._probing = False
        if self.failures >= circuit.failures and not self.is_open:
            # After a lost connection the server may be fine, and trying again takes no time.
            self._probe_at = time.monotonic() + (circuit.pause if timed_out else 0)
            self.is_open = True
            self._tell()

    def answered(self) -> None:
        """Note that the server replied, with whatever content. Only needed if there are `failures`."""
        if self.is_open:
            self._closed_at = time.monotonic()
            self.is_open = self._probing = False
        # Last: an interrupt before this line leaves failures in place, so the next reply calls this again.
        self.failures = 0
        if self._told_open:
            self._tell()

    def _tell(self) -> None:
        """Tell those who watch that the circuit opened or closed: each change once, in order, and the latest in any case."""
        while self._told_open is not self.is_open:
            mine = _Telling()
            telling = self._telling.setdefault(None, ref(mine))()
            if telling is None:
                # The caller that told was interrupted.
                self._telling = {}
            elif telling is not mine:
                # That caller looks again when it has told.
                return
            else:
                try:
                    opened = self._told_open = self.is_open
                    registry.tell_of_server(self.server, self._opened if opened else self._closed)
                finally:
                    self._telling = {}

    def _opened(self) -> Event:
        from ratelimited_notify.instrumentation.events import CircuitOpened

        return CircuitOpened(self.server)

    def _closed(self) -> Event:
        from ratelimited_notify.instrumentation.events import CircuitClosed

        return CircuitClosed(self.server)

    def may_probe(self) -> bool:
        """Whether this caller has to send a PING now. If so, the pause until the next PING begins."""
        circuit, due, now = self._circuit, self._probe_at, time.monotonic()
        if circuit is None or now < due or not self.is_open:
            return False
        claim = _Claim(now)
        first = self._claims.setdefault(due, claim)
        if first is not claim:
            if now > first.at + circuit.pause:
                # The caller with the claim was interrupted before it could send the PING.
                self._claims = {}
            return False
        self._probe_at = now + circuit.pause
        self._probing = True
        # Some callers may have been interrupted before they removed themselves.
        self._yielding = set()
        if len(self._claims) > _CLAIMS:
            # Late callers still have to find the current claim.
            self._claims = {due: claim}
        return True

    def ping_time(self, timeout: float) -> float:
        """Seconds that the PING allowed by `may_probe` may take.

        At most half of the pause; otherwise a single caller would wait for one PING after another. On a slow link that may
        be too short to connect, so now and then a PING gets the whole time-out.
        """
        pause = timeout if self._circuit is None else self._circuit.pause
        self._pings += 1
        return timeout if self._pings % _PATIENT == 0 else min(timeout, pause) / 2

    def refused(self, left: float) -> None:
        """Pause the calling thread after a call that failed at once, if other threads call too.

        Otherwise these calls would keep the thread that sends the PING from running.

        Arguments:
            left: the most seconds that the call may still take.
        """
        caller = get_ident()
        seconds = min(self._yields(caller), left)
        try:
            if seconds > 0:
                time.sleep(seconds)
        finally:
            self._yielding.discard(caller)

    async def refused_task(self, left: float) -> None:
        """`refused` for a task of asyncio."""
        import asyncio

        caller = id(asyncio.current_task())
        seconds = min(self._yields(caller), left)
        try:
            if seconds > 0:
                await asyncio.sleep(seconds)
        finally:
            self._yielding.discard(caller)

    def _yields(self, caller: int) -> float:
        """How many seconds a caller pauses; 0 if it is the only one.

        The more callers there are, the longer each pauses: all of them together return about 4,000 times a second.
        """
        alone = caller == self._refused_last and not self._yielding
        self._refused_last = caller
        if alone:
            return 0.0
        self._yielding.add(caller)
        return min(_YIELD * len(self._yielding), _LONGEST_YIELD)

    def forked(self) -> None:
        """Continue in a forked child. The state of the server is kept; a pending PING belongs to the parent and is dropped."""
        self._probing = False
        self._claims = {}
        self._yielding = set()
        self._telling = {}


# The breakers in use, by server and settings.
_breakers: dict[tuple[str, Circuit], ref[Breaker]] = {}


def breaker_for(server: str, circuit: Circuit | None, address: str | None = None) -> Breaker:
    """The breaker of this process for a server. Limiters with the same settings share it.

    Arguments:
        server: the server: its address, and what else tells it from others.
        circuit: the settings; None makes a breaker that never opens.
        address: its address, if that is something else.
    """
    made = Breaker(circuit, server if address is None else address)
    if circuit is None:
        return made
    for gone in [key for key, reference in _breakers.copy().items() if reference() is None]:
        _forget(gone)
    mine, found = ref(made), None
    while found is None:
        found = _breakers.setdefault((server, circuit), mine)()
        if found is None:
            # The breaker that was found has just been garbage-collected.
            _forget((server, circuit))
    return found


def _forget(key: tuple[str, Circuit]) -> None:
    reference = _breakers.pop(key, None)
    if reference is not None and reference() is not None:
        # Another caller has replaced it meanwhile: put the new breaker back.
        _breakers.setdefault(key, reference)


def _after_fork() -> None:
    for reference in _breakers.copy().values():
        breaker = reference()
        if breaker is not None:
            breaker.forked()


in_children(_after_fork)


class Circuits(Mapping[str, State]):
    """The current state of each server's circuit. Reading always shows the latest state.

    Arguments:
        breakers: the breakers by server address. Entries added later show up too.
    """

    __slots__ = ("_breakers",)

    def __init__(self, breakers: Mapping[str, Breaker]) -> None:
        self._breakers = breakers

    def __getitem__(self, server: str) -> State:
        return self._breakers[server].state

    def __iter__(self) -> Iterator[str]:
        # Not a tuple: making one may start the garbage collector, and so let another thread add a server meanwhile.
        return iter(list(self._breakers))

    def __len__(self) -> int:
        return len(self._breakers)

    def __repr__(self) -> str:
        return repr(dict(self))
