"""Getting questions to the servers of a cluster: a generator that says what to send where, and does no I/O.

Nothing that may have run is ever sent again. What is sent again was refused before anything ran: a redirection (MOVED,
ASK), a cluster or slot that is not ready (CLUSTERDOWN, TRYAGAIN), a script that the server does not have (NOSCRIPT). Or
it never left this process, because the server cannot be reached, and another one has the slot by now.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis import failures, scripts
from ratelimited_notify.storage.redis.slots import slot_ranges

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
    from ratelimited_notify.storage.redis.spread import Question, Rounds

T = TypeVar("T")

REDIRECTIONS = 5
"""So many a question follows; more are a cluster at odds with itself."""

PAUSE = 0.02
"""Seconds between two attempts where the cluster is not ready."""

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


class _Letter:
    """One question on its way."""

    __slots__ = ("asking", "by_text", "question", "redirected", "redirections")

    def __init__(self, question: Question) -> None:
        self.question = question
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
            questions = rounds.send(answers)
        except StopIteration as done:
            result: T = done.value
            return result
        if questions:
            answers = yield from ask(slots, questions, clock, deadline, timeout)
        else:
            answers, deadline = [], clock() + timeout


def ask(
    slots: Slots, questions: Sequence[Question], clock: Callable[[], float], deadline: float, timeout: float
) -> Steps[list[Any]]:  # Any: the answers
    """The answers to one round of questions, each what its `read` makes of it, or a `StorageError`."""
    journey = _Journey(slots, questions, timeout)
    if slots.doubtful:
        yield from learn(slots, clock, deadline)
    while True:
        parcels = journey.pack()
        if parcels:
            journey.unpack((yield Send(parcels, deadline)))
        if journey.unreached:
            yield from learn(slots, clock, deadline)
            journey.turn_to_successors()
        if not journey.left or (journey.early and clock() + PAUSE + _LEAST >= deadline):
            return journey.answers
        if journey.early:
            yield Pause(PAUSE)
            yield from learn(slots, clock, deadline)


def learn(slots: Slots, clock: Callable[[], float], deadline: float) -> Steps[None]:
    """Bring the map up to date, if somebody who knows it answers in time."""
    if slots.fresh(clock()):
        return
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


class _Journey:
    """Where the questions are, and what has come back so far."""

    def __init__(self, slots: Slots, questions: Sequence[Question], timeout: float) -> None:
        self._slots = slots
        self._timeout = timeout
        self.answers: list[Any] = [None] * len(questions)  # Any: see `ask`
        self.left = {number: _Letter(question) for number, question in enumerate(questions)}
        self._sent: dict[Address, list[int]] = {}
        self.unreached: dict[int, Address] = {}
        """What did not get to the server that it was for."""
        self.early = False
        """Whether something is left for which the cluster is not ready."""

    def pack(self) -> dict[Address, list[Command]]:
        """What to send where."""
        self._sent, self.early, self.unreached = {}, False, {}
        for number, letter in self.left.items():
            at = letter.redirected or self._slots.owner(letter.question.slot)
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
            letter = self.left[number]
            call, keys, read = letter.question.call, letter.question.keys, letter.question.read
            if letter.asking:
                commands.append(_ASKING)
            # Once is enough for those behind it.
            if letter.by_text and call.script.sha not in texts:
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
        self._slots.doubtful = True
        self._slots.troubles[at] = error
        for number in numbers:
            self.answers[number] = error
            if isinstance(error, failures.NothingSent):
                self.unreached[number] = at
            else:
                del self.left[number]

    def turn_to_successors(self) -> None:
        """Go on to who has the slot now, instead of who could not be reached; give up where there is nobody else."""
        for number, at in self.unreached.items():
            letter = self.left[number]
            letter.redirected, letter.asking = None, False
            letter.redirections += 1
            if self._slots.owner(letter.question.slot) in (None, at) or letter.redirections > REDIRECTIONS:
                del self.left[number]

    def _replied(self, at: Address, numbers: Sequence[int], replies: Iterator[Any]) -> None:  # Any: see `Send`
        for number in numbers:
            letter = self.left[number]
            if letter.asking:
                next(replies)
            reply = next(replies)
            if not isinstance(reply, ResponseError):
                self.answers[number] = reply
                del self.left[number]
                continue
            self.answers[number] = (
                failures.circles(where(at))
                if isinstance(reply, AskError)
                else failures.failure(reply, where(at), self._timeout, sent=True)
            )
            if not self._goes_on(letter, reply, at):
                del self.left[number]

    def _goes_on(self, letter: _Letter, reply: ResponseError, at: Address) -> bool:
        """Whether the question was refused before anything ran, and may be asked again, elsewhere or later."""
        if isinstance(reply, NoScriptError):
            # The same place, and in the same way but for this.
            letter.redirections += letter.by_text
            letter.redirected, letter.by_text = at, True
            return letter.redirections <= REDIRECTIONS
        letter.redirected, letter.asking = None, False
        if isinstance(reply, AskError):
            elsewhere = str(reply.host), int(reply.port)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]  # redis-py does not say
            if isinstance(reply, MovedError):
                self._slots.moved(letter.question.slot, elsewhere, at)
            else:
                letter.redirected, letter.asking = self._slots.place(elsewhere, at), True
            letter.redirections += 1
            return letter.redirections <= REDIRECTIONS
        if isinstance(reply, ClusterDownError | TryAgainError):
            # From here on the way may be another one.
            self._slots.doubtful = self.early = True
            letter.redirections = 0
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
