"""Deliveries: each call of a notifier or of a decorated function tells once what became of it, whatever happens."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any

import pytest

from limiting import HOUR, Clock
from offering import until
from outcomes import Unreliable
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    StorageError,
    rate_limited,
)
from ratelimited_notify.gateways.smtp import SMTPGateway
from ratelimited_notify.instrumentation import Decided, Delivered, Released, Waited
from ratelimited_notify.limiter.waiters import lines
from ratelimited_notify.testing import Clock as SleepingClock
from watching import Told

if TYPE_CHECKING:
    from collections.abc import Callable

ANA, BEN = "ana@example.com", "ben@example.com"

LATER = "later@example.com"


class Odd(Exception):
    """What a gateway raises."""


def gateway(recipient: str, *, fails: bool = False) -> str:
    """Sends, or raises."""
    if fails:
        raise Odd(recipient)
    return f"sent to {recipient}"


def watched(*arguments: Any, **options: Any) -> tuple[Any, Told]:
    """A limiter, and what those who watch it are told."""
    limiter, told = Limiter(*arguments, **options), Told()
    limiter.watch(told)
    return limiter, told


def of_deliveries(told: Told) -> list[tuple[str, str | None]]:
    """What became of each, and the exception."""
    return [(event.status, event.error) for event in told.of(Delivered)]


def test_a_notifier_tells_what_became_of_it() -> None:
    """Sent, failed with the class of the exception, suppressed. Only what was called takes time."""
    limiter, told = watched({"news": "2/day"})
    notifier = Notifier(gateway, limiter=limiter)
    notifier.send("news", ANA)
    with pytest.raises(Odd):
        notifier.send("news", ANA, fails=True)
    notifier.deliver(Notification("news", ANA))
    notifier.send("news", ANA)

    assert of_deliveries(told) == [("sent", None), ("failed", "Odd"), ("sent", None), ("suppressed", None)]
    assert [event.seconds is None for event in told.of(Delivered)] == [False, False, False, True]
    assert [type(event) for event in told][:4] == [Decided, Delivered, Decided, Delivered]
    assert len(told.of(Released)) == 1


def test_a_batch_tells_each() -> None:
    """`send_many` and `iter_many`, in order; what was asked again is decided again, but delivered once."""
    limiter, told = watched([Rule("news", "1/day", by=())])
    sent: list[str] = []

    def once(recipient: str) -> None:
        sent.append(recipient)
        if len(sent) == 1:
            raise Odd

    notifier = Notifier(once, limiter=limiter)
    notifier.send_many("news", [ANA, BEN, ANA])
    assert of_deliveries(told) == [("failed", "Odd"), ("sent", None), ("suppressed", None)]
    told.clear()
    list(notifier.iter_many([Notification("news", ANA), Notification("news", "")]))

    assert of_deliveries(told) == [("suppressed", None), ("failed", "NotifyError")]


def test_a_batch_that_is_given_up_gives_back() -> None:
    """What was decided and never asked for is released, and not delivered."""
    limiter, told = watched({"news": "5/day"})
    deliveries = Notifier(gateway, limiter=limiter).iter_many([Notification("news", ANA) for _ in range(3)])
    next(deliveries)
    deliveries.close()

    assert told.statuses == ["sent"]
    assert len(told.of(Decided)) == 3
    assert len(told.of(Released)) == 2


def test_a_result_that_is_a_failure_is_told() -> None:
    """`failed=` makes it a failure: `SendFailed`. One that raises makes it none."""
    limiter, told = watched({"news": "5/day"})
    Notifier(gateway, limiter=limiter, failed=lambda result: "ana" in result).send_many("news", [ANA, BEN])
    Notifier(gateway, limiter=limiter, failed=lambda result: result.nothing).send("news", BEN)
    rate_limited("news", limiter=limiter, failed=lambda result: True)(gateway)(ANA)

    assert of_deliveries(told) == [("failed", "SendFailed"), ("sent", None), ("sent", None), ("failed", "SendFailed")]


def test_a_refusal_that_raises_is_suppressed() -> None:
    """`on_limit="raise"`, of a rule, a notifier and a decorator."""
    limiter, told = watched([Rule("news", "1/day"), Rule("sms", "1/day", on_limit="raise")])
    notifier, send = (
        Notifier(gateway, limiter=limiter, on_limit="raise"),
        rate_limited("news", limiter=limiter)(gateway),
    )
    dropping = rate_limited("sms", limiter=limiter, on_limit="drop")(gateway)
    notifier.send("news", ANA)
    dropping(ANA)
    told.clear()
    for call in (lambda: notifier.send("news", ANA), lambda: send(ANA), lambda: dropping(ANA)):
        with pytest.raises(RateLimitExceeded):
            call()

    assert of_deliveries(told) == [("suppressed", None)] * 3
    assert told.verdicts == ["refused"] * 3


@pytest.mark.parametrize("on_limit", ["raise", "drop"])
def test_a_decorated_function_tells(on_limit: Any) -> None:
    """By the shortcut and without it: with a cost, fields and a priority."""
    limiter, told = watched([Rule("news", "2/day", exempt="high")])
    for options in ({}, {"cost": lambda recipient, fails=False: 1}, {"priority": "low"}):
        send = rate_limited("news", limiter=limiter, on_limit=on_limit, **options)(gateway)
        send(ANA)
        with pytest.raises(Odd):
            send(ANA, fails=True)
        send(ANA)
        for _ in range(2):
            try:
                assert send(ANA) is None
            except RateLimitExceeded:
                assert on_limit == "raise"
        limiter.clear("news", ANA)

        assert of_deliveries(told) == [("sent", None), ("failed", "Odd"), ("sent", None)] + [("suppressed", None)] * 2
        assert told.verdicts == ["allowed"] * 3 + ["refused"] * 2
        told.clear()


def test_a_call_about_which_nothing_can_be_decided_tells() -> None:
    """An error of `normalize`, of a reader, of the limiter or of the storage: the notification failed."""

    def normalize(recipient: str) -> str:
        if "@" not in recipient:
            raise Odd(recipient)
        return recipient

    storage = Unreliable()
    failing, told = Limiter({"sms": "2/day"}, storage), Told()
    limiter = Limiter({"news": "2/day"}, normalize=normalize)
    failing.watch(told)
    limiter.watch(told)
    send = rate_limited("news", limiter=limiter)(gateway)
    counted = rate_limited("news", limiter=limiter, cost=lambda recipient: 1 // 0)(gateway)
    sms = rate_limited("sms", limiter=failing)(gateway)
    notifier = Notifier(gateway, limiter=limiter)
    send(ANA)
    storage.failing = ("acquire",)
    told.clear()
    calls: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: send("ana"), Odd),
        (lambda: send(""), NotifyError),
        (lambda: send(None), TypeError),
        (send, TypeError),
        (lambda: counted(ANA), ZeroDivisionError),
        (lambda: sms(ANA), StorageError),
        (lambda: notifier.send("news", "ana"), Odd),
        (lambda: notifier.send("news", None), TypeError),
        (lambda: notifier.send("news", ANA, fails=True), Odd),
        (lambda: notifier.bind(tenants="acme").send("news", ANA), NotifyError),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()

    assert of_deliveries(told) == [("failed", error.__name__) for _, error in calls]
    assert ANA not in repr(told)


def test_a_call_that_cannot_be_read_shows_the_gateway_s_count() -> None:
    """The recipient of a notification about which nothing is decided is counted as its gateway counts."""
    told = Told()
    notifier = Notifier(SMTPGateway("localhost", 1, sender=ANA), {"news": "1/day"})
    notifier.limiter.watch(told, recipients=True)
    notifier.send_many("news", ["Ben <ben@example.com>"] * 2)
    list(notifier.iter_many([Notification("news", "Ben <ben@example.com>", cost=0)]))

    assert {event.recipient for event in told.of(Delivered)} == {"ben@example.com"}


def test_limiting_that_is_off_tells() -> None:
    """Everything is sent, and told."""
    limiter, told = watched({"news": "1/day"}, enabled=False)
    send = rate_limited("news", limiter=limiter)(gateway)
    notifier = Notifier(gateway, limiter=limiter)
    for _ in range(2):
        send(ANA)
        notifier.send("news", ANA)
    notifier.send_many("news", [ANA, BEN])

    assert told.verdicts == ["unlimited"] * 6
    assert told.statuses == ["sent"] * 6


def test_a_wait_is_told_once() -> None:
    """How long it took by the limiter's clock, and that it may be sent now; or that it was given up."""
    clock = SleepingClock()
    limiter, told = watched({"news": "1/minute"}, clock=clock)
    notifier = Notifier(gateway, limiter=limiter, on_limit="wait", max_wait=90)
    send = rate_limited("news", limiter=limiter, on_limit="wait", max_wait=90)(gateway)
    notifier.send("news", ANA)
    told.clear()
    notifier.send("news", ANA)
    send(ANA)

    assert [(event.type, round(event.seconds), event.allowed) for event in told.of(Waited)] == [("news", 60, True)] * 2
    assert told.statuses == ["sent", "sent"]
    told.clear()
    impatient = Notifier(gateway, limiter=limiter, on_limit="wait", max_wait=5)
    with pytest.raises(RateLimitExceeded):
        impatient.send("news", ANA)

    # It did not wait at all.
    assert told.of(Waited) == []
    assert told.statuses == ["suppressed"]


def test_a_wait_that_is_interrupted_is_told_once() -> None:
    """Neither allowed nor suppressed: it failed."""

    class Interrupting(SleepingClock):
        def sleep(self, seconds: float) -> None:
            raise Odd

    limiter, told = watched({"news": "1/minute"}, clock=Interrupting())
    notifier = Notifier(gateway, limiter=limiter, on_limit="wait", max_wait=90)
    notifier.send("news", ANA)
    told.clear()
    with pytest.raises(Odd):
        notifier.send("news", ANA)

    assert [event.allowed for event in told.of(Waited)] == [False]
    assert of_deliveries(told) == [("failed", "Odd")]


def test_threads_that_wait_tell_once_each() -> None:
    """Those who lined up, and were woken."""
    limiter, told = watched({"news": "1 per 15 seconds"})
    notifier = Notifier(gateway, limiter=limiter, on_limit="wait", max_wait=60)
    limiter.hit("news", ANA)
    waiting = [threading.Thread(target=notifier.send, args=("news", ANA)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    until(lambda: sum(len(line) for line in lines.values()) == 3)
    limiter.rules = {"news": "4 per 15 seconds"}
    for thread in waiting:
        thread.join()

    assert told.statuses == ["sent"] * 3
    assert [event.allowed for event in told.of(Waited)] == [True] * 3


async def _awaited(recipient: str) -> str:
    await asyncio.sleep(0)
    if recipient == LATER:
        raise Odd
    return recipient


def test_asyncio_tells_the_same() -> None:
    """Decorated coroutine functions and `AsyncNotifier`, also what is cancelled and what is sent at the same time."""

    async def run() -> Told:
        limiter, told = AsyncLimiter([Rule("news", "2/day"), Rule("sms", "3/day")]), Told()
        limiter.watch(told)
        send = rate_limited("news", limiter=limiter, on_limit="drop")(_awaited)
        notifier = AsyncNotifier(_awaited, limiter=limiter, concurrency=3)
        for _ in range(3):
            await send(ANA)
        with pytest.raises(Odd):
            await send(LATER)
        with pytest.raises(TypeError):
            await send(None)
        assert of_deliveries(told) == [
            ("sent", None), ("sent", None), ("suppressed", None), ("failed", "Odd"), ("failed", "TypeError"),
        ]  # fmt: skip
        told.clear()
        await notifier.send("sms", ANA)
        with pytest.raises(Odd):
            await notifier.send("sms", LATER)
        await notifier.send_many("sms", [ANA, ANA, ANA, LATER, ""])
        assert sorted(of_deliveries(told)[2:]) == [
            ("failed", "NotifyError"), ("failed", "Odd"), ("sent", None), ("sent", None), ("suppressed", None),
        ] or sorted(map(str, of_deliveries(told)[2:]))  # fmt: skip
        told.clear()

        async def forever(recipient: str) -> None:
            await asyncio.Event().wait()

        for call in (
            AsyncNotifier(forever, limiter=limiter).send("sms", BEN),
            rate_limited("sms", limiter=limiter)(forever)(BEN),
        ):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return told

    assert of_deliveries(asyncio.run(run())) == [("failed", "CancelledError")] * 2


def test_what_is_awaited_later_is_told_when_it_ends() -> None:
    """A plain function that returns a coroutine or a future has sent nothing yet when it returns."""
    limiter, told = watched({"news": "100/day"})

    @rate_limited("news", limiter=limiter)
    def coroutine(recipient: str) -> Any:
        return _awaited(recipient)

    started = coroutine(ANA)
    assert told.statuses == []
    asyncio.run(started)
    with pytest.raises(Odd):
        asyncio.run(coroutine(LATER))
    coroutine(ANA).close()
    assert of_deliveries(told) == [("sent", None), ("failed", "Odd"), ("failed", None)]
    told.clear()

    @rate_limited("news", limiter=limiter, failed=lambda result: result == "no")
    def future(recipient: concurrent.futures.Future[str]) -> Any:
        return recipient

    made = [concurrent.futures.Future[str]() for _ in range(4)]
    recipients = iter([ANA, ANA, ANA, ANA])
    send = rate_limited(
        "news", limiter=limiter, recipient=lambda future: next(recipients), failed=lambda result: result == "no"
    )(lambda future: future)
    for each in made:
        send(each)
    assert told.statuses == []
    made[0].set_result("yes")
    made[1].set_result("no")
    made[2].set_exception(Odd())
    made[3].cancel()

    assert of_deliveries(told) == [
        ("sent", None), ("failed", "SendFailed"), ("failed", "Odd"), ("failed", "CancelledError"),
    ]  # fmt: skip


def test_remembered_windows_end(tmp_path: Any) -> None:
    """On another storage, dropped calls and sent ones are told too, with the seconds of the storage."""
    clock = Clock()
    limiter, told = watched([Rule("news", "1/hour")], f"sqlite:///{tmp_path}/windows.db", clock=clock)
    send = rate_limited("news", limiter=limiter, on_limit="drop")(gateway)
    for _ in range(2):
        send(ANA)
        send(ANA)
        clock.advance(HOUR + 1)
    limiter.close()

    assert told.statuses == ["sent", "suppressed"] * 2
    assert all(event.seconds is not None and event.backend == "sqlite" for event in told.of(Decided))
