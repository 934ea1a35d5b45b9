"""Who waits is served first come, first served, and nobody waits for a caller that is gone."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from limits.storage import MemoryStorage as LimitsStorage

from ratelimited_notify import AsyncLimiter, AsyncNotifier, Limiter, Notifier, RateLimitExceeded, Rule, rate_limited
from ratelimited_notify.limiter import waiters
from ratelimited_notify.limiter.waiters import GRACE, Timing, changes, lines
from ratelimited_notify.notifier import turns as turns_module
from ratelimited_notify.notifier.policy import Policy
from ratelimited_notify.notifier.turns import Pause, turns
from ratelimited_notify.pytest_plugin import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimited_notify.limiter.decision import Decision
    from ratelimited_notify.notifier.turns import Step, Steps


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    """After every test, no line is left."""
    yield
    gc.collect()
    assert lines == {}


PLACE = "a storage", "a key", 1

# The order, without threads: callers are generators, and the test decides who runs.


@dataclass
class Caller:
    """A caller of the simulation, and what became of it."""

    name: int
    world: World
    cost: int
    policy: Policy
    steps: Steps | None = None
    step: Step | None = None
    since: float = 0.0
    until: float = 0.0
    called: bool = False
    ended: str = ""
    stands_still: bool = False
    raised: RateLimitExceeded | None = None
    asked: list[float] = field(default_factory=list[float])

    def wake(self) -> bool:
        self.called = True
        return True

    def begin(self) -> None:
        """What `admit` does, step by step."""
        world = self.world
        self.since, seen = world.clock(), changes.latest
        line = world.limiter.line_for("wait", "news", "ana", self.cost, None, {}) if lines else None
        decision = None
        if line is None:
            decision = world.limiter.hit("news", "ana", cost=self.cost)
            if decision.allowed:
                self.end("sent")
                return
        timing = Timing(world.clock, False)
        self.steps = turns(self.policy, world.limiter.place_of, timing, line, decision, self.wake, seen)
        self.go_on(None)

    def go_on(self, answer: Decision | bool | None) -> None:
        assert self.steps is not None
        world = self.world
        while True:
            try:
                self.step = self.steps.send(answer)
            except StopIteration as done:
                self.end("sent" if done.value.allowed else "dropped")
                return
            except RateLimitExceeded as error:
                self.raised = error
                self.end("raised")
                return
            if isinstance(self.step, Pause):
                self.until = world.clock() + self.step.seconds
                return
            if self.step == "hit":
                self.asked.append(world.clock())
            ask = world.limiter.hit if self.step == "hit" else world.limiter.test
            answer = ask("news", "ana", cost=self.cost)

    def is_due(self) -> bool:
        return (
            not self.ended
            and not self.stands_still
            and self.steps is not None
            and (self.called or self.until <= self.world.clock())
        )

    def run(self) -> None:
        called, self.called = self.called, False
        self.go_on(called)

    def cancel(self) -> None:
        if self.steps is not None:
            self.steps.close()
        self.end("cancelled")

    def end(self, how: str) -> None:
        self.ended = how
        self.world.ended.append(self)


class World:
    """Callers of one limiter, and a clock that moves to when the next of them has something to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: str = "1/second") -> None:
        self.clock = SteadyClock()
        self.limiter = Limiter([Rule("news", limit, on_limit="wait")], clock=self.clock)
        self.callers: list[Caller] = []
        self.ended: list[Caller] = []
        virtual = SimpleNamespace(monotonic=self.clock)
        monkeypatch.setattr(waiters, "time", virtual)
        monkeypatch.setattr(turns_module, "time", virtual)

    def comes(self, cost: int = 1, max_wait: float = 1000.0) -> Caller:
        caller = Caller(len(self.callers), self, cost, Policy("wait", max_wait))
        self.callers.append(caller)
        caller.begin()
        return caller

    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.ended]

    def settle(self, pick: Callable[[list[Caller]], Caller] = lambda due: due[0]) -> None:
        """Run whoever has something to do now."""
        while due := [caller for caller in self.callers if caller.is_due()]:
            pick(due).run()

    def pass_time(self, seconds: float, pick: Callable[[list[Caller]], Caller] = lambda due: due[0]) -> None:
        until = self.clock() + seconds
        while True:
            self.settle(pick)
            upcoming = min((each.until for each in self.waiting() if not each.stands_still), default=until)
            if upcoming >= until:
                break
            self.clock.move_to(upcoming)
        self.clock.move_to(until)
        self.settle(pick)

    def close(self) -> None:
        for caller in self.waiting():
            caller.cancel()


class SteadyClock:
    """A clock that the simulation moves; a caller cannot."""

    def __init__(self) -> None:
        self.microseconds = 1_767_225_600_000_000

    def __call__(self) -> float:
        return self.microseconds / 1_000_000

    def move_to(self, instant: float) -> None:
        # Up to a whole microsecond, so that what is due then is due.
        self.microseconds = max(self.microseconds, -int(-instant * 1_000_000 // 1) + 1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    with closing(world):
        yield world


def names(callers: list[Caller]) -> list[int]:
    return [caller.name for caller in callers]


def test_first_come_first_served(world: World) -> None:
    """One is sent a second, in the order of arrival, and only the first of the line asks."""
    for _ in range(6):
        world.comes()
    asked_before = [len(caller.asked) for caller in world.callers]
    world.pass_time(2.5)

    assert asked_before == [0] * 6
    assert names(world.ended) == [0, 1, 2]
    assert not any(caller.asked for caller in world.callers[4:])
    world.pass_time(3)
    assert names(world.ended) == [0, 1, 2, 3, 4, 5]
    assert {caller.ended for caller in world.callers} == {"sent"}


def test_a_newcomer_does_not_overtake(world: World) -> None:
    """Whoever comes at the very instant at which there is room waits behind those who wait."""
    for _ in range(3):
        world.comes()
    world.clock.move_to(world.clock() + 1.1)
    late = world.comes()
    world.pass_time(2.5)

    assert names(world.ended) == [0, 1, 2, 3]
    assert late.ended == "sent"


def test_a_newcomer_that_comes_for_good_does_not_starve_anybody(world: World) -> None:
    """Eight callers that come again as soon as they were sent each get every eighth turn."""
    sent: list[int] = []
    for _ in range(8):
        world.comes()
    for _ in range(40):
        world.pass_time(1)
        for caller in world.ended:
            sent.append(caller.name % 8)
            again = Caller(caller.name, world, 1, caller.policy)
            world.callers[caller.name] = again
            again.begin()
        world.ended.clear()

    assert sent[8:] == [name for _ in range(10) for name in range(8)][8 : len(sent)]


def test_a_large_cost_is_not_starved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that needs all of the window gets it, however many come later that need little."""
    with closing(World(monkeypatch, "5/second")) as world:
        world.comes()
        large = world.comes(cost=5)
        for _ in range(20):
            world.comes()
            world.pass_time(0.1)
        assert large.ended == "sent"
        assert large.asked[-1] - large.since == pytest.approx(1, abs=0.01)


def test_too_late_in_the_line(world: World) -> None:
    """A caller whose turn does not come within `max_wait` raises when that is over, and the next go on."""
    for _ in range(3):
        world.comes()
    impatient = world.comes(max_wait=1.5)
    last = world.comes()
    world.pass_time(1.4)
    assert last in world.waiting()
    assert impatient in world.waiting()
    world.pass_time(0.2)
    assert impatient.ended == "raised"
    world.pass_time(3)
    assert last.ended == "sent"
    assert last.asked[-1] - last.since == pytest.approx(3, abs=0.01)


def test_a_first_one_that_is_cancelled_calls_the_next(world: World) -> None:
    """Cancelled while it waits, it loses nothing for the others: the next one is sent when it would have been."""
    world.comes()
    first, second = world.comes(), world.comes()
    world.pass_time(0.5)
    first.cancel()
    world.pass_time(0.6)

    assert second.ended == "sent"


def test_a_hit_given_back_is_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that failed, or a cleared window, lets those who wait ask: one after the other, as far as there is room."""
    with closing(World(monkeypatch, "3/day")) as world:
        decisions = [world.limiter.hit("news", "ana") for _ in range(3)]
        waiting = [world.comes(max_wait=1e6) for _ in range(5)]
        world.pass_time(1)
        assert world.ended == []
        world.limiter.release(decisions[0])
        world.pass_time(0)
        assert names(world.ended) == [0]
        world.limiter.clear("news", "ana")
        world.pass_time(0)
        assert names(world.ended) == [0, 1, 2, 3]
        world.limiter.close()
        world.pass_time(0)
        assert waiting[4].ended == "sent"


@pytest.mark.parametrize("gone", ["before it asked", "after it asked", "refused by the new rules", "out of patience"])
def test_room_is_not_lost_with_the_first_of_the_line(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """If the first was called because there is room, and leaves without using it, the next one uses it at once."""
    with closing(World(monkeypatch, "3/day")) as world:
        decisions = [world.limiter.hit("news", "ana") for _ in range(3)]
        first = world.comes(cost=3, max_wait=86_401)
        second = world.comes(max_wait=1e6)
        if gone == "refused by the new rules":
            world.limiter.rules = [Rule("news", "2/day", name="another", on_limit="wait")]
        else:
            world.limiter.release(decisions[0])
        if gone != "before it asked":
            world.pass_time(0)
        if gone == "out of patience":
            world.pass_time(10)
            # Now it would have to wait for longer than it may.
            world.limiter.hit("news", "ana")
            world.limiter.release(decisions[1])
        elif gone != "refused by the new rules":
            first.cancel()
        world.pass_time(0)

        assert first.ended in ("cancelled", "raised")
        assert second.ended == "sent"


@pytest.mark.parametrize("change", ["release", "clear", "rules", "close"])
def test_room_that_comes_before_a_caller_is_in_the_line(change: str) -> None:
    """A caller that was refused, and lines up after there is room again, asks at once."""
    limiter = Limiter({"news": "1/day"})
    held, place_of = limiter.hit("news", "ana"), limiter.place_of

    def place_after_change(decision: Decision) -> Any:  # Any: passed on
        if change == "release":
            limiter.release(held)
        elif change == "clear":
            limiter.clear("news", "ana")
        elif change == "rules":
            limiter.rules = {"news": "2/day"}
        else:
            limiter.close()
        return place_of(decision)

    limiter.place_of = place_after_change  # type: ignore[method-assign]  # a spy
    sent: list[str] = []
    notifier = Notifier(sent.append, limiter=limiter, on_limit="wait", max_wait=100_000)
    thread = threading.Thread(target=notifier.send, args=("news", "ana"), daemon=True)
    thread.start()
    thread.join(5)

    assert sent == ["ana"]
    del limiter.place_of


def test_a_line_that_ends_while_a_caller_looks_at_it() -> None:
    """A caller that is passed in the middle of its look, when nobody else is in the line any more, may ask."""
    caller = waiters.Waiter(lambda: True, waiters.changes.latest)
    caller.line_up(PLACE)
    line = lines[PLACE]

    class Ending(waiters.Line):
        def __contains__(self, ticket: object) -> bool:
            was_there = super().__contains__(ticket)
            self.take_out(caller.ticket)
            return was_there

    lines[PLACE] = ending = Ending()
    ending.add(line[caller.ticket])

    assert caller.is_first()
    caller.leave(freed=False)
    lines.clear()


class CountedTicket(int):
    """A ticket that counts how often it is compared with another."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        CountedTicket.compared += 1
        return int(self) < int(other)

    def __eq__(self, other: object) -> bool:
        CountedTicket.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


def test_thousands_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with thousands of callers does not make each of them look at all others."""
    numbers = itertools.count(1)
    monkeypatch.setattr(waiters, "_tickets", map(CountedTicket, numbers))
    callers = [waiters.Waiter(lambda: True, waiters.changes.latest) for _ in range(2000)]
    CountedTicket.compared = 0
    for caller in callers:
        caller.line_up(PLACE)
        caller.is_first()
        caller.watch_after(0.0)
    for caller in callers:
        assert caller.is_first()
        caller.leave(freed=True)

    assert CountedTicket.compared < 2000 * 60


@pytest.mark.parametrize(
    ("rules", "sent"),
    [
        ([Rule("news", "3/second", on_limit="wait")], [0, 1, 2]),
        ([Rule("news", "3/second", name="another", on_limit="wait")], [0, 1, 2, 3]),
        ([Rule("other", "1/second")], [0, 1, 2, 3, 4]),
        ([Rule("news", "1/second", on_limit="drop")], [0]),
    ],
)
def test_rules_that_change_apply_to_those_who_wait(world: World, rules: list[Rule], sent: list[int]) -> None:
    """New rules let those who wait ask at once, and by them they go on in their order."""
    for _ in range(5):
        world.comes()
    world.limiter.rules = rules
    world.pass_time(0)

    assert names([caller for caller in world.ended if caller.ended == "sent"]) == sent
    world.pass_time(6)
    assert not world.waiting()


def test_others_that_take_the_room(world: World) -> None:
    """If another process was faster, the first of the line waits again, and stays the first."""
    world.comes()
    first, second = world.comes(), world.comes()
    for _ in range(3):
        world.clock.move_to(world.clock() + 1.01)
        world.limiter.hit("news", "ana")
        world.settle()
    assert first.ended == ""
    assert second.asked == []
    world.pass_time(2.1)
    assert names(world.ended) == [0, 1, 2]


def test_who_counts_apart_waits_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is for one window in one storage: who has another memory is not held up, and who shares it is."""
    with closing(World(monkeypatch)) as world:
        rules = [Rule("news", "1/minute")]
        world.limiter = limiter = Limiter(rules, clock=world.clock)
        assert limiter.hit("news", "ana")
        held = world.comes(max_wait=100)
        ((place, _),) = lines.items()
        apart, together = Limiter(rules, clock=world.clock), Limiter(rules, limiter.storage)
        assert apart.hit("news", "ana")
        assert not together.hit("news", "ana")
        assert apart.line_for("wait", "news", "ana", 1, None, {}) is None
        assert together.line_for("wait", "news", "ana", 1, None, {}) == place
        world.pass_time(60.1)
        assert held.ended == "sent"
    one: Any = LimitsStorage()
    other: Any = LimitsStorage()
    places = [Limiter(rules, storage) for storage in (one, one, other)]
    for each in places:
        each.hit("news", "ana")
    first, same, another = (each.place_of(each.hit("news", "ana")) for each in places)
    assert first == same != another


def test_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the window that holds it longest: one recipient's long wait does not hold up the others."""
    with closing(World(monkeypatch)) as world:
        world.limiter = limiter = Limiter(
            [Rule("*", "1/second", by=(), name="all"), Rule("news", "1/minute")], clock=world.clock
        )
        assert limiter.hit("news", "ana")
        held = world.comes(max_wait=100)
        ((place, _),) = lines.items()
        assert "news" in place[1]
        decision = limiter.hit("news", "bob")
        assert limiter.place_of(decision) != place
        assert limiter.line_for("wait", "news", "bob", 1, None, {}) is None
        assert limiter.line_for("wait", "news", "ana", 1, None, {}) == place
        assert limiter.line_for("drop", "news", "ana", 1, None, {}) is None
        world.pass_time(60.1)
        assert held.ended == "sent"


def test_a_caller_that_is_gone_is_passed(world: World) -> None:
    """Callers whose event loop stands still hold up those behind them for some seconds, and can come back."""
    world.comes()
    gone, also_gone, second = world.comes(), world.comes(), world.comes()
    for caller in (gone, also_gone):
        caller.stands_still = True
    world.pass_time(1 + 3 * GRACE + 0.1)
    assert second.ended == "sent"
    # It comes back, and asks like any other.
    gone.stands_still = False
    world.pass_time(2)
    assert gone.ended == "sent"


def test_a_caller_that_is_gone_is_passed_in_a_long_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that came when the line was long do not take longer to notice that the first one is gone."""
    with closing(World(monkeypatch, "5/second")) as world:
        for _ in range(100):
            world.comes()
        world.pass_time(10.05)
        sent = len(world.ended)
        for caller in world.waiting()[:2]:
            caller.stands_still = True
        world.pass_time(GRACE * 12)

        assert len(world.ended) > sent + 5


def test_a_caller_that_vanished_is_no_longer_in_the_line(world: World) -> None:
    """A generator that is dropped without being closed leaves the line when it is garbage-collected, and calls the next."""
    world.comes()
    vanished, second = world.comes(), world.comes()
    vanished.steps = None
    world.callers.remove(vanished)
    del vanished
    gc.collect()
    world.pass_time(1.1)

    assert second.ended == "sent"


moves = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.integers(1, 3), st.sampled_from([0.5, 2.0, 5.0, 1000.0])),
        st.tuples(st.just("time"), st.floats(0, 3), st.just(0)),
        st.tuples(
            st.sampled_from(["cancel", "release", "rival", "clear", "rules", "close"]), st.integers(0, 9), st.just(0)
        ),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(moves=moves, order=st.randoms(use_true_random=False))
def test_nobody_is_lost_and_nobody_overtakes(moves: list[Any], order: Any) -> None:
    """Whatever happens: those who wait are sent in their order, everybody ends in time, and no line is left."""
    with pytest.MonkeyPatch.context() as monkeypatch, closing(World(monkeypatch, "3/second")) as world:
        held: list[Decision] = []
        for move, number, max_wait in moves:
            if move == "comes":
                world.comes(cost=number, max_wait=max_wait)
            elif move == "time":
                world.pass_time(number, order.choice)
            elif move == "cancel" and world.waiting():
                world.waiting()[int(number) % len(world.waiting())].cancel()
            elif move == "release" and held:
                world.limiter.release(held.pop())
            elif move == "rival":
                held.append(world.limiter.hit("news", "ana"))
            elif move == "clear":
                world.limiter.clear("news", "ana")
            elif move == "rules":
                world.limiter.rules = [Rule("news", f"{3 + number}/second", on_limit="wait")]
            elif move == "close":
                world.limiter.close()
            for caller in world.waiting():
                assert world.clock() <= caller.since + caller.policy.max_wait + 0.01  # type: ignore[operator]  # it is a number
        longest = sum(caller.cost for caller in world.waiting()) + 2.0
        world.pass_time(longest, order.choice)

        assert not world.waiting()
        assert lines == {}
        # With another amount it is another line, so after a change of the rules a smaller cost may come first.
        changed = any(move == "rules" for move, _, _ in moves)
        for costs in ({1}, {2}, {3}) if changed else ({1, 2, 3},):
            waited = [each for each in world.ended if each.ended == "sent" and each.steps and each.cost in costs]
            assert names(waited) == sorted(names(waited))


# Threads and tasks, on a clock that moves when the test says so.


class GatedClock(Clock):
    """Waiting moves the clock as soon as the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def sleep(self, seconds: float) -> None:
        assert self.gate.wait(20)
        self.advance(seconds)


def in_line() -> int:
    return sum(map(len, list(lines.values())))


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError


who: ContextVar[int] = ContextVar("who")


class Granted(list[tuple[int, float]]):
    """Who was granted a hit, in which order, and after how many seconds."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.began = clock()

    def _note(self, decision: Decision) -> Decision:
        if decision.allowed and who.get(None) is not None:
            # Whoever is granted a hit is still the first of its line.
            self.append((who.get(), round(self.clock() - self.began, 2)))
        return decision

    def of(self, limiter: Limiter) -> Limiter:
        hit = limiter.hit
        limiter.hit = lambda *args, **kwargs: self._note(hit(*args, **kwargs))  # type: ignore[method-assign]  # a spy
        return limiter

    def of_async(self, limiter: AsyncLimiter) -> AsyncLimiter:
        hit = limiter.hit

        async def noted(*args: Any, **kwargs: Any) -> Decision:  # Any: passed on
            return self._note(await hit(*args, **kwargs))

        limiter.hit = noted  # type: ignore[method-assign]  # a spy
        return limiter


IN_TURN = [(number, number + 1.0) for number in range(6)]
"""Six callers, one a second, in their order."""


def line_up(send: Callable[[int], object]) -> list[threading.Thread]:
    """Six threads that wait, one after the other."""
    threads: list[threading.Thread] = []
    for number in range(6):

        def run(number: int = number) -> None:
            who.set(number)
            send(number)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        until(lambda: in_line() == len(threads))
    return threads


def nothing(recipient: str) -> None:
    """A gateway."""


@pytest.mark.parametrize("kind", ["notifier", "batch", "decorator", "several limiters"])
def test_threads_in_their_order(kind: str) -> None:
    """Threads that wait for one window are served in the order in which they came, by notifiers and decorated functions."""
    clock = GatedClock()
    granted = Granted(clock)
    limiter = granted.of(Limiter({"news": "1/second"}, clock=clock))
    others = [granted.of(Limiter({"news": "1/second"}, limiter.storage, clock=clock)) for _ in range(6)]
    notifier = Notifier(nothing, limiter=limiter, on_limit="wait", max_wait=60)
    limited = rate_limited("news", limiter=limiter, on_limit="wait", max_wait=60)(nothing)

    def send(number: int) -> None:
        if kind == "notifier":
            notifier.send("news", "ana")
        elif kind == "batch":
            notifier.send_many("news", ["ana"])
        elif kind == "decorator":
            limited("ana")
        else:
            Notifier(nothing, limiter=others[number], on_limit="wait", max_wait=60).send("news", "ana")

    limiter.hit("news", "ana")
    threads = line_up(send)
    clock.gate.set()
    for thread in threads:
        thread.join(20)

    assert granted == IN_TURN


async def _steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["notifier", "batch", "decorator"])
def test_tasks_in_their_order(kind: str) -> None:
    """The same for tasks."""
    clock = Clock()
    granted = Granted(clock)

    async def main() -> None:
        limiter = granted.of_async(AsyncLimiter({"news": "1/second"}, clock=clock))

        async def gateway(recipient: str) -> None:
            await asyncio.sleep(0)

        notifier = AsyncNotifier(gateway, limiter=limiter, on_limit="wait", max_wait=60)
        limited = rate_limited("news", limiter=limiter, on_limit="wait", max_wait=60)(gateway)

        async def send(number: int) -> None:
            who.set(number)
            if kind == "notifier":
                await notifier.send("news", "ana")
            elif kind == "batch":
                await notifier.send_many("news", ["ana"])
            else:
                await limited("ana")

        await limiter.hit("news", "ana")
        await asyncio.gather(*(send(number) for number in range(6)))

    asyncio.run(main())

    assert granted == IN_TURN


def test_threads_and_several_event_loops_share_a_line() -> None:
    """Threads, and tasks of several event loops, that wait for one window in memory are served in their order."""
    clock = GatedClock()
    granted = Granted(clock)
    limiter = granted.of(Limiter({"news": "1/second"}, clock=clock))
    shared = granted.of_async(AsyncLimiter({"news": "1/second"}, limiter.storage, clock=clock))
    notifier = Notifier(nothing, limiter=limiter, on_limit="wait", max_wait=60)
    also = AsyncNotifier(nothing, limiter=shared, on_limit="wait", max_wait=60)

    def send(number: int) -> None:
        if number % 2:
            asyncio.run(also.send("news", "ana"))
        else:
            notifier.send("news", "ana")

    limiter.hit("news", "ana")
    threads = line_up(send)
    clock.gate.set()
    for thread in threads:
        thread.join(20)

    assert granted == IN_TURN


def test_a_cancelled_task_calls_the_next() -> None:
    """The first of the line is cancelled while it sleeps: the next task goes on, by the machine's clock too."""

    async def main() -> list[int]:
        sent: list[int] = []
        limiter = AsyncLimiter({"news": "1/second"})

        async def gateway(recipient: str, number: int) -> None:
            sent.append(number)

        notifier = AsyncNotifier(gateway, limiter=limiter, on_limit="wait", max_wait=60)
        await limiter.hit("news", "ana")
        tasks = [asyncio.create_task(notifier.send("news", "ana", number)) for number in range(3)]
        await _steps(3)
        assert in_line() == 3
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.wait(tasks)
        return sent

    assert asyncio.run(main()) == [1]


def test_a_failed_send_lets_the_next_thread_in_at_once() -> None:
    """A gateway that fails gives its hit back, and the thread that waits for tomorrow is sent now."""
    limiter = Limiter({"news": "1/day"})
    go = threading.Event()
    sent: list[int] = []

    def gateway(recipient: str, number: int) -> None:
        if number == 0:
            go.wait(20)
            raise ConnectionRefusedError
        sent.append(number)

    notifier = Notifier(gateway, limiter=limiter, on_limit="wait", max_wait=100_000)
    threads = [threading.Thread(target=_quietly, args=(notifier, number), daemon=True) for number in range(2)]
    threads[0].start()
    until(lambda: limiter.windows("news", "ana")[0].remaining == 0)
    threads[1].start()
    until(lambda: in_line() == 1)
    go.set()
    for thread in threads:
        thread.join(10)

    assert sent == [1]


def _quietly(notifier: Notifier[..., None], number: int) -> None:
    with suppress(ConnectionRefusedError):
        notifier.send("news", "ana", number)


def test_an_event_loop_that_was_closed_holds_nobody_up() -> None:
    """A task whose event loop was stopped and closed in the middle of its wait is no longer in the line."""
    limiter = Limiter({"news": "1/second"})
    shared = AsyncLimiter({"news": "1/second"}, limiter.storage)
    notifier = AsyncNotifier(lambda recipient: None, limiter=shared, on_limit="wait", max_wait=60)
    limiter.hit("news", "ana")
    loop = asyncio.new_event_loop()
    task = loop.create_task(notifier.send("news", "ana"))
    loop.run_until_complete(_steps(3))
    assert in_line() == 1
    loop.close()

    began = time.monotonic()
    Notifier(lambda recipient: None, limiter=limiter, on_limit="wait", max_wait=60).send("news", "ana")
    assert time.monotonic() - began < 1 + 3 * GRACE
    # Otherwise asyncio would log that it was destroyed.
    setattr(task, "_log_destroy_pending", False)  # noqa: B010  # it is not public
    del task, loop


KEYBOARD = """
import signal, threading, time
from ratelimited_notify import Limiter, Notifier
from ratelimited_notify.limiter.waiters import lines

limiter = Limiter({"news": "1/second"})
sent = []
notifier = Notifier(sent.append, limiter=limiter, on_limit="wait", max_wait=60)
limiter.hit("news", "ana")
threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)).start()
second = threading.Thread(target=notifier.send, args=("news", "ana"))
threading.Timer(0.1, second.start).start()
try:
    notifier.send("news", "ana")
    print("not interrupted")
except KeyboardInterrupt:
    pass
began = time.monotonic()
second.join(5)
print(sent, lines, time.monotonic() - began < 2.5)
"""


def test_ctrl_c() -> None:
    """Ctrl-C ends a wait at once, and the next thread goes on."""
    ran = subprocess.run([sys.executable, "-c", KEYBOARD], capture_output=True, text=True, timeout=60, check=False)

    assert ran.stdout == "['ana'] {} True\n", ran.stderr


FORK = """
import os, threading, time
from ratelimited_notify import Limiter, Notifier
from ratelimited_notify.limiter.waiters import lines

limiter = Limiter({"news": "1/second"})
sent = []
notifier = Notifier(sent.append, limiter=limiter, on_limit="wait", max_wait=60)
limiter.hit("news", "ana")
threads = [threading.Thread(target=notifier.send, args=("news", "ana")) for _ in range(3)]
for thread in threads:
    thread.start()
while sum(map(len, list(lines.values()))) < 3:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    began = time.monotonic()
    left = len(lines)
    notifier.send("news", "ana")
    os._exit(0 if left == 0 and sent == ["ana"] and time.monotonic() - began < 5 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for thread in threads:
    thread.join()
print(len(sent), lines)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_a_fork_waits_for_nobody_of_its_parent() -> None:
    """Those who wait in the parent are not in the child, which waits for its own turn only."""
    ran = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False)

    assert ran.stdout == "0\n3 {}\n", ran.stderr


@pytest.mark.parametrize("kind", ["notifier", "decorator"])
def test_a_call_that_may_wait_does_not_overtake(kind: str) -> None:
    """A call at the very instant at which there is room lines up behind the thread that waits for it."""
    clock = GatedClock()
    granted = Granted(clock)
    limiter = granted.of(Limiter({"news": "1/second"}, clock=clock))
    notifier = Notifier(nothing, limiter=limiter, on_limit="wait", max_wait=60)
    limited = rate_limited("news", limiter=limiter, on_limit="wait", max_wait=60)(nothing)
    limiter.hit("news", "ana")

    def send(number: int) -> None:
        if number == 1:
            clock.advance(1)
        if kind == "notifier":
            notifier.send("news", "ana")
        else:
            limited("ana")

    threads = line_up(send)
    # Somebody else's window has no line.
    limited("bob")
    notifier.send("news", "eve")
    clock.gate.set()
    for thread in threads:
        thread.join(20)

    assert [number for number, _ in granted] == list(range(6))


def test_a_call_that_never_had_a_turn(world: World) -> None:
    """A call that could have been sent, but for those in front of it, raises after `max_wait` with a decision that blames no rule."""
    world.limiter.rules = [Rule("news", "3/second", on_limit="wait")]
    world.comes()
    large = world.comes(cost=3)
    small = world.comes(max_wait=0.5)
    batched = Caller(3, world, 1, Policy("wait", 0.5).without_raising())
    world.callers.append(batched)
    batched.begin()
    world.pass_time(0.6)

    assert (small.ended, batched.ended) == ("raised", "dropped")
    assert small.raised is not None
    assert str(small.raised) == "'news' refused"
    assert small.raised.decision is not None
    assert small.raised.decision.blocked_by is None
    assert small.raised.decision.retry_after == 0
    world.pass_time(0.5)
    assert large.ended == "sent"


def test_those_who_do_not_wait_are_not_in_any_line() -> None:
    """A caller that drops or raises asks at once, whoever waits."""
    clock = GatedClock()
    limiter = Limiter({"news": "2/second"}, clock=clock)
    waiting = Notifier(lambda recipient: None, limiter=limiter, on_limit="wait", max_wait=60)
    dropping = Notifier(lambda recipient: None, limiter=limiter)
    limiter.hit("news", "ana", cost=2)
    thread = threading.Thread(target=waiting.send, args=("news", "ana"), daemon=True)
    thread.start()
    until(lambda: in_line() == 1)

    assert not dropping.send("news", "ana")
    clock.advance(2)
    assert dropping.send("news", "ana")
    assert in_line() == 1
    clock.gate.set()
    thread.join(20)
