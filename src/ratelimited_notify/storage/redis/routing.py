"""Routing script calls to the servers of a cluster: generators that yield what to send where, and do no I/O.

A script call that may have run is never sent again. A script call is sent again only if it was refused before it ran: by a
redirection (MOVED, ASK), because the cluster or slot is not ready (CLUSTERDOWN, TRYAGAIN), or because the server does not know
the script (NOSCRIPT). Or it never left this process, because the server is unreachable, and another server has the slot now.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from weakref import ref

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import failures, scripts
from ratelimited_notify.storage.redis.slots import Claim, slot_ranges

# After `failures`, which says what to install where redis is missing.
from redis.exceptions import (  # isort: skip
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratelimited_notify.storage.redis.slots import Address, Slots
    from ratelimited_notify.storage.redis.spread import Rounds, ScriptCall

T = TypeVar("T")

REDIRECTIONS = 5
"""How many redirections a script call follows. If there are more, the cluster is inconsistent."""

PAUSE = 0.02
"""Seconds between two attempts while the cluster is not ready, if only one caller waits."""

_PAUSE_EACH = 2e-4
"""Seconds that each further waiting caller adds to the pause, so that all callers together try about 5,000 times a second."""

_LONGEST_PAUSE = 0.2

_CLAIM = 0.5
"""Seconds for which a caller may ask for a map alone: it may have been interrupted before it could say that it has ended."""

_LEAST = 2 * PAUSE
"""Seconds that must be left for another attempt: an attempt that is cut off has an unknown outcome."""

_PATIENCE = 0.5
"""The share of the remaining time that one server gets to send the slot map: other servers may know it too."""


class Command(NamedTuple):
    """A command and the parser of its reply, which raises an `UnexpectedReply` if the reply does not match."""

    packed: bytes
    read: Callable[[Any], Any]  # Any: each command has replies of its own

    def __repr__(self) -> str:
        # The keys in it contain recipients, and a tool may show the variables of a traceback.
        return "<Command>"


class Send(NamedTuple):
    """Commands for some servers, to be sent at the same time.

    The caller sends in, for each server, the parsed replies in order (a `ResponseError` for each error reply), or the
    `StorageError` raised instead of all of them.
    """

    parcels: Mapping[Address, Sequence[Command]]
    deadline: float
    """By the clock that was passed in."""


class Pause(NamedTuple):
    """A wait of some seconds, before there is anything to send."""

    seconds: float


Parcels: TypeAlias = Mapping["Address", Sequence[Command]]

Delivered: TypeAlias = Mapping["Address", Any]  # Any: see `Send`

Steps: TypeAlias = Generator[Send | Pause, Any, T]  # Any: what is sent in is `Delivered` after `Send`


_ASKING = Command(scripts.command(b"ASKING"), scripts.okay)
_MAP = Command(scripts.command(b"CLUSTER", b"SLOTS"), slot_ranges)


class _PendingCall:
    """One script call without an answer so far."""

    __slots__ = ("asking", "by_text", "redirected", "redirections", "script_call")

    def __init__(self, script_call: ScriptCall) -> None:
        self.script_call = script_call
        self.redirected: Address | None = None
        """The server to send it to instead of the owner of the slot."""
        self.asking = False
        """Whether that server is about to become the owner of the slot, so that ASKING must precede the call."""
        self.by_text = False
        self.redirections = 0


def answered(slots: Slots, rounds: Rounds[T], clock: Callable[[], float], timeout: float) -> Steps[T]:
    """Run rounds of script calls before one deadline and return the result.

    An empty round starts a new deadline.

    Arguments:
        slots: the slot map, which is updated on the way.
        rounds: the rounds. Each has at most one script call per slot, so their order does not matter.
        clock: a clock in seconds, with any starting point.
        timeout: seconds until the deadline.
    """
    answers: Any = None  # Any: before the first round there are none
    deadline = clock() + timeout
    while True:
        try:
            script_calls = rounds.send(answers)
        except StopIteration as done:
            result: T = done.value
            return result
        if script_calls:
            answers = yield from ask(slots, script_calls, clock, deadline, timeout)
        else:
            answers, deadline = [], clock() + timeout


def ask(
    slots: Slots, script_calls: Sequence[ScriptCall], clock: Callable[[], float], deadline: float, timeout: float
) -> Steps[list[Any]]:  # Any: the answers
    """Run one round of script calls. Each answer is what the call's `read` returns, or a `StorageError`."""
    routing = _Routing(slots, script_calls, timeout)
    if slots.doubtful and not slots.is_being_learned(clock()):
        yield from learn(slots, clock, deadline)
    while True:
        parcels = routing.pack()
        if parcels:
            routing.unpack((yield Send(parcels, deadline)))
        if routing.unreached:
            # An open circuit fails at once: the next call finds the map that another caller asks for now.
            if routing.found_out or not slots.is_being_learned(clock()):
                yield from learn(slots, clock, deadline)
            routing.follow_promoted_replicas()
        if not routing.left or (routing.early and clock() + PAUSE + _LEAST >= deadline):
            return routing.answers
        if routing.early:
            yield from pause(slots, deadline - clock())
            yield from learn(slots, clock, deadline)


def learn(slots: Slots, clock: Callable[[], float], deadline: float) -> Steps[None]:
    """Update the slot map, if a server that knows it replies in time.

    One caller requests the map, and the others wait for it: parsing a map for each of a thousand callers would keep the
    process busy for longer than any of them may wait.
    """
    now = clock()
    if slots.fresh(now):
        return
    waited = False
    while slots.is_being_learned(now) and now + PAUSE + _LEAST < deadline:
        waited = True
        yield from pause(slots, deadline - now)
        now = clock()
    if waited or slots.fresh(now):
        return
    # With a time-out too short to wait, it asks too.
    claim = Claim(min(deadline, now + _CLAIM))
    try:
        slots.learner = ref(claim)
        yield from _learn(slots, clock, deadline)
    finally:
        # A traceback may keep it alive.
        claim.until = float("-inf")


def pause(slots: Slots, left: float) -> Steps[None]:
    """Wait a little before the next attempt. The more callers wait, the longer is the pause, within the time left."""
    caller = object()
    slots.pausing.add(id(caller))
    try:
        yield Pause(max(0.0, min(PAUSE + len(slots.pausing) * _PAUSE_EACH, _LONGEST_PAUSE, left - _LEAST)))
    finally:
        slots.pausing.discard(id(caller))


def _learn(slots: Slots, clock: Callable[[], float], deadline: float) -> Steps[None]:
    for asked, address in enumerate(slots.informants()):
        now = clock()
        if asked and now + _LEAST >= deadline:
            # One silent server says nothing about the others.
            if asked > 1:
                slots.asked_in_vain(now)
            return
        answer = (yield Send({address: [_MAP]}, now + (deadline - now) * _PATIENCE))[address]
        if isinstance(answer, StorageError):
            slots.troubles[address] = answer
        elif not isinstance(answer[0], ResponseError):
            slots.troubles.pop(address, None)
            # A server that has just been added, or was cut off for long, may not know any slots.
            if answer[0]:
                slots.learn(answer[0], address, clock())
                return
        elif "cluster support disabled" in str(answer[0]):
            raise StorageError(
                f"The Redis server is not part of a cluster; use redis:// for it. [Redis at {where(address)}]",
                nothing_counted=True,
            )
        else:
            slots.troubles[address] = failures.failure(answer[0], where(address), 0, sent=True)
    slots.asked_in_vain(clock())


class _Routing:
    """The script calls of one round: where they go, and which answers have come so far."""

    def __init__(self, slots: Slots, script_calls: Sequence[ScriptCall], timeout: float) -> None:
        self._slots = slots
        self._timeout = timeout
        self.answers: list[Any] = [None] * len(script_calls)  # Any: see `ask`
        self.left = {number: _PendingCall(script_call) for number, script_call in enumerate(script_calls)}
        self._sent: dict[Address, list[int]] = {}
        self.unreached: dict[int, Address] = {}
        """The script calls that did not reach their server, and that server."""
        self.found_out = False
        """Whether a server was found unreachable just now, rather than left alone by its open circuit."""
        self.early = False
        """Whether there are script calls left for which the cluster is not ready."""

    def pack(self) -> dict[Address, list[Command]]:
        """The commands to send, by server."""
        self._sent, self.early, self.unreached, self.found_out = {}, False, {}, False
        refused: list[int] = []
        for number, pending in self.left.items():
            at = pending.redirected or self._slots.owner(pending.script_call.slot)
            if at is not None:
                self._sent.setdefault(at, []).append(number)
                continue
            self._slots.doubtful = True
            self.answers[number] = error = unknown(self._slots)
            if isinstance(error, failures.AccessRefused):
                refused.append(number)
            else:
                self.early = True
        for number in refused:
            del self.left[number]
        return {at: self._commands(numbers) for at, numbers in self._sent.items()}

    def _commands(self, numbers: Sequence[int]) -> list[Command]:
        commands: list[Command] = []
        texts: set[bytes] = set()
        for number in numbers:
            pending = self.left[number]
            call, keys, read = pending.script_call.call, pending.script_call.keys, pending.script_call.read
            if pending.asking:
                commands.append(_ASKING)
            # The text is needed once; the later calls on this connection can use the name.
            if pending.by_text and call.script.sha not in texts:
                texts.add(call.script.sha)
                commands.append(Command(call.by_text(keys), read))
            else:
                commands.append(Command(call.by_name(keys), read))
        return commands

    def unpack(self, delivered: Delivered) -> None:
        """Process the replies."""
        for at, numbers in self._sent.items():
            replies = delivered[at]
            if isinstance(replies, StorageError):
                self._lost(at, numbers, replies)
            else:
                self._slots.troubles.pop(at, None)
                self._replied(at, numbers, iter(replies))

    def _lost(self, at: Address, numbers: Sequence[int], error: StorageError) -> None:
        if isinstance(error, failures.OutOfTime | failures.AccessRefused):
            # The map is still good, and requesting a new one would take connections away from waiting callers.
            for number in numbers:
                self.answers[number] = error
                del self.left[number]
            return
        self._slots.doubtful = True
        self._slots.troubles[at] = error
        for number in numbers:
            self.answers[number] = error
            if isinstance(error, failures.NothingSent):
                self.unreached[number] = at
                self.found_out = self.found_out or not isinstance(error, failures.NotAsked)
            else:
                del self.left[number]

    def follow_promoted_replicas(self) -> None:
        """Send unreached script calls to the server that has the slot now; give up if there is no other server."""
        for number, at in self.unreached.items():
            pending = self.left[number]
            pending.redirected, pending.asking = None, False
            pending.redirections += 1
            if self._slots.owner(pending.script_call.slot) in (None, at) or pending.redirections > REDIRECTIONS:
                del self.left[number]

    def _replied(self, at: Address, numbers: Sequence[int], replies: Iterator[Any]) -> None:  # Any: see `Send`
        for number in numbers:
            pending = self.left[number]
            if pending.asking:
                next(replies)
            reply = next(replies)
            if not isinstance(reply, ResponseError):
                self.answers[number] = reply
                del self.left[number]
                continue
            self.answers[number] = (
                failures.redirected_in_circles(where(at))
                if isinstance(reply, AskError)
                else failures.failure(reply, where(at), self._timeout, sent=True)
            )
            if not self._may_retry(pending, reply, at):
                del self.left[number]

    def _may_retry(self, pending: _PendingCall, reply: ResponseError, at: Address) -> bool:
        """Whether the script call was refused before it ran, and can be sent again, to another server or later."""
        if isinstance(reply, NoScriptError):
            # To the same server and with the same ASKING, but with the text of the script.
            pending.redirections += pending.by_text
            pending.redirected, pending.by_text = at, True
            return pending.redirections <= REDIRECTIONS
        pending.redirected, pending.asking = None, False
        if isinstance(reply, AskError):
            elsewhere = str(reply.host), int(reply.port)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]  # redis-py does not say
            if isinstance(reply, MovedError):
                self._slots.moved(pending.script_call.slot, elsewhere, at)
            else:
                pending.redirected, pending.asking = self._slots.place(elsewhere, at), True
            pending.redirections += 1
            return pending.redirections <= REDIRECTIONS
        if isinstance(reply, ClusterDownError | TryAgainError):
            # After this the slot may be on another server, so the count starts again.
            self._slots.doubtful = self.early = True
            pending.redirections = 0
            return True
        return False


def unknown(slots: Slots) -> StorageError:
    """The error for a slot that no known server has. If every server refuses to tell, it is the refusal."""
    troubles = slots.troubles.copy()
    refusals = [error for error in troubles.values() if isinstance(error, failures.AccessRefused)]
    if refusals and len(refusals) == len(troubles) and set(slots.seeds) <= troubles.keys():
        return refusals[-1]
    # A refusal says more than silence.
    last = next(reversed([*troubles.values(), *refusals]), None)
    return failures.NothingSent(
        "No server of the Redis cluster answers, or none has the slot of this recipient, so nothing was sent. "
        f"Run CLUSTER INFO to find out more. [Redis cluster at {', '.join(map(where, slots.seeds))}]"
        + (f" The last error was: {last}" if last is not None else "")
    )


def where(address: Address) -> str:
    """The address as `host:port`."""
    return f"{address[0]}:{address[1]}"
