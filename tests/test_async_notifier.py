from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from outcomes import CANARY, INTERRUPTED, MAYBE_SENT, NOT_SENT, AsyncUnreliable, named
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Delivery,
    Limiter,
    Notification,
    NotifyError,
    RateLimitExceeded,
    Rule,
    Status,
    StorageError,
)
from ratelimited_notify.limiter import refund
from ratelimited_notify.notifier.base import BATCH
from ratelimited_notify.pytest_plugin import Clock, Outbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

MANY = {"news": "1000/day"}

Step = BaseException | str


class Scripted:
    """A gateway that does, one call after another, what it is told to, and remembers for whom."""

    def __init__(self, *steps: Step, pauses: int = 0) -> None:
        self.steps = list(steps)
        self.seen: list[Any] = []
        self.pauses = pauses

    def step(self, recipient: Any) -> str:
        self.seen.append(recipient)
        step = self.steps.pop(0) if self.steps else "sent"
        if isinstance(step, BaseException):
            # Cases are shared by tests: without what earlier ones left behind.
            raise step.with_traceback(None)
        return step

    async def send(self, recipient: Any, *args: Any, **kwargs: Any) -> str:
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        return self.step(recipient)

    async def __call__(self, recipient: Any, *args: Any, **kwargs: Any) -> str:
        return await self.send(recipient, *args, **kwargs)

    def in_a_thread(self, recipient: Any, *args: Any, **kwargs: Any) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return self.step(recipient)

    def returning(self, recipient: Any, *args: Any, **kwargs: Any) -> Awaitable[str]:
        return self.send(recipient, *args, **kwargs)


GATEWAYS: dict[str, Callable[[Scripted], Callable[..., Any]]] = {
    "coroutine function": lambda scripted: scripted.send,
    "object with a coroutine function": lambda scripted: scripted,
    "partial of a coroutine function": lambda scripted: partial(scripted.send, copy=True),
    "partial of an object": lambda scripted: partial(scripted, copy=True),
    "function in a thread": lambda scripted: scripted.in_a_thread,
    "partial of a function in a thread": lambda scripted: partial(scripted.in_a_thread, copy=True),
    "function that returns an awaitable": lambda scripted: scripted.returning,
}
each_gateway = pytest.mark.parametrize("kind", GATEWAYS.values(), ids=GATEWAYS)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, on an event loop of its own; what never ends is a failure."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def used(limiter: AsyncLimiter, type: str = "news", recipient: str = "ana") -> int:
    """How many hits are counted."""
    (window,) = await limiter.windows(type, recipient)
    return window.item.amount - window.remaining


def notes(*recipients: str) -> list[Notification]:
    return [Notification("news", recipient) for recipient in recipients]


def statuses(deliveries: Iterable[Delivery[Any]]) -> list[str]:
    return [delivery.status.value for delivery in deliveries]


async def caught_from(awaitable: Awaitable[object]) -> BaseException | None:
    """What it raised, interrupts included, which would stop the event loop."""
    try:
        await awaitable
    except BaseException as error:  # noqa: BLE001  # handed on as a value
        return error
    return None


async def steps(number: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


# What is sent, and what is not.


@each_gateway
def test_gateways_of_every_kind(kind: Callable[[Scripted], Any]) -> None:
    """Coroutine functions, objects that have one, partials, functions, and functions that return an awaitable all send."""

    async def main() -> None:
        gateway = Scripted("250 queued")
        notifier: AsyncNotifier[..., str] = AsyncNotifier(kind(gateway), {"news": "1/day"})

        delivery = await notifier.send("news", "ana", "Hi")
        assert delivery
        assert delivery.result == "250 queued"
        assert delivery.notification.args == ("Hi",)
        assert (await notifier.send("news", "ana", "Hi")).status is Status.SUPPRESSED
        assert gateway.seen == ["ana"]

    run(main())


def test_a_thousand_tasks() -> None:
    """A thousand tasks that send to one recipient at once send exactly the limit, every time."""

    async def main() -> None:
        for limit in (1, 7) * 5:
            gateway = Scripted(pauses=1)
            notifier = AsyncNotifier(gateway, {"news": f"{limit}/day"})
            deliveries = await asyncio.gather(*(notifier.send("news", "ana") for _ in range(1000)))
            assert len(gateway.seen) == sum(map(bool, deliveries)) == limit

    run(main())


@pytest.mark.parametrize("kind", ["coroutine function", "function in a thread"])
def test_one_notifier_in_several_event_loops(kind: str) -> None:
    """One notifier serves event loops one after another and at once, with one set of windows."""
    gateway = Scripted()
    notifier: AsyncNotifier[..., str] = AsyncNotifier(GATEWAYS[kind](gateway), {"news": "9/day"}, concurrency=2)

    async def main() -> None:
        await asyncio.gather(notifier.send("news", "ana"), notifier.send("news", "ana"))
        await notifier.send_many("news", ["ana"] * 3)

    run(main())
    assert len(gateway.seen) == 5
    threads = [threading.Thread(target=run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gateway.seen) == 9


# Failed sends are free; unknown outcomes are kept.


@each_gateway
@pytest.mark.parametrize("error", [*NOT_SENT, *MAYBE_SENT, *INTERRUPTED], ids=named)
def test_a_gateways_error(kind: Callable[[Scripted], Any], error: BaseException) -> None:
    """What the gateway raised reaches the caller as it is; its hit is given back unless the message may have gone out."""

    async def main() -> None:
        notifier: AsyncNotifier[..., str] = AsyncNotifier(kind(Scripted(error)), {"news": "1/day"})

        caught = await caught_from(notifier.send("news", "ana", CANARY))

        assert caught is error
        assert caught.__context__ is None
        assert traceback.extract_tb(caught.__traceback__)[-1].name == "step"
        free = any(error is each for each in NOT_SENT)
        assert await used(notifier.limiter) == (0 if free else 1)
        assert bool(await notifier.send("news", "ana")) is free

    run(main())


@each_gateway
def test_stop_iteration_does_not_hang(kind: Callable[[Scripted], Any]) -> None:
    """A gateway that raises `StopIteration`, which no coroutine can, fails as coroutines do; nobody waits for ever."""

    async def main() -> None:
        notifier: AsyncNotifier[..., str] = AsyncNotifier(kind(Scripted(StopIteration(1), StopIteration(1))), MANY)

        with pytest.raises(RuntimeError, match="StopIteration"):
            await notifier.send("news", "ana")
        assert statuses(await notifier.send_many("news", ["ana", "bob"])) == ["failed", "sent"]
        assert await used(notifier.limiter) == 0

    run(main())


_script = st.lists(st.sampled_from([*NOT_SENT, *MAYBE_SENT, *INTERRUPTED, "sent"]), max_size=12)


@given(script=_script, kind=st.sampled_from(["coroutine function", "function that returns an awaitable"]))
def test_what_is_counted_is_what_may_have_gone_out(script: list[Step], kind: str) -> None:
    """After any run of successes and failures, all at once, exactly those are counted that went out, or may have."""

    async def main() -> None:
        notifier: AsyncNotifier[..., str] = AsyncNotifier(GATEWAYS[kind](Scripted(*script, pauses=1)), MANY)
        await asyncio.gather(*(caught_from(notifier.send("news", "ana")) for _ in script))

        kept = [step for step in script if not any(step is free for free in NOT_SENT)]
        assert await used(notifier.limiter) == len(kept)

    run(main())


@pytest.mark.parametrize(
    ("refund", "error", "counted"),
    [
        (True, asyncio.CancelledError(), 0),
        (False, ValueError(), 1),
        ((TimeoutError, OSError), TimeoutError(), 0),
        (lambda error: error.code == 4, ValueError(), 1),
    ],
)
def test_refund_decides_otherwise(refund: Any, error: BaseException, counted: int) -> None:
    """`refund=` says when a failure gives the hit back."""

    async def main() -> None:
        notifier = AsyncNotifier(Scripted(error), MANY, refund=refund)
        assert await caught_from(notifier.send("news", "ana")) is error
        assert await used(notifier.limiter) == counted

    run(main())


def test_a_release_that_fails_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where the hit cannot be given back the gateway's error is raised all the same, and the log says that it stays."""

    async def main() -> None:
        storage, error = AsyncUnreliable(), ValueError(CANARY)
        notifier = AsyncNotifier(Scripted(error), MANY, storage)
        storage.failing = ("release",)
        assert await caught_from(notifier.send("news", "ana")) is error
        assert error.__context__ is None
        assert await used(notifier.limiter) == 1

    run(main())
    assert caplog.messages == ["A hit could not be given back and stays counted: The storage does not answer."]


def test_giving_back_ends_where_the_storage_hangs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where failures have taken too long the rest of the batch stays counted, and the log says so, and how many there were."""
    monkeypatch.setattr(refund, "PATIENCE", 0.0)

    async def main() -> None:
        storage = AsyncUnreliable()
        notifier = AsyncNotifier(Scripted(), MANY, storage)
        deliveries = notifier.iter_many(Notification("news", "ana") for _ in range(20))
        await anext(deliveries)
        storage.failing = ("release",)
        await deliveries.aclose()
        assert await used(notifier.limiter) == 20
        storage.failing = ()
        failing = AsyncNotifier(Scripted(ValueError("no")), limiter=notifier.limiter)
        assert isinstance(await caught_from(failing.send("news", "ana")), ValueError)

    run(main())
    first, last = caplog.messages
    assert first == "A hit could not be given back and stays counted: The storage does not answer."
    assert last.startswith("Hits are given back again. Before that, 19 could not be given back, in ")


def test_a_storage_that_fails_sends_nothing() -> None:
    """Where the storage gives no answer `send` raises, a batch is FAILED, and the gateway is not called."""

    async def main() -> None:
        storage, gateway = AsyncUnreliable(), Scripted()
        notifier = AsyncNotifier(gateway, MANY, storage)
        storage.failing = ("acquire", "acquire_many")

        with pytest.raises(StorageError):
            await notifier.send("news", "ana")
        deliveries = await notifier.send_many("news", ["ana", "", "eve"])
        assert statuses(deliveries) == ["failed"] * 3
        assert [type(delivery.error) for delivery in deliveries] == [StorageError, NotifyError, StorageError]
        assert gateway.seen == []

    run(main())


@pytest.mark.parametrize(("verb", "many"), [("acquire", False), ("acquire_many", True)])
def test_cancelled_in_the_middle_of_a_decision(verb: str, many: bool) -> None:
    """Cancelled while the storage's answer is out, nothing is sent, and what may be counted is not given back."""

    async def main() -> None:
        storage, gateway = AsyncUnreliable(), Scripted()
        notifier = AsyncNotifier(gateway, MANY, storage)
        storage.hanging = (verb,)
        task: asyncio.Task[Any] = asyncio.create_task(
            notifier.send_many("news", ["ana"]) if many else notifier.send("news", "ana")
        )
        await steps(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert gateway.seen == []
        assert await used(notifier.limiter) == 1

    run(main())


@pytest.mark.parametrize("kind", ["coroutine function", "function in a thread"])
def test_cancelled_while_it_is_sent(kind: str) -> None:
    """Cancelled while the gateway sends, the outcome is unknown: the hit is kept."""

    async def main() -> None:
        sending = threading.Event()
        release = threading.Event()

        async def hang(recipient: str) -> None:
            sending.set()
            await asyncio.Event().wait()

        def block(recipient: str) -> None:
            sending.set()
            release.wait(30)

        gateway = hang if kind == "coroutine function" else block
        notifier: AsyncNotifier[..., Any] = AsyncNotifier(gateway, MANY)
        task = asyncio.create_task(notifier.send("news", "ana"))
        assert await asyncio.to_thread(sending.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

        assert await used(notifier.limiter) == 1

    run(main())


def test_cancelled_while_it_waits() -> None:
    """Cancelled while it waits to be allowed, it holds nothing and sends nothing."""

    async def main() -> None:
        gateway = Scripted()
        notifier = AsyncNotifier(gateway, {"news": "1/hour"}, on_limit="wait", max_wait=3600)
        await notifier.send("news", "ana")
        task = asyncio.create_task(notifier.send("news", "ana"))
        await steps(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert gateway.seen == ["ana"]
        assert await used(notifier.limiter) == 1

    run(main())


# Over the limit.


@pytest.mark.parametrize(
    ("own", "rule", "expected"),
    [
        ("drop", None, "suppressed"),
        ("raise", None, "raised"),
        ("wait", None, "sent"),
        ("drop", "raise", "raised"),
        ("raise", "wait", "sent"),
        ("wait", "drop", "suppressed"),
    ],
)
def test_over_the_limit(own: Any, rule: Any, expected: str) -> None:
    """Over the limit it is dropped, raised or waited for, as the rule says, or else the notifier; waiting moves the clock."""

    async def main() -> None:
        clock = Clock()
        start = clock()
        rules = [Rule("news", "1/minute", on_limit=rule)]
        notifier = AsyncNotifier(Scripted(), rules, on_limit=own, max_wait=60, clock=clock)
        await notifier.send("news", "ana")
        try:
            second = (await notifier.send("news", "ana")).status.value
        except RateLimitExceeded:
            second = "raised"

        assert second == expected
        assert clock() - start == (60 if expected == "sent" else 0)

    run(main())


def test_waiting_sleeps_without_holding_up_others() -> None:
    """By the machine's own clock waiting is sleeping, while other tasks go on."""

    async def main() -> None:
        notifier = AsyncNotifier(Scripted(), {"news": "1/second"}, on_limit="wait", max_wait=5)
        await notifier.send("news", "ana")
        waiting = asyncio.create_task(notifier.send("news", "ana"))
        await steps(3)
        assert await notifier.send("news", "bob")
        assert not waiting.done()
        assert await waiting

    run(main())


def test_a_batch_waits_no_longer_than_it_has_to() -> None:
    """As for threads: each asks again in its turn."""
    clock, outbox = Clock(), Outbox()
    began = clock()

    async def main() -> None:
        rules = [Rule("*", "50/second", by=())]
        async with AsyncNotifier(outbox, rules, on_limit="wait", max_wait=60, clock=clock, concurrency=1) as notifier:
            assert all(await notifier.send_many("news", [f"person{number}" for number in range(500)]))

    run(main())

    assert clock() - began == pytest.approx(9, abs=0.5)


def test_too_long_a_wait() -> None:
    """What is not allowed within `max_wait`, several waits taken together, is refused: raised, or SUPPRESSED in a batch."""

    class Rivalled(Clock):
        limiter: AsyncLimiter
        waited = 0.0

        def sleep(self, seconds: float) -> None:
            self.advance(seconds)
            self.waited += seconds
            # Somebody else is faster. Windows in memory answer at once, so no event loop is needed.
            with suppress(StopIteration):
                self.limiter.hit("news", "ana").send(None)

    async def main() -> None:
        clock, gateway = Rivalled(), Scripted()
        notifier = AsyncNotifier(gateway, {"news": "1/10 seconds"}, on_limit="wait", max_wait=25, clock=clock)
        clock.limiter = notifier.limiter
        await notifier.limiter.hit("news", "ana")

        with pytest.raises(RateLimitExceeded):
            await notifier.send("news", "ana")
        assert clock.waited == 20
        assert statuses(await notifier.send_many("news", ["ana"])) == ["suppressed"]
        assert gateway.seen == []

    run(main())


# Batches.


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_batches_keep_order_and_go_on(concurrency: int) -> None:
    """Deliveries come in the order given, however many are sent at once; failures and refusals stop nobody."""

    async def main() -> None:
        error = ValueError(CANARY)

        async def gateway(recipient: str) -> str:
            # The first takes longest.
            await steps(10 - int(recipient[1:]) % 10)
            if recipient == "r7":
                raise error
            return recipient

        notifier = AsyncNotifier(gateway, {"news": "1/day"}, concurrency=concurrency)
        people = BATCH + 10
        recipients = [f"r{number % people}" for number in range(people + 15)]
        deliveries = await notifier.send_many("news", recipients)

        assert [delivery.notification.recipient for delivery in deliveries] == recipients
        # The one that failed was free, so in a later batch it was tried again.
        expected = [
            "failed" if n in (7, people + 7) else "sent" if n < people else "suppressed" for n in range(people + 15)
        ]
        assert statuses(deliveries) == expected
        assert [delivery.result for delivery in deliveries if delivery] == [
            recipient for recipient, status in zip(recipients, expected, strict=True) if status == "sent"
        ]
        assert deliveries[7].error is error

    run(main())


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_as_many_at_once_as_asked_for(concurrency: int) -> None:
    """No more are being sent at once than `concurrency` says, and no fewer where there are enough."""

    async def main() -> None:
        now, most = 0, 0

        async def gateway(recipient: str) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await steps(3)
            now -= 1

        notifier = AsyncNotifier(gateway, MANY, concurrency=concurrency)
        assert len(await notifier.bind(tenant="acme").send_many("news", ["ana"] * 20)) == 20
        assert most == concurrency

    run(main())


@given(
    script=st.lists(
        st.sampled_from([*NOT_SENT, *MAYBE_SENT, asyncio.CancelledError(), "sent"]), min_size=1, max_size=60
    ),
    concurrency=st.integers(1, 5),
)
def test_failures_in_batches(script: list[Step], concurrency: int) -> None:
    """In batches failures are told, counted and given back one by one; a gateway's own cancellation is one of them."""

    async def main() -> None:
        gateway = Scripted(*script)
        notifier = AsyncNotifier(gateway, MANY, concurrency=concurrency)

        deliveries = await notifier.send_many("news", ["ana"] * len(script))

        assert [delivery.error for delivery in deliveries] == [None if step == "sent" else step for step in script]
        assert statuses(deliveries) == ["sent" if step == "sent" else "failed" for step in script]
        kept = [step for step in script if not any(step is free for free in NOT_SENT)]
        assert await used(notifier.limiter) == len(kept)

    run(main())


def test_over_the_limit_in_batches() -> None:
    """In batches raise is SUPPRESSED, wait waits, and a storage that fails meanwhile is FAILED."""

    async def main() -> None:
        clock = Clock()
        limiter = AsyncLimiter({"news": "1/minute"}, clock=clock)
        raising = AsyncNotifier(Scripted(), limiter=limiter, on_limit="raise")
        waiting = AsyncNotifier(Scripted(), limiter=limiter, on_limit="wait", max_wait=60)

        assert statuses(await raising.send_many("news", ["ana", "ana"])) == ["sent", "suppressed"]
        assert statuses(await waiting.send_many("news", ["bob", "bob", "ana"])) == ["sent", "sent", "sent"]

        storage = AsyncUnreliable(clock=clock)
        storage.failing = ("acquire",)
        failing = AsyncNotifier(Scripted(), {"news": "1/minute"}, storage, on_limit="wait", max_wait=60, clock=clock)
        first, second = await failing.send_many("news", ["ana", "ana"])
        assert (first.status, second.status) == (Status.SENT, Status.FAILED)
        assert isinstance(second.error, StorageError)

    run(main())


def test_a_limit_inside_the_gateway_is_the_gateways_error() -> None:
    """A gateway that has a limit of its own, and raises, has failed: the hit is given back, and the delivery says so."""

    async def main() -> None:
        inner = AsyncNotifier(Scripted(), {"mail": "1/day"}, on_limit="raise")

        async def gateway(recipient: str) -> None:
            await inner.send("mail", recipient)

        notifier = AsyncNotifier(gateway, MANY)
        deliveries = await notifier.send_many("news", ["ana", "ana"])
        assert statuses(deliveries) == ["sent", "failed"]
        assert isinstance(deliveries[1].error, RateLimitExceeded)
        assert await used(notifier.limiter) == 1

    run(main())


@pytest.mark.parametrize("length", [0, 1, BATCH, BATCH + 1])
@pytest.mark.parametrize("failing", [False, True])
def test_batches_of_every_length(length: int, failing: bool) -> None:
    """What was pulled before an iterable raised is delivered, and then its own error is raised."""
    error = LookupError("no more")

    def asked() -> Iterator[Notification]:
        yield from notes(*(f"r{number}" for number in range(length)))
        if failing:
            raise error

    async def main() -> None:
        gateway = Scripted()
        deliveries: list[Delivery[str]] = []

        async def send() -> None:
            async for delivery in AsyncNotifier(gateway, MANY).iter_many(asked()):
                deliveries.append(delivery)  # noqa: PERF401  # kept when it raises

        assert await caught_from(send()) is (error if failing else None)
        assert gateway.seen == [f"r{number}" for number in range(length)]
        assert len(deliveries) == length

    run(main())


def test_iter_many_is_lazy() -> None:
    """Nothing is decided or sent before it is asked for, and no more is begun than `concurrency` allows ahead."""

    async def main() -> None:
        gateway = Scripted()
        notifier = AsyncNotifier(gateway, MANY, concurrency=3)
        async with aclosing(notifier.iter_many(notes(*["ana"] * 10))) as deliveries:
            assert gateway.seen == []
            await anext(deliveries)
            await steps(5)
            assert len(gateway.seen) == 3
        assert await used(notifier.limiter) == 3

    run(main())


@pytest.mark.parametrize("rule", [Rule("*", "1/day", by="recipient"), Rule("*", "1/day", by=())])
def test_a_failed_send_makes_room_in_its_batch(rule: Rule) -> None:
    """What a failed send gave back is there for those behind it in the batch, who were refused before it failed."""
    outcomes = iter([ValueError("no such mailbox"), None, None])

    async def gateway(recipient: str) -> None:
        error = next(outcomes)
        if error is not None:
            raise error

    deliveries = run(AsyncNotifier(gateway, [rule]).send_many("news", ["ana", "ana", "ana"]))

    assert [delivery.status for delivery in deliveries] == [Status.FAILED, Status.SENT, Status.SUPPRESSED]


@pytest.mark.parametrize("failing", [["release"], ["release", "acquire"]], ids=["release", "all"])
def test_a_hit_that_could_not_be_given_back_makes_no_room(failing: list[str]) -> None:
    """What the storage refused stays refused, also if nothing can be asked any more and `on_storage_error` allows."""
    storage, seen = AsyncUnreliable(), []

    async def gateway(recipient: str) -> None:
        seen.append(recipient)
        storage.failing = failing
        raise ValueError("no such mailbox")

    notifier = AsyncNotifier(gateway, [Rule("*", "1/day", by=())], storage, on_storage_error="allow")
    deliveries = run(notifier.send_many("news", ["ana", "bob", "eve"]))

    assert [delivery.status for delivery in deliveries] == [Status.FAILED, Status.SUPPRESSED, Status.SUPPRESSED]
    assert seen == ["ana"]


def test_one_text_is_not_several_recipients() -> None:
    """The letters of an address are nobody's addresses."""
    with pytest.raises(TypeError, match="The recipients are a single string; pass a list"):
        run(AsyncNotifier(Scripted(), MANY).send_many("news", "ana@example.com"))


def test_a_gateway_that_sends_nothing_is_none() -> None:
    """An asynchronous generator function is refused."""

    async def generator(recipient: str) -> Any:
        yield recipient

    with pytest.raises(NotifyError, match="generator function: a call of it would send nothing"):
        AsyncNotifier(generator, MANY)


@given(
    length=st.integers(1, BATCH + 10),
    consumed=st.integers(0, BATCH + 10),
    concurrency=st.integers(1, 5),
    pauses=st.integers(0, 3),
)
def test_closed_early(length: int, consumed: int, concurrency: int, pauses: int) -> None:
    """Closed early it gives back what it decided and did not send: counted is what was sent, or may have been."""

    async def main() -> None:
        begun = 0

        async def gateway(recipient: str) -> None:
            nonlocal begun
            begun += 1
            await steps(pauses)

        notifier = AsyncNotifier(gateway, MANY, concurrency=concurrency)
        taken = 0
        async with aclosing(notifier.iter_many(notes(*["ana"] * length))) as deliveries:
            while taken < consumed and await anext(deliveries, None) is not None:
                taken += 1

        assert taken == min(length, consumed)
        assert taken <= begun <= taken + concurrency - 1 or taken == length == begun
        assert await used(notifier.limiter) == begun if begun else True

    run(main())


@given(
    length=st.integers(1, 12),
    concurrency=st.integers(1, 5),
    pauses=st.integers(0, 3),
    moment=st.integers(0, 30),
    again=st.one_of(st.none(), st.integers(0, 3)),
)
def test_the_consumer_cancelled_at_any_moment(
    length: int, concurrency: int, pauses: int, moment: int, again: int | None
) -> None:
    """Cancelled at any moment, once or twice, exactly those are counted that the gateway was called for."""

    async def main() -> None:
        begun = 0

        async def gateway(recipient: str) -> None:
            nonlocal begun
            begun += 1
            try:
                await steps(pauses)
            except asyncio.CancelledError:
                # Takes its time to go.
                await steps(2)
                raise

        notifier = AsyncNotifier(gateway, MANY, concurrency=concurrency)
        consumer = asyncio.create_task(notifier.send_many("news", ["ana"] * length))
        await steps(moment)
        cancelled = consumer.cancel()
        if again is not None:
            await steps(again)
            consumer.cancel()
        caught = await caught_from(consumer)
        await steps(5)

        assert isinstance(caught, asyncio.CancelledError) is cancelled
        assert await used(notifier.limiter) == begun
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_task_cancelled_before_its_first_step_has_sent_nothing() -> None:
    """What was handed to a task that never began is given back."""

    async def main() -> None:
        gateway = Scripted()
        notifier = AsyncNotifier(gateway, MANY, concurrency=3)
        consumer = asyncio.create_task(notifier.send_many("news", ["ana"] * 5))
        await steps(1)
        assert gateway.seen == []
        consumer.cancel()
        assert isinstance(await caught_from(consumer), asyncio.CancelledError)

        # The first was cancelled with its consumer; the others had their first step before the consumer had its next.
        assert len(gateway.seen) == 2
        assert await used(notifier.limiter) == 2

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=named)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_interrupt_gives_back_the_rest(error: BaseException, concurrency: int) -> None:
    """An interrupt in a gateway stops the event loop: its own hit is kept, what was not begun is given back."""
    gateway = Scripted("sent", error)
    limiter = AsyncLimiter(MANY)

    async def main() -> None:
        await AsyncNotifier(gateway, limiter=limiter, concurrency=concurrency).send_many("news", ["ana"] * 10)

    with pytest.raises(type(error)):
        asyncio.run(main())

    assert 2 <= len(gateway.seen) <= 1 + concurrency
    assert run(used(limiter)) == len(gateway.seen)


def test_what_could_not_be_decided_needs_no_giving_back() -> None:
    """Closed early, it gives back what was decided, and passes over what could not be."""

    async def main() -> None:
        notifier = AsyncNotifier(Scripted(), MANY)
        async with aclosing(notifier.iter_many(notes("ana", "", "ana"))) as deliveries:
            await anext(deliveries)
        assert await used(notifier.limiter) == 1

    run(main())


def test_a_loop_that_is_left_gives_back_too() -> None:
    """A consumer that leaves the loop without closing it loses nothing: the event loop closes it."""

    async def main() -> None:
        gateway = Scripted()
        notifier = AsyncNotifier(gateway, MANY)
        async for _ in notifier.iter_many(notes(*["ana"] * 10)):
            break
        gc.collect()
        await steps(5)
        assert await used(notifier.limiter) == 1

    run(main())


def test_what_is_no_notification() -> None:
    """An item that is no notification is an error that says so; what came before it is delivered."""

    async def main() -> None:
        gateway = Scripted()
        mixed: Any = [*notes("ana"), CANARY]
        with pytest.raises(TypeError, match=r"^iter_many takes objects of the class Notification, not a str\.$"):
            async for _ in AsyncNotifier(gateway, MANY).iter_many(mixed):
                pass
        assert gateway.seen == ["ana"]

    run(main())


# What is bound, made and closed.


def test_bind_and_deliver() -> None:
    """What is bound goes with every notification; one that is spelled out says everything itself."""

    async def main() -> None:
        outbox = Outbox()
        notifier = AsyncNotifier(outbox, [Rule("news", "9/day", by=("recipient", "tenant"))], concurrency=2)
        acme = notifier.bind(tenant="acme", cost=5, priority="high")

        sent = await acme.send("news", "ana", "Hi", copy=True)
        assert sent.decision.remaining == 4
        assert not await acme.send("news", "ana", "Hi")
        assert await notifier.bind(tenant="bolt").send("news", "ana")
        assert (
            await acme.deliver(Notification("news", "ana", ["Hi"], fields={"tenant": "acme"}))
        ).decision.remaining == 3
        assert outbox[0] == ("ana", ("Hi",), {"copy": True})
        assert outbox[-1] == ("ana", ("Hi",), {})

    run(main())


async def _mail(recipient: str, subject: str = "") -> str:
    return subject


def _mail_in_a_thread(recipient: str, subject: str = "") -> str:
    return subject


@pytest.mark.parametrize("gateway", [_mail, partial(_mail), _mail_in_a_thread])
def test_what_belongs_to_bind_is_told(gateway: Callable[..., Any]) -> None:
    """As for the sync notifier: the error says `bind`, alone and in batches, and the hit is given back."""
    kwargs: dict[str, Any] = {"priority": "critical", "tenant": CANARY}
    hint = (
        "write notifier.bind(priority='critical', tenant=...).send(...), "
        "or Notification(..., priority='critical', fields={'tenant': ...})."
    )

    async def main() -> None:
        notifier = AsyncNotifier(gateway, MANY)
        with pytest.raises(TypeError) as caught:
            await notifier.send("news", "ana", **kwargs)
        deliveries = await notifier.send_many("news", ["ana", "bob"], **kwargs)
        errors = [caught.value, *(delivery.error for delivery in deliveries)]

        assert statuses(deliveries) == ["failed"] * 2
        assert {str(error).partition("; ")[2] for error in errors} == {hint}
        assert await used(notifier.limiter) == 0

    run(main())


def test_close_closes_its_own_limiter() -> None:
    """A notifier closes the limiter that it made, and leaves alone one that it was given; so does a bound copy."""

    async def main() -> None:
        shared = AsyncLimiter({"news": "1/day"})
        async with AsyncNotifier(Scripted(), limiter=shared) as notifier:
            await notifier.send("news", "ana")
        assert await used(shared) == 1

        async with AsyncNotifier(Scripted(), {"news": "1/day"}) as own:
            await own.send("news", "ana")
            async with own.bind(tenant="acme"):
                pass
            assert await used(own.limiter) == 1
        assert await used(own.limiter) == 0

    run(main())


def test_windows_are_shared_with_sync_code() -> None:
    """A sync limiter's windows in memory, passed as the storage, are the async notifier's too."""
    limiter = Limiter({"news": "2/day"})
    limiter.hit("news", "ana")

    async def main() -> list[Delivery[str]]:
        storage: Any = limiter.storage
        return await AsyncNotifier(Scripted(), {"news": "2/day"}, storage).send_many("news", ["ana", "ana"])

    assert statuses(run(main())) == ["sent", "suppressed"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AsyncNotifier("smtp"), "The gateway is a str; it must be a callable that sends."),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: AsyncNotifier(print, MANY, concurrency=0), "concurrency= must be a whole number, 1 or more."),
        (lambda: AsyncNotifier(print, MANY, concurrency=True), "concurrency= must be a whole number, 1 or more."),
        (lambda: AsyncNotifier(print, MANY, concurrency=1.5), "concurrency= must be a whole number, 1 or more."),  # type: ignore[arg-type]  # wrong on purpose
        (
            lambda: AsyncNotifier(print, MANY, on_limit="wait"),
            "on_limit='wait' needs max_wait=, the longest wait in seconds.",
        ),
        (
            lambda: AsyncNotifier(print, [Rule("news", "1/day", on_limit="wait")]),
            "Rule 'news' has on_limit='wait'; that needs max_wait=, the longest wait in seconds.",
        ),
        (
            lambda: AsyncNotifier(print, limiter=Limiter(MANY)),  # type: ignore[arg-type]  # wrong on purpose
            "limiter= must be of type AsyncLimiter, not Limiter.",
        ),
        (
            lambda: AsyncNotifier(print, MANY, limiter=AsyncLimiter(MANY), timeout=1),
            "Pass timeout=, rules= to the limiter, or leave out limiter=.",
        ),
    ],
)
def test_what_cannot_be_used_is_told_at_once(make: Callable[[], object], message: str) -> None:
    """A notifier that could not work is an error where it is made."""
    with pytest.raises(NotifyError) as caught:
        make()

    assert str(caught.value) == message


@given(recipient=st.text(max_size=20), body=st.text(max_size=20), concurrency=st.integers(1, 3))
def test_no_text_shows_a_recipient_or_a_message(recipient: str, body: str, concurrency: int) -> None:
    """No repr, no error and no traceback of the library's own shows whom a message is for, or what it says."""
    recipient, body = f"{CANARY}{recipient}", f"{CANARY}{body}"

    async def main() -> list[str]:
        storage = AsyncUnreliable()
        notifier = AsyncNotifier(Scripted(), {"news": "1/day"}, storage, on_limit="raise", concurrency=concurrency)
        shown = [repr(notifier), repr(await notifier.send("news", recipient, body))]
        shown += map(repr, await notifier.send_many("news", [recipient] * 3, body))
        refusal = await caught_from(notifier.send("news", recipient, body))
        storage.failing = ("acquire", "acquire_many")
        failure = await caught_from(notifier.send("news", recipient, body))
        for error in (refusal, failure):
            assert isinstance(error, NotifyError)
            shown += traceback.format_exception(error)
        return [*shown, *map(repr, await notifier.send_many("news", [recipient], body))]

    assert not [text for text in run(main()) if CANARY in text]
