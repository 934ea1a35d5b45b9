"""Watchers: what a callback may do, and when it is called. Whatever it does, the sender does not notice."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify import AsyncLimiter, Limiter, Notifier, NotifyError, Rule, RuleSet, rate_limited
from ratelimited_notify.instrumentation import Decided, Delivered, registry, watch
from ratelimited_notify.instrumentation.watcher import Handle, Watcher
from watching import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ratelimited_notify.instrumentation import Event

ANA, BEN = "ana@example.com", "ben@example.com"


class SoftTimeLimitExceeded(Exception):
    """Named as in Celery: an exception that any `except Exception` would catch."""


@pytest.fixture(autouse=True)
def _nobody_watches_after() -> Iterator[None]:
    """No test leaves a watcher of the process behind."""
    yield
    assert registry.watchers() == ()


def raising(event: Event) -> None:
    """A callback that raises."""
    raise ValueError(ANA)


@pytest.mark.parametrize("recipients", [False, True])
def test_a_callback_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture, recipients: bool) -> None:
    """The sender gets what it would get otherwise, and those who watch too get every event."""
    limiter, told = Limiter({"news": "2/day"}), Told()
    sent: list[str] = []
    send = rate_limited("news", limiter=limiter, on_limit="drop", recipient="object")(sent.append)
    with limiter.watch(raising, recipients=recipients), limiter.watch(told):
        for _ in range(3):
            send(ANA)
        limiter.hit("news", BEN)
        limiter.hit_many("news", [BEN, BEN])
        Notifier(sent.append, limiter=limiter).send("news", ANA)

    assert sent == [ANA, ANA]
    assert told.verdicts == ["allowed", "allowed", "refused", "allowed", "allowed", "refused", "refused"]
    assert told.statuses == ["sent", "sent", "suppressed", "suppressed"]
    (record,) = (each for each in caplog.records if "watches" in each.message)
    assert record.levelno == logging.WARNING
    assert record.message.startswith("A callback that watches, raising, raised ValueError.")
    assert ANA not in caplog.text


def test_what_several_prepare_is_told_to_each(caplog: pytest.LogCaptureFixture) -> None:
    """A watcher of one's own that prepares its events, and raises in them, does not keep them from others."""
    counted: list[str] = []

    class Counting(Watcher):
        times_deliveries = times_decisions = False

        def prepared(self, event: Event) -> Callable[[], object]:
            def count() -> None:
                counted.append(type(event).__name__)
                raise ValueError

            return count

    limiter, told = Limiter({"news": "9/day"}), Told()
    send = rate_limited("news", limiter=limiter)(lambda recipient: recipient)
    begin = limiter._add_watcher, limiter._remove_watcher
    first, second = (Handle.begun(Counting(lambda event: None), *begin) for _ in range(2))
    plain = limiter.watch(told)
    # The first decision about a type may take another way.
    assert send(ANA) == ANA
    counted.clear()
    told.clear()
    assert send(ANA) == ANA
    assert counted == ["Decided", "Decided"]
    assert (told.verdicts, told.statuses) == (["allowed"], ["sent"])
    for handle in (first, plain):
        handle.close()
    assert send(ANA) == ANA
    counted.clear()
    assert send(ANA) == ANA
    assert counted == ["Decided", "Delivered"]
    second.close()
    assert send(ANA) == ANA
    assert counted == ["Decided", "Delivered"]
    assert len([each for each in caplog.records if "watches" in each.message]) == 2


class Untimed(Watcher):
    """Wants to know no times."""

    times_deliveries = times_decisions = False


def test_what_is_prepared_is_used_again_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each type, and not for ever if somebody makes up types: what is told stays the same."""
    monkeypatch.setattr("ratelimited_notify.limiter.watching._MOST_TYPES", 3)
    limiter, told = Limiter(RuleSet([], default="9/day")), Told()
    Handle.begun(Untimed(told), limiter._add_watcher, limiter._remove_watcher)
    watching = limiter.watching
    assert watching is not None
    for number in range(8):
        type = f"type{number}"
        attempt = watching.attempt(type, ANA)
        for _ in range(2):
            limiter.hit_many(type, [ANA])
            assert watching.attempt(type, BEN) is attempt
            assert [len(kept) for kept in (watching.attempts, watching._decided, watching._shown)] == [
                number % 3 + 1
            ] * 3

    assert [event.type for event in told] == [f"type{number // 2}" for number in range(16)]
    assert set(told.verdicts) == {"allowed"}


def test_times_are_measured_for_those_who_want_to_know_them(tmp_path: Path) -> None:
    """In seconds, and for nobody else."""
    timed, untimed = Told(), Told()
    for told, kind in ((timed, Watcher), (untimed, Untimed)):
        limiter = Limiter({"news": "9/day"}, f"sqlite:///{tmp_path}/windows.db")
        Handle.begun(kind(told), limiter._add_watcher, limiter._remove_watcher)
        limiter.hit("news", ANA)
        Notifier(print, limiter=limiter).send("news", ANA)
        limiter.close()
    first, second, delivered = (event.seconds for event in timed)

    assert all(0 <= seconds < 60 for seconds in (first, second, delivered))
    assert [event.seconds for event in untimed] == [None, None, None]


@pytest.mark.parametrize("callback", [None, 3, "print"])
def test_what_cannot_be_called_is_no_callback(callback: Any) -> None:
    """It is an error at once, and nothing is watched."""
    with pytest.raises(NotifyError, match="not a function"):
        watch(callback)
    with pytest.raises(NotifyError, match="not a function"):
        Limiter({"news": "1/day"}).watch(callback)


def test_coroutine_functions_and_odd_options_are_errors() -> None:
    """A coroutine would never be awaited; `recipients=` is yes or no."""

    async def later(event: Event) -> None:
        """Never runs."""

    with pytest.raises(NotifyError, match="coroutine"):
        watch(later)
    with pytest.raises(NotifyError, match="recipients="):
        watch(print, recipients="yes")  # type: ignore[arg-type]  # that is what is wrong


def test_a_callback_that_asks_a_limiter_does_not_recurse() -> None:
    """The same one, another one, and a sync one in asyncio: each callback is told about what others ask, not itself."""
    same, other = Limiter({"news": "9/day"}), Limiter({"news": "9/day"})
    nested: list[str] = []
    told = Told()

    def asks(event: Event) -> None:
        nested.append(type(event).__name__)
        same.hit("news", ANA)
        other.hit("news", BEN)
        Notifier(lambda recipient: None, limiter=other).send("news", BEN)

    with watch(asks), watch(told):
        same.hit("news", ANA)
        assert nested == ["Decided"]
        # Its own three, their delivery, and the one that began it.
        assert told.verdicts == ["allowed"] * 4
        assert told.statuses == ["sent"]

        async def run() -> None:
            asynchronous = AsyncLimiter({"news": "9/day"})
            await asynchronous.hit("news", ANA)

        asyncio.run(run())
    assert nested == ["Decided", "Decided"]


def test_callbacks_that_ask_each_other_end() -> None:
    """Two that ask both are told about each other, and no more."""
    limiter = Limiter({"news": "99/day"})
    calls: list[str] = []

    def first(event: Event) -> None:
        calls.append("first")
        limiter.hit("news", ANA)

    def second(event: Event) -> None:
        calls.append("second")
        limiter.hit("news", ANA)

    with watch(first), watch(second):
        limiter.hit("news", BEN)

    assert calls == ["first", "second", "second", "first"]


def test_a_callback_may_watch_and_change_rules() -> None:
    """It may close its own handle, begin another one and assign rules: no lock is held while it runs."""
    limiter, told = Limiter({"news": "1/day"}), Told()

    def once(event: Event) -> None:
        handle.close()
        limiter.rules = {"news": "2/day"}
        handles.append(watch(told))

    handles: list[Handle] = []
    handle = watch(once)
    limiter.hit("news", ANA)
    limiter.hit("news", ANA)
    limiter.hit("news", ANA)
    for each in handles:
        each.close()

    assert told.verdicts == ["allowed", "refused"]
    assert len(handles) == 1


def interrupted(error: BaseException, call: Callable[[], object]) -> None:
    """Run a call during which a signal handler raises this."""

    def handler(number: int, frame: Any) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        call()
    finally:
        signal.signal(signal.SIGUSR1, before)


def struck(event: Event) -> None:
    """A callback that a signal hits."""
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), KeyboardInterrupt(), TimeoutError()], ids=repr)
@pytest.mark.parametrize("recipients", [False, True])
def test_exceptions_of_signal_handlers_pass(
    caplog: pytest.LogCaptureFixture, error: BaseException, recipients: bool
) -> None:
    """They reach the sender wherever the signal comes: by the shortcut, without it, in a delivery. Later events are told."""
    limiter, told = Limiter({"news": "99/day"}), Told()
    send = rate_limited("news", limiter=limiter)(lambda recipient: None)
    notifier = Notifier(lambda recipient: None, limiter=limiter)
    calls: list[Callable[[], object]] = [
        lambda: limiter.hit("news", ANA),
        lambda: limiter.hit("news", ANA, cost=2),
        lambda: limiter.hit_many("news", [ANA, BEN]),
        lambda: send(ANA),
        lambda: notifier.send("news", ANA),
    ]
    for call in calls:
        with limiter.watch(struck, recipients=recipients), pytest.raises(type(error)):
            interrupted(error, call)

    def when_delivered(event: Event) -> None:
        if isinstance(event, Delivered):
            struck(event)

    for call in calls[3:]:
        with limiter.watch(when_delivered), pytest.raises(type(error)):
            interrupted(error, call)
    with limiter.watch(told):
        send(ANA)

    assert (told.verdicts, told.statuses) == (["allowed"], ["sent"])
    assert "watches" not in caplog.text


def test_a_callable_object_as_a_signal_handler() -> None:
    """Bound methods, partials and objects with `__call__` are signal handlers too."""

    class Handler:
        def __call__(self, number: int, frame: Any) -> None:
            raise SoftTimeLimitExceeded

        def method(self, number: int, frame: Any) -> None:
            raise SoftTimeLimitExceeded

    limiter = Limiter({"news": "99/day"})
    for handler in (Handler(), Handler().method, partial(Handler().method)):
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            with limiter.watch(struck), pytest.raises(SoftTimeLimitExceeded):
                limiter.hit("news", ANA)
        finally:
            signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_ends_a_notification_once() -> None:
    """What passes through a callback about a refusal makes no second delivery of it."""
    limiter = Limiter({"news": "1/day"})
    told = Told()

    def when_suppressed(event: Event) -> None:
        if isinstance(event, Delivered):
            struck(event)

    limiter.hit("news", ANA)
    with limiter.watch(told), limiter.watch(when_suppressed), pytest.raises(SoftTimeLimitExceeded):
        interrupted(SoftTimeLimitExceeded(), partial(Notifier(print, limiter=limiter).send, "news", ANA))

    assert told.statuses == ["suppressed"]


def test_closing_twice_and_two_handles_of_one_callback() -> None:
    """Each handle is told once, and ends once."""
    limiter, told = Limiter({"news": "99/day"}), Told()
    first, second, all_of_them = limiter.watch(told), limiter.watch(told), watch(told)
    limiter.hit("news", ANA)
    assert len(told.taken()) == 3
    first.close()
    first.close()
    limiter.hit("news", ANA)
    assert len(told.taken()) == 2
    all_of_them.close()
    all_of_them.close()
    second.close()
    limiter.hit("news", ANA)

    assert told == []
    assert limiter.watching is None
    assert limiter.watchers == ()


def test_a_limiter_that_nobody_watches_has_nothing() -> None:
    """No events are loaded, and nothing is kept, until somebody watches."""
    limiter = Limiter({"news": "1/day"})
    send = rate_limited("news", limiter=limiter)(lambda recipient: None)
    send(ANA)
    plain = type(limiter.plans.shortcuts["news"])
    with limiter.watch(Told()):
        send(BEN)
        assert type(limiter.plans.shortcuts["news"]) is not plain
    send("cleo@example.com")

    assert limiter.watching is None
    assert type(limiter.plans.shortcuts["news"]) is plain


def test_limiters_and_watchers_are_freed() -> None:
    """A limiter that is dropped while it is watched, and a watcher that is closed, are freed."""
    before = len(registry.limiters())
    told = Told()

    class Callback:
        def __call__(self, event: Event) -> None:
            """Does nothing."""

    callback = Callback()
    callbacks = weakref.ref(callback)
    handle = watch(callback)
    limiters = []
    for watched in (True, False):
        limiter = Limiter({"news": "1/day"})
        if watched:
            limiter.watch(told)
        limiter.hit("news", ANA)
        Notifier(lambda recipient: None, limiter=limiter).send("news", BEN)
        limiters.append(weakref.ref(limiter))
        del limiter
    gc.collect()
    assert [each() for each in limiters] == [None, None]
    assert len(registry.limiters()) <= before
    assert len(registry._limiters) == len(registry.limiters())
    handle.close()
    del handle, callback
    gc.collect()

    assert callbacks() is None


@pytest.mark.slow
def test_no_event_is_lost_while_threads_decide_and_rules_change() -> None:  # noqa: C901  # three threads in one story
    """Each decision that begins after `watch` returned is told, and none after `close` returned, in the same thread."""
    limiter = Limiter({"news": "1000000/day", "sms": "1000000/day"})
    send = rate_limited("news", limiter=limiter)(lambda recipient: None)
    over = threading.Event()
    wrong: list[str] = []

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            limiter.rules = {"news": f"{1_000_000 + number % 2}/day", "sms": "1000000/day"}

    def decide() -> None:
        here = threading.get_ident()
        for _ in range(40):
            told = 0

            def count(event: Event) -> None:
                nonlocal told
                # Other threads call this too, and must not write what they have read before.
                if threading.get_ident() == here and isinstance(event, (Decided, Delivered)):
                    told += 1

            for begin in (limiter.watch, watch):
                handle = begin(count)
                for _ in range(5):
                    limiter.hit("news", ANA)
                    send(ANA)
                    limiter.hit("sms", ANA, cost=2)
                if told != 20:
                    wrong.append(f"{told} of 20")
                handle.close()
                told = 0
                limiter.hit("news", ANA)
                send(ANA)
                if told:
                    wrong.append(f"{told} after it was closed")

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        changing = threading.Thread(target=change)
        threads = [threading.Thread(target=decide) for _ in range(8)]
        for thread in (changing, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        over.set()
        changing.join()
        sys.setswitchinterval(switching)

    assert wrong == []
    assert limiter.watching is None


def test_every_type_gets_its_shortcut_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is made while somebody begins to watch is made again, with what tells."""
    limiter, told = Limiter({"news": "9/day"}), Told()
    made = limiter._shortcut_for

    def late(plan: Any) -> Any:
        shortcut = made(plan)
        if not told and limiter.watching is None:
            limiter.watch(told)
        return shortcut

    monkeypatch.setattr(limiter.plans, "_shortcut_for", late)
    limiter.hit("news", ANA)
    limiter.hit("news", ANA)
    limiter.hit("news", ANA)

    assert told.verdicts == ["allowed"] * 3 or told.verdicts == ["allowed"] * 2
    assert type(limiter.plans.shortcuts["news"]).__name__ == "WatchedShortcut"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_goes_on_watching() -> None:
    """Also while another thread is in the callback: a new thread of the child may have the identity of that one."""
    limiter, told = Limiter({"news": "99/day"}), Told()
    inside, go_on = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        told.append(event)
        if threading.current_thread() is held:
            inside.set()
            go_on.wait(20)

    held = threading.Thread(target=lambda: limiter.hit("news", ANA))
    with watch(hold):
        held.start()
        inside.wait(20)
        child = os.fork()
        if child == 0:  # pragma: no cover  # it is another process
            told.clear()
            for _ in range(5):
                threads = [threading.Thread(target=limiter.hit, args=("news", BEN)) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            limiter.hit("news", BEN)
            os._exit(len(told))
        go_on.set()
        held.join()
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 21
    assert told.verdicts == ["allowed"]


def test_recipients_for_those_who_ask() -> None:
    """As they are counted: normalized, pseudonymized. Nobody else gets them, and one that cannot be counted is None."""
    limiter, plain, informed = Limiter({"news": "1/day"}, normalize="email"), Told(), Told()
    limiter.watch(plain)
    limiter.watch(informed, recipients=True)
    send = rate_limited("news", limiter=limiter, on_limit="drop")(lambda recipient: None)
    send("Ana <ANA@example.com>")
    send("ana@example.com")
    limiter.hit_many("news", [BEN])
    limiter.release(limiter.hit("news", 5))
    with pytest.raises(TypeError):
        send(None)

    assert {event.recipient for event in plain} == {None}
    assert [event.recipient for event in informed] == [ANA] * 4 + [BEN, "5", "5", None]
    secret = Limiter({"news": "1/day"}, pseudonymize=b"secret")
    secret.watch(informed, recipients=True)
    informed.clear()
    secret.hit("news", ANA)

    (event,) = informed
    assert event.recipient == secret.windows("news", ANA)[0].identifiers[-1] != ANA


def test_a_limiter_that_is_closed_and_used_again_tells() -> None:
    """`close` ends no watch."""
    limiter, told = Limiter({"news": "1/day"}), Told()
    limiter.watch(told)
    limiter.hit("news", ANA)
    limiter.close()
    limiter.hit("news", ANA)

    assert told.verdicts == ["allowed", "allowed"]


def test_the_storage_in_use_is_noted() -> None:
    """A watcher that prepares something for failures gets what its limiters stand on, and what they do when that fails."""
    noted: list[tuple[object, ...]] = []

    class Noting(Watcher):
        def storage_in_use(self, backend: str, policy: str, circuits: Any) -> None:
            noted.append((backend, policy, circuits))

    limiters = [Limiter({"news": "1/day"}, on_storage_error=choice) for choice in ("allow", "deny")]
    for limiter in limiters:
        limiter.hit("news", ANA)
        Handle.begun(Noting(lambda event: None), limiter._add_watcher, limiter._remove_watcher)

    assert noted == [("memory", "allow", {}), ("memory", "deny", {})]


def test_rules_of_a_limiter_that_is_made_later_are_noted() -> None:
    """A watcher that prepares something for each rule gets the rules of every limiter, and of decorators."""
    noted: list[list[str]] = []

    class Noting(Watcher):
        def rules_in_force(self, rules: Any) -> None:
            noted.append([rule.name for rule in rules])

    first = Limiter({"noted": "1/day"})
    with Handle.begun(Noting(lambda event: None), registry.begin, registry.end):
        second = Limiter([Rule("*", "9/day", name="cap")])
        rate_limited("sms", "1/day", limiter=second)(lambda recipient: None)
        first.rules = {"mail": "1/day"}

    # Limiters that other tests left behind are noted when it begins.
    assert noted[-4:] == [["noted"], ["cap"], ["cap", "sms"], ["mail"]]
