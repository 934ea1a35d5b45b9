"""`failed=`: a result that means that the message was not sent."""

from __future__ import annotations

import asyncio
import functools
import logging
import operator
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

from outcomes import CANARY
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    SendFailed,
    Status,
    rate_limited,
)
from ratelimited_notify.limiter.outcome import outcome_unknown

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = {"news": "1/day"}
MANY = {"news": "9/day"}


class Response:
    """As in requests and httpx."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code
        self.text = CANARY


def is_error(response: Response) -> bool:
    return response.status_code != 200


class Way:
    """One way to send: it takes the result of each send, and says what the caller got and how many hits are left."""

    def __init__(self, name: str, send: Callable[..., tuple[list[Any], int]]) -> None:
        self.name = name
        self.send = send


def _notifier(results: list[Any], **options: Any) -> tuple[list[Any], int]:
    left = iter(results)
    notifier = Notifier(lambda recipient: next(left), MANY, **options)
    deliveries = [notifier.send("news", CANARY) for _ in results]
    return deliveries, notifier.limiter.windows("news", CANARY)[0].remaining


def _bound(results: list[Any], **options: Any) -> tuple[list[Any], int]:
    left = iter(results)
    notifier = Notifier(lambda recipient: next(left), MANY, **options).bind(cost=1)
    deliveries = [notifier.deliver(Notification("news", CANARY)) for _ in results]
    return deliveries, notifier.limiter.windows("news", CANARY)[0].remaining


def _batch(results: list[Any], **options: Any) -> tuple[list[Any], int]:
    left = iter(results)
    notifier = Notifier(lambda recipient: next(left), MANY, **options)
    deliveries = notifier.send_many("news", [CANARY] * len(results))
    return deliveries, notifier.limiter.windows("news", CANARY)[0].remaining


def _generator(results: list[Any], **options: Any) -> tuple[list[Any], int]:
    left = iter(results)
    notifier = Notifier(lambda recipient: next(left), MANY, **options)
    deliveries = list(notifier.iter_many(Notification("news", CANARY) for _ in results))
    return deliveries, notifier.limiter.windows("news", CANARY)[0].remaining


def _async(results: list[Any], *, thread: bool = False, batch: bool = False, **options: Any) -> tuple[list[Any], int]:
    left = iter(results)

    async def send(recipient: str) -> Any:
        return next(left)

    async def run() -> tuple[list[Any], int]:
        gateway: Any = (lambda recipient: next(left)) if thread else send
        notifier: AsyncNotifier[..., Any] = AsyncNotifier(gateway, MANY, **options)
        if batch:
            deliveries = await notifier.send_many("news", [CANARY] * len(results))
        else:
            deliveries = [await notifier.send("news", CANARY) for _ in results]
        return deliveries, (await notifier.limiter.windows("news", CANARY))[0].remaining

    return asyncio.run(run())


NOTIFIERS = {
    "send": _notifier,
    "deliver": _bound,
    "send_many": _batch,
    "iter_many": _generator,
    "async": _async,
    "async in a thread": functools.partial(_async, thread=True),
    "async send_many": functools.partial(_async, batch=True),
}


def _decorated(results: list[Any], *, limiter: Limiter | None = None, **options: Any) -> tuple[list[Any], int]:
    left = iter(results)
    limiter = limiter or Limiter(MANY)

    @rate_limited("news", limiter=limiter, **options)
    def send(to: str) -> Any:
        return next(left)

    returned = [send(CANARY) for _ in results]
    return returned, limiter.windows("news", CANARY)[0].remaining


def _with_a_priority(results: list[Any], **options: Any) -> tuple[list[Any], int]:
    return _decorated(results, priority=lambda to: "high", **options)


def _async_decorated(results: list[Any], **options: Any) -> tuple[list[Any], int]:
    left = iter(results)

    async def run() -> tuple[list[Any], int]:
        limiter = AsyncLimiter(MANY)

        @rate_limited("news", limiter=limiter, **options)
        async def send(to: str) -> Any:
            return next(left)

        returned = [await send(CANARY) for _ in results]
        return returned, (await limiter.windows("news", CANARY))[0].remaining

    return asyncio.run(run())


DECORATORS = {"sync": _decorated, "with a priority": _with_a_priority, "async": _async_decorated}
EVERY = {**NOTIFIERS, **{f"decorated, {name}": way for name, way in DECORATORS.items()}}

notifiers = pytest.mark.parametrize("way", NOTIFIERS.values(), ids=NOTIFIERS)
decorators = pytest.mark.parametrize("way", DECORATORS.values(), ids=DECORATORS)
every_way = pytest.mark.parametrize("way", EVERY.values(), ids=EVERY)


@notifiers
def test_a_result_that_is_a_failure(way: Any) -> None:
    """The delivery is FAILED, its error carries the result, and the hit is given back."""
    deliveries, left = way([False, True], failed=operator.not_)

    assert [delivery.status for delivery in deliveries] == [Status.FAILED, Status.SENT]
    assert isinstance(deliveries[0].error, SendFailed)
    assert deliveries[0].error.result is False
    assert deliveries[0].result is None
    assert not deliveries[0]
    assert deliveries[1].result is True
    assert left == 8


@decorators
def test_a_decorated_function_returns_its_result_unchanged(way: Any) -> None:
    """The caller gets what the function returned, and the hit is given back."""
    failure, success = Response(429), Response(200)

    returned, left = way([failure, success], failed=is_error)

    assert returned[0] is failure
    assert returned[1] is success
    assert left == 8


@every_way
@pytest.mark.parametrize(
    ("status", "given_back"),
    [(400, True), (429, True), (408, False), (500, False), (503, False), (204, True), (302, False)],
)
def test_a_response_is_judged_by_its_status(way: Any, status: int, given_back: bool) -> None:
    """A 503 that is returned is as unknown as one that is raised; of a success `failed=` knows better."""
    _, left = way([Response(status)], failed=is_error)

    assert left == (9 if given_back else 8)


@every_way
@pytest.mark.parametrize("result", [None, 0, False, "", "no", [], {}, {"error": CANARY}, ValueError(CANARY)], ids=repr)
def test_anything_else_that_failed_was_not_sent(way: Any, result: object) -> None:
    """A result that says nothing of HTTP costs nothing."""
    assert way([result], failed=lambda result: True)[1] == 9


@every_way
@pytest.mark.parametrize(
    "result", [TimeoutError(CANARY), {"ResponseMetadata": {"HTTPStatusCode": 500}}], ids=["error", "dict"]
)
def test_a_result_that_tells_of_an_unknown_outcome(way: Any, result: object) -> None:
    """An exception that is returned is judged like one that is raised, and so is the answer of AWS."""
    assert way([result], failed=lambda result: True)[1] == 8


@every_way
@pytest.mark.parametrize(
    ("refund", "left"),
    [
        (True, 9), (False, 8), (SendFailed, 9), (ValueError, 8), ((ValueError, NotifyError), 9),
        (lambda error: error.result.status_code == 503, 9), (lambda error: error.no_such_attribute, 8),
    ],
)  # fmt: skip
def test_refund_is_asked_with_the_failure(way: Any, refund: Any, left: int) -> None:
    """`refund=` decides about what was returned as about what was raised."""
    assert way([Response(503)], failed=is_error, refund=refund)[1] == left


def _raising(result: object) -> bool:
    raise LookupError(CANARY)


async def _later() -> bool:
    return True


class NoTruth:
    """Like an array of numpy."""

    def __bool__(self) -> bool:
        raise ValueError(CANARY)


@every_way
@pytest.mark.parametrize(
    ("failed", "raised"),
    [
        (_raising, "raised LookupError"), (lambda result: NoTruth(), "raised ValueError"),
        (lambda result: _later(), "returned a coroutine, which nothing awaits"),
    ],
)  # fmt: skip
def test_failed_that_fails_itself(
    way: Any, failed: Callable[[Any], Any], raised: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As far as anybody knows, the message went out: it is SENT, the hit stays, and the log says so without the address."""
    with caplog.at_level(logging.DEBUG):
        got, left = way([CANARY], failed=failed)

    assert [getattr(each, "result", each) for each in got] == [CANARY]
    assert all(bool(each) for each in got)
    assert left == 8
    assert f"failed= {raised}; the notification counts as sent." in caplog.text
    assert CANARY not in caplog.text


@every_way
def test_an_interrupt_in_failed_is_not_held_back(way: Any) -> None:
    """Control-C while `failed=` looks at the result stops the program."""

    def interrupted(result: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        way([True], failed=interrupted)


async def _coroutine_function(result: object) -> bool:
    return False


class _Callable:
    async def __call__(self, result: object) -> bool:
        return False


@every_way
@pytest.mark.parametrize("failed", [_coroutine_function, functools.partial(_coroutine_function), _Callable()])
def test_a_coroutine_function_cannot_decide(way: Any, failed: Any) -> None:
    """Nobody would await it, and a coroutine that is not awaited is true."""
    with pytest.raises(NotifyError, match="failed= is a coroutine function"):
        way([True], failed=failed)


@every_way
@pytest.mark.parametrize("failed", [True, False, "no", SendFailed(), 0])
def test_anything_else_is_an_error(way: Any, failed: Any) -> None:
    """What cannot be called is told where it is given."""
    with pytest.raises(NotifyError, match="failed= must be a callable"):
        way([True], failed=failed)


def test_room_after_a_failure_is_for_the_next_of_the_batch() -> None:
    """A result that was a failure gives its hit back in the middle of a batch, and a later notification gets it."""
    results = iter([False, True])
    notifier = Notifier(lambda recipient: next(results), RULES, failed=operator.not_)

    deliveries = notifier.send_many("news", ["ana", "ana"])

    assert [delivery.status for delivery in deliveries] == [Status.FAILED, Status.SENT]


def test_a_failure_that_a_gateway_raises_itself() -> None:
    """A gateway may raise SendFailed with a response, and is judged by it."""
    assert outcome_unknown(SendFailed(Response(503)))
    assert not outcome_unknown(SendFailed(Response(429)))
    assert not outcome_unknown(SendFailed())


@pytest.mark.parametrize("result", [Response(503), Response(429), 0])
def test_the_error_does_not_say_more_than_is_known(result: object) -> None:
    """After a 503 the hit is kept because the message may have been sent, so the error must not say that it was not."""
    said = f"The gateway returned a result of type {type(result).__name__}, which is a failure."

    assert str(SendFailed(result)) == said


def test_the_error_names_no_recipient() -> None:
    """The result may hold an address, so no text of the error shows it."""
    error = SendFailed({"to": CANARY})

    assert "dict" in str(error)
    assert CANARY not in f"{error} {error!r} {error.args}"


@pytest.mark.parametrize("result", [False, None, {"to": CANARY}, Response(503)])
def test_the_error_survives_pickling(result: object) -> None:
    """It goes through a process pool or a result backend, with its result."""
    error = SendFailed(result)

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is SendFailed
    assert str(copy) == str(error)
    assert type(copy.result) is type(result)
    assert outcome_unknown(copy) is outcome_unknown(error)


def test_the_error_survives_pickling_without_a_result_that_does_not() -> None:
    """A result that cannot be pickled is left out; the error is still there."""
    error = SendFailed(threading.Lock())

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is SendFailed
    assert str(copy) == str(error)
    assert copy.result is None


@pytest.mark.parametrize("result", [False, "250 OK", {"to": CANARY}])
def test_the_error_is_made_again_from_its_text(result: object) -> None:
    """As result backends that keep JSON do, such as Celery's: the message is the same, the result is gone."""
    error = SendFailed(result)

    again = SendFailed(*error.args)

    assert (str(again), again.args, again.result) == (str(error), error.args, None)
    assert str(pickle.loads(pickle.dumps(again))) == str(error)
    assert SendFailed(str(error) + "!").result == str(error) + "!"


def test_what_is_set_on_the_error_survives_pickling() -> None:
    """Such as its notes, as on any exception."""
    error = SendFailed(threading.Lock())
    error.add_note("by sms")

    copy = pickle.loads(pickle.dumps(error))

    assert copy.__notes__ == ["by sms"]
    assert copy.result is None
