from __future__ import annotations

import copy
import logging
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, strategies as st

from outcomes import CANARY, INTERRUPTED, MAYBE_SENT, NOT_SENT, Unreliable, named, raised_by
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Delivery,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    RuleError,
    RuleSet,
    Status,
    StorageError,
    configure,
)
from ratelimited_notify.limiter import refund
from ratelimited_notify.notifier.base import BATCH
from ratelimited_notify.pytest_plugin import Clock, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MANY = {"news": "1000/day"}

Step = BaseException | str
"""What a gateway does with one message: raise this, or return it."""


class Scripted:
    """A gateway that does, one call after another, what it is told to, and remembers for whom."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.seen: list[Any] = []

    def __call__(self, recipient: Any, *args: Any, **kwargs: Any) -> str:
        self.seen.append(recipient)
        step = self.steps.pop(0) if self.steps else "sent"
        if isinstance(step, BaseException):
            # Cases are shared by tests: without what earlier ones left behind.
            raise step.with_traceback(None)
        return step


def used(limiter: Limiter, type: str = "news", recipient: str = "ana") -> int:
    """How many hits are counted."""
    (window,) = limiter.windows(type, recipient)
    return window.item.amount - window.remaining


def notes(*recipients: str, type: str = "news") -> list[Notification]:
    """One notification for each recipient."""
    return [Notification(type, recipient) for recipient in recipients]


def statuses(deliveries: Iterable[Delivery[Any]]) -> list[str]:
    return [delivery.status.value for delivery in deliveries]


# What is sent, and what is not.


def test_what_is_allowed_reaches_the_gateway() -> None:
    """An allowed notification is handed on as it is, and the delivery holds what the gateway returned."""
    calls: list[Any] = []

    def gateway(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return "250 queued"

    delivery = Notifier(gateway, {"news": "2/day"}, normalize="email").send("news", "Ana@Example.com", "Hi", copy=True)

    assert delivery
    assert delivery.status is Status.SENT
    assert delivery.result == "250 queued"
    assert delivery.error is None
    assert delivery.decision.remaining == 1
    assert (delivery.notification.type, delivery.notification.recipient) == ("news", "Ana@Example.com")
    assert calls == [(("Ana@Example.com", "Hi"), {"copy": True})]


def test_what_is_over_the_limit_is_dropped() -> None:
    """By default the notification over the limit is not sent, and the delivery says why and until when."""
    outbox = Outbox()
    notifier = Notifier(outbox, {"news": "1/day"}, clock=Clock())

    assert notifier.send("news", "ana", "one")
    delivery = notifier.send("news", "ana", "two")

    assert not delivery
    assert delivery.status is Status.SUPPRESSED
    assert delivery.result is None
    assert delivery.error is None
    assert delivery.decision.retry_after == 86_400
    assert [sent.args for sent in outbox] == [("one",)]


@pytest.mark.parametrize("limit", [1, 5])
def test_exactly_the_limit_is_sent_under_threads(limit: int) -> None:
    """However many threads send to one recipient at once, the gateway gets exactly as many as the limit."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            gateway = Scripted()
            notifier = Notifier(gateway, {"news": f"{limit}/day"})
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(notifier.send, ["news"] * 48, ["ana"] * 48))
            assert len(gateway.seen) == limit
    finally:
        sys.setswitchinterval(interval)


def test_keywords_named_like_ours_are_the_gateways() -> None:
    """A gateway may have parameters called type, recipient or priority: what is sent by keyword is all its own."""
    outbox = Outbox()
    Notifier(partial(outbox), MANY).send("news", "ana", type="html", priority=5, cost="none")

    assert outbox[0].kwargs == {"type": "html", "priority": 5, "cost": "none"}


def test_the_off_switch_sends_everything() -> None:
    """With `enabled=False` everything is sent, and nothing is counted."""
    gateway = Scripted()
    notifier = Notifier(gateway, {"news": "1/day"}, enabled=False, on_limit="raise")

    assert all(notifier.send("news", "ana") for _ in range(3))
    assert all(notifier.send_many("news", ["ana"] * 3))
    assert len(gateway.seen) == 6


# Failed sends are free; unknown outcomes are kept.

SENDERS: dict[str, Callable[[Notifier[Any, Any]], object]] = {
    "send": lambda notifier: notifier.send("news", "ana", CANARY),
    "deliver": lambda notifier: notifier.deliver(Notification("news", "ana", (CANARY,))),
    "bound": lambda notifier: notifier.bind(priority="high").send("news", "ana", CANARY),
}
each_sender = pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)


@each_sender
@pytest.mark.parametrize("error", [*NOT_SENT, *MAYBE_SENT, *INTERRUPTED], ids=named)
def test_a_gateways_error_is_raised_unchanged(send: Callable[[Any], object], error: BaseException) -> None:
    """What the gateway raised reaches the caller: the same object, with the place in the gateway, and nothing behind it."""
    notifier = Notifier(Scripted(error), MANY)

    with pytest.raises(type(error)) as caught:
        send(notifier)

    assert caught.value is error
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert caught.traceback[-1].name == Scripted.__call__.__name__


@each_sender
@pytest.mark.parametrize("error", NOT_SENT, ids=named)
def test_a_failed_send_is_free(send: Callable[[Any], object], error: BaseException) -> None:
    """A gateway that failed costs nothing: the next attempt has the same room."""
    notifier = Notifier(Scripted(error, error), {"news": "1/day"})

    for _ in range(2):
        with pytest.raises(type(error)):
            send(notifier)

    assert used(notifier.limiter) == 0
    assert send(notifier)


@each_sender
@pytest.mark.parametrize("error", [*MAYBE_SENT, *INTERRUPTED], ids=named)
def test_an_unknown_outcome_is_kept(send: Callable[[Any], object], error: BaseException) -> None:
    """Where the message may have gone out the hit stays counted: never one more than the rule says."""
    notifier = Notifier(Scripted(error), {"news": "1/day"})

    with pytest.raises(type(error)):
        send(notifier)

    assert used(notifier.limiter) == 1
    assert not send(notifier)


_steps = st.lists(st.sampled_from([*NOT_SENT, *MAYBE_SENT, *INTERRUPTED, "sent"]), max_size=12)


@given(steps=_steps, send=st.sampled_from(list(SENDERS.values())))
def test_what_is_counted_is_what_may_have_gone_out(steps: list[Step], send: Callable[[Any], object]) -> None:
    """After any run of successes and failures exactly those are counted that went out, or may have."""
    notifier = Notifier(Scripted(*steps), MANY)
    for step in steps:
        assert raised_by(lambda: send(notifier)) is (None if step == "sent" else step)

    assert used(notifier.limiter) == len([step for step in steps if not any(step is free for free in NOT_SENT)])


@given(steps=_steps)
def test_the_same_under_threads(steps: list[Step]) -> None:
    """The same holds where threads send at once."""
    gateway = Scripted(*steps)
    notifier = Notifier(gateway, MANY)

    def attempt(_: object) -> None:
        raised = raised_by(lambda: notifier.send("news", "ana"))
        assert raised is None or any(raised is step for step in steps)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, steps))

    assert used(notifier.limiter) == len([step for step in steps if not any(step is free for free in NOT_SENT)])


@pytest.mark.parametrize(
    ("refund", "error", "counted"),
    [
        (True, TimeoutError(), 0),
        (True, KeyboardInterrupt(), 0),
        (False, ValueError(), 1),
        (TimeoutError, TimeoutError(), 0),
        (TimeoutError, ValueError(), 1),
        ((TimeoutError, OSError), ConnectionResetError(), 0),
        (lambda error: "later" in str(error), ValueError("later"), 0),
        (lambda error: "later" in str(error), ValueError("never"), 1),
        (lambda error: error.code == 4, ValueError(), 1),
    ],
)
def test_refund_decides_otherwise(refund: Any, error: BaseException, counted: int) -> None:
    """`refund=` says when a failure gives the hit back; where it fails itself the hit is kept, and the error is the gateway's."""
    notifier = Notifier(Scripted(error), MANY, refund=refund)

    with pytest.raises(type(error)) as caught:
        notifier.send("news", "ana")

    assert caught.value is error
    assert used(notifier.limiter) == counted


def test_a_release_that_fails_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where the hit cannot be given back the gateway's error is raised all the same, and the log says that it stays."""
    storage = Unreliable()
    error = ValueError(CANARY)
    notifier = Notifier(Scripted(error), MANY, storage)
    storage.failing = ("release",)

    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match=CANARY) as caught:
        notifier.send("news", "ana")

    assert caught.value is error
    assert caught.value.__context__ is None
    assert used(notifier.limiter) == 1
    assert caplog.messages == ["A hit could not be given back and stays counted: The storage does not answer."]


def test_a_storage_that_fails_sends_nothing() -> None:
    """Where the storage gives no answer, `send` raises its error, and the gateway is not called."""
    storage, gateway = Unreliable(), Scripted()
    storage.failing = ("acquire",)

    with pytest.raises(StorageError, match="The storage does not answer"):
        Notifier(gateway, MANY, storage).send("news", "ana")
    assert gateway.seen == []


@pytest.mark.parametrize(("choice", "sent"), [("allow", True), ("deny", False)])
def test_a_storage_that_fails_as_the_user_chose(choice: Any, sent: bool) -> None:
    """`on_storage_error` decides for the storage, one by one and in batches."""
    storage, gateway = Unreliable(), Scripted()
    storage.failing = ("acquire", "acquire_many")
    notifier = Notifier(gateway, MANY, storage, on_storage_error=choice)

    assert bool(notifier.send("news", "ana")) is sent
    assert [bool(delivery) for delivery in notifier.send_many("news", ["bob"])] == [sent]
    assert len(gateway.seen) == 2 * sent


@pytest.mark.parametrize(
    ("recipient", "kind", "message"),
    [
        ("", NotifyError, "The recipient is empty. Pass a value that identifies it, such as an address or an id."),
        (
            None,
            TypeError,
            (
                "The recipient is a NoneType; it must be a str, an int or a UUID. Pass a value that identifies it, such as "
                "user.id or user.email. On a decorator, say where it is: recipient='user.email'."
            ),
        ),
        (True, TypeError, "The recipient is a bool; it must be a str, an int or a UUID."),
        (4.5, TypeError, "The recipient is a float"),
        ({"email": CANARY}, TypeError, "The recipient is a dict"),
    ],
)
def test_a_bad_recipient(recipient: Any, kind: type[Exception], message: str) -> None:
    """What identifies nobody is an error that says what to pass, and nothing is sent."""
    gateway = Scripted()

    with pytest.raises(kind) as caught:
        Notifier(gateway, MANY).send("news", recipient)

    assert str(caught.value).startswith(message)
    assert CANARY not in str(caught.value)
    assert gateway.seen == []


# Over the limit.


def test_raise_raises() -> None:
    """With `on_limit="raise"` the refusal is an exception that holds the decision."""
    notifier = Notifier(Scripted(), {"news": "1/day"}, on_limit="raise", clock=Clock())
    notifier.send("news", CANARY)

    with pytest.raises(RateLimitExceeded) as caught:
        notifier.send("news", CANARY)

    assert caught.value.decision.retry_after == 86_400
    assert str(caught.value) == "'news' refused by rule 'news' (1 per day), try again in 1 day"


def test_wait_waits_until_it_is_allowed() -> None:
    """With `on_limit="wait"` each is sent at the first instant at which it is allowed, and takes no hit before."""
    clock, outbox = Clock(), Outbox()
    times: list[float] = []
    notifier = Notifier(
        lambda recipient: times.append(clock()), {"news": "2/minute"}, on_limit="wait", max_wait=60, clock=clock
    )
    start = clock()

    for _ in range(5):
        assert notifier.send("news", "ana")

    assert [time - start for time in times] == [0, 0, 60, 60, 120]
    assert outbox == []


def test_a_wait_that_would_take_too_long_raises_at_once() -> None:
    """What is not allowed within `max_wait` is refused without waiting."""
    clock = Clock()
    start = clock()
    notifier = Notifier(Scripted(), {"news": "1/minute"}, on_limit="wait", max_wait=59.999999, clock=clock)
    notifier.send("news", "ana")

    with pytest.raises(RateLimitExceeded):
        notifier.send("news", "ana")
    assert clock() == start


def test_a_batch_waits_no_longer_than_it_has_to() -> None:
    """Paced by a window over everybody, a batch is through when one after the other would be: each asks again in its turn.

    Once each of them waited for as long as there was to wait when the batch was decided.
    """
    clock, outbox = Clock(), Outbox()
    notifier = Notifier(outbox, [Rule("*", "50/second", by=())], on_limit="wait", max_wait=60, clock=clock)
    began = clock()

    deliveries = notifier.send_many("news", [f"person{number}" for number in range(500)])

    assert all(deliveries)
    assert clock() - began == pytest.approx(9, abs=0.5)


class Rivalled(Clock):
    """A clock by which somebody else is faster: whenever we have waited, the room is taken."""

    limiter: Limiter
    waited = 0.0

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        self.waited += seconds
        self.limiter.hit("news", "ana")


@pytest.mark.parametrize("many", [False, True])
def test_several_waits_are_no_longer_than_one_may_be(many: bool) -> None:
    """Where others are faster, it waits again, as long as all waits together stay within `max_wait`."""
    clock, gateway = Rivalled(), Scripted()
    notifier = Notifier(gateway, {"news": "1/10 seconds"}, on_limit="wait", max_wait=25, clock=clock)
    clock.limiter = notifier.limiter
    notifier.limiter.hit("news", "ana")

    if many:
        assert statuses(notifier.send_many("news", ["ana"])) == ["suppressed"]
    else:
        with pytest.raises(RateLimitExceeded):
            notifier.send("news", "ana")

    assert clock.waited == 20
    assert gateway.seen == []


def test_waiting_sleeps_where_the_clock_cannot() -> None:
    """By the machine's own clock waiting is sleeping."""
    notifier = Notifier(Scripted(), {"news": "1/second"}, on_limit="wait", max_wait=5)

    assert statuses(notifier.send("news", "ana") for _ in range(2)) == ["sent", "sent"]


@pytest.mark.parametrize(
    ("own", "rule", "expected"),
    [
        ("drop", "raise", "raise"),
        ("raise", "drop", "drop"),
        ("drop", "wait", "wait"),
        ("wait", "drop", "drop"),
        ("raise", "wait", "wait"),
        ("wait", "raise", "raise"),
        ("wait", None, "wait"),
        ("drop", None, "drop"),
    ],
)
def test_the_rules_own_choice_wins(own: Any, rule: Any, expected: str) -> None:
    """Where the refusing rule says what is to happen the notifier's choice does not count."""
    clock = Clock()
    start = clock()
    notifier = Notifier(Scripted(), [Rule("news", "1/minute", on_limit=rule)], on_limit=own, max_wait=60, clock=clock)
    notifier.send("news", "ana")
    try:
        second = notifier.send("news", "ana").status.value
    except RateLimitExceeded:
        second = "raised"

    assert second == {"raise": "raised", "drop": "suppressed", "wait": "sent"}[expected]
    assert clock() - start == (60 if expected == "wait" else 0)


def test_of_several_refusals_the_strictest_counts() -> None:
    """Where one rule says wait and another drop it is dropped, without waiting."""
    clock = Clock()
    start = clock()
    rules = [Rule("news", "1/minute", on_limit="wait"), Rule("*", "1/minute", by="recipient", on_limit="drop")]
    notifier = Notifier(Scripted(), rules, max_wait=60, clock=clock)

    assert statuses(notifier.send("news", "ana") for _ in range(2)) == ["sent", "suppressed"]
    assert clock() == start


# Batches.


def test_batches_keep_order_and_go_on() -> None:
    """Deliveries come in the order given; a failure is FAILED, a refusal SUPPRESSED, and the next are sent."""
    error = ValueError(CANARY)
    gateway = Scripted("one", error, "three")
    notifier = Notifier(gateway, {"news": "1/day"})

    deliveries = notifier.send_many("news", ["ana", "bob", "ana", "eve"], "Hello")

    assert statuses(deliveries) == ["sent", "failed", "suppressed", "sent"]
    assert [delivery.notification.recipient for delivery in deliveries] == ["ana", "bob", "ana", "eve"]
    assert [delivery.result for delivery in deliveries] == ["one", None, None, "three"]
    assert [delivery.error for delivery in deliveries] == [None, error, None, None]
    assert gateway.seen == ["ana", "bob", "eve"]
    assert used(notifier.limiter, recipient="bob") == 0


@given(
    steps=st.lists(st.sampled_from([*NOT_SENT, *MAYBE_SENT, "sent"]), min_size=1, max_size=2 * BATCH + 10),
    lazily=st.booleans(),
)
def test_failures_in_batches(steps: list[Step], lazily: bool) -> None:
    """In batches failures are told, counted and given back one by one, as in single sends."""
    notifier = Notifier(Scripted(*steps), MANY)
    recipients = ["ana"] * len(steps)

    deliveries = list(notifier.iter_many(notes(*recipients))) if lazily else notifier.send_many("news", recipients)

    assert [delivery.error for delivery in deliveries] == [None if step == "sent" else step for step in steps]
    assert statuses(deliveries) == ["sent" if step == "sent" else "failed" for step in steps]
    assert used(notifier.limiter) == len([step for step in steps if not any(step is free for free in NOT_SENT)])


def test_raise_is_suppressed_in_batches() -> None:
    """In batches `on_limit="raise"` raises nothing: the one refused is SUPPRESSED, with its decision."""
    notifier = Notifier(Scripted(), {"news": "1/day"}, on_limit="raise", clock=Clock())

    _, delivery = notifier.send_many("news", ["ana", "ana"])

    assert delivery.status is Status.SUPPRESSED
    assert delivery.decision.retry_after == 86_400
    assert delivery.error is None


def test_wait_waits_in_batches() -> None:
    """In batches waiting is done for each in turn, and too long a wait is SUPPRESSED."""
    clock = Clock()
    start = clock()
    notifier = Notifier(Scripted(), {"news": "1/minute"}, on_limit="wait", max_wait=60, clock=clock)

    assert statuses(notifier.send_many("news", ["ana"] * 3)) == ["sent"] * 3
    assert clock() - start == 120
    assert statuses(notifier.bind(cost=2).send_many("news", ["bob"])) == ["suppressed"]


def test_a_storage_that_fails_while_waiting() -> None:
    """A storage that fails when a batch asks again is FAILED."""
    storage = Unreliable()
    clock = storage.clock = Clock()
    storage.now = lambda: round(clock() * 1_000_000)
    notifier = Notifier(Scripted(), {"news": "1/minute"}, storage, on_limit="wait", max_wait=60, clock=clock)
    storage.failing = ("acquire",)

    first, second = notifier.send_many("news", ["ana", "ana"])

    assert first.status is Status.SENT
    assert second.status is Status.FAILED
    assert isinstance(second.error, StorageError)


def test_a_limit_inside_the_gateway_is_the_gateways_error() -> None:
    """A gateway that has a limit of its own, and raises, has failed: the hit is given back, and the delivery says so."""
    inner = Notifier(Scripted(), {"mail": "1/day"}, on_limit="raise")
    notifier = Notifier(lambda recipient: inner.send("mail", recipient), MANY)

    deliveries = notifier.send_many("news", ["ana", "ana"])

    assert statuses(deliveries) == ["sent", "failed"]
    assert isinstance(deliveries[1].error, RateLimitExceeded)
    assert used(notifier.limiter) == 1


@pytest.mark.parametrize("recipient", [None, "", True, 4.5, {"email": CANARY}])
def test_a_bad_recipient_in_a_batch(recipient: Any) -> None:
    """A recipient that is none fails by itself; those around it get theirs."""
    gateway = Scripted()
    deliveries = Notifier(gateway, MANY).send_many("news", ["ana", recipient, "eve"])

    assert statuses(deliveries) == ["sent", "failed", "sent"]
    assert isinstance(deliveries[1].error, (TypeError, NotifyError))
    assert not deliveries[1].decision.allowed
    assert gateway.seen == ["ana", "eve"]
    assert CANARY not in repr(deliveries[1])


def test_a_storage_that_fails_in_a_batch() -> None:
    """A storage that fails makes the whole batch FAILED: nothing is sent, and nothing is raised."""
    storage, gateway = Unreliable(), Scripted()
    notifier = Notifier(gateway, MANY, storage)
    storage.failing = ("acquire_many",)

    deliveries = notifier.send_many("news", ["ana", "", "eve"])

    assert statuses(deliveries) == ["failed"] * 3
    assert [type(delivery.error) for delivery in deliveries] == [StorageError, NotifyError, StorageError]
    assert str(deliveries[0].decision) == "'news' refused without being counted: The storage does not answer."
    assert gateway.seen == []


def test_what_a_users_function_says_stays_out_of_decisions() -> None:
    """What `normalize` raises may name the recipient: it is the delivery's error, and in no text of ours."""

    def normalize(address: str) -> str:
        raise ValueError(address)

    (delivery,) = Notifier(Scripted(), MANY, normalize=normalize).send_many("news", [CANARY])

    assert delivery.status is Status.FAILED
    assert str(delivery.error) == CANARY
    assert repr(delivery) == "<Delivery failed: 'news' refused without being counted: ValueError, ValueError>"
    assert CANARY not in str(delivery.decision)


class Subject:
    """An iterable that counts what was taken from it, and may end with an error."""

    def __init__(self, length: int, error: BaseException | None = None) -> None:
        self.length = length
        self.error = error
        self.taken = 0

    def __iter__(self) -> Iterator[Notification]:
        for number in range(1, self.length + 1):
            self.taken = number
            yield Notification("news", f"r{self.taken}")
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("rule", [Rule("*", "1/day", by="recipient"), Rule("*", "1/day", by=())])
def test_a_failed_send_makes_room_in_its_batch(rule: Rule) -> None:
    """What a failed send gave back is there for those behind it in the batch, who were refused before it failed."""
    gateway = Scripted(ValueError("no such mailbox"), "sent", "sent")
    notifier = Notifier(gateway, [rule])

    deliveries = notifier.send_many("news", ["ana", "ana", "ana"])

    assert [delivery.status for delivery in deliveries] == [Status.FAILED, Status.SENT, Status.SUPPRESSED]


@pytest.mark.parametrize("failing", [["release"], ["release", "acquire"]], ids=["release", "all"])
def test_a_hit_that_could_not_be_given_back_makes_no_room(failing: list[str]) -> None:
    """What the storage refused stays refused, also if nothing can be asked any more and `on_storage_error` allows."""
    storage, seen = Unreliable(), []

    def gateway(recipient: str) -> None:
        seen.append(recipient)
        storage.failing = failing
        raise ValueError("no such mailbox")

    notifier = Notifier(gateway, [Rule("*", "1/day", by=())], storage, on_storage_error="allow")
    deliveries = notifier.send_many("news", ["ana", "bob", "eve"])

    assert [delivery.status for delivery in deliveries] == [Status.FAILED, Status.SUPPRESSED, Status.SUPPRESSED]
    assert seen == ["ana"]


@pytest.mark.parametrize("recipients", ["ana@example.com", b"ana"])
def test_one_text_is_not_several_recipients(recipients: Any) -> None:
    """The letters of an address are nobody's addresses."""
    gateway = Scripted()
    notifier = Notifier(gateway, MANY)

    with pytest.raises(TypeError, match="The recipients are a single string; pass a list"):
        notifier.send_many("news", recipients)
    with pytest.raises(TypeError, match="The recipients are a single string; pass a list"):
        notifier.limiter.hit_many("news", recipients)
    assert not gateway.seen


def test_a_gateway_that_sends_nothing_is_none() -> None:
    """A generator function is refused; a coroutine that nobody would await is an error, and costs nothing."""

    def generator(recipient: str) -> Any:
        yield recipient

    async def send(recipient: str, body: str) -> None:
        raise AssertionError("never awaited")

    with pytest.raises(NotifyError, match="generator function: a call of it would send nothing"):
        Notifier(generator, MANY)
    notifier = Notifier(lambda recipient: send(recipient, "Hello"), MANY)
    with pytest.raises(NotifyError, match="returned a coroutine, and nothing was sent: use AsyncNotifier"):
        notifier.send("news", "ana")
    assert used(notifier.limiter) == 0


def test_iter_many_is_lazy() -> None:
    """Nothing is taken, decided or sent before it is asked for, and then no more than one batch is taken."""
    gateway, asked = Scripted(), Subject(3 * BATCH)
    notifier = Notifier(gateway, {"news": "1/day"})
    deliveries = notifier.iter_many(asked)

    assert (asked.taken, len(gateway.seen)) == (0, 0)
    next(deliveries)
    assert (asked.taken, len(gateway.seen)) == (BATCH, 1)
    assert len(list(islice(deliveries, BATCH))) == BATCH
    assert (asked.taken, len(gateway.seen)) == (2 * BATCH, BATCH + 1)
    deliveries.close()


def test_batches_are_decided_at_once() -> None:
    """A storage is asked once for each batch of 250, not once for each recipient."""
    asked: list[int] = []

    class Counted(Unreliable):
        def acquire_many(self, requests: Any) -> Any:
            asked.append(len(requests))
            return super().acquire_many(requests)

    assert len(Notifier(Scripted(), MANY, Counted()).send_many("news", map(str, range(520)))) == 520
    assert asked == [250, 250, 20]


@pytest.mark.parametrize("length", [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH])
@pytest.mark.parametrize("failing", [False, True])
def test_batches_of_every_length(length: int, failing: bool) -> None:
    """What was pulled before an iterable raised is delivered, and then its own error is raised."""
    error = LookupError("no more") if failing else None
    gateway = Scripted()
    deliveries: list[Delivery[str]] = []

    def send() -> None:
        deliveries.extend(Notifier(gateway, MANY).iter_many(Subject(length, error)))

    if failing:
        with pytest.raises(LookupError) as caught:
            send()
        assert caught.value is error
    else:
        send()

    assert gateway.seen == [f"r{number}" for number in range(1, length + 1)]
    assert len(deliveries) == length


def test_an_interrupt_in_the_iterable_is_not_put_off() -> None:
    """An interrupt while the next are pulled is raised at once; of those pulled nothing was decided."""
    gateway, storage = Scripted(), Unreliable()

    with pytest.raises(KeyboardInterrupt):
        list(Notifier(gateway, MANY, storage).iter_many(Subject(3, KeyboardInterrupt())))
    assert gateway.seen == []
    assert len(storage) == 0


def test_what_is_no_notification() -> None:
    """An item that is no notification is an error that says so; what came before it is delivered."""
    gateway = Scripted()
    mixed: Any = [*notes("ana"), ("news", CANARY), *notes("eve")]

    with pytest.raises(TypeError, match=r"^iter_many takes objects of the class Notification, not a tuple\.$"):
        list(Notifier(gateway, MANY).iter_many(mixed))
    assert gateway.seen == ["ana"]


@given(length=st.integers(1, BATCH + 20), consumed=st.integers(0, BATCH + 20))
def test_what_was_decided_and_not_sent_is_given_back(length: int, consumed: int) -> None:
    """Closed early, it gives back what it decided and did not send: counted is what was sent."""
    gateway = Scripted()
    notifier = Notifier(gateway, MANY)
    deliveries = notifier.iter_many(notes(*["ana"] * length))

    taken = len(list(islice(deliveries, consumed)))
    deliveries.close()

    assert taken == min(length, consumed)
    assert len(gateway.seen) == taken
    assert not taken or used(notifier.limiter) == taken


@given(before=st.integers(0, 10), after=st.integers(0, 10), error=st.sampled_from(INTERRUPTED))
def test_an_interrupt_gives_back_the_rest(before: int, after: int, error: BaseException) -> None:
    """An interrupt in a gateway stops a batch: its own hit is kept, the rest are given back."""
    gateway = Scripted(*["sent"] * before, error)
    notifier = Notifier(gateway, MANY)

    with pytest.raises(type(error)) as caught:
        notifier.send_many("news", ["ana"] * (before + 1 + after))

    assert caught.value is error
    assert len(gateway.seen) == before + 1
    assert used(notifier.limiter) == before + 1


def test_giving_back_ends_where_the_storage_hangs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, log_clock: Clock
) -> None:
    """Where failures have taken too long the rest of the batch stays counted, and the log says so, and how many there were."""
    monkeypatch.setattr(refund, "PATIENCE", 0.0)
    storage = Unreliable()
    notifier = Notifier(Scripted(KeyboardInterrupt()), MANY, storage)
    storage.failing = ("release",)

    with pytest.raises(KeyboardInterrupt):
        notifier.send_many("news", ["ana"] * 20)

    assert used(notifier.limiter) == 20
    log_clock.advance(10)
    with pytest.raises(KeyboardInterrupt):
        Notifier(Scripted(KeyboardInterrupt()), limiter=notifier.limiter).send_many("news", ["ana"] * 3)
    assert caplog.messages == [
        "A hit could not be given back and stays counted: The storage does not answer.",
        "Hits could not be given back and stay counted (19 more): The storage does not answer.",
    ]
    storage.failing = ()
    log_clock.advance(10)
    with pytest.raises(ValueError, match="no"):
        Notifier(Scripted(ValueError("no")), limiter=notifier.limiter).send("news", "ana")
    assert caplog.messages[2:] == [
        "Hits are given back again. Before that, 21 could not be given back, in 20 s, and stay counted."
    ]


def test_giving_back_goes_on_where_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Where the storage fails as the rest are given back the interrupt is raised all the same."""
    storage = Unreliable()
    notifier = Notifier(Scripted(KeyboardInterrupt()), MANY, storage)
    storage.failing = ("release",)

    with pytest.raises(KeyboardInterrupt):
        notifier.send_many("news", ["ana", "", "ana", "ana"])

    assert len(caplog.messages) == 1, "the second one is in the next line"
    assert notifier.limiter.failures.unreleased.event.ended().number == 2
    assert used(notifier.limiter) == 3


# What is bound, and what is spelled out.


def test_bind_carries() -> None:
    """What is bound goes with every notification, in batches too, and reaches the rules."""
    rules = RuleSet(
        [
            Rule("news", "1/day", by=("recipient", "tenant"), exempt="high"),
            Rule("*", "10/day", by="region", name="region"),
        ],
        fields=("region",),
    )
    outbox = Outbox()
    notifier = Notifier(outbox, rules)
    acme = notifier.bind(tenant="acme")

    assert statuses([acme.send("news", "ana"), acme.send("news", "ana")]) == ["sent", "suppressed"]
    assert statuses(notifier.bind(tenant="bolt").send_many("news", ["ana", "ana"])) == ["sent", "suppressed"]
    assert acme.bind(priority="high").send("news", "ana").notification.priority == "high"

    dear = acme.bind(priority="high", cost=4, region="eu")
    sent = dear.send("news", "ana", "Hello")
    assert (sent.notification.cost, sent.notification.fields) == (4, {"tenant": "acme", "region": "eu"})
    assert [state.remaining for state in sent.decision.windows if state.rule == "region"] == [6]
    assert outbox[-1].args == ("Hello",)
    assert dear.bind(tenant="bolt", cost=1).send("news", "bob").notification.fields["tenant"] == "bolt"


def test_bind_leaves_the_original_alone() -> None:
    """Binding makes a copy on the same windows; the original is as it was."""
    notifier = Notifier(Scripted(), {"news": "2/day"})
    bound = notifier.bind(priority="high", cost=2, tenant="acme")

    assert bound is not notifier
    assert type(bound) is type(notifier)
    assert bound.limiter is notifier.limiter
    delivery = notifier.send("news", "ana")
    assert (delivery.notification.priority, delivery.notification.cost) == (None, 1)
    assert delivery.notification.fields == {}
    assert not bound.send("news", "ana")


def _mail(recipient: str, subject: str = "") -> str:
    return subject


class _Mailer:
    def __call__(self, recipient: str, subject: str = "") -> str:
        return subject


def _logged(function: Callable[..., str]) -> Callable[..., str]:
    @wraps(function)
    def logged(*args: Any, **kwargs: Any) -> str:
        return function(*args, **kwargs)

    return logged


REGION = RuleSet([Rule("news", "9/day")], fields=("region",))

MISPLACED: list[tuple[dict[str, object], str]] = [
    (
        {"priority": "critical"},
        "write notifier.bind(priority='critical').send(...), or Notification(..., priority='critical').",
    ),
    ({"cost": 3}, "write notifier.bind(cost=3).send(...), or Notification(..., cost=3)."),
    (
        {"tenant": CANARY, "subject": "Hi", "region": "eu"},
        (
            "write notifier.bind(tenant=..., region=...).send(...), "
            "or Notification(..., fields={'tenant': ..., 'region': ...})."
        ),
    ),
    (
        {"priority": "VIP@example.com", "cost": "two", "dedupe_key": CANARY},
        (
            "write notifier.bind(priority=..., cost=..., dedupe_key=...).send(...), "
            "or Notification(..., priority=..., cost=..., fields={'dedupe_key': ...})."
        ),
    ),
]


@pytest.mark.parametrize(("kwargs", "hint"), MISPLACED)
@pytest.mark.parametrize(
    "gateway",
    [_mail, partial(_mail), _Mailer(), _logged(_mail), mock.create_autospec(_mail)],
    ids=["function", "partial", "object", "wrapped", "mock"],
)
def test_what_belongs_to_bind_is_told(gateway: Callable[..., str], kwargs: dict[str, Any], hint: str) -> None:
    """`send` hands everything to the gateway: where that takes no priority, cost or field, the error says `bind`."""
    notifier = Notifier(gateway, REGION)

    with pytest.raises(TypeError) as caught:
        notifier.send("news", "ana", **kwargs)

    said = str(caught.value)
    assert said == f"{caught.value.__cause__}. What you pass to send() goes to the gateway; {hint}"
    assert isinstance(caught.value.__cause__, TypeError)
    assert CANARY not in said
    assert used(notifier.limiter) == 0


def test_what_belongs_to_bind_is_told_of_a_builtin() -> None:
    """A gateway whose parameters nobody can read is taken at its word."""
    gateway: Any = min

    with pytest.raises(TypeError, match=r"'priority'.* write notifier\.bind\("):
        Notifier(gateway, MANY).send("news", "ana", priority="critical")


def test_what_belongs_to_bind_is_told_in_batches() -> None:
    """In batches the error that says `bind` is the delivery's, and the hit is given back."""
    notifier = Notifier(_mail, MANY)
    kwargs: dict[str, Any] = {"priority": "critical"}

    many = notifier.send_many("news", ["ana", "bob"], **kwargs)
    each = [*notifier.iter_many([Notification("news", "ana", (), kwargs)])]

    assert statuses([*many, *each]) == ["failed"] * 3
    assert {str(delivery.error).partition("; ")[2] for delivery in [*many, *each]} == {MISPLACED[0][1]}
    assert used(notifier.limiter) == 0


def _takes_all(recipient: str, **options: object) -> str:
    return _mail(recipient, **options)  # type: ignore[arg-type]  # wrong on purpose


def _fails(recipient: str, priority: str) -> str:
    raise TypeError("_fails() got an unexpected keyword argument 'priority'")


@pytest.mark.parametrize(
    ("gateway", "kwargs"),
    [
        (_takes_all, {"priority": "critical"}),
        (_fails, {"priority": "critical"}),
        (_mail, {"body": "Hi"}),
        (_logged(_fails), {"priority": "critical"}),
        (lambda recipient, **_: recipient + 1, {"priority": "critical"}),
        (lambda: "", {}),
    ],
)
def test_other_type_errors_are_the_gateways_own(gateway: Any, kwargs: dict[str, Any]) -> None:
    """What the gateway itself raises is unchanged, and so is the error for an argument that is none of ours."""
    with pytest.raises(TypeError) as expected:
        gateway("ana", **kwargs)

    with pytest.raises(TypeError) as caught:
        Notifier(gateway, MANY).send("news", "ana", **kwargs)

    assert str(caught.value) == str(expected.value)
    assert caught.value.__cause__ is None


def test_an_undeclared_field_is_an_error() -> None:
    """A field that nobody declared is an error that says which there are."""
    gateway = Scripted()

    with pytest.raises(NotifyError, match=r"^'tenent' is not a field of a notification; use .*tenant"):
        Notifier(gateway, MANY).bind(tenent="acme").send("news", "ana")
    assert gateway.seen == []


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"cost": 3}, NotifyError, "'cost' is not a field; pass it as the argument cost=."),
        (
            {"tenant": "acme", "priority": "high"},
            NotifyError,
            "'priority' is not a field; pass it as the argument priority=.",
        ),
        ({5: "x"}, TypeError, "The name of a field must be a string such as 'tenant', not int."),
        (
            {"tenant"},
            TypeError,
            "fields= is a set; it must be a mapping from names to values, such as {'tenant': 'acme'}.",
        ),
        (
            "tenant",
            TypeError,
            "fields= is a str; it must be a mapping from names to values, such as {'tenant': 'acme'}.",
        ),
    ],
)
def test_what_cannot_be_a_field_is_told_at_once(fields: Any, kind: type[Exception], message: str) -> None:
    """Where the notification is made, in words that say what to write, and not by Python where it is sent."""
    with pytest.raises(kind) as caught:
        Notification("news", "ana", fields=fields)

    assert str(caught.value) == message


@pytest.mark.parametrize("args", ["Hello", b"Hello"])
def test_a_text_is_not_taken_for_several_arguments(args: Any) -> None:
    """The gateway would get a letter for each of its parameters."""
    with pytest.raises(TypeError, match=r"^args= is a (str|bytes); it must be a sequence") as caught:
        Notification("news", "ana", args)

    assert str(caught.value).endswith("of arguments for the gateway. For one argument, write ('Hello',).")


def test_deliver_spells_everything_out() -> None:
    """A notification object says everything itself; what is bound does not apply to it."""
    rules = [Rule("news", "9/day", by=("recipient", "tenant"), exempt="high")]
    outbox = Outbox()
    notification = Notification(
        "news", "ana", ["Hi"], {"copy": True}, priority="low", cost=3, fields={"tenant": "acme"}, id="n1"
    )
    delivery = Notifier(outbox, rules).bind(tenant="bolt", cost=9).deliver(notification)

    assert delivery.notification is notification
    assert delivery.notification.id == "n1"
    assert delivery.decision.remaining == 6
    assert outbox == [("ana", ("Hi",), {"copy": True})]


def test_notifications_are_told_apart() -> None:
    """A notification without an id gets one of its own, and keeps it."""
    first, second = notes("ana", "ana")

    assert first.id == first.id != second.id


# Making and closing.


def test_close_closes_its_own_limiter() -> None:
    """A notifier closes the limiter that it made, and leaves alone one that it was given; so does a bound copy."""
    storage = Unreliable()
    shared = Limiter({"news": "1/day"})
    with Notifier(Scripted(), limiter=shared) as notifier:
        notifier.send("news", "ana")
    assert used(shared) == 1

    with Notifier(Scripted(), {"news": "1/day"}) as own:
        own.send("news", "ana")
        with own.bind(tenant="acme") as bound:
            bound.send("news", "bob")
        assert used(own.limiter) == 1
        kept: Any = own.limiter.storage
    assert len(kept) == 0

    with Notifier(Scripted(), MANY, storage) as notifier:
        notifier.send("news", "ana")
    assert len(storage) == 1


OF_NOTIFIERS = "gateway, rules, storage, limiter, on_limit, max_wait, refund, failed"
OF_LIMITERS = (
    "namespace, normalize, tier_of, pseudonymize, on_storage_error, insurance_share, timeout, clock, enabled, "
    "remember_refusals, circuit"
)


@pytest.mark.parametrize(
    ("make", "said", "known"),
    [
        (
            lambda: Notifier(print, {"news": "1/day"}, rate=3),  # type: ignore[call-arg]  # that is the point
            "Notifier() has no argument 'rate'.",
            OF_NOTIFIERS,
        ),
        (
            lambda: Notifier(print, {"news": "1/day"}, max_wiat=3),  # type: ignore[call-arg]  # likewise
            "Notifier() has no argument 'max_wiat'. Did you mean 'max_wait'?",
            OF_NOTIFIERS,
        ),
        (
            lambda: Notifier(print, limiter=Limiter(), timeuot=3),  # type: ignore[call-arg]  # likewise
            "Notifier() has no argument 'timeuot'. Did you mean 'timeout'?",
            OF_NOTIFIERS,
        ),
        (
            lambda: AsyncNotifier(print, {"news": "1/day"}, concurency=3),  # type: ignore[call-overload]  # likewise
            "AsyncNotifier() has no argument 'concurency'. Did you mean 'concurrency'?",
            f"{OF_NOTIFIERS}, concurrency",
        ),
        (
            lambda: AsyncNotifier(print, limiter=AsyncLimiter(), nmaespace="x"),  # type: ignore[call-overload]  # likewise
            "AsyncNotifier() has no argument 'nmaespace'. Did you mean 'namespace'?",
            f"{OF_NOTIFIERS}, concurrency",
        ),
        (
            lambda: configure({"news": "1/day"}, storag="memory://"),  # type: ignore[call-arg]  # likewise
            "configure() has no argument 'storag'. Did you mean 'storage'?",
            "rules, storage",
        ),
    ],
)
def test_an_argument_that_there_is_not(make: Callable[[], object], said: str, known: str) -> None:
    """A misspelt option is told by the name of what was called, with those that there are."""
    with pytest.raises(TypeError) as caught:
        make()

    assert str(caught.value) == f"{said} It has {known}, {OF_LIMITERS}."


def test_a_shared_limiter_counts_for_all() -> None:
    """Notifiers of one limiter share its windows."""
    limiter = Limiter({"news": "1/day"})

    assert Notifier(Scripted(), limiter=limiter).send("news", "ana")
    assert not Notifier(Scripted(), limiter=limiter).send("news", "ana")


def _wait_rule() -> Limiter:
    return Limiter([Rule("news", "1/day", on_limit="wait")])


async def _coroutine(recipient: str) -> None:
    raise AssertionError(recipient)


class _AsyncCallable:
    async def __call__(self, recipient: str) -> None:
        raise AssertionError(recipient)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Notifier(None), "The gateway is a NoneType; it must be a callable that sends."),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Notifier(_coroutine, MANY), "The gateway is a coroutine function; use AsyncNotifier."),
        (lambda: Notifier(partial(_coroutine), MANY), "The gateway is a coroutine function; use AsyncNotifier."),
        (lambda: Notifier(_AsyncCallable(), MANY), "The gateway is a coroutine function; use AsyncNotifier."),
        (lambda: Notifier(partial(_AsyncCallable()), MANY), "The gateway is a coroutine function; use AsyncNotifier."),
        (
            lambda: Notifier(print, MANY, on_limit="wait"),
            "on_limit='wait' needs max_wait=, the longest wait in seconds.",
        ),
        (
            lambda: Notifier(print, [Rule("news", "1/day", on_limit="wait")]),
            "Rule 'news' has on_limit='wait'; that needs max_wait=, the longest wait in seconds.",
        ),
        (
            lambda: Notifier(print, limiter=_wait_rule()),
            "Rule 'news' has on_limit='wait'; that needs max_wait=, the longest wait in seconds.",
        ),
        (
            lambda: Notifier(print, MANY, on_limit="defer"),  # type: ignore[arg-type]  # wrong on purpose
            "on_limit='defer' needs the queue of deferred notifications, which this version does not have; use 'drop'.",
        ),
        (
            lambda: Notifier(print, MANY, on_limit="digest"),  # type: ignore[arg-type]  # wrong on purpose
            "on_limit='digest' needs the queue of deferred notifications, which this version does not have; use 'drop'.",
        ),
        (
            lambda: Notifier(print, MANY, refund="yes"),  # type: ignore[arg-type]  # wrong on purpose
            "refund= must be True, False, exception types, a callable from the exception to a bool, or None.",
        ),
        (
            lambda: Notifier(print, limiter=AsyncLimiter(MANY)),  # type: ignore[arg-type]  # wrong on purpose
            "limiter= must be of type Limiter, not AsyncLimiter.",
        ),
        (
            lambda: Notifier(print, MANY, limiter=Limiter(MANY)),
            "Pass rules= to the limiter, or leave out limiter=.",
        ),
        (
            lambda: Notifier(print, MANY, Unreliable(), limiter=Limiter(MANY), namespace="n", clock=Clock()),
            "Pass namespace=, clock=, rules=, storage= to the limiter, or leave out limiter=.",
        ),
    ],
)
def test_what_cannot_be_used_is_told_at_once(make: Callable[[], object], message: str) -> None:
    """A notifier that could not work is an error where it is made."""
    with pytest.raises(NotifyError) as caught:
        make()

    assert str(caught.value) == message


# What texts show.


class _Counting(Notifier[Any, Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls = 0

    def deliver(self, notification: Notification) -> Delivery[Any]:
        self.calls += 1
        return super().deliver(notification)


@pytest.mark.parametrize(
    ("notifier", "shown"),
    [
        (Notifier(_mail, MANY), "<Notifier: _mail, 1 rule on <MemoryStorage>, on_limit='drop'>"),
        (
            Notifier(partial(_mail, subject=CANARY), {}, on_limit="wait", max_wait=60),
            "<Notifier: _mail, 0 rules on <MemoryStorage>, on_limit='wait', max_wait=60>",
        ),
        (Notifier(_Mailer(), MANY, on_limit="raise").bind(), "<Notifier: _Mailer, 1 rule on <MemoryStorage>, on_limit='raise'>"),
        (Notifier(_Mailer().__call__, MANY), "<Notifier: _Mailer.__call__, 1 rule on <MemoryStorage>, on_limit='drop'>"),
        (
            Notifier(_mail, MANY).bind(tenant=CANARY, priority=CANARY, cost=5, **{f"{CANARY}@example.com": 1}),
            "<Notifier: _mail, 1 rule on <MemoryStorage>, on_limit='drop', bound: cost, priority, tenant, ...>",
        ),
        (AsyncNotifier(_mail, MANY, enabled=False), "<AsyncNotifier: _mail, 1 rule, switched off, on_limit='drop'>"),
        (_Counting(_mail, MANY), "<_Counting: _mail, 1 rule on <MemoryStorage>, on_limit='drop'>"),
    ],
)  # fmt: skip
def test_a_repr_shows_gateway_rules_and_storage(notifier: Any, shown: str) -> None:
    """The repr of a notifier says where messages go, what limits them and what is bound: names, and no values."""
    assert repr(notifier) == shown


_texts = st.text(min_size=1, max_size=20).map(lambda text: f"{CANARY}{text}")


@given(recipient=_texts, body=_texts, steps=_steps, on_limit=st.sampled_from(["drop", "raise"]))
def test_no_text_shows_a_recipient_or_a_message(recipient: str, body: str, steps: list[Step], on_limit: Any) -> None:
    """No repr, no error and no traceback of the library's own shows whom a message is for, or what it says."""
    storage = Unreliable()
    limiter = Limiter({"news": "3/day"}, storage, pseudonymize=None)
    notifier = Notifier(Scripted(*steps), limiter=limiter, on_limit=on_limit)
    shown = [repr(notifier), repr(limiter), repr(notifier.bind(tenant=recipient))]
    for _ in range(5):
        try:
            delivery = notifier.bind(tenant=recipient).send("news", recipient, body, title=body)
        except RateLimitExceeded as error:
            shown += [repr(error), str(error), "".join(traceback.format_exception(error))]
            shown += map(repr, error.decision.windows)
        except BaseException:  # noqa: BLE001  # the gateway's: its text is not ours
            continue
        else:
            shown += [repr(delivery), repr(delivery.decision), str(delivery.decision), repr(delivery.notification)]
    storage.failing = ("acquire", "acquire_many")
    with pytest.raises(StorageError) as caught:
        notifier.send("news", recipient, body)
    shown += [
        "".join(traceback.format_exception(caught.value)),
        *map(repr, notifier.send_many("news", [recipient], body)),
    ]

    assert not [text for text in shown if CANARY in text]


def test_no_log_shows_a_recipient_or_a_message(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that the library logs shows whom a message is for, or what it says."""
    storage = Unreliable()
    options: dict[str, Any] = {"refund": lambda error: error.no_such_attribute}
    with caplog.at_level(logging.DEBUG):
        notifier = Notifier(Scripted(ValueError(CANARY)), MANY, storage, on_storage_error="deny", **options)
        with pytest.raises(ValueError, match=CANARY):
            notifier.send("news", CANARY, CANARY)
        notifier.send("unknown", CANARY, CANARY)
        storage.failing = ("acquire", "acquire_many", "release")
        notifier.send("news", CANARY, CANARY)
        notifier.send_many("news", [CANARY], CANARY)
        Notifier(Scripted(), MANY, enabled=False).send("news", CANARY)
        storage.failing = ()
        notifier.send("news", CANARY, CANARY)

    assert len(caplog.messages) >= 4
    assert CANARY not in caplog.text


# Attributes.


def test_rules_are_those_of_the_limiter() -> None:
    """`notifier.rules` are the rules of its limiter: who sets them sets them for all who share it, and counts stay."""
    limiter = Limiter({"news": "1/day"})
    notifier = Notifier(Scripted(), limiter=limiter)
    assert notifier.send("news", "ana")
    assert notifier.rules is limiter.rules

    notifier.bind(tenant="acme").rules = {"news": "2/day"}

    assert limiter.rules == notifier.rules == RuleSet({"news": "2/day"})
    assert statuses([notifier.send("news", "ana"), notifier.send("news", "ana")]) == ["sent", "suppressed"]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"news": "1/dya"}, RuleError),
        ([Rule("news", "1/day", on_limit="wait")], NotifyError),
    ],
)
def test_rules_that_cannot_be_used_change_nothing(bad: Any, kind: type[Exception]) -> None:
    """Rules that are wrong, or that need a `max_wait` that the notifier does not have, leave those before in force."""
    notifier = Notifier(Scripted(), {"news": "1/day"})

    with pytest.raises(kind):
        notifier.rules = bad

    assert notifier.limiter.rules == RuleSet({"news": "1/day"})


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (Limiter, "rule", "A Limiter has no attribute 'rule'. You can set rules; everything else"),
        (AsyncLimiter, "timeout", "An AsyncLimiter has no attribute 'timeout'. You can set rules; everything else is an argument of AsyncLimiter()."),
        (lambda: Notifier(print), "on_limit", "A Notifier has no attribute 'on_limit'. You can set limiter and rules; everything else is an argument of Notifier()."),
        (lambda: Notifier(print).bind(tenant="acme"), "tenant", "A Notifier has no attribute 'tenant'. You can set"),
        (lambda: AsyncNotifier(print), "limit", "An AsyncNotifier has no attribute 'limit'. You can set"),
    ],
)  # fmt: skip
def test_an_attribute_that_would_do_nothing_is_an_error(make: Callable[[], Any], name: str, message: str) -> None:
    """To set what is not there is an error that says what is."""
    thing = make()

    with pytest.raises(AttributeError) as caught:
        setattr(thing, name, "drop")

    assert str(caught.value).startswith(message)
    assert not hasattr(thing, name)


def test_subclasses_have_attributes_of_their_own() -> None:
    """A class of the user's keeps in its objects what it likes; so does a bound copy, and one that `copy` makes."""
    notifier = _Counting(print, MANY)
    notifier.send("news", "ana")
    bound = notifier.bind(tenant="acme")
    bound.send("news", "ana")

    assert (notifier.calls, bound.calls, copy.copy(bound).calls) == (1, 2, 2)
    assert copy.copy(bound).limiter is notifier.limiter


def test_methods_can_be_replaced_in_tests() -> None:
    """`mock.patch.object` works on a notifier and on a limiter, as on any object."""
    notifier = Notifier(print, MANY)

    with mock.patch.object(notifier, "send"), mock.patch.object(notifier.limiter, "hit") as hit:
        notifier.send("news", "ana")
        notifier.limiter.hit("news", "ana")

    hit.assert_called_once_with("news", "ana")
    assert notifier.send("news", "ana")


def test_threads_share_one_bound_notifier() -> None:
    """A bound notifier serves threads at once."""
    notifier = Notifier(Scripted(), {"news": "5/day"}).bind(priority="high")
    deliveries: list[Delivery[str]] = []
    threads = [threading.Thread(target=lambda: deliveries.append(notifier.send("news", "ana"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses(deliveries).count("sent") == 5
