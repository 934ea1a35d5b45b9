"""When a recurring event is reported: the first at once, then how many there were, and its end, and none of them is lost."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given, strategies as st

from ratelimited_notify.recurring import End, RecurringEvent, Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

T = TypeVar("T")


class Clock:
    """A clock in seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Stop:
    """Calls something once, in the middle of a call, at its nth byte code."""

    def __init__(self, nth: int, something: Callable[[], None]) -> None:
        self.left = nth
        """How many byte codes were left when the call was over; 0 if `something` was called."""
        self._something = something

    def _trace(self, frame: FrameType, kind: str, _: object) -> Any:
        if frame.f_globals.get("__name__") != "ratelimited_notify.recurring":
            return None
        frame.f_trace_opcodes = True
        if kind == "opcode" and self.left:
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                self._something()
        return self._trace

    def runs(self, call: Callable[[], T]) -> T:
        """The result of the call."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            return call()
        finally:
            sys.settrace(before)


def test_the_first_is_reported_at_once_then_how_many_there_were(clock: Clock) -> None:
    """A thousand events are one report, and one with the number every ten seconds; the end is reported once."""
    event = RecurringEvent(clock=clock)
    assert event.ongoing is False

    reports = [event.happened() for _ in range(1000)]
    assert reports == [Report(1, first=True), *[None] * 999]
    assert event.ongoing is True
    clock.now += 9.999
    assert event.happened() is None
    clock.now += 0.001
    assert event.happened(5) == Report(1005, first=False)
    clock.now += 5
    assert event.happened() is None

    clock.now += 2.5
    assert event.ended() == End(1007, 17.5)
    assert event.ongoing is False
    assert event.ended() is None


def test_what_comes_and_goes_is_reported_no_more_often(clock: Clock) -> None:
    """Something that fails every second time is one report and one end in ten seconds, and what is left is in the next one."""
    event = RecurringEvent(clock=clock)
    lines: list[Report | End | None] = []
    for _ in range(160):
        lines += [event.happened(), event.ended()]
        clock.now += 0.125

    assert [line for line in lines if line is not None] == [
        Report(1, first=True),
        End(1, 0.0),
        Report(80, first=True),
        End(80, 9.875),
    ]
    assert event.ongoing is True, "the last 79 have not been reported"
    clock.now += 10
    assert event.ended() == End(79, 19.875)
    assert event.ongoing is False


def test_what_is_only_counted_is_in_the_next_report(clock: Clock) -> None:
    """`count` reports nothing and loses nothing."""
    event = RecurringEvent(clock=clock)
    event.count(3)
    assert event.ongoing is True
    assert event.happened() == Report(4, first=True)
    event.count()
    assert event.ended() == End(5, 0.0)


def test_a_clock_that_is_set_back_does_not_silence_the_reports(clock: Clock) -> None:
    """The next event is reported as if the time had come."""
    event = RecurringEvent(clock=clock)
    event.happened()
    clock.now -= 3600

    assert event.happened() == Report(1, first=False)
    clock.now -= 3600
    assert event.ended() == End(2, 0.0)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("happened"), st.integers(1, 5)),
        st.tuples(st.just("count"), st.integers(1, 5)),
        st.tuples(st.just("ended"), st.just(0)),
        st.tuples(st.just("advance"), st.sampled_from([0.5, 3, 9, 10, 25])),
    ),
    max_size=60,
)


@given(steps=_STEPS)
def test_no_event_is_lost_or_reported_twice(steps: list[tuple[str, float]]) -> None:
    """Whatever happens: the numbers add up, no time has more than a report and an end, and an end follows at last."""
    clock = Clock()
    event = RecurringEvent(every=10, clock=clock)
    happened = ended = reported = 0
    lines: list[tuple[float, type]] = []
    steps = [*steps, ("advance", 10), ("ended", 0)]

    for step, number in steps:
        line: Report | End | None = None
        if step == "advance":
            clock.now += number
        elif step == "count":
            event.count(int(number))
            happened += int(number)
        elif step == "happened":
            happened += int(number)
            line = event.happened(int(number))
            assert event.ongoing
        elif event.ongoing:
            line = event.ended()
        if isinstance(line, Report):
            assert line.first is (reported == 0)
            reported += line.number
            assert reported == happened - ended
        elif line is not None:
            ended, reported = ended + line.number, 0
            assert ended == happened
            assert 0 <= line.seconds <= sum(far for name, far in steps if name == "advance")
        if line is not None:
            lines.append((clock.now, type(line)))

    assert ended == happened
    assert event.ongoing is False
    began = [instant for instant, kind in lines if kind is Report]
    assert all(later - earlier >= 10 for earlier, later in pairwise(began))
    over = [instant for instant, kind in lines if kind is End]
    assert len(over) == len(set(over))


def test_threads_report_once_and_count_exactly(clock: Clock) -> None:
    """Of many threads one makes the report, and each event is in exactly one number."""
    event = RecurringEvent(clock=clock)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for round in range(1, 6):
                lines = list(pool.map(lambda _: [event.happened() for _ in range(200)], range(8)))
                told = [line for each in lines for line in each if line is not None]
                assert len(told) == 1
                clock.now += 10
                ends = [end for end in pool.map(lambda _: event.ended(), range(8)) if end is not None]
                assert [end.number for end in ends] == [1600], round
                clock.now += 10
                assert event.ended() is None
                assert event.ongoing is False
    finally:
        sys.setswitchinterval(interval)


def test_threads_that_fail_and_succeed_lose_nothing() -> None:
    """Where an end and an event race, the numbers of all ends add up to the events. A thread may be stopped anywhere, for longer
    than the time between two reports.
    """
    event = RecurringEvent(every=1e-5)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(_: int) -> int:
        ended = 0
        for number in range(6000):
            if number % 3:
                event.happened()
            elif event.ongoing:
                end = event.ended()
                ended += 0 if end is None else end.number
        return ended

    try:
        with ThreadPoolExecutor(6) as pool:
            ended = sum(pool.map(work, range(6)))
    finally:
        sys.setswitchinterval(interval)
    time.sleep(0.01)
    last = event.ended()

    assert ended + (0 if last is None else last.number) == 6 * 4000


@pytest.mark.parametrize("overtaking", ["happened", "ended"])
@pytest.mark.parametrize("overtaken", ["happened", "ended"])
def test_a_caller_that_is_overtaken_reports_nothing_twice(clock: Clock, overtaken: str, overtaking: str) -> None:
    """Stopped at any byte code of its report, for so long that others make one, or several."""
    nth, stops = 0, True
    while stops:
        nth += 1
        event = RecurringEvent(clock=clock)
        clock.now += 100
        told: list[Report | End | None] = [event.happened(3)]
        event.count(2)
        clock.now += 10

        def others(event: RecurringEvent = event, told: list[Report | End | None] = told) -> None:
            for _ in range(3):
                clock.now += 10
                told.append(event.happened(5) if overtaking == "happened" else event.ended())

        clock.now += 10
        stop = Stop(nth, others)
        told.append(stop.runs(lambda event=event: event.happened(7) if overtaken == "happened" else event.ended()))
        stops = stop.left == 0
        clock.now += 10
        told.append(event.ended())
        happened = 5 + 7 * (overtaken == "happened") + 15 * stops * (overtaking == "happened")

        assert sum(line.number for line in told if isinstance(line, End)) == happened, (nth, told)
        assert event.ended() is None
    assert nth > 20


@pytest.mark.parametrize("way", ["happened", "ended"])
def test_an_exception_anywhere_loses_no_event(clock: Clock, way: str) -> None:
    """A signal handler may raise at any byte code. What it interrupts may not be reported, but later reports are right."""
    nth, stops = 0, True
    while stops:
        nth += 1
        event = RecurringEvent(clock=clock)
        clock.now += 100
        event.happened(3)
        clock.now += 10

        def interrupt() -> None:
            raise KeyboardInterrupt

        stop, lines = Stop(nth, interrupt), [Report(0, first=True)]
        with suppress(KeyboardInterrupt):
            lines += [stop.runs(lambda event=event: event.happened() if way == "happened" else event.ended())]
        stops = stop.left == 0
        clock.now += 10
        lines += [event.happened(2), event.happened(2)]
        clock.now += 10
        lines += [event.ended(), event.ended()]
        ends = [line.number for line in lines if isinstance(line, End)]

        # An end that was interrupted may be lost, with its 3 events; an event may be interrupted before it counts.
        assert sum(ends) in ({7, 8} if way == "happened" else {7, 4}), (nth, lines)
        assert event.ongoing is False
    assert nth > 20


def test_what_was_only_counted_is_reported_when_it_is_due(clock: Clock) -> None:
    """Without another event, its number is reported once, 10 seconds after the last report at the earliest."""
    event = RecurringEvent(clock=clock)
    assert (event.unreported, event.due(), event.rest()) == (False, None, None)

    assert event.happened() == Report(1, first=True)
    event.count(5)
    clock.now += 9
    assert (event.unreported, event.due()) == (True, None)

    clock.now += 1
    assert event.due() == Report(5, first=False)
    assert (event.unreported, event.due(), event.rest()) == (False, None, None)

    clock.now += 10
    assert event.happened() == Report(1, first=False)
    event.count()
    assert event.rest() == Report(1, first=False)
