"""Getting questions to the servers of a cluster: a generator that says what to send where, and does no I/O.

Nothing that may have run is ever sent again. What is sent again was refused before anything ran: a redirection (MOVED,
ASK), a cluster or slot that is not ready (CLUSTERDOWN, TRYAGAIN), a script that the server does not have (NOSCRIPT). Or
it never left this process, because the server cannot be reached, and another one has the slot by now.
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
"""So many a question follows; more are a cluster at odds with itself."""

PAUSE = 0.02
"""Seconds between two attempts where the cluster is not ready, for a caller that waits alone."""

_PAUSE_EACH = 2e-4
"""Seconds that each further caller that waits adds to the pause, so that all together try some 5,000 times a second."""

_LONGEST_PAUSE = 0.2

_CLAIM = 0.5
"""Seconds for which a caller may ask for a map alone: it may have been interrupted before it could say that it has ended."""

_LEAST = 2 * PAUSE
"""Seconds that must be left to try again: what is cut off leaves a doubt whether it took effect."""

_PATIENCE = 0.5
"""How much of the time that is left one server is given to say who has which slot: others may know, too."""


class Command(NamedTuple):
    """A command, and what makes sense of its reply, or raises an `UnexpectedReply`."""

    packed: bytes
    read: Callable[[Any], Any]  # Any: each command is answered in its own way


class Send(NamedTuple):
    """Commands for some servers, to be sent at once.

    To be answered by, for each server, what was read of the replies in order, with a `ResponseError` where that is one, or
    by the `StorageError` that came instead of all of them.
    """

    parcels: Mapping[Address, Sequence[Command]]
    deadline: float
    """By the clock that was passed."""


class Pause(NamedTuple):
    """Nothing to send for so many seconds."""

    seconds: float


Parcels: TypeAlias = Mapping["Address", Sequence[Command]]

Delivered: TypeAlias = Mapping["Address", Any]  # Any: see `Send`

Steps: TypeAlias = Generator[Send | Pause, Any, T]  # Any: what is sent in is `Delivered` after `Send`


_ASKING = Command(scripts.command(b"ASKING"), scripts.okay)
_MAP = Command(scripts.command(b"CLUSTER", b"SLOTS"), slot_ranges)


class _PendingCall:
    """One question on its way."""

    __slots__ = ("asking", "by_text", "redirected", "redirections", "script_call")

    def __init__(self, script_call: ScriptCall) -> None:
        self.script_call = script_call
        self.redirected: Address | None = None
        """Where to go, other than to the owner of the slot."""
        self.asking = False
        """Whether it goes to a server that is about to become the owner of the slot."""
        self.by_text = False
        self.redirections = 0


def answered(slots: Slots, rounds: Rounds[T], clock: Callable[[], float], timeout: float) -> Steps[T]:
    """What becomes of rounds of questions, all of them together before one deadline.

    An empty round begins a group of its own, with a deadline of its own.

    Arguments:
        slots: who has which slot; brought up to date on the way.
        rounds: the rounds, each with at most one question a slot, so that their order does not matter.
        clock: seconds, from any start.
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
    """The answers to one round of questions, each what its `read` makes of it, or a `StorageError`."""
    routing = _Routing(slots, script_calls, timeout)
    if slots.doubtful and not slots.is_being_learned(clock()):
        yield from learn(slots, clock, deadline)
    while True:
        parcels = routing.pack()
        if parcels:
            routing.unpack((yield Send(parcels, deadline)))
        if routing.unreached:
            yield from learn(slots, clock, deadline)
            routing.follow_promoted_replicas()
        if not routing.left or (routing.early and clock() + PAUSE + _LEAST >= deadline):
            return routing.answers
        if routing.early:
            yield from pause(slots)
            yield from learn(slots, clock, deadline)


def learn(slots: Slots, clock: Callable[[], float], deadline: float) -> Steps[None]:
    """Bring the map up to date, if a server that knows it answers in time.

    One caller asks, the others wait for what it learns: a map for each of a thousand callers would keep the process busy
    for longer than any of them may wait.
    """
    now = clock()
    if slots.fresh(now):
        return
    if slots.is_being_learned(now):
        while slots.is_being_learned(now) and now + PAUSE + _LEAST < deadline:
            yield from pause(slots)
            now = clock()
        return
    claim = Claim(min(deadline, now + _CLAIM))
    try:
        slots.learner = ref(claim)
        yield from _learn(slots, clock, deadline)
    finally:
        # A traceback may keep it alive.
        claim.until = float("-inf")


def pause(slots: Slots) -> Steps[None]:
    """Wait a little before the next attempt: longer, the more callers do."""
    caller = object()
    slots.pausing.add(id(caller))
    try:
        yield Pause(min(PAUSE + len(slots.pausing) * _PAUSE_EACH, _LONGEST_PAUSE))
    finally:
        slots.pausing.discard(id(caller))


def _learn(slots: Slots, clock: Callable[[], float], deadline: float) -> Steps[None]:
    for asked, address in enumerate(slots.informants()):
        now = clock()
        if asked and now + _LEAST >= deadline:
            return
        answer = (yield Send({address: [_MAP]}, now + (deadline - now) * _PATIENCE))[address]
        if isinstance(answer, StorageError):
            slots.troubles[address] = answer
        elif not isinstance(answer[0], ResponseError):
            slots.troubles.pop(address, None)
            # A server that has just been added, or cut off for long, may know of no slot at all.
            if answer[0]:
                slots.learn(answer[0], address, clock())
                return
        elif "cluster support disabled" in str(answer[0]):
            raise StorageError(
                f"The Redis server is not part of a cluster; use redis:// for it. [Redis at {where(address)}]"
            )
        else:
            slots.troubles[address] = failures.failure(answer[0], where(address), 0, sent=True)


class _Routing:
    """Where the questions are, and what has come back so far."""

    def __init__(self, slots: Slots, script_calls: Sequence[ScriptCall], timeout: float) -> None:
        self._slots = slots
        self._timeout = timeout
        self.answers: list[Any] = [None] * len(script_calls)  # Any: see `ask`
        self.left = {number: _PendingCall(script_call) for number, script_call in enumerate(script_calls)}
        self._sent: dict[Address, list[int]] = {}
        self.unreached: dict[int, Address] = {}
        """What did not get to the server that it was for."""
        self.early = False
        """Whether something is left for which the cluster is not ready."""

    def pack(self) -> dict[Address, list[Command]]:
        """What to send where."""
        self._sent, self.early, self.unreached = {}, False, {}
        for number, pending in self.left.items():
            at = pending.redirected or self._slots.owner(pending.script_call.slot)
            if at is not None:
                self._sent.setdefault(at, []).append(number)
                continue
            self.early = self._slots.doubtful = True
            self.answers[number] = unknown(self._slots)
        return {at: self._commands(numbers) for at, numbers in self._sent.items()}

    def _commands(self, numbers: Sequence[int]) -> list[Command]:
        commands: list[Command] = []
        texts: set[bytes] = set()
        for number in numbers:
            pending = self.left[number]
            call, keys, read = pending.script_call.call, pending.script_call.keys, pending.script_call.read
            if pending.asking:
                commands.append(_ASKING)
            # Once is enough for those behind it.
            if pending.by_text and call.script.sha not in texts:
                texts.add(call.script.sha)
                commands.append(Command(call.by_text(keys), read))
            else:
                commands.append(Command(call.by_name(keys), read))
        return commands

    def unpack(self, delivered: Delivered) -> None:
        """What came back."""
        for at, numbers in self._sent.items():
            replies = delivered[at]
            if isinstance(replies, StorageError):
                self._lost(at, numbers, replies)
            else:
                self._slots.troubles.pop(at, None)
                self._replied(at, numbers, iter(replies))

    def _lost(self, at: Address, numbers: Sequence[int], error: StorageError) -> None:
        if isinstance(error, failures.OutOfTime):
            # The map is as good as before, and to ask for a new one would take connections from those that wait.
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
            else:
                del self.left[number]

    def follow_promoted_replicas(self) -> None:
        """Go on to who has the slot now, instead of who could not be reached; give up where there is nobody else."""
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
            if not self._goes_on(pending, reply, at):
                del self.left[number]

    def _goes_on(self, pending: _PendingCall, reply: ResponseError, at: Address) -> bool:
        """Whether the question was refused before anything ran, and may be asked again, elsewhere or later."""
        if isinstance(reply, NoScriptError):
            # The same place, and in the same way but for this.
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
            # From here on the way may be another one.
            self._slots.doubtful = self.early = True
            pending.redirections = 0
            return True
        return False


def unknown(slots: Slots) -> StorageError:
    """Nobody is known to have a slot."""
    *_, last = None, *slots.troubles.copy().values()
    return failures.NothingSent(
        "No server of the Redis cluster answers, or none has the slot of this recipient, so nothing was sent. "
        f"CLUSTER INFO tells more. [Redis cluster at {', '.join(map(where, slots.seeds))}]"
        + (f" The last that was heard: {last}" if last is not None else "")
    )


def where(address: Address) -> str:
    """`host:port`."""
    return f"{address[0]}:{address[1]}"
